"""Pictures to what a classifier makes of them: the linked representation and the scores, in one pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...hooks import (
    ForwardFunc,
    capture,
    layer_name,
    one_tensor,
)
from ...targets import OutputFn, selected
from .pooling import Pool, pooled, pooling_axis

Preprocess = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Encoding:
    """The classifier's half of the loop, for the rows of one call.

    Args:
        forward_func: the model, or any function around it.
        call: the same as it is to be called now (autocast, ordinary weights).
        layer: whose activation is linked.
        at_input: what enters the layer instead of what leaves it.
        preprocess: the model's own normalisation of pictures in [0, 1].
        output_fn: picks the scores out of the output.
        pool: how maps and tokens become one row.
        batch: the call's rows; pictures take the dtype and device of its inputs.
        units: of the link, which the representation must have.
        unit_axis: which axis of the activation holds the units; None determines it.
    """

    forward_func: ForwardFunc
    call: ForwardFunc
    layer: nn.Module
    at_input: bool
    preprocess: Preprocess | None
    output_fn: OutputFn | None
    pool: Pool
    batch: Batch
    units: int
    unit_axis: int | None = None

    def __call__(self, pictures: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, C, H, W) of rows (n,) to representations (n, units) and scores (n, K)."""
        activation, axis, scores = self._seen(pictures, rows)
        return self._flat(activation, axis), scores

    def of_inputs(self) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Representations and scores of the inputs, and the shape that the layer gives a row."""
        with torch.no_grad():
            activation, axis, scores = self._seen(self.batch.inputs[0], self.rows)
            return self._flat(activation, axis).detach(), scores, tuple(activation.shape[1:])

    @property
    def rows(self) -> Tensor:
        """Every row of the call, (N,)."""
        return torch.arange(self.batch.rows, device=self.batch.inputs[0].device)

    def slopes(self, origin: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        r"""How the lead of a class over another goes with each unit at the inputs, (n, units), and the lead, (n,).

        A unit of a mean-pooled map moves at every place at once.
        """
        with torch.enable_grad():
            activation, axis, scores = self._seen(self.batch.inputs[0], self.rows)
            lead = _at(scores, target) - _at(scores, origin)
            (slope,) = torch.autograd.grad(lead.sum(), activation, allow_unused=True, materialize_grads=True)
            flat = self._flat(activation, axis)
            (weight,) = torch.autograd.grad(flat.sum(), activation)
        # The lift of a change of r to the activation is the right inverse of pooling, which scales by 1/weight.
        return self._flat(slope, axis) / self._flat(weight, axis), lead.detach()

    def _seen(self, pictures: Tensor, rows: Tensor) -> tuple[Tensor, int | None, Tensor]:
        batch = self.batch.take(rows.to(self.batch.inputs[0].device)) if self.batch.args else self.batch
        like = self.batch.inputs[0]
        shown = pictures.to(like.device, like.dtype)
        shown = self.preprocess(shown) if self.preprocess is not None else shown
        with capture(self.forward_func, self.layer, at_input=self.at_input) as captured:
            output = self.call(shown, *batch.args)
        activation = one_tensor(captured[self.layer], self._name, len(shown), at_input=self.at_input)
        scores = selected(output, Batch((shown,), rows=len(shown)), self.output_fn)
        axis = pooling_axis(
            activation,
            self.layer,
            self.forward_func,
            self.pool,
            entered=tuple(shown.shape),
            asked=self.unit_axis,
            at_input=self.at_input,
        )
        return activation, axis, scores.reshape(len(scores), -1)

    def _flat(self, activation: Tensor, axis: int | None) -> Tensor:
        r = pooled(activation, self.pool, axis)
        if r.shape[1] != self.units:
            raise ValueError(
                f"layer {self._name()} gives {r.shape[1]} units (shape {tuple(activation.shape)} pooled by "
                f"{self.pool!r}) at its {'input' if self.at_input else 'output'}, but the link is of {self.units}; "
                "give the layer, attribute_to_neuron_input= (True: what enters it, False: what leaves it) and pool= of "
                "the pairs that the link was fitted to, or fit it with manifest=pairs.manifest, which says all three."
            )
        return r

    def _name(self) -> str:
        return layer_name(self.forward_func, self.layer)


def _at(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]
