"""Fit images and videos."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..hooks import exclusive
from .coordinates import coordinates, times
from .nerv import HNeRV
from .training import (
    architecture_digest,
    digest,
    load_run,
    save_run,
)


@dataclass(frozen=True)
class Fit:
    """How a fit went.

    Attributes:
        psnr: decibels of the final network over the whole picture.
        steps: optimiser steps taken.
        curve: PSNR of each step's own batch before the step.
        size: the picture's size, (H, W).
    """

    psnr: float
    steps: int
    curve: tuple[float, ...]
    size: tuple[int, ...]


def psnr(picture: Tensor, reference: Tensor) -> float:
    r"""Peak signal-to-noise ratio of values in [0, 1], in decibels.

    .. math:: -10 \log_{10} \mathrm{mean}((picture - reference)^2)

    Example:
        >>> round(psnr(torch.full((3, 2, 2), 0.5), torch.full((3, 2, 2), 0.6)), 2)
        20.0
    """
    error = F.mse_loss(picture.float(), reference.float()).item()
    return decibels(error)


def render(model: nn.Module, size: tuple[int, ...], *, rows_at_once: int = 1 << 16) -> Tensor:
    """The picture that a coordinate network draws: (C, *size), on the model's device, not clamped.

    Example:
        >>> from xinc_captum.inr import FourierMLP
        >>> render(FourierMLP(), (8, 12)).shape
        torch.Size([3, 8, 12])
    """
    weight = next(model.parameters())
    where = coordinates(size, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        pixels = torch.cat([model(part) for part in where.split(rows_at_once)])
    return pixels.T.reshape(-1, *size)


def fit(
    model: nn.Module,
    image: Tensor,
    *,
    steps: int = 1000,
    lr: float = 1e-2,
    batch_size: int | None = None,
    target_psnr: float | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> Fit:
    r"""Train ``model`` in place so that model(coordinates) ≈ pixels.

    .. math:: \min_\theta \; \mathrm{mean}_p \, \| f_\theta(x_p) - image_p \|^2

    Adam with a cosine schedule down to zero over ``steps``. Train flags are left as found; the random choices come
    from a generator of its own, on the model's device.

    Args:
        model: (rows, dims) to (rows, C).
        image: (C, *size), floats in [0, 1]; moved to the model's device and dtype.
        steps: optimiser steps, the length of the schedule.
        lr: first learning rate.
        batch_size: pixels a step; None takes all of them up to 65,536, and 16,384 of a larger picture.
        target_psnr: stop early once the whole picture reaches this many decibels (looked at every 50 steps).
        seed: for the choice of pixels.
        show_progress: a bar with the current PSNR, where standard error is a terminal.

    Raises:
        TypeError: an integer image.
        ValueError: values outside [0, 1] or not finite, or a model that does not answer (rows, C).

    Example:
        >>> from xinc_captum.inr import FourierMLP
        >>> result = fit(FourierMLP(hidden=16), torch.rand(3, 8, 8), steps=5, show_progress=False)
        >>> result.steps
        5
    """
    check_image(image)
    weight = next(model.parameters())
    size = tuple(image.shape[1:])
    pixels = image.to(weight).flatten(1).T.contiguous()
    where = coordinates(size, dtype=weight.dtype, device=weight.device)
    _check_model(model, where, pixels)
    if batch_size is None and len(where) > 1 << 16:
        batch_size = 1 << 14
    generator = torch.Generator(weight.device).manual_seed(seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    # A short memory of squared gradients: 3 to 4 dB more than with 0.99 or 0.999 after 400 full-batch steps on a photo.
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[Tensor] = []
    gradients = [p.grad for p in parameters]
    with (
        torch.enable_grad(),
        tqdm(total=steps, desc="fit", disable=None if show_progress else True, leave=False) as bar,
    ):
        for step in range(1, steps + 1):
            x, y = where, pixels
            if batch_size is not None and batch_size < len(where):
                index = torch.randint(len(where), (batch_size,), generator=generator, device=weight.device)
                x, y = where[index], pixels[index]
            with exclusive():
                loss = F.mse_loss(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            bar.update()
            if step % 50 == 0:  # the only looks at a value: each one waits for the device
                now = psnr(render(model, size), image.to(weight)) if target_psnr else decibels(losses[-1].item())
                bar.set_postfix_str(f"{now:.2f} dB")
                if target_psnr is not None and now >= target_psnr:
                    break
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient
    curve = tuple(decibels(loss) for loss in torch.stack(losses).tolist()) if losses else ()
    return Fit(psnr(render(model, size), image.to(weight)), len(losses), curve, size)


def decibels(error: float) -> float:
    """Of a mean squared error of values in [0, 1]; infinite for none."""
    return math.inf if error == 0 else -10 * math.log10(error)


def check_image(image: Tensor) -> None:
    """Accept (C, *size) floats in [0, 1] only.

    Raises:
        TypeError: not a float tensor.
        ValueError: no channels or pixels, not finite, or outside [0, 1].
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image is {kind}; expected a float tensor in [0, 1]: divide 8-bit pixels by 255.")
    if image.dim() < 2 or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected (channels, height, width), none of them 0.")
    low, high = image.min().item(), image.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("image holds NaN or infinite values; replace them before fitting.")
    if low < 0 or high > 1:
        raise ValueError(f"image values lie in [{low:g}, {high:g}]; expected [0, 1]: divide 8-bit pixels by 255.")


