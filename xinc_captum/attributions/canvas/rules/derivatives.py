"""Contributions of units by backward passes, Jacobian-vector products (JVP) or a pass shared by several layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ....batch import Batch, Selector, chunks, list_units, replace_unit, select
from ....hooks import JacobianVectorProduct, LayerError, UnsupportedError
from .chain import Chain, Slope, Trace, chain, trace_layers
from .secant_tensor import SecantTensor
from .tail import GradModes, Tail


@dataclass(frozen=True)
class Derivative:
    """The derivative that a rule uses."""

    slope: Slope
    # Maps the activation and its remainder (None is zero) to the value that replaces the activation in the model.
    start: Callable[[Tensor, Tensor | None], Tensor]
    # Maps the model's output to the output tensor and its remainder (None if the rule has none).
    finish: Callable[[Tensor], tuple[Tensor, Tensor | None]]


class Run(NamedTuple):
    """One forward pass of a tail."""

    activation: Tensor  # a leaf of the graph, (rows, units, ...)
    output: Tensor  # in the graph of the activation, (rows, *output)
    remainder: Tensor | None  # the part of the output that belongs to no unit; None if it is not computed
    switches_gradients: bool  # whether the model turns gradients off or on during the pass


def run(tail: Tail, batch: Batch, derivative: Derivative, remainder: Tensor | None = None) -> Run:
    """Run rows with ``derivative.start`` applied at the layer and ``derivative.finish`` at the output."""
    if tail.shared_pass is not None and remainder is None:
        return tail.shared_pass.run(tail, batch, derivative)  # type: ignore[no-any-return]
    leaves: list[Tensor] = []

    def begin(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return derivative.start(leaves[0].clone(), remainder)

    with GradModes() as modes:
        output, arrived = derivative.finish(tail.output_with(batch, begin))
    if not output.requires_grad:
        raise no_gradient_error(tail)
    return Run(leaves[0], output, arrived, modes.toggled)


def no_gradient_error(tail: Tail) -> LayerError:
    """Return the error for a layer on which the output does not depend."""
    return LayerError(
        f"the output does not depend on layer {tail.name} (no gradient flows between them); choose a layer that "
        "leads to the selected target. If it does, remove torch.no_grad(), torch.inference_mode() and int8 modules "
        'from the forward function, or give rule="ablation", which needs no gradients.'
    )


def backward_contributions(tail: Tail, activation: Tensor, output: Tensor, selector: Selector) -> Tensor:
    """Return c_u by one backward pass for every output: (rows, k, *output)."""
    a = activation.detach()
    selected = select(a, selector)
    contributions = selected.new_empty((*selected.shape, output[0].numel()))
    for o, gradient in enumerate(gradients(tail, activation, output, keep=tail.shared_pass is not None)):
        contributions[..., o] = select(a * gradient, selector)
    return contributions.reshape(*selected.shape, *output.shape[1:])


def gradients(tail: Tail, activation: Tensor, output: Tensor, keep: bool = False) -> Iterator[Tensor]:
    """Yield ∂y_o/∂a for every output o of (rows, *output); the graph is freed at the end unless ``keep`` is set."""
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    for o in range(flat.shape[1]):
        keeps_graph = keep or o < flat.shape[1] - 1
        (gradient,) = torch.autograd.grad(flat[:, o].sum(), activation, retain_graph=keeps_graph, allow_unused=True)
        if gradient is None:
            raise no_gradient_error(tail)
        yield gradient


def layer_activation(tail: Tail, batch: Batch) -> Tensor:
    """Return the layer's activation without a graph."""
    activations: list[Tensor] = []

    def record(activation: Tensor) -> Tensor:
        activations.append(activation.detach().clone())
        return activation

    with torch.no_grad():
        tail.output_with(batch, record)
    return activations[0]


class NoForwardModeError(RuntimeError):
    """The tail has an operation without a forward-mode derivative."""


