"""Fit a TransINR."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ... import store
from ...hooks import exclusive
from ...images import check_images
from ...inr.fit import decibels
from ...inr.training import (
    architecture_digest,
    load_run,
    save_run,
    trainable,
)

KIND = "trans-inr"
M = TypeVar("M", bound=nn.Module)


def save_model(model: nn.Module, config: dict[str, Any], path: str | Path) -> None:
    """Write ``model`` and what its class was called with, as :func:`~xinc_captum.store.write_tensors` does.

    Args:
        model: all its parameters and buffers are kept.
        config: keyword arguments of its class, as JSON can hold them.
        path: the file to write or replace; a missing folder is created.

    Raises:
        StoreError: the file cannot be written.
    """
    store.write_tensors(path, model.state_dict(), kind=KIND, metadata={"kind": type(model).__name__, "config": config})


def load_model(kind: type[M], path: str | Path, device: torch.device | str) -> M:
    """Build a ``kind`` as the file says and give it the file's weights.

    Raises:
        FileNotFoundError: no such file.
        StoreError: not a file of a ``kind``, one of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    writer = f"{kind.__name__}.save()"
    tensors, note = store.read_tensors(path, kind=KIND, writer=writer)
    if note.get("kind") != kind.__name__:
        raise store.StoreError(f"{path} holds a {note.get('kind')}; expected a {kind.__name__}, a file of {writer}.")
    with store.consistent(path, writer):
        config = {name: tuple(value) if isinstance(value, list) else value for name, value in note["config"].items()}
        with torch.device("meta"):  # no weights to draw: the random state is unchanged
            model = kind(**config)
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict({name: value.to(device) for name, value in tensors.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


@dataclass(frozen=True)
class TransFit:
    """How a fit went.

    Attributes:
        psnr: decibels of the validation pictures at the end, the mean of each picture's; nan without any.
        validation: (steps taken, decibels) of each look at them.
        curve: decibels of each step's own batch before the step.
        steps: optimiser steps taken, those before a resumption among them.
        resumed_at: the step that a checkpoint was found at; 0 where none was.
    """

    psnr: float
    validation: tuple[tuple[int, float], ...]
    curve: tuple[float, ...]
    steps: int
    resumed_at: int


def mean_psnr(drawn: Tensor, pictures: Tensor) -> float:
    r"""Decibels of pictures in [0, 1], the mean of each one's own; what is drawn is not clamped.

    .. math:: \mathrm{mean}_b \, (-10 \log_{10} \mathrm{mean}((drawn_b - picture_b)^2))

    Args:
        drawn: (B, …).
        pictures: (B, …).

    Example:
        >>> round(mean_psnr(torch.tensor([[0.5], [0.5]]), torch.tensor([[0.6], [0.51]])), 2)
        30.0
    """
    errors = (drawn.double() - pictures.double()).square().flatten(1).mean(1)
    return float((-10 * errors.log10()).mean())


def trained(
    model: nn.Module,
    loss_of: Callable[[torch.Generator, float], Tensor],
    look: Callable[[], float] | None,
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
    r"""Adam on ``model`` in place; the rate rises over ``warmup`` steps and is a tenth after 80 % of all.

    Train flags, gradients and the global random state are left as found. A run that goes on from its checkpoint ends
    with bit-identical parameters on the same CPU with as many threads.

    Args:
        model: what is trained; its parameters that want gradients.
        loss_of: a step's mean squared error, drawing its batch from the generator (on the CPU);
            told which share of the steps lies behind.
        look: validation decibels, taken every ``every`` steps and at the end; None looks at nothing.
        recipe: what else decides how the run ends; a checkpoint of another is refused.
        steps: optimiser steps, the length of the schedule.
        lr: the highest rate.
        warmup: steps.
        seed: of the generator.
        checkpoint: a file to write the run to, and to take it up from.
        every: steps from one look and checkpoint to the next.
        show_progress: a bar with the last look, where standard error is a terminal.

    Raises:
        ValueError: numbers below 1, or a model that cannot be trained as it is.
        CheckpointError: a checkpoint of another model, other pictures or another setting, or no room to write one.
    """
    for name, number in {"steps": steps, "every": every, "warmup": warmup + 1}.items():
        if number < 1:
            raise ValueError(f"{name} is {number - (name == 'warmup')}; expected at least {int(name != 'warmup')}.")
    if not lr > 0:
        raise ValueError(f"lr is {lr}; expected above 0.")
    parameters = trainable(model)
    device = parameters[0].device
    # A short memory of squared gradients: 2 dB more than with 0.999 after 500 steps on digits.
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0) * (0.1 if step >= 0.8 * steps else 1.0)
    )
    generator = torch.Generator().manual_seed(seed)
    whole = dict(recipe) | {"steps": steps, "lr": lr, "warmup": warmup, "seed": seed, "every": every}
    whole |= {"model": architecture_digest(model)}
    losses, looks, done = torch.zeros(steps, device=device), [], 0
    if checkpoint is not None and (state := load_run(checkpoint, whole)) is not None:
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        losses.copy_(state["losses"])
        looks, done = [tuple(one) for one in state["looks"]], int(state["step"])
    gradients = [p.grad for p in parameters]
    try:
        with (
            torch.enable_grad(),
            tqdm(total=steps, initial=done, desc="fit", disable=None if show_progress else True, leave=False) as bar,
        ):
            for step in range(done + 1, steps + 1):
                with exclusive():
                    loss = loss_of(generator, (step - 1) / steps)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
                losses[step - 1] = loss.detach()
                bar.update()
                if step % every and step != steps:
                    continue
                if look is not None:
                    with torch.no_grad():
                        looks.append((step, look()))
                    bar.set_postfix_str(f"validation {looks[-1][1]:.2f} dB")
                if checkpoint is not None:
                    now = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    now |= {"schedule": schedule.state_dict(), "generator": generator.get_state()}
                    save_run(checkpoint, whole, now | {"losses": losses, "looks": [list(one) for one in looks]})
    finally:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
    curve = tuple(decibels(loss) for loss in losses.tolist())
    return TransFit(looks[-1][1] if looks else float("nan"), tuple(looks), curve, steps, done)


def random_mask(shape: tuple[int, ...], keep: float, generator: torch.Generator) -> Tensor:
    """Which places are seen, bool of ``shape`` (B, …): of each row a share drawn from [keep, 1], rounded up.

    Example:
        >>> random_mask((2, 16), 1.0, torch.Generator().manual_seed(0)).sum(1)
        tensor([16, 16])
    """
    count = torch.Size(shape[1:]).numel()
    share = keep + (1 - keep) * torch.rand(shape[0], 1, generator=generator)
    rank = torch.rand(shape[0], count, generator=generator).argsort(1).argsort(1)
    return (rank < (share * count).ceil()).reshape(shape)


def split_validation(images: Tensor, validation: float | Tensor | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Return the training images and the validation images.

    Args:
        images: (N, C, H, W).
        validation: a share of ``images``, other images, or None.
        seed: of the split.

    Raises:
        ValueError: fewer than 2 images, or a share that leaves one side empty.
    """
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
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(images.device)
    return images[order[count:]], images[order[:count]]
