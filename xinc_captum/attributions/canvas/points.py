"""Points of one sample as rows: models that map (1, points, dims) to (1, points, channels), as code for SIRENs does."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...batch import Batch, OutputFn, output_tensor, read_output
from ...hooks import ForwardFunc, LayerError, one_tensor
from .rules import Tail
from .rules.tail import are_frames

PROBE_POINTS = 64  # points with which the model is tried


def compose_points(forward_func: ForwardFunc, output_fn: OutputFn | None, inputs: int) -> Callable[..., Tensor]:
    """Return a function from points (points, dims) to outputs (points, ...), which runs the model on (1, points, dims).

    The first ``inputs`` arguments are points, the others are passed unchanged. An output of another shape than
    (1, points, ...) raises a ValueError.
    """

    def by_point(*values: Any) -> Tensor:
        points = len(values[0])
        output = forward_func(*(value[None] for value in values[:inputs]), *values[inputs:])
        tensor = output_tensor(read_output(output, 1, output_fn), 1)
        if tuple(tensor.shape[:2]) != (1, points):
            raise ValueError(
                f"the model returned shape {tuple(tensor.shape)} for inputs of shape (1, {points}, ...); expected "
                f"(1, {points}, ...), one output for each point."
            )
        return tensor[0]

    return by_point


def points_of(batch: Batch, size: Sequence[int], forward_func: ForwardFunc, output_fn: OutputFn | None) -> Batch | None:
    """Return the points of a batch of one sample as rows if they are the pixels of an image of ``size``, else None.

    This is the case if the inputs are (1, points, dims), ``size`` has as many pixels as there are points, and the
    model, called with the first points only, returns one output for each of them: (1, points, ...).

    Raises:
        ValueError: the output at a point depends on the other points, or an additional argument has points too.
    """
    pixels = math.prod(size)
    if batch.rows != 1 or pixels < 2 or any(t.dim() != 3 or t.shape[1] != pixels for t in batch.inputs):
        return None
    few, half = min(pixels, PROBE_POINTS), min(pixels, PROBE_POINTS) // 2
    output = _try_points(batch, few, forward_func, output_fn)
    if output is None or are_frames((pixels, *output.shape[1:]), tuple(size), 1):
        return None
    if any(isinstance(arg, Tensor) and tuple(arg.shape[:2]) == (1, pixels) for arg in batch.args):
        raise ValueError(
            f"additional_forward_args hold a tensor of shape (1, {pixels}, ...), one entry for each point; expected it "
            "among the inputs, which are split by points. Give inputs=(coordinates, more)."
        )
    alone = _try_points(batch, half, forward_func, output_fn)
    bound = torch.finfo(output.dtype).eps ** 0.5 * float(output.nan_to_num(0, 0, 0).abs().max())
    if alone is None or not torch.allclose(alone, output[:half], rtol=0, atol=bound, equal_nan=True):
        raise ValueError(
            f"inputs of shape {tuple(batch.inputs[0].shape)} are {pixels} points of one sample, and the output at a "
            "point depends on the other points or on their number, so they cannot be explained one by one. Use "
            "attribute(), which explains the sample as a whole."
        )
    return replace(batch, inputs=tuple(t[0] for t in batch.inputs), rows=pixels)


def _try_points(batch: Batch, count: int, forward_func: ForwardFunc, output_fn: OutputFn | None) -> Tensor | None:
    """Return the outputs (points, channels) of the first points, or None if the model does not support them."""
    function = compose_points(forward_func, output_fn, len(batch.inputs))
    try:
        with torch.no_grad():
            output = function(*(t[0, :count].clone() for t in batch.inputs), *batch.args)
    except Exception:  # the model may need another number of points; build_canvas() reports errors
        return None
    return output if output.is_floating_point() else None


@dataclass(frozen=True)
class PointTail(Tail):
    """A :class:`Tail` whose rows are the points of one sample: (1, points, units, ...) becomes (points, units, ...)."""

    _flat: dict[bool, bool] = field(default_factory=dict, repr=False, compare=False)  # (points, units) by at_input

    def per_row(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the activation with points first, or raise a LayerError."""
        activation = self.tensor_of_layer(value, batch)
        shape = tuple(activation.shape)
        flat = len(shape) == 2 and shape[0] == batch.rows
        if not flat and (len(shape) < 3 or shape[:2] != (1, batch.rows)):
            raise LayerError(
                f"layer {self.name} returns shape {shape} for {batch.rows} points of one sample; expected (1, "
                f"{batch.rows}, units, ...). Choose a layer at which the points are on the second axis."
            )
        self._flat[self.at_input] = flat
        return self._units_second(activation if flat else activation[0], ())

    def tensor_of_layer(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the layer's tensor; of several, the only one with one sample."""
        return one_tensor(value, lambda: self.name, 1 if isinstance(value, tuple) else None, at_input=self.at_input)

    def to_layer_axes(self, activation: Tensor) -> Tensor:
        """Return the activation with the sample's axis, if the layer has it."""
        by_point = super().to_layer_axes(activation)
        return by_point if self._flat.get(self.at_input) else by_point[None]
