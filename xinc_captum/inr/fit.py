"""Fit networks to images and videos, render them, and save and load them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import store
from ..batch import python_index, random_generator
from .coordinates import coordinates, times
from .mlp import FourierMLP, HypoNet, Siren
from .nerv import HNeRV, NeRV
from .training import Validation, architecture_digest, check_at_least_one, decibels, digest, epoch_batches, train

Network = FourierMLP | Siren | NeRV | HNeRV | HypoNet
KINDS: dict[str, type[Network]] = {kind.__name__: kind for kind in (FourierMLP, Siren, NeRV, HNeRV, HypoNet)}
KIND, WRITER = "inr", "xinc_captum.inr.save()"


@dataclass(frozen=True)
class Fit:
    """Result of :func:`fit`.

    Attributes:
        psnr: of the final network over the whole image, in decibels.
        steps: optimizer steps taken.
        curve: PSNR of each batch before its step.
        size: of the image, (H, W).
    """

    psnr: float
    steps: int
    curve: tuple[float, ...]
    size: tuple[int, ...]


def psnr(image: Tensor, reference: Tensor) -> float:
    r"""Return the peak signal-to-noise ratio of values in [0, 1], in decibels.

    .. math:: -10 \log_{10} \mathrm{mean}((image - reference)^2)

    Example:
        >>> round(psnr(torch.full((3, 2, 2), 0.5), torch.full((3, 2, 2), 0.6)), 2)
        20.0
    """
    return decibels(F.mse_loss(image.float(), reference.float()).item())


def render(model: nn.Module, size: tuple[int, ...], *, batch_size: int = 1 << 16) -> Tensor:
    """Return the image of a coordinate network: (C, *size), on the model's device, not clamped.

    Example:
        >>> from xinc_captum.inr import FourierMLP
        >>> render(FourierMLP(), (8, 12)).shape
        torch.Size([3, 8, 12])
    """
    weight = next(model.parameters())
    grid = coordinates(size, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        pixels = torch.cat([model(part) for part in grid.split(python_index(batch_size))])
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

    Adam with a cosine schedule down to zero over ``steps``. Training flags, gradients and the global random state are
    restored; pixels are drawn with a separate generator on the model's device.

    Args:
        model: (rows, dims) to (rows, C).
        image: (C, *size), floats in [0, 1]; moved to the model's device and dtype.
        steps: the length of the schedule.
        lr: first learning rate.
        batch_size: pixels a step; None takes all of them up to 65,536, and 16,384 of a larger image.
        target_psnr: stop once the whole image reaches this many decibels; checked every 50 steps.
        seed: for the choice of pixels.
        show_progress: a bar with the current PSNR, where standard error is a terminal.

    Raises:
        TypeError, ValueError: an integer image, values outside [0, 1] or not finite, or another output of the model.

    Example:
        >>> from xinc_captum.inr import FourierMLP
        >>> result = fit(FourierMLP(hidden=16), torch.rand(3, 8, 8), steps=5, show_progress=False)
        >>> result.steps
        5
    """
    _check_image(image)
    check_at_least_one(steps=steps, batch_size=batch_size)
    weight = next(model.parameters())
    size = tuple(image.shape[1:])
    pixels = image.to(weight).flatten(1).T.contiguous()
    grid = coordinates(size, dtype=weight.dtype, device=weight.device)
    channels, dims = pixels.shape[1], grid.shape[1]
    try:
        output = _first_output(model, grid)
    except RuntimeError as error:
        raise ValueError(
            f"the model cannot take coordinates of shape (rows, {dims}): {error}. Build it with in_features={dims}."
        ) from error
    if output != (1, channels):
        raise ValueError(
            f"the model returns {output} for one pixel, but the image has {channels} channels; build it with "
            f"out_features={channels}."
        )
    if batch_size is None and len(grid) > 1 << 16:
        batch_size = 1 << 14
    generator = random_generator(seed, weight.device)
    # A short memory of squared gradients: 3 to 4 dB more than with 0.99 or 0.999 after 400 full-batch steps on a photo.
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = torch.zeros(steps, dtype=weight.dtype, device=weight.device)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            if batch_size is None or batch_size >= len(grid):
                yield grid, pixels
            else:
                index = torch.randint(len(grid), (batch_size,), generator=generator, device=weight.device)
                yield grid[index], pixels[index]

    def loss_of(batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return F.mse_loss(model(batch[0]), batch[1])

    def image_psnr() -> float:
        return psnr(render(model, size), image.to(weight))

    validation = Validation() if target_psnr is None else _TargetPsnr(image_psnr, target_psnr)
    taken, _ = train(
        model,
        loss_of,
        batches(),
        optimizer,
        schedule,
        losses,
        validation=validation,
        every=50,
        show_progress=show_progress,
    )
    return Fit(image_psnr(), taken, tuple(map(decibels, losses[:taken].tolist())), size)


class _TargetPsnr(Validation):
    """Stop once the whole image reaches ``target`` decibels."""

    def __init__(self, image_psnr: Callable[[], float], target: float) -> None:
        self.image_psnr, self.target = image_psnr, target

    def measure(self, step: int, losses: Tensor) -> str:
        value = self.image_psnr()
        self.stop = value >= self.target
        return f"{value:.2f} dB"


def _check_image(image: Tensor) -> None:
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


def _first_output(model: nn.Module, rows: Tensor) -> tuple[int, ...] | str:
    """Return the shape of the model's output for the first row, or the class of an output that is not a tensor."""
    with torch.no_grad():
        output = model(rows[:1])
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


@dataclass(frozen=True)
class VideoFit:
    """Result of :func:`fit_video`, like a :class:`Fit`, with ``psnr`` of the whole video.

    Attributes:
        frame_psnr: of each frame.
        steps: optimizer steps taken, including those before a resumption.
        resumed_at: step of the checkpoint that the run was resumed from; 0 without one.
        size: (frames, H, W).
    """

    psnr: float
    frame_psnr: tuple[float, ...]
    steps: int
    resumed_at: int
    curve: tuple[float, ...]
    size: tuple[int, ...]


def render_video(model: nn.Module, inputs: Tensor | int, *, batch_size: int = 8) -> Tensor:
    """Return the frames of a video network: (rows, C, H, W), on the model's device, not clamped.

    ``inputs`` are rows for the model, or the number of frames, whose :func:`times` are the rows.

    Example:
        >>> from xinc_captum.inr import NeRV
        >>> render_video(NeRV((16, 24), widths=(4, 4, 4), strides=(2, 2)), 5).shape
        torch.Size([5, 3, 16, 24])
    """
    weight = next(model.parameters())
    rows = inputs if isinstance(inputs, Tensor) else times(inputs)
    with torch.no_grad():
        return torch.cat([model(part) for part in rows.to(weight).split(python_index(batch_size))])


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

    Adam with a one-cycle schedule: the learning rate rises to ``lr`` over the first 30 % of the steps and falls to
    zero. Training flags, gradients and the global random state are restored.

    Args:
        model: maps rows to frames: a ``NeRV``, an ``HNeRV``, or any other module.
        frames: (T, C, H, W), floats in [0, 1], T >= 2; moved to the model's device and dtype.
        inputs: one row a frame; None is the frames themselves for an ``HNeRV``, and :func:`times` for all others.
        steps: the length of the schedule.
        lr: the highest learning rate.
        batch_size: frames a step.
        seed: for the order of the frames.
        checkpoint: a file to write the run to; a killed run continues from it, a finished one is not repeated. On the
            same CPU with as many threads the parameters end bit-identical; elsewhere rounding differs.
        every: steps between two checkpoints.
        show_progress: a bar with the current PSNR, where standard error is a terminal.

    Raises:
        TypeError, ValueError: frames or a model as in :func:`fit`, one frame, or numbers below 1.
        CheckpointError: a checkpoint of another run, a damaged one, or one that cannot be written.

    Example:
        >>> from xinc_captum.inr import NeRV
        >>> model = NeRV((16, 24), widths=(4, 4, 4), strides=(2, 2))
        >>> result = fit_video(model, torch.rand(5, 3, 16, 24), steps=3, show_progress=False)
        >>> len(result.frame_psnr)
        5

    Source: Chen et al., "NeRV" (NeurIPS 2021), sec. 3; the schedule is Smith & Topin's (arXiv 1708.07120).
    """
    steps, batch_size, every = python_index((steps, batch_size, every))
    check_at_least_one(steps=steps, batch_size=batch_size, every=every)
    _check_image(frames)
    if frames.dim() != 4 or len(frames) < 2:
        raise ValueError(
            f"frames have shape {tuple(frames.shape)}; expected (T, C, H, W) with at least 2 frames. A single "
            "image is for fit()."
        )
    weight = next(model.parameters())
    target = frames.to(weight)
    if inputs is None:
        inputs = target if isinstance(model, HNeRV) else times(len(frames))
    rows = inputs.to(weight)
    if len(rows) != len(target):
        raise ValueError(f"inputs have {len(rows)} rows for {len(target)} frames; expected one row a frame.")
    output = _first_output(model, rows)
    if output != target[:1].shape:
        raise ValueError(
            f"the model returns {output} for one row, but a frame is {tuple(target.shape[1:])}; "
            "expected (1, C, H, W). Build it with size=(H, W) and channels=C of the frames."
        )
    batch_size = min(batch_size, len(target))
    # A short memory of squared gradients: 3.7 dB more than with 0.999 after 600 steps on a real clip. Runs with 0.999
    # diverged at learning rates that are stable with 0.95.
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    recipe: dict[str, Any] = {"steps": steps, "lr": lr, "batch_size": batch_size, "seed": seed}
    recipe |= {"model": architecture_digest(model), "frames": digest(frames), "inputs": digest(inputs)}
    losses = torch.zeros(steps, device=weight.device)

    def loss_of(index: Tensor, _: int) -> Tensor:
        index = index.to(weight.device, non_blocking=True)
        return F.mse_loss(model(rows[index]), target[index])

    _, resumed_at = train(
        model,
        loss_of,
        epoch_batches(len(target), batch_size, random_generator(seed)),
        optimizer,
        schedule,
        losses,
        validation=Validation(),
        every=every,
        checkpoint=checkpoint,
        recipe=recipe,
        show_progress=show_progress,
    )
    rendered = render_video(model, rows)
    frame_psnr = tuple(psnr(a, b) for a, b in zip(rendered, target, strict=True))
    curve = tuple(map(decibels, losses.tolist()))
    return VideoFit(psnr(rendered, target), frame_psnr, steps, resumed_at, curve, (len(target), *target.shape[2:]))


class Loaded(NamedTuple):
    """A network, and the size of the image or video that it was fitted to."""

    model: Network
    size: tuple[int, ...]


def save(model: Network, path: str | Path, *, size: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Write ``model`` with the ``size`` of its image, or (frames, H, W) of its video.

    Args:
        model: a network of this package, with an activation that has a name.
        path: the file to write or replace atomically; a missing folder is created.
        size: :func:`load` returns it with the model.
        dtype: of the weights in the file; ``torch.float16`` halves their size. Buffers keep their dtype, and
            :func:`load` restores the model's dtype.

    Raises:
        TypeError, StoreError: another model; a file that cannot be written.
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise TypeError(
            f"model is a {kind}; expected one of {', '.join(KINDS)}. Save others with safetensors directly."
        )
    activation = model.config.get("activation", "")
    if not isinstance(activation, str):
        raise TypeError(
            f"the model's activation is {activation!r}; expected the name of an activation, which a file can hold."
        )
    weights = {name for name, _ in model.named_parameters()}
    tensors = {
        name: tensor.detach().to("cpu", dtype if name in weights else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    dtype_name = str(next(model.parameters()).dtype).removeprefix("torch.")
    note = {"kind": kind, "config": model.config, "size": list(size), "dtype": dtype_name}
    store.write_tensors(path, tensors, kind=KIND, metadata=note)


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Loaded:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a file of something else or of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    if note.get("kind") not in KINDS:
        raise store.StoreError(
            f"{path} holds a network of the class {note.get('kind')!r}; expected one of {', '.join(KINDS)}, a file "
            f"written by {WRITER}."
        )
    with store.consistent(path, WRITER):
        with torch.device("meta"):
            model = KINDS[note["kind"]](**note["config"])
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict({name: value.to(device) for name, value in tensors.items()}, assign=True)
        if "dtype" in note:  # files of the first versions keep every weight as it was
            model.to(getattr(torch, note["dtype"]))
        return Loaded(model, tuple(note["size"]))
