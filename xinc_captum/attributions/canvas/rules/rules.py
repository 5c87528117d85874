"""The Rule protocol, the rules Tangent, Secant and Ablation, and the chunk sizes that they need."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from ....batch import Batch, Selector, chunks, list_units, random_generator, replace_unit
from ...base import shares_statistics
from . import secant_tensor
from .derivatives import Derivative, layer_activation, run, unit_contributions
from .kernels import DirectSite, NeuronSite, Pair, PairSite, Site, kernels_of, layer_input, pair_contributions
from .tail import Footprint, Tail, measure
from .xinc import Xinc

Baselines = float | Literal["mean", "resample"] | Tensor


@dataclass(frozen=True)
class Ablation:
    r"""The change of the output when one unit is set to its baseline.

    .. math:: c_u = y(a) - y(a \text{ with } a_u := b_u)

    Symbols: a the activation, b the baseline. This is the ground truth of a contribution *for that baseline*: rankings
    under zero and mean baselines can disagree completely.

    Args:
        baselines: a number, "mean", "resample", or a tensor that broadcasts to (rows, units, ...). "mean" is the unit's
            mean over all samples, for each position; for a single sample, over its positions (the dimensions after the
            units). "resample" is the unit's value in another sample: the samples form one random cycle.
        seed: for "resample".

    Raises:
        ValueError: another string, "resample" of one sample, or "mean" of one sample whose units have one position.

    Source: the perturbation reference of Padmanabhan et al. (CVPR 2024); Bau et al. 2020 for unit ablation.

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> NeuronCanvas(model, "1", rule=Ablation("mean")).attribute(torch.rand(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    baselines: Baselines = 0.0
    seed: int = 0
    _donors: tuple[Batch, Tensor] | None = field(default=None, repr=False)

    remainders = 0

    def __post_init__(self) -> None:
        if isinstance(self.baselines, str) and self.baselines not in {"mean", "resample"}:
            raise ValueError(f'baselines={self.baselines!r}; expected a number, "mean", "resample" or a tensor.')

    def prepare(self, tail: Tail, batch: Batch, max_rows: int) -> "Ablation":
        """Return the rule with a baseline computed from the whole batch, so that all chunks use the same."""
        if not isinstance(self.baselines, str):
            return self
        if self.baselines == "mean":
            return replace(self, baselines=_mean_baseline(tail, batch, max_rows))
        if batch.rows == 1:
            raise ValueError(
                'baselines="resample" takes the value of each unit from another sample, and the batch has only one; '
                'give at least two samples, or baselines=0.0, "mean" or a tensor.'
            )
        device = batch.inputs[0].device
        generator = random_generator(self.seed, device)
        order = torch.randperm(batch.rows, generator=generator, device=device)
        donors = torch.empty_like(order)
        donors[order] = order.roll(-1)  # one cycle through all samples
        return replace(self, _donors=(batch, donors))

    def baseline(self, tail: Tail, batch: Batch, activation: Tensor) -> Tensor:
        """Return the baseline of these rows, broadcastable to their activation."""
        if self._donors is not None:
            full_batch, donors = self._donors
            return layer_activation(tail, full_batch.take(donors[batch.start : batch.start + batch.rows]))
        if not isinstance(self.baselines, Tensor):
            return activation.new_full((), float(self.baselines))
        baseline = self.baselines.to(activation)
        if baseline.dim() == activation.dim() and baseline.shape[0] > 1:
            baseline = baseline[batch.start : batch.start + batch.rows]
        try:
            return baseline.expand_as(activation)
        except RuntimeError as error:
            raise ValueError(
                f"baselines has shape {tuple(self.baselines.shape)}; expected one that broadcasts to the activation's "
                f"{tuple(activation.shape)} at layer {tail.name}."
            ) from error

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """Return the contributions of units, (rows, k, *output)."""
        activation = layer_activation(tail, batch)
        baseline = self.baseline(tail, batch, activation)
        units = list_units(activation, selector)
        edits = [partial(replace_unit, activation, unit, baseline) for unit in units]
        return self._differences(tail, batch, edits, per_eval or 1)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """Return the change of y when W_ji * (x_i − b_i) is removed from z_j; shapes as in :meth:`Rule.pairs`."""
        kernels, after = kernels_of(tail), tail.after_layer()
        ins, outs = kernels.shape
        selected = kernels.resolve_pairs(selector)
        pairs = selected if selected is not None else [(i, j) for j in range(outs) for i in range(ins)]
        x = layer_input(tail, batch)
        removed = x - self.baseline(replace(tail, at_input=True), batch, x)
        z = layer_activation(after, batch)
        outputs: dict[int, Tensor] = {}

        def edit(i: int, j: int) -> Tensor:
            if j not in outputs:  # all inputs of one output come from one grouped convolution
                outputs.clear()
                outputs[j] = kernels.outputs(removed, slice(j, j + 1))[:, :, 0]
            new = z.clone()
            new[:, j] -= outputs[j][:, i]
            return new

        contributions = self._differences(after, batch, [partial(edit, *pair) for pair in pairs], per_eval or 1)
        return contributions if selected is not None else contributions.unflatten(1, (outs, ins)).transpose(1, 2)

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """Return the contributions at these rows, computed again by every call."""
        return DirectSite(self, tail, batch, per_eval, pairs)

    def _differences(self, tail: Tail, batch: Batch, edits: list[partial[Tensor]], per_eval: int) -> Tensor:
        with torch.no_grad():
            output = tail.output(batch)
            contributions = output.new_empty((len(edits), *output.shape))
            for first, last in chunks(len(edits), per_eval):
                edited = torch.cat([edit() for edit in edits[first:last]])
                without = tail.output_with(batch.repeat(last - first), _replace_by(edited))
                contributions[first:last] = output - without.reshape(last - first, *output.shape)
        return contributions.movedim(0, 1)

    def total(self, tail: Tail, batch: Batch) -> Tensor:
        """Return the change when the whole layer is at its baseline; units sum to it only if they do not interact."""
        with torch.no_grad():
            activation = layer_activation(tail, batch)
            at_baseline = self.baseline(tail, batch, activation).expand_as(activation)
            without: Tensor = tail.output_with(batch, _replace_by(at_baseline.clone()))
            return tail.output(batch) - without


def _replace_by(new: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _old: new


def _mean_baseline(tail: Tail, batch: Batch, max_rows: int) -> Tensor:
    """Return the mean over samples, (1, units, ...), or over a single sample's positions, (1, units, 1, ...)."""
    if batch.rows == 1:
        activation = layer_activation(tail, batch)
        positions = tuple(range(2, activation.dim() - tail.is_complex))
        if activation[0, 0].numel() == 1 + tail.is_complex:
            raise ValueError(
                f'baselines="mean" of a single sample is the mean over the positions of each unit, and layer '
                f"{tail.name} has shape {tuple(activation.shape)}: one position for each unit. Give at least two "
                "samples, or baselines=0.0 or a tensor."
            )
        dtype = torch.promote_types(activation.dtype, torch.float32)
        return activation.mean(positions, keepdim=True, dtype=dtype).to(activation.dtype)
    sums = []
    for piece in chunks(batch.rows, max_rows):
        activation = layer_activation(tail, batch.cut(*piece))
        dtype = torch.promote_types(activation.dtype, torch.float32)
        sums.append(activation.sum(0, keepdim=True, dtype=dtype))
    return (torch.stack(sums).sum(0) / batch.rows).to(activation.dtype)


SECANT = Derivative("secant", secant_tensor.start, secant_tensor.finish)
SECANT_HALVES = Derivative("secant", partial(secant_tensor.start, halves=True), secant_tensor.finish)


class _DerivativeRule(ABC):
    """Methods of the rules that multiply activations by a derivative."""

    remainders: int

    @property
    @abstractmethod
    def _derivative(self) -> Derivative: ...

    def prepare(self, tail: Tail, batch: Batch, max_rows: int) -> Self:
        """Return the rule itself: it needs nothing from the whole batch."""
        return self

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """Return (rows, k, *output); without a selector a remainder comes last, as one more unit."""
        tail_run = run(tail, batch, self._derivative)
        contributions = unit_contributions(tail, batch, selector, self._derivative, per_eval, tail_run)
        if selector is not None or not self.remainders:
            return contributions
        remainder = tail_run.remainder
        if remainder is None:  # the pass is shared, and the remainders of its layers differ
            remainder = tail_run.output.detach() - contributions.sum(1)
        return torch.cat([contributions, remainder[:, None]], dim=1)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """Return c_io = (W_oi * x_i) · ∂y/∂z_o: (rows, in, out, *output), or (rows, k, *output) when selected.

        Symbols: x and z the layer's input and output, y the network's output. A remainder is the last input: each
        output unit's bias and an equal share of the remainder that arises after the layer. The sum over ``out`` is
        :meth:`neurons` at the layer's input; under the secant the sum over both axes is y.
        """
        return pair_contributions(tail, batch, selector, self._derivative, per_eval, bool(self.remainders))

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """Return the contributions at these rows; the network is linearized once."""
        if pairs:
            return PairSite(tail, batch, self._derivative, per_eval, bool(self.remainders))
        return NeuronSite(tail, batch, self._derivative, per_eval)


@dataclass(frozen=True)
class Secant(_DerivativeRule):
    r"""Contributions through linear operations without bias and the secants of pointwise ones, plus a remainder.

    .. math:: \sigma:\; c_u \mapsto c_u \, \frac{\sigma(z) - \sigma(0)}{z}, \qquad \sum_u c_u + r = y, \qquad
        z_a z_b = \textstyle\sum_u (a_u z_b + z_a b_u) / 2 + r

    Symbols: z = Σ_u c_u + r the input of a pointwise σ (the limit at z = 0 is σ'(0)); y the output; r the remainder:
    the sum of biases, σ(0) and everything that does not come from the layer; a_u and b_u the contributions to the
    factors z_a and z_b (``products="halves"``). The sum is exact at every layer of every network of linear and
    pointwise operations, and the rule equals the tangent for ReLU. What max pooling selects and masks from
    comparisons (``x > 0``) are fixed: sums stay exact, but no unit is credited for the selection. Detached tensors,
    results under ``torch.no_grad()`` and tensors made from a shape (``zeros_like``) are constants: a constant factor is
    fixed, a constant summand goes to the remainder.

    Args:
        products: how to treat an elementwise product of two tensors z_a, z_b that both depend on the layer (a gate, or
            density and colour in a volume renderer). "refuse" raises a CarryError, because it has no unique
            contributions. "halves" gives half to each factor, by convention, and 1/i to each of the i factors of the
            i-th result of ``cumprod`` (the transmittance of a volume renderer).

    Raises:
        ValueError: another value of ``products``.

    Source: the layer-wise redistribution idea of Bach et al. 2015 (LRP-0), applied to canvases of Padmanabhan et al.
    (CVPR 2024).

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.GELU(), torch.nn.Linear(4, 3))
        >>> x = torch.rand(5, 2)
        >>> contributions = NeuronCanvas(model, "0", rule=Secant()).attribute(x)
        >>> bool(torch.allclose(contributions.sum(1), model(x), atol=1e-6))
        True
    """

    products: Literal["refuse", "halves"] = "refuse"

    remainders = 1

    def __post_init__(self) -> None:
        if self.products not in ("refuse", "halves"):
            raise ValueError(f'products={self.products!r}; expected "refuse" or "halves".')

    @property
    def _derivative(self) -> Derivative:
        return SECANT_HALVES if self.products == "halves" else SECANT

    def total(self, tail: Tail, batch: Batch) -> Tensor:
        """Return the sum that all units and the remainder must have: the output."""
        with torch.no_grad():
            return tail.output(batch)


def _real_output(output: Tensor) -> tuple[Tensor, None]:
    if output.is_complex():
        raise ValueError(
            f"the output is {output.dtype}; expected real numbers, of which gradients exist. Choose with output_fn=, "
            "for example output_fn=lambda output: output.real."
        )
    return output, None


TANGENT = Derivative("tangent", lambda activation, _remainder: activation, _real_output)


@dataclass(frozen=True)
class Tangent(_DerivativeRule):
    r"""Gradient x activation towards every output.

    .. math:: c_u = a_u \, \partial y / \partial a_u, \qquad
        \text{complex } a_u:\; c_u = \mathrm{Re}\,a_u \, \partial y / \partial \mathrm{Re}\,a_u
        + \mathrm{Im}\,a_u \, \partial y / \partial \mathrm{Im}\,a_u = \mathrm{Re}(\bar g_u a_u)

    Symbols: a_u the unit's activation, y a real output, g_u PyTorch's gradient of y by a complex a_u, ∂y/∂Re a_u +
    i ∂y/∂Im a_u. If y = Re(Σ W_u a_u + b), then g_u is the conjugate of W_u and c_u = Re(W_u a_u). Of all rules it is
    closest to ablation at zero. Its sum over units equals y only if the rest of the network is piecewise linear without
    biases.

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), whose last-layer map this is
    without the bias term; Shrikumar et al. 2016 for gradient x input.

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> NeuronCanvas(model, "1", rule=Tangent()).attribute(torch.rand(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    remainders = 0

    @property
    def _derivative(self) -> Derivative:
        return TANGENT

    def total(self, tail: Tail, batch: Batch) -> Tensor:
        """Return the sum that all units should have: y minus y with the layer at zero."""
        with torch.no_grad():
            without: Tensor = tail.output_with(batch, torch.zeros_like)
            return tail.output(batch) - without


class Rule(Protocol):
    """Computes the contributions of a layer's units at some rows, at most ``per_eval`` units in one pass."""

    @property
    def remainders(self) -> int:
        """Number of extra units (the remainder) at the end of a result without a selector."""

    def prepare(self, tail: Tail, batch: Batch, max_rows: int) -> "Rule":
        """Return the rule with what it needs from all rows; at most ``max_rows`` rows run at once."""

    def neurons(self, tail: Tail, batch: Batch, selector: Any, per_eval: int | None) -> Tensor:
        """Return the contributions of units, (rows, k, *output)."""

    def pairs(self, tail: Tail, batch: Batch, selector: Any, per_eval: int | None) -> Tensor:
        """Return the contributions of pairs, (rows, in, out, *output), or (rows, k, *output) when selected."""

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """Return an object that computes contributions at these rows, for repeated queries."""

    def total(self, tail: Tail, batch: Batch) -> Tensor:
        """Return the sum that all units should have, (rows, *output)."""


SHORT_NAMES: dict[str, Callable[[], Rule]] = {"tangent": Tangent, "secant": Secant, "ablation": Ablation, "xinc": Xinc}


def as_rule(rule: str | Rule) -> Rule:
    """Return a rule object unchanged, or the rule of that name with default options.

    Raises:
        ValueError, TypeError: no rule has that name, or ``rule`` is neither a name nor a rule object.
    """
    if isinstance(rule, str):
        if rule not in SHORT_NAMES:
            raise ValueError(f"rule {rule!r} is unknown; expected one of {', '.join(map(repr, SHORT_NAMES))}.")
        return SHORT_NAMES[rule]()
    if not hasattr(rule, "neurons") or isinstance(rule, type):
        raise TypeError(f"rule is {rule!r}; expected a name or a rule object such as Tangent() or Ablation('mean').")
    return rule


@dataclass(frozen=True)
class ChunkPlan:
    """Chunk sizes of one call, the rule after :meth:`Rule.prepare`, and the memory that a few rows need."""

    rule: Rule
    max_rows: int
    max_units: int
    footprint: Footprint


def plan_chunks(
    rule: Rule, tail: Tail, batch: Batch, pairs: bool, budget: int | None, per_eval: int | None
) -> ChunkPlan:
    """Measure a few rows and return chunk sizes that fit the memory budget; raise a ValueError if none can."""
    if per_eval is not None and per_eval < 1:
        raise ValueError(f"perturbations_per_eval is {per_eval}; expected at least 1.")
    footprint = measure(tail, batch)
    if isinstance(rule, Secant) and tail.is_complex:
        raise secant_tensor.CarryError(
            f"layer {tail.name} is complex, and rule 'secant' supports real numbers only. "
            'Use rule="tangent" or rule="ablation", which support complex layers with a real output.'
        )
    if isinstance(rule, Ablation) and not isinstance(rule.baselines, str):
        rule = replace(rule, baselines=tail.move_baselines(rule.baselines, footprint.activation))
    units = math.prod(kernels_of(tail).shape) if pairs else len(list_units(footprint.activation, None))
    max_rows = footprint.max_rows(units + 1, budget, enough=batch.rows)
    chunk_rows = min(batch.rows, max_rows)
    is_frames = footprint.output[0].numel() > 2 * units
    max_units = footprint.max_units(units, chunk_rows if is_frames else batch.rows, budget)
    if shares_statistics(tail.forward_func, tail.layer):  # rows depend on each other
        chunk_rows = batch.rows if budget is None else chunk_rows
        max_units = 1
    return ChunkPlan(rule.prepare(tail, batch, chunk_rows), chunk_rows, per_eval or max_units, footprint)
