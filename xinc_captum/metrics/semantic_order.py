"""Whether two spaces put the same things near one another: between classes, within classes, and against chance."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .link_fit import class_means
from .rank import rank_vectors


@dataclass(frozen=True)
class SemanticOrder:
    """How congruent two spaces are.

    Attributes:
        between: Spearman's correlation of the distances between class means in one space and the other; None with fewer
            than four classes.
        between_p: share of shufflings of the classes that reach as much.
        within: the same of distances between rows of one class, its mean over classes; None where no class has enough.
        within_p: share of shufflings within classes that reach as much.
        neighbours: share of a row's k nearest rows of its own class that are so in both spaces; None likewise.
        neighbours_chance: what shuffling within classes gives.
        neighbours_p: share of shufflings within classes that reach as much.
    """

    between: float | None
    between_p: float | None
    within: float | None
    within_p: float | None
    neighbours: float | None
    neighbours_chance: float | None
    neighbours_p: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers."""
        return asdict(self)


def semantic_order(
    first: Tensor,
    second: Tensor,
    classes: Tensor,
    *,
    neighbours: int = 5,
    rows_per_class: int = 60,
    repeats: int = 200,
    seed: int = 0,
) -> SemanticOrder:
    r"""Representational similarity and shared neighbours, between and within classes, each with its own null.

    .. math:: \rho\big(\lVert \bar a_c - \bar a_d \rVert, \lVert \bar b_c - \bar b_d \rVert\big)_{c<d}, \qquad
        \mathrm{mean}_c\; \rho\big(\lVert a_i - a_j \rVert, \lVert b_i - b_j \rVert\big)_{i<j \in c}

    That classes lie alike says little of the order within them, which is what changing single units relies on; so the
    two are never mixed. Columns are divided by their standard deviation first.

    Args:
        first: (n, units), say representations.
        second: (n, latent_dim), say latents of the same rows.
        classes: (n,).
        neighbours: k; classes with fewer than 2 k + 2 rows are left out within classes.
        rows_per_class: at most so many rows of a class are looked at, drawn at random.
        repeats: shufflings of the null.
        seed: of the rows and the null.

    Raises:
        ValueError: row counts that differ, a count below 1, or values that are not finite.

    Example:
        >>> w = torch.rand(60, 3)
        >>> order = semantic_order(w, w, torch.arange(60) % 4)
        >>> round(order.between, 6), round(order.within, 6), order.neighbours
        (1.0, 1.0, 1.0)

    Source: Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis".
    """
    if not len(first) == len(second) == len(classes):
        raise ValueError(f"got {len(first)}, {len(second)} and {len(classes)} rows; wanted as many of each.")
    if min(neighbours, rows_per_class, repeats) < 1:
        raise ValueError(
            f"got neighbours={neighbours}, rows_per_class={rows_per_class}, repeats={repeats}; wanted >= 1."
        )
    generator = torch.Generator().manual_seed(seed)
    a, b = _scaled(first), _scaled(second)
    classes = classes.cpu()
    between = _between(a, b, classes, repeats, generator)
    groups = [
        own[torch.randperm(len(own), generator=generator)[:rows_per_class]]
        for own in ((classes == c).nonzero()[:, 0] for c in classes.unique())
        if len(own) >= 2 * neighbours + 2
    ]
    if not groups:
        return SemanticOrder(*between, None, None, None, None, None)
    spaces = [(torch.cdist(a[g], a[g]), torch.cdist(b[g], b[g])) for g in groups]
    ranks = [(_ranked(da), _ranked(db)) for da, db in spaces]
    near = [(_nearest(da, neighbours), _nearest(db, neighbours)) for da, db in spaces]
    order = [torch.arange(len(g)) for g in groups]
    within, shared = _rank_agreement(ranks, order), _shared(near, order, neighbours)
    null = []
    for _ in range(repeats):
        order = [torch.randperm(len(g), generator=generator) for g in groups]
        null.append((_rank_agreement(ranks, order), _shared(near, order, neighbours)))
    chance = sum(s for _, s in null) / repeats
    return SemanticOrder(
        *between,
        within,
        _p(within, [w for w, _ in null]),
        shared,
        chance,
        _p(shared, [s for _, s in null]),
    )


def _between(
    a: Tensor, b: Tensor, classes: Tensor, repeats: int, generator: torch.Generator
) -> tuple[float | None, float | None]:
    found, first = classes.unique(return_inverse=True)
    if len(found) < 4:  # three classes have three distances, which six orders can arrange
        return None, None
    where = torch.stack([(first == c).nonzero()[0, 0] for c in range(len(found))])
    means = [class_means(side, classes)[where] for side in (a, b)]
    ranks = [(_ranked(torch.cdist(means[0], means[0])), _ranked(torch.cdist(means[1], means[1])))]
    observed = _rank_agreement(ranks, [torch.arange(len(found))])
    null = [_rank_agreement(ranks, [torch.randperm(len(found), generator=generator)]) for _ in range(repeats)]
    return observed, _p(observed, null)


def _rank_agreement(ranks: list[tuple[Tensor, Tensor]], order: list[Tensor]) -> float:
    """Spearman's correlation, a product of ranks as vectors of length one; shuffling rows only shuffles the ranks."""
    each = [float((ra * rb[o][:, o]).sum()) for (ra, rb), o in zip(ranks, order, strict=True)]
    return sum(each) / len(each)


def _ranked(distances: Tensor) -> Tensor:
    """The distances' ranks, centred and scaled so that the sum of squares is one: (n, n), zeros on the diagonal."""
    above = torch.triu_indices(len(distances), len(distances), 1)
    half = torch.zeros_like(distances)
    half[above[0], above[1]] = rank_vectors(distances[above[0], above[1]][None])[0].nan_to_num(0.0)
    return (half + half.T) / 2**0.5


def _nearest(distances: Tensor, k: int) -> Tensor:
    """(n, n) bool: whether column j is among row i's k nearest others."""
    others = distances + torch.diag(torch.full((len(distances),), torch.inf, dtype=distances.dtype))
    return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, others.topk(k, largest=False).indices, True)


def _shared(near: list[tuple[Tensor, Tensor]], order: list[Tensor], k: int) -> float:
    both = [(na & nb[o][:, o]).sum(1) for (na, nb), o in zip(near, order, strict=True)]
    return float(torch.cat(both).double().mean()) / k


def _p(observed: float, null: list[float]) -> float:
    return (1 + sum(value >= observed for value in null)) / (1 + len(null))


def _scaled(rows: Tensor) -> Tensor:
    wide = rows.detach().cpu().to(torch.float64)
    if not wide.isfinite().all():
        row = int((~wide.isfinite().flatten(1).all(1)).nonzero()[0, 0])
        raise ValueError(f"row {row} holds nan or infinity; distances to it mean nothing. Leave such rows out.")
    sd = wide.std(0)
    return (wide - wide.mean(0)) * torch.where(sd > 0, 1 / sd, 0.0)