def _check_model(model: nn.Module, where: Tensor, pixels: Tensor) -> None:
    with torch.no_grad():
        try:
            answer = model(where[:1])
        except RuntimeError as error:
            raise ValueError(
                f"the model cannot take coordinates of shape (rows, {where.shape[1]}): {error}. Build it with "
                f"in_features={where.shape[1]}."
            ) from error
    if not isinstance(answer, Tensor) or tuple(answer.shape) != (1, pixels.shape[1]):
        seen = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise ValueError(
            f"the model answers {seen} for one pixel, but the image has {pixels.shape[1]} channels; build it with "
            f"out_features={pixels.shape[1]}."
        )


@dataclass(frozen=True)
class VideoFit:
    """How a fit went.

    Attributes:
        psnr: decibels of the whole video.
        frame_psnr: decibels of each frame.
        steps: optimiser steps taken, those before a resumption among them.
        resumed_at: the step that a checkpoint was found at; 0 where none was.
        curve: PSNR of each step's own batch before the step.
        size: (frames, H, W).
    """

    psnr: float
    frame_psnr: tuple[float, ...]
    steps: int
    resumed_at: int
    curve: tuple[float, ...]
    size: tuple[int, ...]


def render_video(model: nn.Module, inputs: Tensor | int, *, rows_at_once: int = 8) -> Tensor:
    """The frames that a network draws: (rows, C, H, W), on the model's device, not clamped.

    Args:
        model: one row in, one frame out.
        inputs: rows for it, or how many frames to draw at their :func:`times`.
        rows_at_once: frames in one call of the model.

    Example:
        >>> from xinc_captum.inr import NeRV
        >>> render_video(NeRV((16, 24), widths=(4, 4, 4), strides=(2, 2)), 5).shape
        torch.Size([5, 3, 16, 24])
    """
    weight = next(model.parameters())
    rows = times(inputs) if isinstance(inputs, int) else inputs
    with torch.no_grad():
        return torch.cat([model(part) for part in rows.to(weight).split(rows_at_once)])


