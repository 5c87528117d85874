"""Pairs that come twice, and pairs that were in the fit already."""

import torch
from torch import Tensor

from .row_hash import row_hashes


def duplicates(rows: Tensor) -> float:
    """The share of rows that repeat an earlier one, (n − unique) / n.

    Args:
        rows: (n, columns), compared as float32.

    Example:
        >>> duplicates(torch.tensor([[1.0], [2.0], [1.0], [1.0]]))
        0.5
    """
    hashes = row_hashes(rows)
    return (len(hashes) - len(hashes.unique())) / len(hashes)


def leaks(rows: Tensor, seen: Tensor) -> Tensor:
    """Which held-out rows were in the fit.

    Args:
        rows: (n, columns), held out, compared as float32.
        seen: :func:`row_hashes` of the fitted rows, (m,).

    Returns:
        (n,) bool.

    Example:
        >>> leaks(torch.tensor([[1.0], [2.0]]), row_hashes(torch.tensor([[2.0], [3.0]])))
        tensor([False,  True])
    """
    hashes = row_hashes(rows)
    return torch.isin(hashes, seen.to(hashes.device))
