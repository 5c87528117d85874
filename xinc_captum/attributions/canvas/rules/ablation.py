"""Ablation: run the network without the unit."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .... import units
from ....batch import Batch, chunks
from ....units import Selector
from .derivative import tail_activation
from .pairs import Pair, behind, chosen, kernels_of, layer_input
from .site import Asked, Site
from .tail import Tail

Baselines = float | Literal["mean", "resample"] | Tensor


@dataclass(frozen=True)
class Ablation:
    r"""The change of the output when one unit is set to its baseline.

    .. math:: c_u = y(a) - y(a \text{ with } a_u := b_u)

    Symbols: a the activation, b the baseline. The ground truth of a contribution *for that baseline*: rankings
    under zero and mean baselines can disagree completely.

    Args:
        baselines: a number, "mean", "resample", or a tensor that broadcasts to (rows, units, ...). "mean" is the
            unit's mean over all samples given, place by place; of a single sample it is the unit's mean over its
            places (the dims behind the units). "resample" is the unit's value in another sample: a random cycle goes
            through all of them, so that none is replaced by itself and each is used once.
        seed: for "resample".

    Raises:
        ValueError: other words for ``baselines``; "resample" of one sample; "mean" of one sample whose units have no
            places.

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

    slots = 0

    def __post_init__(self) -> None:
        if isinstance(self.baselines, str) and self.baselines not in {"mean", "resample"}:
            raise ValueError(f'baselines={self.baselines!r}; wanted a number, "mean", "resample" or a tensor.')

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Ablation":
        """Fix the baseline from the whole batch, so that chunks agree with one another."""
        if not isinstance(self.baselines, str):
            return self
        if self.baselines == "mean":
            return replace(self, baselines=_mean(tail, batch, size))
        if batch.rows == 1:
            raise ValueError(
                'baselines="resample" takes the value of each unit from another sample, and the batch has only one; '
                'give at least two samples, or baselines=0.0, "mean" or a tensor.'
            )
        device = batch.inputs[0].device
        generator = torch.Generator(device).manual_seed(self.seed)
        order = torch.randperm(batch.rows, generator=generator, device=device)
        donors = torch.empty_like(order)
        donors[order] = order.roll(-1)  # one cycle through all samples
        return replace(self, _donors=(batch, donors))

    def baseline(self, tail: Tail, batch: Batch, activation: Tensor) -> Tensor:
        """The baseline of these rows, broadcastable to their activation."""
        if self._donors is not None:
            whole, donors = self._donors
            return tail_activation(tail, whole.take(donors[batch.start : batch.start + batch.rows]))
        if not isinstance(self.baselines, Tensor):
            return activation.new_full((), float(self.baselines))
        baseline = self.baselines.to(activation)
        if baseline.dim() == activation.dim() and baseline.shape[0] > 1:
            baseline = baseline[batch.start : batch.start + batch.rows]
        try:
            return baseline.expand_as(activation)
        except RuntimeError as error:
            raise ValueError(
                f"baselines has shape {tuple(self.baselines.shape)}; wanted one that broadcasts to the activation's "
                f"{tuple(activation.shape)} at layer {tail.name}."
            ) from error

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """(rows, k, *left)."""
        activation = tail_activation(tail, batch)
        baseline = self.baseline(tail, batch, activation)
        singles = units.listed(activation, selector)
        edits = [partial(units.replace, activation, unit, baseline) for unit in singles]
        return self._differences(tail, batch, edits, per_eval or 1)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """z_j without its part W_ji * (x_i − b_i): (rows, in, out, *left), or (rows, k, *left) when selected."""
        kernels, after = kernels_of(tail), behind(tail)
        selected = chosen(kernels.shape, selector)
        into = replace(tail, at_input=True)
        x = layer_input(tail, batch)
        removed = x - self.baseline(into, batch, x)
        z = tail_activation(after, batch)
        ins, outs = kernels.shape
        pairs = selected if selected is not None else [(i, j) for j in range(outs) for i in range(ins)]
        parts: dict[int, Tensor] = {}

        def edit(i: int, j: int) -> Tensor:
            if j not in parts:  # all inputs of one output come from one grouped convolution
                parts.clear()
                parts[j] = kernels.parts(removed, slice(j, j + 1))[:, :, 0]
            new = z.clone()
            new[:, j] -= parts[j][:, i]
            return new

        shares = self._differences(after, batch, [partial(edit, *pair) for pair in pairs], per_eval or 1)
        return shares if selected is not None else shares.unflatten(1, (outs, ins)).transpose(1, 2)

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """These rows, run again for every question."""
        return Asked(self, tail, batch, per_eval, pairs)

    def _differences(self, tail: Tail, batch: Batch, edits: list[partial[Tensor]], per_eval: int) -> Tensor:
        with torch.no_grad():
            output = tail.output(batch)
            shares = output.new_empty((len(edits), *output.shape))
            for first, last in chunks(len(edits), per_eval):
                edited = torch.cat([edit() for edit in edits[first:last]])
                without = tail.edited(batch.repeat(last - first), _putting(edited))
                shares[first:last] = output - without.reshape(last - first, *output.shape)
        return shares.movedim(0, 1)

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """The change when the whole layer is at its baseline; units add up to it only where they do not interact."""
        with torch.no_grad():
            activation = tail_activation(tail, batch)
            at_baseline = self.baseline(tail, batch, activation).expand_as(activation)
            without: Tensor = tail.edited(batch, _putting(at_baseline.clone()))
            return tail.output(batch) - without


def _putting(new: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda _old: new


def _mean(tail: Tail, batch: Batch, size: int) -> Tensor:
    """The mean over all samples, (1, units, ...), or over the places of a single one, (1, units, 1, ...)."""
    if batch.rows == 1:
        alone = tail_activation(tail, batch)
        if alone.dim() < 3 or alone[0, 0].numel() == 1:
            raise ValueError(
                f'baselines="mean" of a single sample is the mean over the places of each unit, and layer {tail.name} '
                f"has shape {tuple(alone.shape)}: one place for each unit. Give at least two samples, or baselines=0.0 "
                "or a tensor."
            )
        places = tuple(range(2, alone.dim()))
        return alone.mean(places, keepdim=True, dtype=torch.promote_types(alone.dtype, torch.float32)).to(alone.dtype)
    sums, dtype = [], torch.float32
    for piece in chunks(batch.rows, size):
        part = tail_activation(tail, batch.cut(*piece))
        dtype = part.dtype
        sums.append(part.sum(0, keepdim=True, dtype=torch.promote_types(dtype, torch.float32)))
    return (torch.stack(sums).sum(0) / batch.rows).to(dtype)