class JVP:
    """Jacobian-vector product of a tail at some rows: (k, rows, *activation) ↦ (k, rows, *output).

    It is computed by double backward. If the backward pass is not differentiable, rows are repeated and run in forward
    mode. If an operation has no forward-mode derivative either, one backward pass for every output is used.
    """

    def __init__(self, tail: Tail, batch: Batch, derivative: Derivative, tail_run: Run) -> None:
        self._tail, self._batch, self._derivative, self._run = tail, batch, derivative, tail_run
        self._expands = not tail_run.switches_gradients  # forward mode ignores no_grad blocks, backward passes do not
        self._forward: JacobianVectorProduct | None = None
        with suppress(UnsupportedError):
            self._forward = JacobianVectorProduct(tail_run.activation, tail_run.output)

    def __call__(self, tangents: Tensor) -> Tensor:
        """Return the product, by whichever method the tail supports."""
        try:
            return self.forward_only(tangents)
        except NoForwardModeError:
            return self._backward(tangents)

    def forward_only(self, tangents: Tensor) -> Tensor:
        """Return the product without backward passes for single outputs, or raise a NoForwardModeError."""
        if self._forward is not None:
            try:
                return self._forward(tangents)
            except UnsupportedError:
                self._forward = None
        if not self._expands:
            raise NoForwardModeError
        try:
            return self._forward_mode(tangents)
        except NotImplementedError as error:  # an operation without a forward-mode derivative
            self._expands = False
            raise NoForwardModeError from error

    def _forward_mode(self, tangents: Tensor) -> Tensor:
        """Return the product by forward mode over copies of the rows, one for each tangent."""

        def begin(activation: Tensor) -> Tensor:
            return self._derivative.start(forward_ad.make_dual(activation.detach(), tangents.flatten(0, 1)), None)

        with torch.no_grad(), forward_ad.dual_level():
            dual, _ = self._derivative.finish(self._tail.output_with(self._batch.repeat(len(tangents)), begin))
            tangent = forward_ad.unpack_dual(dual).tangent
            tangent = torch.zeros_like(dual) if tangent is None else tangent
        return tangent.reshape(*tangents.shape[:2], *tangent.shape[1:])

    def _backward(self, tangents: Tensor) -> Tensor:
        output = self._run.output
        result = tangents.new_empty(*tangents.shape[:2], output[0].numel())
        for o, gradient in enumerate(gradients(self._tail, self._run.activation, output, keep=True)):
            result[..., o] = (tangents * gradient).flatten(2).sum(2)
        return result.reshape(*tangents.shape[:2], *output.shape[1:])


def unit_contributions(
    tail: Tail, batch: Batch, selector: Selector, derivative: Derivative, per_eval: int | None, tail_run: Run
) -> Tensor:
    """Return c_u = a_u · ∂y/∂a_u of every selected unit, (rows, k, *output); ``tail_run`` is their forward pass.

    One backward pass for each output computes all units; one JVP for each unit computes all outputs. The cheaper way is
    used. In a chain of convolutions a unit's channel is computed alone up to the convolution that mixes it with others.
    """
    activation, output = tail_run.activation, tail_run.output
    units = list_units(activation, selector)
    if output[0].numel() <= 2 * len(units):
        return backward_contributions(tail, activation, output, selector)
    if all(isinstance(unit, int) for unit in units) and activation.dim() > 2:
        linear_chain = chain(tail, batch, derivative.slope)
        if linear_chain is not None:
            a = linear_chain.activation
            indices = [int(unit) % a.shape[1] for unit in units]  # type: ignore[arg-type]
            return torch.cat([linear_chain.jvp(a[:, u : u + 1], u) for u in indices], 1)
    jvp, a = JVP(tail, batch, derivative, tail_run), activation.detach()
    zero = a.new_zeros(())
    contributions = a.new_empty((len(units), *output.shape), dtype=output.dtype)
    try:
        for first, last in chunks(len(units), per_eval or len(units)):
            contributions[first:last] = jvp.forward_only(
                torch.stack([a - replace_unit(a, unit, zero) for unit in units[first:last]])
            )
    except NoForwardModeError:
        return backward_contributions(tail, activation, output, selector)
    return contributions.movedim(0, 1)


