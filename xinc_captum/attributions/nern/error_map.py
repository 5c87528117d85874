"""Where a NeRN misses its target, always with how large the weights are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ...metrics.rank import spearman

if TYPE_CHECKING:
    from .nern import NeRN


class ErrorMap(NamedTuple):
    """What one layer's generated weight lacks.

    Attributes:
        error: W − Ŵ, shaped like the weight.
        kernel_error: ‖W − Ŵ‖ / ‖W‖ of each kernel, (filters, channels); infinite for dead kernels that are missed.
        filter_error: the same of each filter, (filters,).
        kernel_magnitude: ‖W‖ of each kernel.
        filter_magnitude: of each filter.
        correlation: Spearman's of kernel_error and kernel_magnitude; NaN where either is constant.
    """

    error: Tensor
    kernel_error: Tensor
    filter_error: Tensor
    kernel_magnitude: Tensor
    filter_magnitude: Tensor
    correlation: float


def error_map(nern: NeRN, layer: nn.Module | str) -> ErrorMap:
    r"""The reconstruction error of a layer, with the magnitudes as its control.

    .. math:: E_l = W_l - \hat W_l, \qquad \sqrt{\textstyle\sum_l \sum E_l^2 / N} = L_{reconstruction}

    A map of error, not of importance: small kernels are missed by more of their size, and in measured NeRNs most of
    what relative errors seem to say about importance is already in the magnitude, with distillation and without. So
    the magnitudes and their rank correlation with the error are always part of the answer.

    Args:
        nern: the network; its target must hold the weights that it was fitted to.
        layer: of the target.

    Raises:
        LayerError: a layer that is not represented.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> error_map(NeRN(nn.Conv2d(3, 4, 3)), "").kernel_error.shape
        torch.Size([4, 3])
    """
    one = nern.layer(layer)
    with torch.no_grad():
        own = nern.target_weights()[one.name]
        error = own - nern.cut(nern.predicted(one), one)
    kernels, filters = (_relative(error.flatten(start), own.flatten(start)) for start in (2, 1))
    seen = torch.isfinite(kernels[0])
    found = spearman(kernels[0][seen][None], kernels[1][seen][None]).values
    correlation = float(found) if len(found) else float("nan")
    return ErrorMap(error, kernels[0], filters[0], kernels[1], filters[1], correlation)


def _relative(error: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    missed, size = error.norm(dim=-1), own.norm(dim=-1)
    return torch.where(missed > 0, missed / size, missed), size
