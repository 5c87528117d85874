"""What the released code puts in place of the rest of a decoder: boxes for convolutions, nearest for shuffles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....hooks import LayerError
from .operations import POINTWISE
from .trace import Step, Trace

_SAME = {"contiguous", "clone", "dropout", "dropout2d", "batch_norm"}  # norms are ignored, as in the released code
_RESAMPLED = {"interpolate", "upsample", "avg_pool2d", "adaptive_avg_pool2d", "pad"}


@dataclass(frozen=True)
class Box:
    """The mean filter of a convolution's size, stride, padding and dilation, one number for each axis."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def matrix(self, axis: int, size: int) -> Tensor:
        """Along one axis as a matrix (new size, size), zero padded."""
        k, s, p, d = self.kernel[axis], self.stride[axis], self.padding[axis], self.dilation[axis]
        new = (size + 2 * p - d * (k - 1) - 1) // s + 1
        at = torch.arange(new)[:, None] * s + torch.arange(k) * d - p
        inside = (at >= 0) & (at < size)
        matrix = torch.zeros(new, size, dtype=torch.float64)
        return matrix.scatter_add_(1, at.clamp(0, size - 1), inside.double() / k)


@dataclass(frozen=True)
class Near:
    """Nearest upsampling, in place of a later PixelShuffle."""

    factor: int

    def matrix(self, axis: int, size: int) -> Tensor:
        """Along one axis, (size * factor, size)."""
        return torch.eye(size, dtype=torch.float64).repeat_interleave(self.factor, 0)


@dataclass(frozen=True)
class Place:
    """The kernel's own phase of the finer grid, zero elsewhere: its own PixelShuffle."""

    factor: int
    phase: tuple[int, int] = (0, 0)

    def matrix(self, axis: int, size: int) -> Tensor:
        """Along one axis, (size * factor, size)."""
        matrix = torch.zeros(size * self.factor, size, dtype=torch.float64)
        matrix[self.phase[axis] :: self.factor] = torch.eye(size, dtype=torch.float64)
        return matrix


@dataclass(frozen=True)
class Pointwise:
    """An activation, applied to each map alone."""

    sigma: Callable[[Tensor], Tensor]
    zero_stays: bool


@dataclass(frozen=True)
class Resample:
    """Pooling, interpolation or padding, applied to each map alone."""

    step: Step


Stage = Box | Near | Place | Pointwise | Resample


def stages(trace: Trace | None, name: str) -> list[Stage]:
    """What follows an inner convolution, up to the last convolution, in the released code's way.

    Args:
        trace: of the tail behind the convolution.
        name: of the layer, for messages.

    Raises:
        LayerError: an operation that the released code has no substitute for.
    """
    if trace is None:
        raise _refused(name, "what follows is no chain of operations, each on the result of the one before")
    last = max(i for i, step in enumerate(trace.steps) if step.name.startswith("conv") and step.name != "contiguous")
    found: list[Stage] = []
    own = True
    for step in trace.steps[: last + 1]:
        stage = _stage(step, name, own)
        own = own and step.name not in {"conv2d", "pixel_shuffle"}
        found += [] if stage is None else [stage]
    return found


def _stage(step: Step, name: str, own: bool) -> Stage | None:
    if step.name == "conv2d":
        return _box(step)
    if step.name == "pixel_shuffle":
        factor = int(step.given("upscale_factor")["upscale_factor"])
        return Place(factor) if own else Near(factor)
    if step.name in POINTWISE and not step.has_tensors:
        with torch.no_grad():
            zero_stays = not step.again(torch.zeros(1)).numpy().any()  # on the host: no device is waited for
        return Pointwise(step.again, zero_stays)
    if step.name in _RESAMPLED:
        return Resample(step)
    if step.name in _SAME:
        return None
    raise _refused(name, f"met {step.name!r}")


def _box(step: Step) -> Box:
    given: dict[str, Any] = step.given("weight bias stride padding dilation groups")
    kernel = (int(given["weight"].shape[-2]), int(given["weight"].shape[-1]))
    dilation, padding = _both(given.get("dilation", 1)), given.get("padding", 0)
    if isinstance(padding, str):
        same = (dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2)
        padding = same if padding == "same" else 0
    return Box(kernel, _both(given.get("stride", 1)), _both(padding), dilation)


def _both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _refused(name: str, why: str) -> LayerError:
    return LayerError(
        f"rule 'xinc' at layer {name} follows Conv2d, PixelShuffle, pointwise operations, pooling and interpolation "
        f"up to the last convolution; {why}. Use rule='tangent' or rule='secant', which follow any operation."
    )
