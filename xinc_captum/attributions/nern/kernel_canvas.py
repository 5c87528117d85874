"""What every neuron of a NeRN's predictor wrote into the kernels of one layer, asked piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...batch import chunks
from .convolutions import Convolution
from .crop import uncrop
from .gated import GatedPass

if TYPE_CHECKING:
    from .nern import NeRN


class KernelCanvas:
    r"""The contribution of each predictor neuron to each generated weight of one target layer, lazily.

    .. math:: C[i] = \mathrm{crop}(h_i(k)\, J(k)[:, i]), \qquad \textstyle\sum_i C[i] + \beta = \hat W_l

    Symbols: as in :class:`GatedPass`; the bias β stays apart, as an element of its own. Nothing is kept but the
    settings: every answer runs through the layer's kernels again, a piece at a time.

    Args:
        nern: whose predictor is explained.
        layer: of the target: a module or a dotted name.
        at: of the predictor: 1 … blocks − 1 are hidden layers, 0 the embedding, −1 the last hidden layer.
        memory_budget: bytes that the pieces may take.

    Attributes:
        units: neurons of that predictor layer.
        shape: of the whole: (units + 1, filters, channels, height, width).

    Raises:
        LayerError: a layer that is not represented.
        ValueError: no such predictor layer, or a budget too small for one kernel.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> canvas = KernelCanvas(NeRN(nn.Conv2d(3, 4, 3), hidden=8), "")
        >>> canvas.to_tensor().shape
        torch.Size([9, 4, 3, 3, 3])

    Source: the last-layer map of Padmanabhan et al. (CVPR 2024), for a network whose pixels are kernels.
    """

    def __init__(
        self, nern: NeRN, layer: nn.Module | str | Convolution, at: int = -1, *, memory_budget: int = 1 << 28
    ) -> None:
        self.nern, self.layer = nern, nern.layer(layer)
        blocks = nern.config["blocks"]
        if not -blocks <= at < blocks:
            raise ValueError(
                f"at is {at}; wanted 0 (the embedding), 1 to {blocks - 1} (the hidden layers of the predictor) or −1."
            )
        self.at = at % blocks
        self.units: int = nern.config["hidden"] if self.at else nern.embedding.out_features
        self.shape = (self.units + 1, *self.layer.shape)
        weight = next(nern.predictor.parameters())
        numbers = (3 * self.units + nern.config["hidden"]) * nern.kernel_size**2
        numbers += blocks * max(nern.config["hidden"], nern.embedding.out_features)
        self._rows = memory_budget // (numbers * weight.element_size())
        if self._rows < 1:
            raise ValueError(
                f"memory_budget is {memory_budget:,} bytes; wanted at least {numbers * weight.element_size():,}, for "
                "one kernel."
            )

    def passes(self) -> Iterator[tuple[slice, GatedPass]]:
        """Pieces of the layer's kernels, each run through the predictor."""
        places = self.nern.coordinates(self.layer)
        for start, stop in chunks(len(places), self._rows):
            piece = slice(start, stop)
            yield piece, GatedPass(self.nern.predictor, self.nern.embedded(self.layer, piece))

    def bias(self) -> Tensor:
        """β, shaped like the weight: what is written with the neurons at zero."""
        return self._whole(lambda run: run.bias(self.at)[None])[0]

    def unit(self, index: int) -> Tensor:
        """One neuron's part of the weight, or the bias's, number ``units`` or −1; shaped like the weight.

        Raises:
            ValueError: no such neuron.
        """
        return self.to_tensor([index])[0]

    def to_tensor(self, units: Sequence[int] | slice | None = None) -> Tensor:
        """The parts of some neurons, (chosen, *weight shape), or of all and the bias after them.

        Raises:
            ValueError: no such neuron.
        """
        if units is not None:
            every = range(self.units + 1)
            wrong = [] if isinstance(units, slice) else [i for i in units if not -len(every) <= i < len(every)]
            if wrong:
                raise ValueError(f"there is no unit {wrong[0]}; wanted 0 to {self.units} (the bias).")
            index = list(every[units]) if isinstance(units, slice) else [every[i] for i in units]
            return self._whole(lambda run: torch.stack([self._one(run, i) for i in index]))
        return self._whole(lambda run: torch.cat([run.contributions(self.at), run.bias(self.at)[None]]))

    def _one(self, run: GatedPass, index: int) -> Tensor:
        return run.bias(self.at) if index == self.units else run.contribution(index, self.at)

    def totals(self) -> Tensor:
        """(units + 1,): the signed sum of each part; together the sum of the generated weight."""
        return self._reduced(lambda part: part.sum((1, 2, 3, 4)))

    def magnitudes(self) -> Tensor:
        """(units + 1,): the sum of each part's absolute values."""
        return self._reduced(lambda part: part.abs().sum((1, 2, 3, 4)))

    def pulled(self, towards: Tensor) -> Tensor:
        r"""⟨C[i], G⟩ for every neuron and the bias, without a canvas.

        Args:
            towards: G, (rows, *weight shape), such as gradients of a score towards the weight.

        Returns:
            (rows, units + 1).
        """
        flat = towards.flatten(1, 2)
        side = self.nern.kernel_size
        answer = flat.new_zeros(len(flat), self.units + 1)
        with torch.no_grad():
            for piece, run in self.passes():
                own = run.predicted.unflatten(-1, (side, side))
                for row, gradient in enumerate(flat[:, piece]):
                    whole = uncrop(gradient, side, self.nern.crop, chosen_by=own).flatten(-2)
                    answer[row, :-1] += (run.pulled(whole, self.at) * run.hidden(self.at)).sum(0)
                    answer[row, -1] += (run.bias(self.at) * whole).sum()
        return answer

    def _cut(self, run: GatedPass, parts: Tensor) -> Tensor:
        """(…, kernels, K²) as (…, kernels, 1, h, w)."""
        side = self.nern.kernel_size
        one = Convolution(self.layer.name, (parts.shape[-2], 1, *self.layer.size))
        own = run.predicted.unflatten(-1, (side, side))
        cut: Tensor = self.nern.cut(parts.unflatten(-1, (side, side)), one, chosen_by=own)
        return cut

    def _whole(self, parts: Callable[[GatedPass], Tensor]) -> Tensor:
        with torch.no_grad():
            answer: Tensor | None = None
            for piece, run in self.passes():
                cut = self._cut(run, parts(run))[:, :, 0]
                if answer is None:  # filled in place: a list to be joined would double the peak
                    answer = cut.new_empty(len(cut), self.layer.kernels, *self.layer.size)
                answer[:, piece] = cut
        assert answer is not None  # noqa: S101 - a layer has kernels
        whole: Tensor = answer.unflatten(1, self.layer.shape[:2])
        return whole

    def _reduced(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            parts = [
                reduce(self._cut(run, torch.cat([run.contributions(self.at), run.bias(self.at)[None]])))
                for _, run in self.passes()
            ]
        total: Tensor = torch.stack(parts).sum(0)
        return total
