"""Sources of regions: a picture cut into true grid cells, by colour, or by what objects leave over."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._extra import needed

LEARNT_FROM = 20_000  # pixels; k-means on more finds the same centres, slower


def as_masks(labels: Tensor) -> Tensor:
    """One mask for each label that occurs, in the labels' order; negative labels belong to no region.

    Args:
        labels: size, integers.

    Returns:
        (regions, *size), bool.

    Raises:
        ValueError: labels that are no integers, or none >= 0.

    Example:
        >>> as_masks(torch.tensor([[0, 2, -1]])).int().tolist()
        [[[1, 0, 0]], [[0, 1, 0]]]
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or not (labels >= 0).any():
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; wanted integers, some of them >= 0."
        )
    present = labels[labels >= 0].unique()
    masks: Tensor = labels == present.view(-1, *[1] * labels.dim())
    return masks


def grid_cells(size: tuple[int, int], grid: tuple[int, int] = (4, 8)) -> Tensor:
    """Rectangles next to each other, as even as the size allows; every pixel is in exactly one.

    The released code mixes the axes when it cuts: its "cells" are combs of every fourth row and eighth column, spread
    over the whole picture, so that all of them are alike.

    Args:
        size: (H, W).
        grid: rows and columns of cells.

    Returns:
        (H, W), int64 labels, row by row.

    Raises:
        ValueError: more cells than pixels.

    Example:
        >>> grid_cells((2, 5), (1, 2)).tolist()
        [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    """
    if not all(1 <= cells <= side for cells, side in zip(grid, size, strict=True)):
        raise ValueError(f"grid is {grid} for a picture of {size}; wanted at least one pixel a cell.")
    rows, columns = (torch.arange(side) * cells // side for side, cells in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def outside(masks: Tensor) -> Tensor:
    """What no object covers, as one more region: (regions, *size) to (1, *size), bool.

    The released code's "other" is the union of the objects instead.

    Example:
        >>> outside(torch.tensor([[[True, False, False]], [[False, True, False]]])).tolist()
        [[[False, False, True]]]
    """
    return ~(masks > 0).any(0, keepdim=True)


def colour_regions(picture: Tensor, regions: int = 32, *, seed: int = 0) -> Tensor:
    """Pixels of like colour, wherever they are: k-means on the channels (scikit-learn, extra ``analysis``).

    Args:
        picture: (C, H, W), or (frames, C, H, W) with the same colours for all frames.
        regions: k.
        seed: of k-means' first centres.

    Returns:
        (H, W), or (frames, H, W), int64 labels.

    Raises:
        ValueError: another number of dims, values that are no floats, or fewer different pixels than regions.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> colour_regions(torch.tensor([[[0.0, 0.1, 0.9, 1.0]]]), 2).unique(return_counts=True)[1].tolist()
        [2, 2]
    """
    if picture.dim() not in (3, 4) or not picture.is_floating_point():
        raise ValueError(
            f"picture is {picture.dtype} of shape {tuple(picture.shape)}; wanted floats (C, H, W), or "
            "(frames, C, H, W)."
        )
    pixels = picture.detach().movedim(-3, -1)
    return grouped(pixels, regions, seed=seed)


def grouped(features: Tensor, groups: int, *, seed: int = 0) -> Tensor:
    """k-means on the last axis: (…, features) to (…) int64 labels.

    Centres are learnt from at most 20,000 of the rows, drawn with ``seed``; each row joins its nearest.

    Raises:
        ValueError: fewer different rows than groups, or values that are not finite.
        ModuleNotFoundError: scikit-learn is missing.
    """
    rows: NDArray[np.float64] = features.detach().double().cpu().flatten(0, -2).numpy()
    if not np.isfinite(rows).all():
        raise ValueError("the features have values that are not finite; k-means has no place for them.")
    different = len(np.unique(rows.round(12), axis=0)) if len(rows) <= LEARNT_FROM else groups
    if not 1 <= groups <= different:
        raise ValueError(f"wanted {groups} groups of {len(rows)} rows, of which {different} differ; ask for fewer.")
    cluster = needed("sklearn.cluster", purpose="k-means", extra="analysis")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:LEARNT_FROM]
    means = cluster.KMeans(groups, n_init=4, random_state=seed).fit(rows[chosen])
    labels = torch.from_numpy(means.predict(rows)).long()
    return labels.view(features.shape[:-1]).to(features.device)
