"""Contributions of pairs (in, out) of Linear and convolution layers, and of single frames (sites)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....batch import Batch, python_index
from ....hooks import LayerError
from .derivatives import Derivative, LinearizedTail, Run, gradients, layer_activation, run
from .tail import Tail

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Linear, *CONVOLUTIONS)


Pair = tuple[int, int]


@dataclass(frozen=True)
class Kernels:
    """A Linear or convolution as a table of kernels from input channel i to output channel o."""

    layer: Any
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.layer, WEIGHTED):
            raise LayerError(
                f"layer {self.name} is a {type(self.layer).__name__}; pairs and the 'xinc' rule need a "
                "torch.nn.Linear or a convolution (ConvNd, ConvTransposeNd), because they read its weight."
            )
        if self.layer.weight.is_complex():
            raise LayerError(
                f"layer {self.name} has complex weights; pairs and the 'xinc' rule support real ones. "
                'Use unit="neuron" with the rules tangent or ablation.'
            )

    @property
    def is_conv(self) -> bool:
        """Whether the layer is a convolution."""
        return isinstance(self.layer, CONVOLUTIONS)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of input and output channels."""
        if isinstance(self.layer, nn.Linear):
            return self.layer.in_features, self.layer.out_features
        return int(self.layer.in_channels), int(self.layer.out_channels)

    @property
    def weight(self) -> Tensor:
        """The weight, detached."""
        return self.layer.weight.detach()  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor:
        """The bias, (out,); zeros if the layer has none."""
        bias: Tensor | None = self.layer.bias
        return self.weight.new_zeros(self.shape[1]) if bias is None else bias.detach()

    def bias_map(self, dims: int) -> Tensor:
        """Return the bias with ``dims`` dimensions, (1, out, 1, ...)."""
        return self.bias.reshape(1, -1, *[1] * (dims - 2))

    def check(self, x: Tensor) -> Tensor:
        """Return the layer's input, or raise a LayerError if it has another number of dimensions than the weight."""
        dims = self.layer.weight.dim()
        if x.dim() != dims:
            raise LayerError(
                f"layer {self.name} takes inputs of shape {tuple(x.shape)}; pairs and the 'xinc' rule need "
                f"{'(rows, units)' if not self.is_conv else '(rows, channels, ...) with ' + str(dims) + ' dims'}."
            )
        return x

    def resolve_pairs(self, selector: Pair | Sequence[Pair] | None) -> list[Pair] | None:
        """Return a selector of pairs as a list without negative indices, or None for all pairs."""
        if selector is None:
            return None
        selector = python_index(selector)
        several: list[Any] = selector if isinstance(selector, list) else [selector]
        ins, outs = self.shape
        for pair in several:
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(i, int) for i in pair)):
                raise TypeError(
                    f'neuron_selector {pair!r}: with unit="pair" expected a tuple (in, out) or a list of them.'
                )
            if not (-ins <= pair[0] < ins and -outs <= pair[1] < outs):
                raise IndexError(
                    f"neuron_selector {pair!r} is out of range: the layer has {ins} inputs and {outs} outputs."
                )
        return [(i % ins, j % outs) for i, j in several]

    def outputs(self, x: Tensor, outs: slice) -> Tensor:
        """Return k_io = W_oi * x_i without bias for all i, (rows, in, outs, *space), by one grouped convolution."""
        if not self.is_conv:
            return x[:, :, None] * self.weight.T[:, outs]
        ins, _ = self.shape
        groups = int(self.layer.groups)
        if groups == 1:
            table = self.weight if self._is_transposed else self.weight.transpose(0, 1)  # (in, out, *kernel)
            return self._apply_table(x, table[:, outs])
        result: Tensor | None = None
        for at, o in enumerate(selected := range(*outs.indices(self.shape[1]))):
            inside, kernels = self._group(o)
            output = self._apply_table(x[:, inside], kernels)
            if result is None:
                result = output.new_zeros(x.shape[0], ins, len(selected), *output.shape[3:])
            result[:, inside, at] = output[:, :, 0]
        return x.new_zeros(x.shape[0], ins, 0) if result is None else result

    def _group(self, o: int) -> tuple[slice, Tensor]:
        """Return the inputs of output o's group and their kernels, (inside, 1, *kernel)."""
        ins, outs = self.shape
        groups = int(self.layer.groups)
        group, local = divmod(o, outs // groups)
        inside = slice(group * ins // groups, (group + 1) * ins // groups)
        return inside, self.weight[inside, local, None] if self._is_transposed else self.weight[o][:, None]

    @property
    def _is_transposed(self) -> bool:
        return isinstance(self.layer, nn.modules.conv._ConvTransposeNd)

    def _apply_table(self, x: Tensor, table: Tensor) -> Tensor:
        """Convolve every channel of x with its own kernels (channels, n, *kernel): (rows, channels, n, *space)."""
        channels, n = table.shape[:2]
        weight = table if self._is_transposed else table.reshape(channels * n, 1, *table.shape[2:])
        return self._convolve(x, weight, channels).unflatten(1, (channels, n))  # type: ignore[no-any-return]

    def _convolve(self, x: Tensor, weight: Tensor, groups: int) -> Any:
        """Return the convolution of x without bias, with another weight and number of groups."""
        layer, dims = self.layer, self.layer.weight.dim() - 2
        if self._is_transposed:
            transposed: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
            return transposed(
                x, weight, None, layer.stride, layer.padding, layer.output_padding, groups, layer.dilation
            )
        conv: Any = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        padding = layer.padding
        if layer.padding_mode != "zeros":
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        return conv(x, weight, None, layer.stride, padding, layer.dilation, groups)

    def sum_over_positions(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return Σ_positions g_o k_io, (rows, in, out), with x (rows, in, *space), g (rows, out, *space) a gradient."""
        if not self.is_conv:
            return x[:, :, None] * self.weight.T * gradient[:, None]
        result = x.new_zeros(x.shape[0], *self.shape)
        groups = int(self.layer.groups)
        for r in range(x.shape[0]):
            with torch.enable_grad():
                leaf = self.weight.clone().requires_grad_()
                z = self._convolve(x[r : r + 1], leaf, groups)
                (slope,) = torch.autograd.grad(z, leaf, gradient[r : r + 1])
            sums = (slope * self.weight).flatten(2).sum(2)
            if groups == 1:
                result[r] = sums if self._is_transposed else sums.T
                continue
            for o in range(self.shape[1]):
                inside, _ = self._group(o)
                local = o % (self.shape[1] // groups)
                result[r, inside, o] = sums[inside, local] if self._is_transposed else sums[o]
        return result


def kernels_of(tail: Tail) -> Kernels:
    """Return the tail's layer as a table of kernels."""
    return Kernels(tail.layer, tail.name)


def layer_input(tail: Tail, batch: Batch) -> Tensor:
    """Return the layer's input, (rows, in) or (rows, in, *space)."""
    x = layer_activation(replace(tail, at_input=True), batch)
    return kernels_of(tail).check(x)


def group_by_output(pairs: list[Pair]) -> dict[int, list[tuple[int, int]]]:
    """Return (position in the list, input unit) of every pair, grouped by output unit."""
    by_out: dict[int, list[tuple[int, int]]] = {}
    for at, (i, o) in enumerate(pairs):
        by_out.setdefault(o, []).append((at, i))
    return by_out


def pair_contributions(
    tail: Tail, batch: Batch, selector: Any, derivative: Derivative, per_eval: int | None, with_remainder: bool
) -> Tensor:
    """Return the contributions of pairs: (rows, in, out, *output), or (rows, k, *output) when selected.

    The pair (i, o) is k_io = W_oi * x_i. With a remainder, one more input comes last. It has the bias of each output
    unit, and an equal share of the remainder that arises after the layer.
    """
    kernels = kernels_of(tail)
    ins, outs = kernels.shape
    selected = kernels.resolve_pairs(selector)
    x = layer_input(tail, batch)
    remainder = kernels.bias_map(x.dim()) if with_remainder else None
    tail_run = run(tail.after_layer(), batch, derivative, remainder)
    if tail_run.output[0].numel() <= 2 * outs:
        return _pairs_by_backward(tail, kernels, x, tail_run, selected)
    del tail_run
    linearized = LinearizedTail(tail.after_layer(), batch, derivative, remainder, per_eval)
    if selected is not None:
        return pairs_by_jvp(linearized, kernels, x, selected)
    result = x.new_empty((x.shape[0], ins + with_remainder, outs, *linearized.output_shape))
    for o in range(outs):
        result[:, :ins, o] = linearized.jvp(kernels.outputs(x, slice(o, o + 1))[:, :, 0], o)
    if with_remainder:
        for o, contribution in enumerate(remainder_contributions(linearized, kernels, range(outs))):
            result[:, -1, o] = contribution
    return result


def remainder_contributions(linearized: LinearizedTail, kernels: Kernels, outs: Iterable[int]) -> Iterator[Tensor]:
    """Yield for each output unit the contribution of its bias plus an equal share of the later remainder."""
    everywhere = kernels.bias_map(linearized.activation.dim()).expand_as(linearized.activation)
    if linearized.remainder is None:
        raise RuntimeError("only the secant has a remainder")
    equal_share = (linearized.remainder - linearized.jvp_all(everywhere)) / kernels.shape[1]
    for o in outs:
        yield linearized.jvp(everywhere[:, o : o + 1], o)[:, 0] + equal_share


def pairs_by_jvp(linearized: LinearizedTail, kernels: Kernels, x: Tensor, pairs: list[Pair]) -> Tensor:
    """Return the contributions of some pairs: (rows, k, *output)."""
    result = x.new_empty((x.shape[0], len(pairs), *linearized.output_shape), dtype=linearized.output.dtype)
    for o, members in group_by_output(pairs).items():
        outputs = kernels.outputs(x, slice(o, o + 1))[:, [i for _, i in members], 0]
        result[:, [at for at, _ in members]] = linearized.jvp(outputs, o)
    return result


def _sum_positions(values: Tensor, unit_axis: int) -> Tensor:
    """Return the sum over all axes after that of the units."""
    first = unit_axis + 1
    return values.flatten(first).sum(first) if values.dim() > first else values


def _sum_pairs(kernels: Kernels, x: Tensor, gradient: Tensor, remainder: Tensor | None) -> Tensor:
    """Return Σ gradient · k_io, (rows, in, out); a remainder (rows,) is split as one more input."""
    table = kernels.sum_over_positions(x, gradient)
    if remainder is None:
        return table
    bias_term = kernels.bias * _sum_positions(gradient, 1)
    rest = (remainder - bias_term.sum(1)) / kernels.shape[1]
    return torch.cat([table, (bias_term + rest[:, None])[:, None]], 1)


def _pairs_by_backward(tail: Tail, kernels: Kernels, x: Tensor, tail_run: Run, selected: list[Pair] | None) -> Tensor:
    """Return the contributions of pairs by one backward pass for every output, for few outputs."""
    remainder = tail_run.remainder if selected is None else None
    remainder = None if remainder is None else remainder.detach().reshape(len(x), -1)
    contributions: list[Tensor] = []
    for o, gradient in enumerate(gradients(tail, tail_run.activation, tail_run.output)):
        table = _sum_pairs(kernels, x, gradient, None if remainder is None else remainder[:, o])
        contributions.append(
            table if selected is None else table[:, [i for i, _ in selected], [j for _, j in selected]]
        )
    result = torch.stack(contributions, -1)
    return result.reshape(*result.shape[:-1], *tail_run.output.shape[1:])


class Site(Protocol):
    """Contributions at some fixed rows.

    Units are integers and pairs tuples (in, out). The index after the last unit (or input) is the remainder, if any.
    """

    def maps(self, units: list[Any]) -> Tensor:
        """Return the contributions of some units: (rows, k, *output)."""

    def sums(self, weights: Tensor) -> Tensor | None:
        """Return Σ_output weights · c of every unit, a remainder last, or None if the rule needs maps for these sums.

        Shapes: weights (n, rows, *output), also flattened; the result (n, rows, units) or (n, rows, in, out).
        """


class NeuronSite:
    """Contributions of units under the tangent or the secant."""

    def __init__(self, tail: Tail, batch: Batch, derivative: Derivative, per_eval: int | None) -> None:
        self._linearized = LinearizedTail(tail, batch, derivative, None, per_eval)

    def maps(self, units: list[int]) -> Tensor:
        """See :class:`Site`."""
        linearized, count = self._linearized, self._linearized.activation.shape[1]
        contributions = []
        for u in units:
            if u < count:
                contributions.append(linearized.jvp(linearized.activation[:, u : u + 1], u))
            elif linearized.remainder is not None:
                contributions.append(linearized.remainder[:, None])
        return torch.cat(contributions, 1)

    def sums(self, weights: Tensor) -> Tensor:
        """See :class:`Site`; costs one backward pass for each of the n weights."""
        linearized = self._linearized
        weights = linearized.like_output(weights)
        contributions = linearized.vjp(weights) * linearized.activation
        units = _sum_positions(contributions, 2)
        if linearized.remainder is None:
            return units
        return torch.cat([units, (weights * linearized.remainder).flatten(2).sum(2)[..., None]], 2)


class PairSite:
    """Contributions of pairs (kernels or single weights) under the tangent or the secant."""

    def __init__(
        self, tail: Tail, batch: Batch, derivative: Derivative, per_eval: int | None, with_remainder: bool
    ) -> None:
        self._kernels, self._x = kernels_of(tail), layer_input(tail, batch)
        remainder = self._kernels.bias_map(self._x.dim()) if with_remainder else None
        self._linearized = LinearizedTail(tail.after_layer(), batch, derivative, remainder, per_eval)

    def maps(self, units: list[Pair]) -> Tensor:
        """See :class:`Site`."""
        ins = self._kernels.shape[0]
        if all(i < ins for i, _ in units):
            return pairs_by_jvp(self._linearized, self._kernels, self._x, units)
        outs = dict.fromkeys(o for i, o in units if i == ins)
        remainders = dict(zip(outs, remainder_contributions(self._linearized, self._kernels, outs), strict=True))
        return torch.stack([remainders[o] if i == ins else self.maps([(i, o)])[:, 0] for i, o in units], 1)

    def sums(self, weights: Tensor) -> Tensor:
        """See :class:`Site`; costs one backward pass and one gradient of the layer's weight for each of n."""
        remainder, sums = self._linearized.remainder, []
        for weight in self._linearized.like_output(weights):
            (gradient,) = self._linearized.vjp(weight[None])
            rest = None if remainder is None else (weight * remainder).flatten(1).sum(1)
            sums.append(_sum_pairs(self._kernels, self._x, gradient, rest))
        return torch.stack(sums)


class DirectSite:
    """Contributions of any rule, computed again by every call; weighted sums need all maps."""

    def __init__(self, rule: Any, tail: Tail, batch: Batch, per_eval: int | None, pairs: bool) -> None:
        self._contributions: partial[Tensor] = partial(rule.pairs if pairs else rule.neurons, tail, batch)
        self._per_eval = per_eval

    def maps(self, units: list[Any]) -> Tensor:
        """See :class:`Site`."""
        return self._contributions(units, self._per_eval)

    def sums(self, weights: Tensor) -> None:
        """Return None, because the sums need all maps."""
