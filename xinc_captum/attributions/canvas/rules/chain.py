"""A tail that is a chain of convolutions and operations on each element, linearised where the network is."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ....batch import Batch
from .differences import difference
from .one_channel import Conv, Each, Linear, Maps, OneChannel, Pick, Scale, Shuffle
from .operations import POINTWISE
from .slopes import secant_slope, tangent_slope
from .tail import Tail
from .trace import Step, trace

Slope = Literal["tangent", "secant"]

_CONV = "weight bias stride padding dilation groups"
_TRANSPOSED = "weight bias stride padding output_padding groups dilation"
_DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
_ELEMENTWISE = {"add", "sub", "rsub", "neg", "mul", "multiply", "div", "true_divide", "divide", "batch_norm"}
_EACH = {"interpolate", "upsample", "avg_pool1d", "avg_pool2d", "avg_pool3d"} | {
    f"adaptive_avg_pool{d}d" for d in (1, 2, 3)
}


@dataclass(frozen=True)
class Chain:
    """c ↦ its part of the output, as the network is at these rows.

    Attributes:
        activation: at the layer, (rows, channels, *space).
        output: (rows, *left).
        slot: what the units do not hold, (rows, *left); None under the tangent.
        steps: one linear operation after the other.
    """

    activation: Tensor
    output: Tensor
    slot: Tensor | None
    steps: tuple[Linear, ...]

    def carry(self, maps: Tensor, channel: int) -> Tensor:
        """(rows, k, *space) in one channel of the layer → (rows, k, *left)."""
        rows, k = maps.shape[:2]
        state: Maps = OneChannel(maps, channel, self.activation.shape[1])
        with torch.no_grad():
            for step in self.steps:
                state = step(state, rows)
            whole = state if isinstance(state, Tensor) else state.filled()
        return whole.reshape(rows, k, *self.output.shape[1:])

    def carry_all(self, parts: Tensor) -> Tensor:
        """Parts in every channel of the layer, (rows, channels, *space) → (rows, *left)."""
        state: Maps = parts
        with torch.no_grad():
            for step in self.steps:
                state = step(state, len(parts))
        assert isinstance(state, Tensor)  # noqa: S101 - dense maps stay dense
        return state


def chain(tail: Tail, batch: Batch, slope: Slope, slot: Tensor | None = None) -> Chain | None:
    """Linearise a tail, or None where it is no chain of operations that keep rows and channels apart.

    Args:
        tail: from the layer's output (or input) on.
        batch: some rows.
        slope: σ'(z), or (σ(z) − σ(0))/z.
        slot: what the units do not hold at the layer itself; zero when not given.
    """
    recorded = trace(tail, batch)
    if recorded is None or recorded.activation.dim() < 3:
        return None
    steps: list[Linear] = []
    carried = torch.zeros_like(recorded.activation) if slot is None else slot.expand_as(recorded.activation)
    for step in recorded.steps:
        made = _step(step, slope, carried)
        if made is None:
            return None
        linear, carried = made
        steps += [] if linear is None else [linear]
    return Chain(recorded.activation, recorded.output, carried if slope == "secant" else None, tuple(steps))


def _step(step: Step, slope: Slope, slot: Tensor) -> tuple[Linear | None, Tensor] | None:
    """The linear operation (None: nothing happens) and the slot behind it."""
    with torch.no_grad():
        if step.name in POINTWISE and step.name != "pow":
            return _pointwise(step, slope, slot)
        linear = _affine(step)
        if linear is None:
            return None
        return (None if linear == "same" else linear), step.again(slot)


def _pointwise(step: Step, slope: Slope, slot: Tensor) -> tuple[Linear, Tensor]:
    if slope == "tangent":
        return Scale(tangent_slope(step.again, step.entered)), slot
    rise = difference(step.name, step.args, step.kwargs)
    _, steep, at_zero = secant_slope(step.again, step.entered, step.has_tensors, rise)
    return Scale(steep), steep * slot + at_zero


def _affine(step: Step) -> Any:
    name = step.name
    if name.startswith("conv"):
        given = step.given(_TRANSPOSED if name.startswith("conv_transpose") else _CONV)
        weight = given.pop("weight").detach()
        given.pop("bias", None)
        return Conv(step, weight, given)
    if name == "pixel_shuffle":
        return Shuffle(step.given("upscale_factor")["upscale_factor"])
    if name in _EACH or (name == "pad" and not step.given("pad mode value").get("value")):
        return Each(step)
    if name in {"contiguous", "clone"} or (name in _DROPOUTS and not step.given("p training").get("training", True)):
        return "same"
    if name in _ELEMENTWISE:
        return _scaled(step)
    return Pick(step) if name == "getitem" and _behind_rows(step.args[0]) else None


def _scaled(step: Step) -> Scale | None:
    if step.given("other").get("rounding_mode") or (step.name == "batch_norm" and _training(step)):
        return None
    like = step.entered
    if step.name == "batch_norm" or not step.has_tensors:  # one number a channel says it all
        like = like[:1].flatten(2)[..., :1].reshape(1, -1, *[1] * (like.dim() - 2))
    moved = step.again(torch.ones_like(like)) - step.again(torch.zeros_like(like))
    return Scale(moved) if moved.shape == like.shape else None


def _training(step: Step) -> bool:
    return bool(step.given("running_mean running_var weight bias training").get("training", False))


def _behind_rows(index: Any) -> bool:
    whole = isinstance(index, tuple) and len(index) > 0 and index[0] == slice(None)
    return whole and all(isinstance(i, int | slice) for i in index)
