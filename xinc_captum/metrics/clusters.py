"""Clusters of units by where they contribute, their stability, and the variance that they explain."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._optional import require
from .motion import contribution_change
from .regions import edges, group_features, opponents
from .spread import check_clip, pool_cells, to_double
from .statistics import rank_vectors, shuffle_units


class UnitVectors(NamedTuple):
    """Active units as vectors, (active units, dims), float64, each of length 1, and their indices, (active units,)."""

    values: Tensor
    units: Tensor


def unit_vectors(magnitudes: Tensor, grid: tuple[int, int] = (8, 16)) -> UnitVectors:
    r"""Return where each unit contributes, as vectors that are comparable across layers, seeds and architectures.

    .. math:: v_{u,g} = \sqrt{\mathrm{pooled}(a_u)_g \, / \, \Sigma_h\, \mathrm{pooled}(a_u)_h}

    Symbols: pooled(a_u)_g the mean magnitude of unit u in grid cell g. The vectors are independent of a unit's total
    contribution; units without contributions are left out. With the root, the distance of two vectors is the Hellinger
    distance of the units' spatial distributions. Without it, each unit that contributes at a single spot would form a
    cluster, and all others would share the last. (The released code rescales each map between its smallest and largest
    value, so that a single pixel can change the whole vector.)

    Magnitudes, grid and errors are those of :func:`pool_cells`; the frames of a clip are concatenated in the vector. To
    compare networks, use the same clip and grid, and ``torch.cat`` the values.

    Example:
        >>> unit_vectors(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]), (1, 2))
        UnitVectors(values=tensor([[0.5000, 0.8660]], dtype=torch.float64), units=tensor([0]))
    """
    cells = pool_cells(magnitudes, grid)
    flat = cells.flatten(1) if cells.dim() == 3 else cells.movedim(1, 0).flatten(1)
    total = flat.sum(1)
    units = total.nonzero()[:, 0]
    return UnitVectors((flat[units] / total[units, None]).sqrt(), units)


def cluster_rows(vectors: Tensor, clusters: int = 6, *, seed: int = 0) -> Tensor:
    """Return k-means clusters of vectors (units, dims) (scikit-learn, extra ``analysis``): (units,) int64.

    The released code clusters the two coordinates of UMAP instead, which does not preserve distances. ``clusters`` is
    k, ``seed`` that of the first centres. Raises ValueError for fewer different vectors than clusters, or values that
    are not finite.

    Example:
        >>> labels = cluster_rows(torch.tensor([[0.0], [0.1], [5.0]]), 2)
        >>> bool(labels[0] == labels[1] != labels[2])
        True
    """
    if not isinstance(vectors, Tensor) or vectors.dim() != 2:
        received = f"shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else f"type {type(vectors).__name__}"
        raise ValueError(f"vectors are of {received}; expected (units, dims), such as unit_vectors(magnitudes).values.")
    return group_features(vectors, clusters, seed=seed)


def rand_index(first: Tensor, second: Tensor) -> float:
    r"""Return the adjusted Rand index of two groupings of the same units: 1 for equal ones, 0 on average by chance.

    .. math:: \mathrm{ARI} = \frac{\mathrm{RI} - E[\mathrm{RI}]}{1 - E[\mathrm{RI}]}

    Symbols: RI the fraction of the pairs of units on which the groupings agree (together in both, or apart in both).
    Needs scikit-learn. Raises ValueError unless both are (units,) of one length.

    Example:
        >>> rand_index(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 2, 2]))
        1.0

    Source: Hubert & Arabie, "Comparing partitions" (Journal of Classification, 1985).
    """
    if first.dim() != 1 or first.shape != second.shape:
        raise ValueError(
            f"groupings have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected (units,) of the same "
            "units twice."
        )
    metrics = require("sklearn.metrics", purpose="the adjusted Rand index", extra="analysis")
    return float(metrics.adjusted_rand_score(first.cpu().numpy(), second.cpu().numpy()))


class ClusterStability(NamedTuple):
    """Adjusted Rand indices between runs, for the vectors and for shuffled vectors; (pairs of seeds,) each."""

    observed: Tensor
    shuffled: Tensor


def stability(
    vectors: Tensor, clusters: int = 6, *, seeds: Sequence[int] = (0, 1, 2, 3, 4), generator: torch.Generator
) -> ClusterStability:
    """Return how well k-means clusters of different seeds agree, for every pair of seeds, and a control.

    Control: each dim is shuffled over the units separately, by ``generator``, which keeps its distribution and removes
    clusters. If the clusters are not more stable than this control, the vectors have no cluster structure. Other
    arguments and errors are those of :func:`cluster_rows`, with at least two seeds.

    Example:
        >>> two = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> stability(two, 2, seeds=(0, 1), generator=torch.Generator().manual_seed(0)).observed
        tensor([1.], dtype=torch.float64)
    """
    if len(set(seeds)) < 2:
        raise ValueError(f"seeds are {tuple(seeds)}; expected at least two different ones.")

    def agreement_of_runs(rows: Tensor) -> Tensor:
        pairs = itertools.combinations([cluster_rows(rows, clusters, seed=seed) for seed in seeds], 2)
        return torch.tensor([rand_index(a, b) for a, b in pairs], dtype=torch.float64)

    without = shuffle_units(vectors, generator)
    return ClusterStability(agreement_of_runs(vectors), agreement_of_runs(without))


class ClusterMixing(NamedTuple):
    """Adjusted Rand index between clusters and sources, and that of shuffled sources, (repeats,)."""

    observed: float
    shuffled: Tensor


def cluster_mixing(labels: Tensor, sources: Tensor, *, generator: torch.Generator, repeats: int = 20) -> ClusterMixing:
    """Return how well clusters coincide with layers, seeds or architectures: 1 if they do, 0 if they are independent.

    It is the :func:`rand_index` of ``labels``, (units,), the clusters, and ``sources``, the layer, seed or network of
    each unit; the control shuffles the sources by ``generator``, ``repeats`` times.

    Example:
        >>> cluster_mixing(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]), generator=torch.Generator()).observed
        1.0
    """
    orders = [torch.randperm(len(sources), generator=generator, device=generator.device) for _ in range(repeats)]
    control = [rand_index(labels, sources[order.to(sources.device)]) for order in orders]
    return ClusterMixing(rand_index(labels, sources), torch.tensor(control, dtype=torch.float64))


def umap_positions(vectors: Tensor, *, neighbors: int = 15, seed: int = 0) -> Tensor:
    """Return UMAP coordinates (units, 2), float32, of vectors (units, dims) (umap-learn, extra ``analysis``).

    Use them for figures only: distances between groups and their sizes have no meaning, and another seed gives another
    layout. The first call compiles for about twenty seconds. Raises ValueError unless 2 <= ``neighbors`` < units.

    Example:
        >>> umap_positions(torch.rand(60, 8)).shape  # doctest: +SKIP
        torch.Size([60, 2])

    Source: McInnes, Healy & Melville, "UMAP: Uniform Manifold Approximation and Projection" (arXiv 1802.03426).
    """
    if vectors.dim() != 2 or not 2 <= neighbors < len(vectors):
        raise ValueError(
            f"vectors have shape {tuple(vectors.shape)} for {neighbors} neighbours; expected (units, dims) with more "
            "units than neighbours, and at least 2 neighbours."
        )
    umap = require("umap", purpose="a UMAP layout", extra="analysis")
    layout = umap.UMAP(n_neighbors=neighbors, min_dist=0.1, random_state=seed, n_jobs=1)
    return torch.from_numpy(layout.fit_transform(vectors.detach().double().cpu().numpy())).float().to(vectors.device)


class Explained(NamedTuple):
    """Fraction of a response's variance that clusters explain.

    Attributes:
        share: η², 0 to 1.
        shuffled: the same with shuffled labels, (repeats,).
        resampled: ``share`` minus the mean of ``shuffled`` over bootstrap samples of the units, (repeats,).
    """

    share: float
    shuffled: Tensor
    resampled: Tensor

    @property
    def above(self) -> float:
        """The share minus the mean share of shuffled labels, because any labels explain more than 0."""
        return self.share - float(self.shuffled.mean())

    @property
    def chance(self) -> float:
        """The p-value, the fraction of shuffled labels that explain as much: (1 + hits) / (1 + repeats)."""
        return (1 + int((self.shuffled >= self.share).sum())) / (1 + len(self.shuffled))


def what_dominates(
    responses: Mapping[str, Tensor], labels: Tensor, *, generator: torch.Generator, repeats: int = 200
) -> dict[str, Explained]:
    r"""Return the fraction η² of each response's variance that clusters explain, with a control and bootstrap samples.

    .. math:: \eta^2 = \mathrm{mean}_d \; \frac{\Sigma_k\, n_k (\bar r_{k,d} - \bar r_d)^2}
              {\Sigma_u\, (r_{u,d} - \bar r_d)^2}

    Symbols: r the response of unit u in dim d, r̄_k and r̄ its means over the n_k units of cluster k and over all
    units. Dims that do not vary are left out, and units with nan in any response are left out of all, so that all
    responses are about the same units; fewer than three raise ValueError.

    Args:
        responses: r by name, (units, dims), for example of :func:`unit_responses`.
        labels: (units,), clusters of the same units, at least two, else ValueError. If vectors left some units out,
            index the responses by ``units``.
        generator: of the shuffles and samples.
        repeats: number of shuffles and of samples.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> explained = what_dominates({"motion": labels * 1.0}, labels, generator=torch.Generator().manual_seed(0))
        >>> explained["motion"].share
        1.0

    Source: a measure of the paper's claim that clusters are dominated by motion (Padmanabhan et al., CVPR 2024); η² is
    the correlation ratio of Pearson (1905).
    """
    rows = {name: to_double(r if r.dim() == 2 else r[:, None]) for name, r in responses.items()}
    for name, row in rows.items():
        if labels.dim() != 1 or len(row) != len(labels):
            raise ValueError(
                f"{name} has shape {tuple(row.shape)} and labels {tuple(labels.shape)}; expected (units, dims) and "
                "(units,)."
            )
    complete = torch.stack([row.isfinite().all(1) for row in rows.values()]).all(0)
    count = int(complete.sum())
    if count < 3:
        raise ValueError(f"{count} of {len(labels)} units have all responses; expected at least 3.")
    rows = {name: row[complete] for name, row in rows.items()}
    device = generator.device
    known = labels.to(complete.device)[complete]
    member = to_double(known[:, None] == known.unique())  # (units, clusters)
    if member.shape[1] < 2:
        raise ValueError(f"all {count} units with responses are in one cluster; expected at least two clusters.")
    orders = [torch.randperm(count, generator=generator, device=device).to(complete.device) for _ in range(repeats)]
    draws = [
        torch.randint(count, (count,), generator=generator, device=device).to(complete.device) for _ in range(repeats)
    ]
    results = {}
    for name, row in rows.items():
        shuffled = torch.tensor([_share(row, member[order]) for order in orders], dtype=torch.float64)
        # a bootstrap sample repeats units, which any labels explain better, so its own chance level is subtracted
        resampled = [
            _share(row[d], member[d]) - _share(row[d], member[d][o]) for d, o in zip(draws, orders, strict=True)
        ]
        results[name] = Explained(_share(row, member), shuffled, torch.tensor(resampled, dtype=torch.float64))
    return results


def verdict(results: Mapping[str, Explained], name: str = "motion") -> str:
    """Return whether one response dominates the clusters: "supported here" or "not supported here", with the reason.

    It is supported if shuffled labels explain as much of the response in at most 5 % of the cases, and if it is
    explained better than each other response in at least 95 % of the bootstrap samples of the units. Raises KeyError
    without that response or another one.

    Example:
        >>> some, none = torch.full((99,), 0.8), torch.full((99,), 0.1)
        >>> responses = {"motion": Explained(0.9, none, some), "edge": Explained(0.3, none, none)}
        >>> verdict(responses)  # doctest: +NORMALIZE_WHITESPACE
        'supported here: clusters explain 90 % of the variance of motion (shuffled labels: 10 %) and 30 % of the
        variance of edge, the second highest'
    """
    rivals = [other for other in results if other != name]
    if name not in results or not rivals:
        raise KeyError(
            f"expected {name!r} and another response to compare it with; got {', '.join(results) or 'nothing'}"
        )
    mine = results[name]
    best = max(rivals, key=lambda other: results[other].above)
    shuffled = float(mine.shuffled.mean())
    text = f"clusters explain {mine.share:.0%} of the variance of {name} (shuffled labels: {shuffled:.0%})"
    text = text.replace("%", " %")
    if not mine.chance <= 0.05:
        return f"not supported here: {text}, which shuffled labels reach in {100 * mine.chance:.0f} % of the draws"
    ahead = (mine.resampled > torch.stack([results[other].resampled for other in rivals]).amax(0)).double().mean()
    compared = f"{results[best].share:.0%} of the variance of {best}".replace("%", " %")
    if float(ahead) < 0.95:
        highest = f"{name} is highest in only {100 * float(ahead):.0f} % of the bootstrap samples"
        return f"not supported here: {text}, but {compared}; {highest}"
    return f"supported here: {text} and {compared}, the second highest"


def _share(rows: Tensor, member: Tensor) -> float:
    """Return η² of rows (units, dims) for membership (units, clusters); nan if nothing varies."""
    centred = rows - rows.mean(0)
    total = centred.square().sum(0)
    means = (member.T @ centred) / member.sum(0).clamp_min(1)[:, None]
    between = (member.sum(0)[:, None] * means.square()).sum(0)
    varies = total > 1e-20 * len(rows) * rows.abs().amax(0).square().clamp_min(1e-300)
    return float((between[varies] / total[varies]).mean()) if varies.any() else float("nan")


def unit_responses(magnitudes: Tensor, clip: Tensor, flow: Tensor) -> dict[str, Tensor]:
    """Return four descriptions of each unit by name, (units, numbers), float64.

    They are rank correlations over pixels, averaged over frames, and the position; nan where a unit's maps, or the
    speeds, are constant at all frames. Edges need scikit-image (extra ``analysis``).

    ========  ==================================================================================
    motion    ρ(change of a, speed) and ρ(a, speed)
    colour    ρ(a, brightness), ρ(a, red against green), ρ(a, blue against yellow)
    edge      ρ(a, Sobel's edge strength)
    position  centre of mass of a: row, column, from 0 to 1
    ========  ==================================================================================

    Args:
        magnitudes: a, (frames, units, H, W), >= 0; a single frame or shapes that do not match raise ValueError.
        clip: (frames, 3, H, W), floats in [0, 1].
        flow: (frames - 1, 2, H, W), of :func:`optical_flow` or known.

    Example:
        >>> clip = torch.rand(3, 3, 6, 8)
        >>> responses = unit_responses(torch.rand(3, 5, 6, 8), clip, torch.rand(2, 2, 6, 8))
        >>> {name: response.shape[1] for name, response in responses.items()}
        {'motion': 2, 'colour': 3, 'edge': 1, 'position': 2}
    """
    values = check_clip(magnitudes)
    frames, size = len(values), values.shape[2:]
    if clip.shape != (frames, 3, *size) or flow.shape != (frames - 1, 2, *size):
        raise ValueError(
            f"clip has shape {tuple(clip.shape)} and flow {tuple(flow.shape)} for magnitudes "
            f"{tuple(magnitudes.shape)}; expected {(frames, 3, *size)} and {(frames - 1, 2, *size)}."
        )
    maps = rank_vectors(values.flatten(2))
    changes = rank_vectors(contribution_change(values).flatten(2))
    speed = rank_vectors(flow.to(values).norm(dim=1).flatten(1))
    colours = rank_vectors(torch.stack([opponents(frame) for frame in clip]).to(values).flatten(2))
    outlines = rank_vectors(torch.stack([edges(frame) for frame in clip]).to(values).flatten(1))
    return {
        "motion": torch.stack([_over_frames(changes, speed), _over_frames(maps[:-1], speed)], 1),
        "colour": torch.stack([_over_frames(maps, one) for one in colours.unbind(1)], 1),
        "edge": _over_frames(maps, outlines)[:, None],
        "position": _centres(values),
    }


def _over_frames(maps: Tensor, fields: Tensor) -> Tensor:
    """Return the mean over frames of the correlations of (frames, units, P) with (frames, P): (units,)."""
    return torch.einsum("tup,tp->tu", maps, fields).nanmean(0)


def _centres(values: Tensor) -> Tensor:
    """Return the centres of mass (units, 2) of (frames, units, H, W)."""
    total = values.sum((0, 2, 3))
    centres = []
    for dim in (2, 3):
        along = values.sum((0, 5 - dim))
        places = torch.linspace(0, 1, along.shape[1], dtype=along.dtype, device=along.device)
        centres.append((along @ places) / total.where(total > 0, torch.nan))
    return torch.stack(centres, 1)
