"""Which target layers each predictor neuron serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .kernel_canvas import KernelCanvas

if TYPE_CHECKING:
    from .nern import NeRN


class LayerProfile(NamedTuple):
    """How a predictor layer's neurons are spread over the target's layers.

    Attributes:
        share: (units + 1, layers), each row sums to 1, or to 0 for a neuron that writes nothing.
        signed: (units + 1, layers) sums of the contributions; each column sums to the sum of Ŵ_l.
        layers: the names of the columns.
    """

    share: Tensor
    signed: Tensor
    layers: tuple[str, ...]


def layer_profile(nern: NeRN, at: int = -1, *, memory_budget: int = 1 << 28) -> LayerProfile:
    r"""Where each predictor neuron puts its weight, and the bias in the last row.

    .. math:: S[i, l] = \sum |C_l[i]| \,/\, \sum_{l'} \sum |C_{l'}[i]|, \qquad T[i, l] = \sum C_l[i]

    Large layers take large shares of every neuron, since they have most weights: compare rows with one another, not
    columns.

    Args:
        nern: the network.
        at: predictor layer, as in :class:`KernelCanvas`.
        memory_budget: bytes, as there.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> layer_profile(NeRN(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1)))).share.shape
        torch.Size([41, 2])
    """
    canvases = [KernelCanvas(nern, layer, at, memory_budget=memory_budget) for layer in nern.layers]
    sums = torch.stack([canvas.magnitudes() for canvas in canvases], 1)
    total = sums.sum(1, keepdim=True)
    share = torch.where(total > 0, sums / total.clamp_min(torch.finfo(total.dtype).tiny), sums)
    signed = torch.stack([canvas.totals() for canvas in canvases], 1)
    return LayerProfile(share, signed, tuple(layer.name for layer in nern.layers))
