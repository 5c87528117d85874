"""Contributions by backward, JVP or shared pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ....batch import Batch, chunks
from ....hooks import LayerError
from ....hooks.gradients import JacobianVectorProduct, UnsupportedError
from ....selectors import (
    Selector,
    list_units,
    replace_unit,
    select,
)
from .chain import Chain, Slope, chain
from .secant_tensor import Carried
from .tail import Tail
from .trace import GradModes, Trace, traced


@dataclass(frozen=True)
class Along:
    """Which derivative.

    Attributes:
        slope: its name.
        start: what is put in at the layer, given the activation and what of it no unit holds (None: nothing).
        finish: from what arrives to the output and what of it no unit holds (None: not asked).
    """

    slope: Slope
    start: Callable[[Tensor, Tensor | None], Tensor]
    finish: Callable[[Tensor], tuple[Tensor, Tensor | None]]


class Run(NamedTuple):
    """One run of a tail.

    Attributes:
        activation: a leaf, (rows, units, ...).
        output: in its graph, (rows, *left).
        slot: what of the output no unit holds; None where nobody asked.
        switches_gradients: the model switches gradients off or on somewhere inside.
    """

    activation: Tensor
    output: Tensor
    slot: Tensor | None
    switches_gradients: bool


def run(tail: Tail, batch: Batch, along: Along, slot: Tensor | None = None) -> Run:
    """Run rows with ``start`` put in at the layer and ``finish`` taken at the output."""
    if tail.together is not None and slot is None:
        shared: Run = tail.together.run(tail, batch, along)
        return shared
    leaves: list[Tensor] = []

    def begin(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return along.start(leaves[0].clone(), slot)

    with GradModes() as modes:
        output, arrived = along.finish(tail.edited(batch, begin))
    if not output.requires_grad:
        raise independent(tail)
    return Run(leaves[0], output, arrived, modes.toggled)


def independent(tail: Tail) -> LayerError:
    """The error for a layer that leads nowhere."""
    return LayerError(
        f"the output does not depend on layer {tail.name} (no gradient flows between them); choose a layer that "
        "leads to the selected target. Where it does, remove torch.no_grad(), torch.inference_mode() and int8 modules "
        'from the forward function, or give rule="ablation", which needs no gradients.'
    )


def by_backward(tail: Tail, activation: Tensor, output: Tensor, selector: Selector) -> Tensor:
    """c_u from one backward pass for every output: (rows, k, *left)."""
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    whole = select(activation.detach(), selector)
    shares = whole.new_empty((*whole.shape, flat.shape[1]))
    for o, gradient in enumerate(gradients(tail, activation, flat, keep=tail.together is not None)):
        shares[..., o] = select(activation.detach() * gradient, selector)
    return shares.reshape(*whole.shape, *output.shape[1:])


def gradients(tail: Tail, activation: Tensor, flat: Tensor, keep: bool = False) -> Iterator[Tensor]:
    """∂y_o/∂a for every column o of (rows, outputs); the graph is freed at the end unless it is kept."""
    last = flat.shape[1] - 1
    for o in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(
            flat[:, o].sum(), activation, retain_graph=keep or o < last, allow_unused=True
        )
        if gradient is None:
            raise independent(tail)
        yield gradient


def tail_activation(tail: Tail, batch: Batch) -> Tensor:
    """The activation alone, outside any graph."""
    kept: list[Tensor] = []

    def keep(activation: Tensor) -> Tensor:
        kept.append(activation.detach().clone())
        return activation

    with torch.no_grad():
        tail.edited(batch, keep)
    return kept[0]


class NoForwardError(RuntimeError):
    """The tail has no derivative that runs forward."""


class Push:
    """(k, rows, *activation) ↦ (k, rows, *left) by the derivative of a tail at some rows.

    The backward pass is transposed; where that is not differentiable, rows are expanded and run in forward mode; what
    has no forward mode either is left to one backward pass for every output.

    Args:
        tail: from the layer on.
        batch: the rows.
        along: which derivative.
        ran: these rows' run.
    """

    def __init__(self, tail: Tail, batch: Batch, along: Along, ran: Run) -> None:
        self._tail, self._batch, self._along, self._ran = tail, batch, along, ran
        self._expands = not ran.switches_gradients  # forward mode would walk through, backward passes do not
        self._forward: JacobianVectorProduct | None = None
        with suppress(UnsupportedError):
            self._forward = JacobianVectorProduct(ran.activation, ran.output)

    def __call__(self, parts: Tensor) -> Tensor:
        """Any tail."""
        try:
            return self.quick(parts)
        except NoForwardError:
            return self._backward(parts)

    def quick(self, parts: Tensor) -> Tensor:
        """Without passes for single outputs.

        Raises:
            NoForwardError: there is no other way.
        """
        if self._forward is not None:
            try:
                return self._forward(parts)
            except UnsupportedError:
                self._forward = None
        if not self._expands:
            raise NoForwardError
        try:
            return self._expanded(parts)
        except NotImplementedError as error:  # an operation without a forward-mode derivative
            self._expands = False
            raise NoForwardError from error

    def _expanded(self, parts: Tensor) -> Tensor:
        """Forward mode over copies of the rows, each with one part as its tangent."""

        def begin(activation: Tensor) -> Tensor:
            return self._along.start(forward_ad.make_dual(activation.detach(), parts.flatten(0, 1)), None)

        with torch.no_grad(), forward_ad.dual_level():
            dual, _ = self._along.finish(self._tail.edited(self._batch.repeat(len(parts)), begin))
            tangent = forward_ad.unpack_dual(dual).tangent
            tangent = torch.zeros_like(dual) if tangent is None else tangent
        return tangent.reshape(*parts.shape[:2], *tangent.shape[1:])

    def _backward(self, parts: Tensor) -> Tensor:
        output = self._ran.output
        flat = output.flatten(1) if output.dim() > 1 else output[:, None]
        answer = parts.new_empty(*parts.shape[:2], flat.shape[1])
        for o, gradient in enumerate(gradients(self._tail, self._ran.activation, flat, keep=True)):
            answer[..., o] = (parts * gradient).flatten(2).sum(2)
        return answer.reshape(*parts.shape[:2], *output.shape[1:])


def contributions(
    tail: Tail, batch: Batch, selector: Selector, along: Along, per_eval: int | None
) -> tuple[Tensor, Tensor | None]:
    """c_u = a_u · ∂y/∂a_u for every selected unit and every output, (rows, k, *left), and the slot (rows, *left).

    One backward pass per output serves all units; one pushed part per unit serves all outputs. The cheaper way is
    taken, and a channel of a convolutional tail is pushed alone until a convolution mixes it.
    """
    ran = run(tail, batch, along)
    shares = _shares(tail, batch, selector, along, per_eval, ran)
    if tail.together is not None and along.slope == "secant" and selector is None:
        return shares, ran.output.detach() - shares.sum(1)  # a shared run carries no slot but the first one
    return shares, ran.slot


def _shares(tail: Tail, batch: Batch, selector: Selector, along: Along, per_eval: int | None, ran: Run) -> Tensor:
    activation, output = ran.activation, ran.output
    singles = list_units(activation, selector)
    if output[0].numel() <= 2 * len(singles):
        return by_backward(tail, activation, output, selector)
    if all(isinstance(one, int) for one in singles) and activation.dim() > 2:
        made = chain(tail, batch, along.slope)
        if made is not None:
            a = made.activation
            units = [int(one) % a.shape[1] for one in singles]  # type: ignore[arg-type]
            return torch.cat([made.carry(a[:, u : u + 1], u) for u in units], 1)
    push, a = Push(tail, batch, along, ran), activation.detach()
    zero = a.new_zeros(())
    shares = a.new_empty((len(singles), *output.shape), dtype=output.dtype)
    try:
        for first, last in chunks(len(singles), per_eval or len(singles)):
            shares[first:last] = push.quick(
                torch.stack([a - replace_unit(a, one, zero) for one in singles[first:last]])
            )
    except NoForwardError:
        return by_backward(tail, activation, output, selector)
    return shares.movedim(0, 1)


class Linearised:
    """The derivative of a tail at some rows, kept for many questions.

    Args:
        tail: from the layer's output (or input) on.
        batch: the rows.
        along: which derivative.
        slot: at the layer, what no unit holds.
        per_eval: maps that are pushed at once.

    Attributes:
        activation: at the layer, (rows, units, ...).
        output: (rows, *left).
        slot: what arrives and belongs to no unit, (rows, *left); None under the tangent.
    """

    def __init__(
        self, tail: Tail, batch: Batch, along: Along, slot: Tensor | None = None, per_eval: int | None = None
    ) -> None:
        self._tail, self._batch, self._along, self._start = tail, batch, along, slot
        self._per_eval = max(1, per_eval or 1)
        self._chain: Chain | None = chain(tail, batch, along.slope, slot)
        seen = self._graph if self._chain is None else self._chain
        self.activation, self.output, self.slot = seen.activation.detach(), seen.output.detach(), seen.slot

    @cached_property
    def _graph(self) -> Run:
        alone = replace(self._tail, together=None)  # frames that are no chain are run for each layer
        return run(alone, self._batch, self._along, self._start)

    @cached_property
    def _push(self) -> Push:
        return Push(self._tail, self._batch, self._along, self._graph)

    @property
    def left(self) -> tuple[int, ...]:
        """Dims of one row of the output."""
        return tuple(self.output.shape[1:])

    def push(self, maps: Tensor, channel: int) -> Tensor:
        """(rows, k, *space) in one channel of the layer → (rows, k, *left)."""
        answer = maps.new_empty((*maps.shape[:2], *self.left), dtype=self.output.dtype)
        for first, last in chunks(maps.shape[1], self._per_eval):
            some = maps[:, first:last]
            if self._chain is not None:
                answer[:, first:last] = self._chain.carry(some, channel)
                continue
            parts = self.activation.new_zeros((last - first, *self.activation.shape))
            parts[:, :, channel] = some.movedim(1, 0)
            answer[:, first:last] = self._push(parts).movedim(0, 1)
        return answer

    def push_all(self, parts: Tensor) -> Tensor:
        """(rows, *activation) of parts in every channel → (rows, *left)."""
        if self._chain is not None:
            return self._chain.carry_all(parts)
        return self._push(parts[None])[0]

    def pull(self, weights: Tensor) -> Tensor:
        """Gradient of Σ weights · output at the layer: (n, rows, *left) → (n, rows, *activation)."""
        graph = self._graph
        return torch.stack(
            [
                torch.autograd.grad(graph.output, graph.activation, w, retain_graph=True, materialize_grads=True)[0]
                for w in weights
            ]
        )


class Together:
    """The last recorded forward pass; every tail that was given reads its own part off it.

    Args:
        tails: of one model, whose rows are cut alike.
    """

    def __init__(self, tails: Sequence[Tail]) -> None:
        self._tails = list(tails)
        self._runs: tuple[Any, dict[Any, Run]] = (None, {})
        self._traces: tuple[Any, dict[Any, Trace]] = (None, {})

    def run(self, tail: Tail, batch: Batch, along: Along) -> Run:
        """A tail's part of a run with its gradients; what no unit holds is left to who knows the units."""
        key = (batch.start, batch.rows, along)
        if self._runs[0] != key:
            self._runs = (None, {})  # make room before the next graph grows
            self._runs = (key, self._recorded(batch, along))
        ran = self._runs[1][tail.place]
        if not ran.output.requires_grad:
            raise independent(tail)
        return ran

    def trace(self, tail: Tail, batch: Batch) -> Trace | None:
        """A tail's part of a chain, or None where it is not in the common one."""
        key = (batch.start, batch.rows)
        if self._traces[0] != key:
            self._traces = (None, {})
            self._traces = (key, traced(self._tails, batch))
        return self._traces[1].get(tail.place)

    def _recorded(self, batch: Batch, along: Along) -> dict[Any, Run]:
        nodes: dict[Any, Tensor] = {}

        def beginning(tail: Tail) -> Any:
            def begin(activation: Tensor) -> Tensor:
                if isinstance(activation, Carried):
                    nodes[tail.place] = activation.value
                    return activation.copied()
                node = activation if activation.requires_grad else activation.detach().requires_grad_()
                nodes[tail.place] = node
                return along.start(node.clone(), None)

            return begin

        with GradModes(), ExitStack() as stack:
            for tail in self._tails:
                stack.enter_context(tail.patched(batch, beginning(tail)))
            output, _ = along.finish(self._tails[0].output(batch))
        return {place: Run(node, output, None, True) for place, node in nodes.items()}
