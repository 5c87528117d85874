"""Clusters of units by where they paint, across layers, seeds and architectures."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._extra import needed
from .partitions import grouped
from .share import pooled


class UnitVectors(NamedTuple):
    """Units as points.

    Attributes:
        values: (living units, dims), float64; each row has length 1.
        units: (living units,), which units they are.
    """

    values: Tensor
    units: Tensor


def unit_vectors(amounts: Tensor, grid: tuple[int, int] = (8, 16)) -> UnitVectors:
    r"""Where each unit paints, as a vector that any layer, seed or architecture can be compared by.

    .. math:: v_{u,g} = \sqrt{\mathrm{pooled}(a_u)_g \, / \, \Sigma_h\, \mathrm{pooled}(a_u)_h}

    How *much* it paints is divided out; units that paint nothing are left out. With the root, the distance of two
    vectors is Hellinger's between the places where the units paint; without, a few units that paint a single spot
    would take a cluster each and all others share the last. (The released code stretches each map between its
    smallest and largest value, so that a single pixel decides about a whole vector.)

    Args:
        amounts: (units, H, W), or (frames, units, H, W): then the frames stand one after the other in the vector.
        grid: cells of :func:`pooled`.

    Returns:
        a :class:`UnitVectors`. To compare networks: the same clip and grid, and ``torch.cat`` of the values.

    Raises:
        ValueError: another number of dims, a finer grid than the picture, negative or non-finite amounts.

    Example:
        >>> unit_vectors(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), (1, 2))
        UnitVectors(values=tensor([[0.5000, 0.8660]], dtype=torch.float64), units=tensor([0]))
    """
    cells = pooled(amounts, grid)
    flat = cells.flatten(1) if cells.dim() == 3 else cells.movedim(1, 0).flatten(1)
    total = flat.sum(1)
    units = total.nonzero()[:, 0]
    return UnitVectors((flat[units] / total[units, None]).sqrt(), units)


def clustered(vectors: Tensor, clusters: int = 6, *, seed: int = 0) -> Tensor:
    """k-means on the vectors themselves, not on a picture of them (scikit-learn, extra ``analysis``).

    UMAP moves far groups near and near ones apart; the released code clusters its two coordinates.

    Args:
        vectors: (units, dims).
        clusters: k.
        seed: of the first centres.

    Returns:
        (units,), int64.

    Raises:
        ValueError: fewer different vectors than clusters, or values that are not finite.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> labels = clustered(torch.tensor([[0.0], [0.1], [5.0]]), 2)
        >>> bool(labels[0] == labels[1] != labels[2])
        True
    """
    if not isinstance(vectors, Tensor) or vectors.dim() != 2:
        seen = f"shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else f"type {type(vectors).__name__}"
        raise ValueError(f"vectors are of {seen}; wanted (units, dims), such as unit_vectors(amounts).values.")
    return grouped(vectors, clusters, seed=seed)


def rand_index(first: Tensor, second: Tensor) -> float:
    r"""How alike two groupings of the same units are, chance taken off: 1 the same, 0 as good as random.

    .. math:: \mathrm{ARI} = \frac{\mathrm{RI} - E[\mathrm{RI}]}{1 - E[\mathrm{RI}]}

    Symbols: RI the part of the pairs of units on which the groupings agree (together in both, or apart in both).

    Raises:
        ValueError: another number of units.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> rand_index(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 2, 2]))
        1.0

    Source: Hubert & Arabie, "Comparing partitions" (Journal of Classification, 1985).
    """
    if first.dim() != 1 or first.shape != second.shape:
        raise ValueError(
            f"groupings have shapes {tuple(first.shape)} and {tuple(second.shape)}; wanted (units,) of the same units "
            "twice."
        )
    metrics = needed("sklearn.metrics", purpose="the adjusted Rand index", extra="analysis")
    return float(metrics.adjusted_rand_score(first.cpu().numpy(), second.cpu().numpy()))


class Stability(NamedTuple):
    """Adjusted Rand indices between runs: of the vectors, and of vectors without structure; (pairs of seeds,) each."""

    found: Tensor
    shuffled: Tensor


def stability(
    vectors: Tensor, clusters: int = 6, *, seeds: Sequence[int] = (0, 1, 2, 3, 4), generator: torch.Generator
) -> Stability:
    """Whether k-means finds the same clusters again from other seeds; every pair of seeds is compared.

    Control: each dim shuffled over the units by itself, so that every number stays and no cluster does. Clusters
    that are no more stable than this are cut out of a cloud, not found in it.

    Args:
        vectors: (units, dims).
        clusters: k.
        seeds: of k-means, at least two.
        generator: of the control.

    Raises:
        ValueError: fewer than two seeds, or fewer different vectors than clusters.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> two = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> stability(two, 2, seeds=(0, 1), generator=torch.Generator().manual_seed(0)).found
        tensor([1.], dtype=torch.float64)
    """
    if len(set(seeds)) < 2:
        raise ValueError(f"seeds are {tuple(seeds)}; wanted at least two different ones to compare.")
    keys = torch.rand(vectors.shape, generator=generator, device=generator.device)
    without = vectors.gather(0, keys.argsort(0).to(vectors.device))

    def compared(rows: Tensor) -> Tensor:
        runs = [clustered(rows, clusters, seed=seed) for seed in seeds]
        pairs = itertools.combinations(runs, 2)
        return torch.tensor([rand_index(a, b) for a, b in pairs], dtype=torch.float64)

    return Stability(compared(vectors), compared(without))


class Mixing(NamedTuple):
    """How much clusters tell sources apart: the adjusted Rand index, and that of shuffled sources, (repeats,)."""

    found: float
    shuffled: Tensor


def mixing(labels: Tensor, sources: Tensor, *, generator: torch.Generator, repeats: int = 20) -> Mixing:
    """Whether clusters are made of layers, seeds or architectures (1), or go across them (0).

    Args:
        labels: (units,), the clusters.
        sources: (units,), integers: which layer, seed or network each unit is from.
        generator: of the control, which shuffles the sources.
        repeats: of the control.

    Raises:
        ValueError: another number of units.
        ModuleNotFoundError: scikit-learn is missing.

    Example:
        >>> mixing(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]), generator=torch.Generator()).found
        1.0
    """
    orders = [torch.randperm(len(sources), generator=generator, device=generator.device) for _ in range(repeats)]
    control = [rand_index(labels, sources[order.to(sources.device)]) for order in orders]
    return Mixing(rand_index(labels, sources), torch.tensor(control, dtype=torch.float64))
