"""What a TransINR is trained on: batches, what of them is seen, and the pictures that are only looked at."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...batch import chunks
from ...images import check_images
from ...inr.resume import digest
from .paths import rows_at_once
from .training import TransFit, mean_psnr, trained

if TYPE_CHECKING:
    from .trans_inr import TransINR


def fitted(
    model: "TransINR",
    images: Tensor,
    validation: float | Tensor | None,
    batch_size: int,
    keep: float,
    options: dict[str, Any],
) -> TransFit:
    """Train ``model`` on ``images`` and keep the means; the arguments are those of ``TransINR.fit``."""
    with torch.inference_mode(False):
        return _fitted(model, images, validation, batch_size, keep, options)


def _fitted(
    model: "TransINR",
    images: Tensor,
    validation: float | Tensor | None,
    batch_size: int,
    keep: float,
    options: dict[str, Any],
) -> TransFit:
    if batch_size < 1 or not 0 < keep <= 1:
        raise ValueError(f"batch_size is {batch_size} and keep is {keep}; wanted at least 1, and a share in (0, 1].")
    weight = model.tokens.places
    pictures = check_images(images).to(weight)
    recipe = model.config | {"images": digest(images), "batch_size": batch_size, "keep": keep}
    recipe["validation"] = digest(validation) if isinstance(validation, Tensor) else validation
    train, held_out = _split(pictures, validation, options["seed"])
    grid = model.tokens.grid(tuple(train.shape[2:]))
    size = (train.shape[2], train.shape[3])
    shape = size if model.tokens.pixel_mask else (grid[0] * grid[1],)
    model(train[:1])  # a wrong number of channels fails before the first step

    def loss_of(generator: torch.Generator, _: float) -> Tensor:
        index = torch.randint(len(train), (min(batch_size, len(train)),), generator=generator)
        batch = train[index.to(train.device)]
        seen = None if keep == 1 else drawn_seen((len(batch), *shape), keep, generator).to(batch.device)
        return F.mse_loss(model(batch, seen), batch)

    def look(pictures: Tensor) -> float:
        shown = (pictures.shape[2], pictures.shape[3])
        drawn = [model(pictures[a:b]) for a, b in chunks(len(pictures), rows_at_once(model, shown, None, pictures))]
        return mean_psnr(torch.cat(drawn), pictures)

    looks = None if held_out is None else partial(look, held_out)
    result = trained(model, loss_of, looks, recipe, **options)
    _keep_means(model, train)
    return result


def drawn_seen(shape: tuple[int, ...], keep: float, generator: torch.Generator) -> Tensor:
    """Which places are seen, bool of ``shape`` (B, …): of each row a share drawn from [keep, 1], rounded up.

    Example:
        >>> drawn_seen((2, 16), 1.0, torch.Generator().manual_seed(0)).sum(1)
        tensor([16, 16])
    """
    count = torch.Size(shape[1:]).numel()
    share = keep + (1 - keep) * torch.rand(shape[0], 1, generator=generator)
    rank = torch.rand(shape[0], count, generator=generator).argsort(1).argsort(1)
    return (rank < (share * count).ceil()).reshape(shape)


def _split(pictures: Tensor, validation: float | Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    if len(pictures) < 2:
        raise ValueError("images hold 1 picture; wanted at least 2, since one alone is not a set to learn from.")
    if validation is None:
        return pictures, None
    if isinstance(validation, Tensor):
        return pictures, check_images(validation).to(pictures)
    count = round(validation * len(pictures))
    if not 0 < count < len(pictures):
        raise ValueError(
            f"validation is {validation} of {len(pictures)} pictures; wanted a share that leaves some on both sides, a "
            "tensor of other pictures, or None."
        )
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).to(pictures.device)
    return pictures[order[count:]], pictures[order[:count]]


def _keep_means(model: "TransINR", train: Tensor) -> None:
    totals = [torch.zeros_like(mean) for mean in model.mean_modulations]
    with torch.no_grad():
        for start, stop in chunks(len(train), rows_at_once(model, (1, 1), None, train)):
            for total, part in zip(totals, model.modulations(train[start:stop]), strict=True):
                total += part.sum(0)
        for mean, total in zip(model.mean_modulations, totals, strict=True):
            mean.copy_(total / len(train))
        image = train.mean(0, keepdim=True)
        if image.shape[1:] != model.mean_image.shape:
            image = F.interpolate(image, model.mean_image.shape[1:], mode="bilinear", antialias=True)
        model.mean_image.copy_(image[0])