class LinearizedTail:
    """A tail linearized at some rows, for many products with its Jacobian, ``per_eval`` maps at once.

    The argument ``remainder`` is the part of the layer's activation that belongs to no unit. The attribute of this name
    is that part of the output, (rows, *output), or None under the tangent.
    """

    def __init__(
        self,
        tail: Tail,
        batch: Batch,
        derivative: Derivative,
        remainder: Tensor | None = None,
        per_eval: int | None = None,
    ) -> None:
        self._tail, self._batch, self._derivative, self._start = tail, batch, derivative, remainder
        self._per_eval = max(1, per_eval or 1)
        self._chain: Chain | None = chain(tail, batch, derivative.slope, remainder)
        source = self._graph if self._chain is None else self._chain
        self.activation, self.output = source.activation.detach(), source.output.detach()
        self.remainder, self.output_shape = source.remainder, tuple(source.output.shape[1:])

    @cached_property
    def _graph(self) -> Run:
        alone = replace(self._tail, shared_pass=None)  # only chains are shared between layers
        return run(alone, self._batch, self._derivative, self._start)

    @cached_property
    def _jvp(self) -> JVP:
        return JVP(self._tail, self._batch, self._derivative, self._graph)

    def like_output(self, weights: Tensor) -> Tensor:
        """Return weights (n, rows, ...) as (n, rows, *output), with the output's dtype and device."""
        return weights.to(self.output).reshape(*weights.shape[:2], *self.output_shape)

    def jvp(self, maps: Tensor, channel: int) -> Tensor:
        """Return the JVP of maps in one channel of the layer: (rows, k, *space) → (rows, k, *output)."""
        result = maps.new_empty((*maps.shape[:2], *self.output_shape), dtype=self.output.dtype)
        for first, last in chunks(maps.shape[1], self._per_eval):
            chunk = maps[:, first:last]
            if self._chain is not None:
                result[:, first:last] = self._chain.jvp(chunk, channel)
                continue
            tangents = self.activation.new_zeros((last - first, *self.activation.shape))
            tangents[:, :, channel] = chunk.movedim(1, 0)
            result[:, first:last] = self._jvp(tangents).movedim(0, 1)
        return result

    def jvp_all(self, maps: Tensor) -> Tensor:
        """Return the JVP of maps in every channel: (rows, *activation) → (rows, *output)."""
        if self._chain is not None:
            return self._chain.jvp_all(maps)
        return self._jvp(maps[None])[0]

    def vjp(self, weights: Tensor) -> Tensor:
        """Return the gradients of Σ weights · output at the layer: (n, rows, *output) → (n, rows, *activation)."""
        y, a = self._graph.output, self._graph.activation
        options = {"retain_graph": True, "materialize_grads": True}
        return torch.stack([torch.autograd.grad(y, a, weight, **options)[0] for weight in weights])


class SharedPass:
    """The last forward pass of one model, shared by the layers of ``tails``, which run on the same chunks of rows."""

    def __init__(self, tails: Sequence[Tail]) -> None:
        self._tails = list(tails)
        self._runs: tuple[Any, dict[Any, Run]] = (None, {})
        self._traces: tuple[Any, dict[Any, Trace]] = (None, {})

    def run(self, tail: Tail, batch: Batch, derivative: Derivative) -> Run:
        """Return the pass from a tail's layer on, with gradients and without a remainder."""
        key = (batch.start, batch.rows, derivative)
        if self._runs[0] != key:
            self._runs = (None, {})  # free the last graph before the next one is built
            self._runs = (key, self._record(batch, derivative))
        tail_run = self._runs[1][tail.position]
        if not tail_run.output.requires_grad:
            raise no_gradient_error(tail)
        return tail_run

    def trace(self, tail: Tail, batch: Batch) -> Trace | None:
        """Return the chain from a tail's layer on, or None if the layer is not on the common chain."""
        key = (batch.start, batch.rows)
        if self._traces[0] != key:
            self._traces = (None, {})
            self._traces = (key, trace_layers(self._tails, batch))
        return self._traces[1].get(tail.position)

    def _record(self, batch: Batch, derivative: Derivative) -> dict[Any, Run]:
        nodes: dict[Any, Tensor] = {}

        def begin(position: Any, activation: Tensor) -> Tensor:
            if isinstance(activation, SecantTensor):
                nodes[position] = activation.value
                return activation.copy()
            nodes[position] = activation if activation.requires_grad else activation.detach().requires_grad_()
            return derivative.start(nodes[position].clone(), None)

        with GradModes(), ExitStack() as stack:
            for tail in self._tails:
                stack.enter_context(tail.patch_layer(batch, partial(begin, tail.position)))
            output, _ = derivative.finish(self._tails[0].output(batch))
        return {position: Run(node, output, None, True) for position, node in nodes.items()}
