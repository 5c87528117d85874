"""Files and training of TransINR and RayTransINR."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from ... import store
from ...batch import random_generator
from ...images import check_images
from ...inr.training import Validation, architecture_digest, check_at_least_one, decibels, train, trainable

KIND = "trans-inr"
B = TypeVar("B")


class WeightGenerator(nn.Module):
    """Base of TransINR and RayTransINR: saving and loading; ``config`` has the class's arguments but the seed."""

    config: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write arguments, weights and means to one safetensors file, atomically; a missing folder is created."""
        note = {"kind": type(self).__name__, "config": self.config}
        store.write_tensors(path, self.state_dict(), kind=KIND, metadata=note)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a file of another class or a newer version, an incomplete or changed file, or weights that do
                not fit the configuration.
        """
        writer = f"{cls.__name__}.save()"
        tensors, note = store.read_tensors(path, kind=KIND, writer=writer)
        if note.get("kind") != cls.__name__:
            raise store.StoreError(f"{path} holds a {note.get('kind')}; expected a {cls.__name__}, a file of {writer}.")
        with store.consistent(path, writer):
            config = {name: tuple(one) if isinstance(one, list) else one for name, one in note["config"].items()}
            with torch.device("meta"):  # no random weights: the random state is unchanged
                model = cls(**config)
            store.check_state(path, model.state_dict(), tensors)
            model.load_state_dict({name: value.to(device) for name, value in tensors.items()}, assign=True)
        return model.requires_grad_(True)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())


@dataclass(frozen=True)
class TransFit:
    """Result of a fit.

    Attributes:
        psnr: mean PSNR of the validation images at the end, in decibels; nan without validation images.
        validation: (steps taken, decibels) of each validation.
        curve: decibels of each batch before its step.
        steps: optimizer steps taken, including those before a resumption.
        resumed_at: step of the checkpoint that the run was resumed from; 0 without one.
    """

    psnr: float
    validation: tuple[tuple[int, float], ...]
    curve: tuple[float, ...]
    steps: int
    resumed_at: int


def mean_psnr(outputs: Tensor, images: Tensor) -> float:
    r"""Return the mean over images of each image's PSNR, for values in [0, 1]; outputs are not clamped.

    .. math:: \mathrm{mean}_b \, (-10 \log_{10} \mathrm{mean}((output_b - image_b)^2))

    Example:
        >>> round(mean_psnr(torch.tensor([[0.5], [0.5]]), torch.tensor([[0.6], [0.51]])), 2)
        30.0
    """
    errors = (outputs.double() - images.double()).square().flatten(1).mean(1)
    return float((-10 * errors.log10()).mean())


class ImageValidation(Validation):
    """Mean PSNR of the validation images during a fit; ``values`` are (steps taken, decibels)."""

    def __init__(self, mean_psnr: Callable[[], float] | None) -> None:
        self.mean_psnr, self.values = mean_psnr, list[tuple[int, float]]()

    def measure(self, step: int, losses: Tensor) -> str:
        """Return the mean PSNR as text, or that of the step's own batch where there are no validation images."""
        if self.mean_psnr is None:
            return super().measure(step, losses)
        self.values.append((step, self.mean_psnr()))
        return f"validation {self.values[-1][1]:.2f} dB"

    def state_dict(self) -> dict[str, Any]:
        """Return the values."""
        return {"looks": [list(value) for value in self.values]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values."""
        self.values = [(step, value) for step, value in state["looks"]]


def fit_model(
    model: nn.Module,
    loss_of: Callable[[B, int], Tensor],
    batches: Callable[[torch.Generator], Iterator[B]],
    mean_psnr: Callable[[], float] | None,
    recipe: Mapping[str, Any],
    *,
    steps: int,
    lr: float,
    warmup: int,
    seed: int,
    checkpoint: str | Path | None,
    every: int,
    show_progress: bool,
) -> TransFit:
    """Train ``model`` with Adam; the rate rises over ``warmup`` steps and is divided by 10 after 80 % of all steps.

    ``loss_of`` maps a batch and the steps taken to a mean squared error, ``batches`` maps a generator on the CPU to
    batches, ``mean_psnr`` measures the validation images (None without them), and ``recipe`` has the other settings
    that determine the result.
    """
    check_at_least_one(steps=steps, every=every)
    if warmup < 0 or not lr > 0:
        raise ValueError(f"warmup is {warmup} and lr is {lr}; expected warmup of at least 0 and lr above 0.")
    parameters = trainable(model)
    # A short memory of squared gradients: 2 dB more than with 0.999 after 500 steps on digits.
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0) * (0.1 if step >= 0.8 * steps else 1.0)
    )
    settings = {"steps": steps, "lr": lr, "warmup": warmup, "seed": seed, "every": every}
    validation, losses = ImageValidation(mean_psnr), torch.zeros(steps, device=parameters[0].device)
    _, resumed_at = train(
        model,
        loss_of,
        batches(random_generator(seed)),
        optimizer,
        schedule,
        losses,
        validation=validation,
        every=every,
        checkpoint=checkpoint,
        recipe=dict(recipe) | settings | {"model": architecture_digest(model)},
        show_progress=show_progress,
    )
    values = tuple(validation.values)
    curve = tuple(map(decibels, losses.tolist()))
    return TransFit(values[-1][1] if values else float("nan"), values, curve, steps, resumed_at)


def random_mask(shape: tuple[int, ...], keep: float, generator: torch.Generator) -> Tensor:
    """Return a random bool mask (B, …); the share of True in each row is uniform in [keep, 1], rounded up."""
    count = torch.Size(shape[1:]).numel()
    share = keep + (1 - keep) * torch.rand(shape[0], 1, generator=generator)
    rank = torch.rand(shape[0], count, generator=generator).argsort(1).argsort(1)
    return (rank < (share * count).ceil()).reshape(shape)


def split_validation(images: Tensor, validation: float | Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Return training and validation images; ``validation`` is a share of ``images``, other images, or None."""
    if len(images) < 2:
        raise ValueError("images hold 1 image; expected at least 2.")
    if validation is None:
        return images, None
    if isinstance(validation, Tensor):
        return images, check_images(validation).to(images)
    count = round(validation * len(images))
    if not 0 < count < len(images):
        raise ValueError(
            f"validation is {validation} of {len(images)} images; expected a share that leaves images on both sides, "
            "a tensor of other images, or None."
        )
    order = torch.randperm(len(images), generator=random_generator(seed)).to(images.device)
    return images[order[count:]], images[order[:count]]
