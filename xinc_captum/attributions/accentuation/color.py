"""Decorrelated colours: a space in which the three channels of natural photos vary independently."""

import torch
from torch import Tensor

# Square root of the colour covariance of natural photos, each axis one row (Lucent's matrix, transposed).
_AXES = (
    (0.56282854, 0.58447580, 0.58447580),
    (0.19482528, 0.0, -0.19482528),
    (0.04329450, -0.10823626, 0.06494176),
)


def matrix(like: Tensor) -> Tensor:
    """The colour matrix C, (3, 3), in the dtype and on the device of ``like``; rows are the decorrelated axes."""
    return torch.tensor(_AXES, dtype=like.dtype).to(like.device, non_blocking=True)


def recorrelate(values: Tensor) -> Tensor:
    r"""Decorrelated values to the values of red, green and blue.

    .. math:: \mathrm{rgb}_j = \sum_i v_i C_{ij}

    Args:
        values: (N, C, H, W). Only C = 3 has colours; other channel counts are handed back as they are.

    Example:
        >>> x = torch.rand(1, 3, 4, 4)
        >>> torch.allclose(recorrelate(decorrelate(x)), x, atol=1e-5)
        True

    Source: Olah et al., "Feature Visualization" (Distill, 2017), preconditioning; the matrix is Lucid's and Lucent's.
    """
    return values if values.shape[1] != 3 else _mix(values, matrix(values))


def decorrelate(values: Tensor) -> Tensor:
    """The inverse of :func:`recorrelate`: (N, C, H, W) to the same shape."""
    if values.shape[1] != 3:
        return values
    inverse = torch.linalg.inv(torch.tensor(_AXES, dtype=torch.float64)).to(values.dtype)
    return _mix(values, inverse.to(values.device, non_blocking=True))


def _mix(values: Tensor, columns: Tensor) -> Tensor:
    return torch.einsum("nihw,ij->njhw", values, columns)
