"""At what scale a target layer is written: its weights, split by coordinate and frequency of the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from .kernel_canvas import KernelCanvas

if TYPE_CHECKING:
    from .nern import NeRN


class EmbeddingLevels(NamedTuple):
    """The parts that coordinates and levels have in a generated weight.

    Attributes:
        parts: (coordinates, levels, *weight shape): layer, filter, channel; or one, where the embedding adds them.
        bias: shaped like the weight; parts and bias sum to Ŵ_l.
    """

    parts: Tensor
    bias: Tensor


def embedding_levels(nern: NeRN, layer: nn.Module | str, *, memory_budget: int = 1 << 28) -> EmbeddingLevels:
    r"""Sum the contributions of the embedding's entries over sine and cosine.

    .. math:: E[d, i] = C_0[\sin_{d,i}] + C_0[\cos_{d,i}], \qquad \textstyle\sum_{d, i} E[d, i] + \beta_0 = \hat W_l

    Level i has the frequency bⁱ/2 per index: with b < 1, low levels change from kernel to kernel, high levels slowly.
    The bias is large: it is what the predictor writes where it sees no coordinate, through the gates of each kernel, so
    it too changes from kernel to kernel.

    Args:
        nern: the network.
        layer: of the target.
        memory_budget: bytes, as in :class:`KernelCanvas`.

    Raises:
        LayerError: a layer that is not represented.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> embedding_levels(NeRN(nn.Conv2d(3, 4, 3), levels=6), "").parts.shape
        torch.Size([3, 6, 4, 3, 3, 3])
    """
    whole = KernelCanvas(nern, layer, 0, memory_budget=memory_budget).to_tensor()
    groups, levels = nern.embedding.groups, nern.embedding.levels
    parts = whole[:-1].unflatten(0, (groups, levels, 2)).sum(2)
    return EmbeddingLevels(parts, whole[-1])
