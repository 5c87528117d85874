"""Results of ``xinc transinr``: the model, its networks, and their contributions."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..attributions.trans_inr import (
    TransFit,
    TransINR,
    fine_tune,
    independent_inits,
    mean_psnr,
    neuron_canvases,
    patch_masks,
)
from ..attributions.trans_inr.token_contribution import TokenContribution
from ..batch import chunks
from ..inr import HypoNet, pixel_centres
from ..metrics import Correspondence, correspondence
from .command import UsageError
from .inputs import DIGITS, SmallImages, with_channels

FIT, SHIPPED = "fit", "mnist_trans_inr"
FEWEST = 40  # images to fit to; a tenth of them is held out
COARSEST = 8  # maximum number of patches on the longer side
STEPS = 1000


@dataclass(frozen=True, eq=False)
class ModelAndImages:
    """A model on its device, and the images (N, C, H, W) to apply it to."""

    model: TransINR = field(repr=False)
    name: str  # value of the option --model
    images: Tensor = field(repr=False)
    names: tuple[str, ...]  # of the images
    description: str  # whether the model was fitted to them
    fit: TransFit | None  # if this command made one


def load_or_fit(
    small_images: SmallImages,
    model: str | None,
    patch: int | None,
    steps: int | None,
    seed: int,
    device: torch.device,
) -> ModelAndImages:
    """Load a model of a file or ``mnist_trans_inr``, or ``fit`` one, the default except for the zoo's digits."""
    name = model or (SHIPPED if small_images.name == DIGITS and patch is None and steps is None else FIT)
    test = torch.arange(len(small_images.images)) % 10 == 0
    if name == FIT:
        return _fit(small_images, test, patch, steps or STEPS, seed, device)
    if patch is not None or steps is not None:
        raise UsageError(f"--patch and --steps are for a fit, and {name} is fitted already; leave them out.")
    loaded = load_model(name).to(device)
    images = with_channels(small_images.images, loaded.config["channels"], name).to(device)
    try:
        with torch.no_grad():
            loaded(images[:1])
    except ValueError as error:
        raise UsageError(f"{name} cannot be applied to these images: {error}") from error
    if name == SHIPPED and small_images.name == DIGITS:
        held_out = images[test.to(device)]
        return ModelAndImages(loaded, name, held_out, small_images.names[::10], "held out from its fit", None)
    description = "whether the model was fitted to them is unknown"
    return ModelAndImages(loaded, name, images, small_images.names, description, None)


def load_model(name: str) -> TransINR:
    """Load the shipped model or that of a file."""
    if name == SHIPPED and not Path(name).exists():
        return zoo.mnist_trans_inr()
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; expected a file of TransINR.save, {SHIPPED}, or {FIT}.")
    try:
        return TransINR.load(name)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from error


