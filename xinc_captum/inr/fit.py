"""Fit a coordinate network to a picture or any other regular signal."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..hooks import exclusive
from .coordinates import coordinates


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
        raise TypeError(f"image is {kind}; wanted a float tensor in [0, 1]: divide 8-bit pixels by 255.")
    if image.dim() < 2 or image.numel() == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; wanted (channels, height, width), none of them 0.")
    low, high = image.min().item(), image.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("image holds NaN or infinite values; replace them before fitting.")
    if low < 0 or high > 1:
        raise ValueError(f"image values lie in [{low:g}, {high:g}]; wanted [0, 1]: divide 8-bit pixels by 255.")


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
