"""Contributions of predictor neurons to generated weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ...batch import chunks
from .kernel_network import KernelNetwork, KernelPredictor
from .kernels import Convolution, crop, uncrop


class GatedPass:
    r"""One forward pass of the rows of some kernels through a predictor, with the outputs of every layer.

    .. math:: J_q = W_Q G_{Q-1} W_{Q-1} \cdots G_{q+1} W_{q+1}, \qquad C_q[i] = h_{q,i} J_q[:, i], \qquad
        \textstyle\sum_i C_q[i] + \beta_q = P

    Symbols: W_1 … W_Q the matrices of the Linear layers; h_q the activations of layer q (0 is the embedding);
    G_q = diag[h_q > 0] the gates of this pass; β_q the output with h_q at zero, with all later biases and these gates.
    The sum is exact, because a network with fixed ReLU gates is linear. ``rows`` are (kernels, in_features); the
    attribute ``predicted`` is P, (kernels, K²): K² numbers of each predicted kernel, or the product of its sides.
    """

    def __init__(self, predictor: KernelPredictor, rows: Tensor) -> None:
        self._linears = [m for m in predictor if isinstance(m, nn.Linear)]
        self._hidden = [rows]
        for linear in self._linears[:-1]:
            self._hidden.append(linear(self._hidden[-1]).relu())
        self.predicted: Tensor = self._linears[-1](self._hidden[-1])

    def hidden(self, at: int) -> Tensor:
        """Return h_q: (kernels, units)."""
        return self._hidden[at]

    def pull(self, towards: Tensor, at: int) -> Tensor:
        """Map a gradient of P, (…, kernels, K²), to the gradient of h_q: (…, kernels, units)."""
        v = towards @ self._linears[-1].weight
        for q in range(len(self._linears) - 1, at, -1):
            v = (v * self._gate(q, v)) @ self._linears[q - 1].weight
        return v

    def push(self, change: Tensor, at: int) -> Tensor:
        """Map a change of h_q, (…, kernels, units), to the change of P: (…, kernels, K²)."""
        v = change
        for q in range(at + 1, len(self._linears)):
            v = (v @ self._linears[q - 1].weight.T) * self._gate(q, v)
        return v @ self._linears[-1].weight.T

    def contributions(self, at: int) -> Tensor:
        """Return C_q of every unit: (units, kernels, K²)."""
        taps = self.predicted.shape[-1]
        each = torch.eye(taps, dtype=self.predicted.dtype, device=self.predicted.device)
        towards = each[:, None].expand(-1, len(self.predicted), -1)
        return (self.pull(towards, at) * self._hidden[at]).permute(2, 1, 0)

    def contribution(self, unit: int, at: int) -> Tensor:
        """Return C_q of one unit, (kernels, K²), without computing the others."""
        alone = torch.zeros_like(self._hidden[at])
        alone[:, unit] = self._hidden[at][:, unit]
        return self.push(alone, at)

    def bias(self, at: int) -> Tensor:
        """Return β_q: (kernels, K²)."""
        h = torch.zeros_like(self._hidden[at])
        for q in range(at + 1, len(self._linears)):
            h = self._linears[q - 1](h) * self._gate(q, h)
        bias: Tensor = self._linears[-1](h)
        return bias

    def _gate(self, layer: int, like: Tensor) -> Tensor:
        return (self._hidden[layer] > 0).to(like)


class KernelCanvas:
    r"""The contribution of each predictor neuron to each generated weight of one target layer, computed lazily.

    .. math:: C[i] = \mathrm{crop}(h_i(k)\, J(k)[:, i]), \qquad \textstyle\sum_i C[i] + \beta = \hat W_l

    Symbols: k the kernels of layer l, h_i and J as in :class:`GatedPass`; the bias β is the last entry. Only the
    settings are stored: every query computes the layer's kernels again, in chunks.

    Args:
        nern: the :class:`NeRN` whose predictor is explained.
        layer: a layer of the target: a module or a dotted name.
        at: a layer of the predictor: 0 is the embedding, 1 … blocks − 1 are hidden layers, −1 is the last of these.
        memory_budget: bytes that a chunk may take.

    Attributes:
        units: neurons of that predictor layer.
        shape: of the full canvas: (units + 1, *weight shape), for example (units + 1, filters, channels, h, w).

    Raises:
        LayerError: a layer that is not represented.
        ValueError: an unknown predictor layer, or a budget too small for one kernel.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> canvas = KernelCanvas(NeRN(nn.Conv2d(3, 4, 3), hidden=8), "")
        >>> canvas.to_tensor().shape
        torch.Size([9, 4, 3, 3, 3])

    Source: the last-layer map of Padmanabhan et al. (CVPR 2024), for a network whose pixels are kernels.
    """

    def __init__(
        self, nern: KernelNetwork, layer: nn.Module | str | Convolution, at: int = -1, *, memory_budget: int = 1 << 28
    ) -> None:
        self.nern, self.layer = nern, nern.layer(layer)
        blocks = nern.config["blocks"]
        if not -blocks <= at < blocks:
            raise ValueError(
                f"at is {at}; expected 0 (the embedding), 1 to {blocks - 1} (the hidden layers of the predictor) or −1."
            )
        self.at = at % blocks
        self.units: int = nern.config["hidden"] if self.at else nern.embedding.out_features
        self.shape = (self.units + 1, *self.layer.shape)
        numbers = (3 * self.units + nern.config["hidden"]) * math.prod(nern.predicted_size)
        numbers += blocks * max(nern.config["hidden"], nern.embedding.out_features)
        needed = numbers * next(nern.predictor.parameters()).element_size()
        self._rows = memory_budget // needed
        if self._rows < 1:
            raise ValueError(f"memory_budget is {memory_budget:,} bytes; expected at least {needed:,}, for one kernel.")

    def passes(self) -> Iterator[tuple[slice, GatedPass]]:
        """Yield chunks of the layer's kernels, each with its pass through the predictor."""
        for start, stop in chunks(self.layer.kernels, self._rows):
            piece = slice(start, stop)
            yield piece, GatedPass(self.nern.predictor, self.nern.embedded(self.layer, piece))

    def bias(self) -> Tensor:
        """Return β, the generated weight with the neurons at zero; shaped like the weight."""
        return self.unit(self.units)

    def unit(self, index: int) -> Tensor:
        """Return the contribution of a neuron, or of the bias (``units`` or −1); shaped like the weight."""
        return self.to_tensor([index])[0]

    def to_tensor(self, units: Sequence[int] | slice | None = None) -> Tensor:
        """Return the contributions of some neurons, (selected, *weight shape); None is all, the bias last."""
        if units is not None:
            every = range(self.units + 1)
            wrong = [] if isinstance(units, slice) else [i for i in units if not -len(every) <= i < len(every)]
            if wrong:
                raise ValueError(f"there is no unit {wrong[0]}; expected 0 to {self.units} (the bias).")
            index = list(every[units]) if isinstance(units, slice) else [every[i] for i in units]
            at = self.at
            return self._assemble(
                lambda run: torch.stack([run.bias(at) if i == self.units else run.contribution(i, at) for i in index])
            )
        return self._assemble(self._all)

    def _all(self, run: GatedPass) -> Tensor:
        return torch.cat([run.contributions(self.at), run.bias(self.at)[None]])

    def totals(self) -> Tensor:
        """Return the signed sum of each contribution, (units + 1,); they add up to the sum of the generated weight."""
        return self._reduce(lambda part: part.sum(tuple(range(1, part.dim()))))

    def magnitudes(self) -> Tensor:
        """Return the sum of absolute values of each contribution: (units + 1,)."""
        return self._reduce(lambda part: part.abs().sum(tuple(range(1, part.dim()))))

    def project(self, towards: Tensor) -> Tensor:
        r"""Return ⟨C[i], G⟩ for every neuron and the bias, (rows, units + 1), without computing the canvas.

        G, ``towards``, is (rows, *weight shape), for example gradients of a score with respect to the weight.
        """
        sides = self.nern.predicted_size
        gradients = towards.flatten(1, 2).reshape(len(towards), -1, *self.layer.size_in(len(sides)))
        projections = gradients.new_zeros(len(gradients), self.units + 1)
        with torch.no_grad():
            for piece, run in self.passes():
                predicted = run.predicted.unflatten(-1, sides)
                for index, gradient in enumerate(gradients[:, piece]):
                    padded = uncrop(gradient, sides, self.nern.crop, chosen_by=predicted).flatten(1)
                    projections[index, :-1] += (run.pull(padded, self.at) * run.hidden(self.at)).sum(0)
                    projections[index, -1] += (run.bias(self.at) * padded).sum()
        return projections

    def _cut(self, run: GatedPass, parts: Tensor) -> Tensor:
        """Crop (…, kernels, K²) to (…, kernels, h, w), with as many dims as the predicted kernels have."""
        sides = self.nern.predicted_size
        predicted, size = run.predicted.unflatten(-1, sides), self.layer.size_in(len(sides))
        return crop(parts.unflatten(-1, sides), size, self.nern.crop, chosen_by=predicted)

    def _assemble(self, parts: Callable[[GatedPass], Tensor]) -> Tensor:
        with torch.no_grad():
            output: Tensor | None = None
            for piece, run in self.passes():
                cut = self._cut(run, parts(run))
                if output is None:  # filled in place: concatenating a list would double the peak memory
                    output = cut.new_empty(len(cut), self.layer.kernels, *cut.shape[2:])
                output[:, piece] = cut
        assert output is not None  # noqa: S101 - a layer has kernels
        return output.reshape(len(output), *self.layer.shape)

    def _reduce(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.stack([reduce(self._cut(run, self._all(run))) for _, run in self.passes()]).sum(0)
