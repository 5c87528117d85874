"""Some rows at a layer, run once and ready to be asked for any unit's part of the output."""

from typing import Any, Protocol

import torch
from torch import Tensor

from ....batch import Batch
from .derivative import Along
from .linearised import Linearised
from .pairs import Pair, behind, kernels_of, layer_input, pushed, slot_shares
from .tail import Tail


class Site(Protocol):
    """Units are numbers, pairs tuples (in, out); one past the last unit (or input) is the slot where there is one."""

    def maps(self, units: list[Any]) -> Tensor:
        """The parts of some units: (rows, k, *left)."""

    by_adjoint: bool
    """Whether :meth:`sums` answers without drawing every map."""

    def sums(self, weights: Tensor) -> Tensor:
        """Σ_left weights · c for every unit at once.

        Args:
            weights: (n, rows, *left).

        Returns:
            (n, rows, units) or (n, rows, in, out), a slot last.
        """


class Neurons:
    """Units under the tangent or the secant."""

    by_adjoint = True

    def __init__(self, tail: Tail, batch: Batch, along: Along, per_eval: int | None) -> None:
        self._made = Linearised(tail, batch, along, None, per_eval)

    def maps(self, units: list[int]) -> Tensor:
        """See :class:`Site`."""
        made, count = self._made, self._made.activation.shape[1]
        parts = []
        for u in units:
            if u < count:
                parts.append(made.push(made.activation[:, u : u + 1], u))
            elif made.slot is not None:
                parts.append(made.slot[:, None])
        return torch.cat(parts, 1)

    def sums(self, weights: Tensor) -> Tensor:
        """See :class:`Site`: one backward pass for each of n."""
        made = self._made
        shares = made.pull(weights) * made.activation
        units = shares.flatten(3).sum(3) if shares.dim() > 3 else shares
        if made.slot is None:
            return units
        return torch.cat([units, (weights * made.slot).flatten(2).sum(2)[..., None]], 2)


class Pairs:
    """Kernels or single weights under the tangent or the secant; the core is what enters the layer."""

    by_adjoint = True

    def __init__(self, tail: Tail, batch: Batch, along: Along, per_eval: int | None, with_slot: bool) -> None:
        self._kernels, self._x = kernels_of(tail), layer_input(tail, batch)
        slot = self._kernels.bias.reshape(1, -1, *[1] * (self._x.dim() - 2)) if with_slot else None
        self._made = Linearised(behind(tail), batch, along, slot, per_eval)

    def maps(self, units: list[Pair]) -> Tensor:
        """See :class:`Site`."""
        ins = self._kernels.shape[0]
        if all(i < ins for i, _ in units):
            return pushed(self._made, self._kernels, self._x, units)
        slots = dict.fromkeys(o for i, o in units if i == ins)
        shares = dict(zip(slots, slot_shares(self._made, self._kernels.bias, list(slots)), strict=True))
        return torch.stack([shares[o] if i == ins else self.maps([(i, o)])[:, 0] for i, o in units], 1)

    def sums(self, weights: Tensor) -> Tensor:
        """See :class:`Site`: one backward pass and one gradient of the weight for each of n."""
        made, (ins, outs) = self._made, self._kernels.shape
        slot = made.slot
        answer = self._x.new_empty(*weights.shape[:2], ins + (slot is not None), outs)
        for at, weight in enumerate(weights):
            gradient = made.pull(weight[None])[0]
            answer[at, :, :ins] = self._kernels.sums(self._x, gradient)
            if slot is not None:
                places = gradient.flatten(2).sum(2) if gradient.dim() > 2 else gradient
                own = self._kernels.bias * places
                rest = (weight * slot).flatten(1).sum(1) - own.sum(1)
                answer[at, :, ins] = own + rest[:, None] / outs
        return answer


class Asked:
    """Any rule, asked anew each time."""

    by_adjoint = False

    def __init__(self, rule: Any, tail: Tail, batch: Batch, per_eval: int | None, pairs: bool) -> None:
        self._rule, self._tail, self._batch, self._per_eval, self._pairs = rule, tail, batch, per_eval, pairs

    def maps(self, units: list[Any]) -> Tensor:
        """See :class:`Site`."""
        ask = self._rule.pairs if self._pairs else self._rule.neurons
        answer: Tensor = ask(self._tail, self._batch, units, self._per_eval)
        return answer

    def sums(self, weights: Tensor) -> Tensor:
        """See :class:`Site`; no rule in general has a short cut."""
        raise NotImplementedError("this rule adds up maps; ask for them")