def fit_video(
    model: nn.Module,
    frames: Tensor,
    *,
    inputs: Tensor | None = None,
    steps: int = 1500,
    lr: float = 1e-2,
    batch_size: int = 6,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 100,
    show_progress: bool = True,
) -> VideoFit:
    r"""Train ``model`` in place so that model(inputs) ≈ frames.

    .. math:: \min_\theta \; \mathrm{mean}_{i, c, y, x} \, (f_\theta(x_i) - frame_i)^2

    Adam under a one-cycle schedule: the learning rate rises to ``lr`` over the first 30 % of the steps and falls to
    nothing. Train flags and gradients are left as found; the random choices come from a generator of its own.

    With ``checkpoint`` a run that was killed goes on from the last one written. On the same CPU with as many threads it
    ends with bit-identical parameters; elsewhere they round otherwise. The file stays: a finished run is not repeated.

    Args:
        model: rows to frames: a ``NeRV``, an ``HNeRV``, or any other.
        frames: (T, C, H, W), floats in [0, 1], T >= 2; moved to the model's device and dtype.
        inputs: one row a frame; None is the frames themselves for an ``HNeRV``, and :func:`times` for all others.
        steps: optimiser steps, the length of the schedule.
        lr: the highest learning rate.
        batch_size: frames a step.
        seed: for the order of the frames.
        checkpoint: a file to write the run to, and to take it up from.
        every: steps from one checkpoint to the next.
        show_progress: a bar with the current PSNR, where standard error is a terminal.

    Raises:
        TypeError: integer frames.
        ValueError: one frame, values outside [0, 1] or not finite, a model that does not answer such frames, or numbers
            below 1.
        CheckpointError: a checkpoint of another model, video or setting, a damaged one, or no room to write one.

    Example:
        >>> from xinc_captum.inr import NeRV
        >>> model = NeRV((16, 24), widths=(4, 4, 4), strides=(2, 2))
        >>> result = fit_video(model, torch.rand(5, 3, 16, 24), steps=3, show_progress=False)
        >>> len(result.frame_psnr)
        5

    Source: Chen et al., "NeRV" (NeurIPS 2021), sec. 3; the schedule is Smith & Topin's (arXiv 1708.07120).
    """
    _check_numbers(steps=steps, batch_size=batch_size, every=every)
    _check_frames(frames)
    weight = next(model.parameters())
    target = frames.to(weight)
    if inputs is None:
        inputs = target if isinstance(model, HNeRV) else times(len(frames))
    rows = inputs.to(weight)
    _check_video_model(model, rows, target)
    batch_size = min(batch_size, len(target))
    parameters = [p for p in model.parameters() if p.requires_grad]
    # A short memory of squared gradients: 3.7 dB more than with 0.999 after 600 steps on a real clip, and runs with
    # 0.999 fell apart at rates that these bear.
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    recipe: dict[str, Any] = {"steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed}
    recipe |= {"model": architecture_digest(model), "frames": digest(frames), "inputs": digest(inputs)}
    losses = torch.zeros(steps, device=weight.device)
    done = 0
    if checkpoint is not None and (state := load_run(checkpoint, recipe)) is not None:
        done = _taken_up(state, model, optimizer, schedule, losses)
    batches = _batches(len(target), batch_size, seed)
    for _ in range(done):  # the generator is where it was
        next(batches)
    gradients = [p.grad for p in parameters]
    try:
        with (
            torch.enable_grad(),
            tqdm(total=steps, initial=done, desc="fit", disable=None if show_progress else True, leave=False) as bar,
        ):
            for step in range(done, steps):
                index = next(batches).to(weight.device, non_blocking=True)
                with exclusive():
                    loss = F.mse_loss(model(rows[index]), target[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
                losses[step] = loss.detach()
                bar.update()
                if (step + 1) % 50 == 0:  # the only looks at a value: each one waits for the device
                    bar.set_postfix_str(f"{decibels(losses[step].item()):.2f} dB")
                if checkpoint is not None and ((step + 1) % every == 0 or step + 1 == steps):
                    save_run(checkpoint, recipe, _state(step + 1, model, optimizer, schedule, losses))
    finally:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient
    drawn = render_video(model, rows)
    each = tuple(psnr(a, b) for a, b in zip(drawn, target, strict=True))
    curve = tuple(decibels(loss) for loss in losses.tolist())
    return VideoFit(psnr(drawn, target), each, steps, done, curve, (len(target), *target.shape[2:]))


def _batches(rows: int, size: int, seed: int) -> Iterator[Tensor]:
    """Indices for ever: every row once before any comes again, in an order that is drawn anew each round.

    They are drawn on the CPU, so that they are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        if len(left) < size:
            left = torch.cat([left, torch.randperm(rows, generator=generator)])
        yield left[:size]
        left = left[size:]


def _state(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    losses: Tensor,
) -> dict[str, Any]:
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "losses": losses,
    }


def _taken_up(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    losses: Tensor,
) -> int:
    """Put everything where it was; returns how many steps are behind."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    losses.copy_(state["losses"])
    return int(state["step"])


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1.")


def _check_frames(frames: Tensor) -> None:
    check_image(frames)
    if frames.dim() != 4 or len(frames) < 2:
        raise ValueError(
            f"frames have shape {tuple(frames.shape)}; expected (T, C, H, W) with at least 2 frames. A single "
            "picture is "
            "for fit()."
        )


def _check_video_model(model: nn.Module, rows: Tensor, target: Tensor) -> None:
    if len(rows) != len(target):
        raise ValueError(f"inputs have {len(rows)} rows for {len(target)} frames; expected one row a frame.")
    with torch.no_grad():
        answer = model(rows[:1])
    if not isinstance(answer, Tensor) or answer.shape != target[:1].shape:
        seen = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise ValueError(
            f"the model answers {seen} for one row, but a frame is {tuple(target.shape[1:])}; expected (1, C, H, W). "
            "Build it with size=(H, W) and channels=C of the frames."
        )
