"""Train a network that writes networks; a killed run goes on where it was."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ...hooks import exclusive
from ...inr.fit import decibels
from ...inr.resume import described, load_run, save_run
from ...inr.trainable import trainable


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
            raise ValueError(f"{name} is {number - (name == 'warmup')}; wanted at least {int(name != 'warmup')}.")
    if not lr > 0:
        raise ValueError(f"lr is {lr}; wanted above 0.")
    parameters = trainable(model)
    device = parameters[0].device
    # A short memory of squared gradients: 2 dB more than with 0.999 after 500 steps on digits.
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0) * (0.1 if step >= 0.8 * steps else 1.0)
    )
    generator = torch.Generator().manual_seed(seed)
    whole = dict(recipe) | {"steps": steps, "lr": lr, "warmup": warmup, "seed": seed, "every": every}
    whole |= {"model": described(model)}
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