def settings_for(size: tuple[int, int], channels: int, patch: int | None) -> dict[str, Any]:
    """Return the arguments of a TransINR for images of ``size``: about 8 x 8 patches, up to half a cycle per pixel."""
    longer, shorter = max(size), min(size)
    good = [p for p in range(2, shorter // 4 + 1) if size[0] % p == 0 and size[1] % p == 0]
    if patch is None and not good:
        raise UsageError(
            f"images of {size[0]} x {size[1]} pixels (high x wide) cannot be divided into square patches, four or "
            "more per side; give --size 28 or 32 to crop the central square of each and resize it."
        )
    chosen = patch or min(good, key=lambda p: (longer // p > COARSEST, abs(longer / p - COARSEST)))
    if size[0] % chosen or size[1] % chosen:
        sides = f"; give one of {', '.join(map(str, good))}" if good else ""
        raise UsageError(
            f"images of {size[0]} x {size[1]} pixels cannot be divided into patches of --patch {chosen}{sides}."
        )
    small = longer <= 12
    return {
        "channels": channels,
        "size": size,
        "patch": chosen,
        "dim": 48 if small else 64,
        "count": 4 if small else 8,
        "highest": longer / 2,
        "groups": 16,
    }


def _fit(
    small_images: SmallImages, test: Tensor, patch: int | None, steps: int, seed: int, device: torch.device
) -> ModelAndImages:
    count = len(small_images.images)
    if count < FEWEST:
        raise UsageError(
            f"there {'is' if count == 1 else 'are'} {count} image{'s' * (count != 1)} to fit to, of which a tenth is "
            f"held out; expected at least {FEWEST}, preferably thousands, or a fitted --model (such as {SHIPPED}, for "
            "digits)."
        )
    arguments = settings_for(small_images.size, small_images.images.shape[1], patch)
    model = TransINR(**arguments, seed=seed).to(device)
    fit = model.fit(small_images.images[~test].to(device), validation=None, steps=steps, lr=3e-3, seed=seed)
    description = f"every tenth of {count:,}, held out from the fit"
    return ModelAndImages(model, FIT, small_images.images[test].to(device), small_images.names[::10], description, fit)


MAX_IMAGES, EXPLAINED, PATCHED = 8, 4, 1  # images shown, explained by tokens, explained by patches
ROUTED = 3  # patches split by tokens
N_STEPS = 16  # of the integration; the page states what it misses
SCRATCH, WARM = 1e-2, 3e-3  # Adam's learning rates from random and from generated weights
MORE, LONG = 10, 100  # steps
UNFITTED = 99  # seed of the unfitted control model


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contributions of tokens or patches to the output, (images, entries + 1, C, H, W), and the share they miss."""

    values: Tensor = field(repr=False)
    gap: float


@dataclass(frozen=True, eq=False)
class Route:
    """Contributions of some patches of one image through each token: (patches, tokens, C, H, W)."""

    patches: tuple[int, ...]
    values: Tensor = field(repr=False)
    gap: float


@dataclass(frozen=True, eq=False)
class TransINRResults:
    """Everything that the page shows; ``rendered``, ``decibels`` and ``correspondences`` are by kind of network."""

    title: str  # name of the images
    source: ModelAndImages
    rows: tuple[int, ...]  # indices of the images shown
    images: Tensor = field(repr=False)  # (n, C, H, W), the images shown
    networks: list[HypoNet] = field(repr=False)  # generated for them
    rendered: dict[str, tuple[Tensor, list[float]]] = field(repr=False)  # output for these images, and PSNR of each
    decibels: dict[str, tuple[float, int]]  # mean PSNR, and number of images
    token: Contributions  # of the last hidden layer's tokens
    modulation: Contributions  # of all layers' tokens
    patch: Contributions
    route: Route  # of patches of the first image, by token
    neurons: Tensor = field(repr=False)  # contributions of the last hidden layer's neurons to the images shown
    correspondences: dict[str, Correspondence]  # of neurons between images

    @property
    def layer(self) -> str:
        """Name of the last hidden layer, whose tokens and neurons are explained."""
        names: tuple[str, ...] = self.source.model.writer.names
        return names[max(len(names) - 2, 0)]


def compute_results(source: ModelAndImages, title: str, seed: int) -> TransINRResults:
    """Render, fine-tune, explain and compare the generated networks."""
    model, all_images = source.model, source.images
    rows = _spread(len(all_images), MAX_IMAGES)
    images = all_images[rows]
    networks = model.generate(images)
    further = fine_tune(networks, images, MORE, WARM).inrs
    begun = independent_inits(model, len(images), seed=seed)
    scratch, long = (fine_tune(begun, images, steps, SCRATCH).inrs for steps in (MORE, LONG))
    size = (images.shape[2], images.shape[3])
    kinds = {
        "as generated": networks,
        f"after {MORE} more steps": further,
        f"{MORE} steps from random weights": scratch,
    }
    rendered = {}
    for name, inrs in kinds.items():
        outputs = torch.stack([render_image(inr, size) for inr in inrs])
        rendered[name] = outputs, [mean_psnr(a[None], b[None]) for a, b in zip(outputs, images, strict=True)]
    decibels = _decibels(model, all_images)
    decibels |= {name: (sum(dB) / len(dB), len(dB)) for name, (_, dB) in list(rendered.items())[1:]}
    canvases = {
        "written by the transformer": networks,
        f"random starts, {LONG} steps each": long,
        "written before any fit": TransINR(**model.config, seed=UNFITTED).to(images).generate(images),
    }
    layer = max(len(model.writer.names) - 2, 0)
    with torch.no_grad():
        neurons = {name: neuron_canvases(inrs, size, layer) for name, inrs in canvases.items()}
    few = images[_spread(len(images), EXPLAINED)]
    patch = _parts(model, "patch", few[:PATCHED])
    return TransINRResults(
        title,
        source,
        tuple(rows),
        images,
        networks,
        rendered,
        decibels,
        _parts(model, "token", few),
        _parts(model, "modulation", few),
        patch,
        _route(model, few[:1], patch.values[0]),
        neurons["written by the transformer"],
        {name: correspondence(maps) for name, maps in neurons.items()} if len(images) > 1 else {},
    )


def render_image(inr: HypoNet, size: tuple[int, int]) -> Tensor:
    """Return the image that a network outputs, (C, H, W)."""
    like = next(inr.parameters())
    with torch.no_grad():
        values: Tensor = inr(pixel_centres(size, dtype=like.dtype, device=like.device))
    return values.mT.reshape(-1, *size)


def images_to_explain(results: TransINRResults) -> Tensor:
    """Return the images to explain."""
    return results.images[_spread(len(results.images), EXPLAINED)]


def masks_at_image_size(results: TransINRResults) -> Tensor:
    """Return the mask of each patch at the size of the images, (patches, H, W)."""
    return patch_masks(results.source.model, (results.images.shape[2], results.images.shape[3]))


def most_distinct(maps: Tensor, count: int) -> list[int]:
    """Return the entries of maps (images, entries, …) that are large and differ most between images.

    The score is d² / m, where d is the deviation of an entry from its mean over the images and m its magnitude, both
    summed: an entry that is the same in all images scores 0. With one image, the largest entries are returned.
    """
    away = maps - maps.mean(0) if len(maps) > 1 else maps
    differs, all_ = (x.flatten(2).abs().sum((0, 2)) for x in (away, maps))
    indices: list[int] = (differs.square() / all_.clamp_min(1e-12)).argsort(descending=True)[:count].tolist()
    return indices


def _parts(model: TransINR, level: str, images: Tensor) -> Contributions:
    values: Tensor = TokenContribution(model, level).attribute(images, n_steps=N_STEPS)  # type: ignore[arg-type]
    with torch.no_grad():
        rendered = model(images)
    return Contributions(values, _gap(values.sum(1) - rendered, rendered - values[:, -1]))


def _route(model: TransINR, image: Tensor, patches: Tensor) -> Route:
    """Return the contributions of the strongest patches by token, which sum to them up to rounding."""
    strongest = patches[:-1].abs().sum((1, 2, 3)).argsort(descending=True)[:ROUTED].tolist()
    values = TokenContribution(model, "patch").composed(image, n_steps=N_STEPS, patches=strongest)[0]
    total = patches[strongest]
    return Route(tuple(strongest), values, _gap(values.sum(1) - total, total))


def _gap(missed: Tensor, change: Tensor) -> float:
    return float(missed.abs().sum() / change.abs().sum().clamp_min(1e-12))


def _decibels(model: TransINR, images: Tensor) -> dict[str, tuple[float, int]]:
    size = (images.shape[2], images.shape[3])
    mean = model.mean_image[None]
    if tuple(mean.shape[2:]) != size:
        mean = torch.nn.functional.interpolate(mean, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        rendered = torch.cat([model(images[a:b]) for a, b in chunks(len(images), 64)])
    count = len(images)
    return {
        "the mean of the pictures it was fitted to": (mean_psnr(mean.expand_as(images), images), count),
        "drawn by the written network": (mean_psnr(rendered, images), count),
    }


def _spread(count: int, number: int) -> list[int]:
    """Return ``number`` evenly spaced indices of ``count``, starting at 0."""
    return torch.linspace(0, count - 1, min(count, number)).round().long().tolist()
