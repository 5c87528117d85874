"""Shares and pooled maps: a canvas boiled down to a few numbers a unit."""

import torch
from torch import Tensor

from .amounts import check_masks, check_picture


def share(amounts: Tensor, masks: Tensor | None = None) -> Tensor:
    r"""Each unit's part of all that is painted in a region.

    .. math:: s_{R,u} = \Sigma_{p \in R}\, a_{u,p} \, / \, \Sigma_v \Sigma_{p \in R}\, a_{v,p}

    Args:
        amounts: (units, *size), >= 0.
        masks: (regions, *size), bool or weights in [0, 1]; None is the whole picture.

    Returns:
        (regions, units), each row adding up to 1, or (units,) without masks; nan where nobody paints. float64.

    Raises:
        ValueError: masks of another size, empty ones, or amounts that are negative or not finite.

    Example:
        >>> share(torch.tensor([[3.0, 0.0], [1.0, 4.0]])).tolist()
        [0.375, 0.625]
    """
    wide = check_picture(amounts)
    if masks is None:
        sums = wide.flatten(1).sum(1)
        return sums / sums.sum()
    inside = check_masks(masks, tuple(wide.shape[1:])).to(wide.device).flatten(1) @ wide.flatten(1).T
    return inside / inside.sum(1, keepdim=True)


def pooled(amounts: Tensor, grid: tuple[int, int] = (8, 16)) -> Tensor:
    r"""Mean amounts over the cells of a grid: canvases of any size as vectors of one length.

    .. math:: v_{u,g} = \mathrm{mean}_{p \in \text{cell } g}\; a_{u,p}

    The cells are those of :func:`grid_cells`; over a canvas too large to hold, the same come out of its region sums
    with the masks ``as_masks(grid_cells(size, grid))``, divided by the masks' areas.

    Args:
        amounts: (units, H, W), or (frames, units, H, W), >= 0.
        grid: rows and columns of cells, at most H and W.

    Returns:
        (units, *grid), or (frames, units, *grid), float64.

    Raises:
        ValueError: another number of dims, a finer grid than the picture, negative or non-finite amounts.

    Example:
        >>> pooled(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]), (1, 2)).tolist()
        [[[3.0, 5.0]]]
    """
    if amounts.dim() not in (3, 4):
        raise ValueError(
            f"amounts have shape {tuple(amounts.shape)}; wanted (units, H, W), or (frames, units, H, W) for a clip."
        )
    size = amounts.shape[-2:]
    if not all(1 <= cells <= side for cells, side in zip(grid, size, strict=True)):
        raise ValueError(f"grid is {grid} for pictures of {tuple(size)}; wanted at least one pixel a cell.")
    wide = check_picture(amounts)
    down, across = (_means(side, cells).to(wide) for side, cells in zip(size, grid, strict=True))
    return down @ wide @ across.T


def _means(side: int, cells: int) -> Tensor:
    """A (cells, side) matrix that takes means."""
    member = (torch.arange(side) * cells // side == torch.arange(cells)[:, None]).double()
    return member / member.sum(1, keepdim=True)
