"""R², selectivity, identifiability, leaks."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .spread import to_double
from .statistics import rank_vectors


def tolerance(covariance: Tensor) -> Tensor:
    r"""The share of each unit's variance that no other unit explains: 1 / VIF.

    .. math:: t_u = \frac{1}{C_{uu}\, (C^{-1})_{uu}} = 1 - R^2(r_u \mid \text{other units})

    Near 0, the partial coefficient of the unit is a matter of chance: other units could stand in for it.

    Args:
        covariance: C, (units, units), of representations.

    Returns:
        (units,), float64; 0 where others determine the unit exactly, nan where it does not vary.

    Raises:
        ValueError: no square matrix.

    Example:
        >>> tolerance(torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
        tensor([0.6400, 0.6400], dtype=torch.float64)

    Source: Belsley, Kuh, Welsch 1980, "Regression diagnostics".
    """
    if covariance.dim() != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance has shape {tuple(covariance.shape)}; expected (units, units).")
    device = "cpu" if covariance.device.type == "mps" else covariance.device
    c = covariance.detach().to(device).to(torch.float64)
    alive = c.diagonal() > 0
    result = torch.full_like(c.diagonal(), torch.nan)
    if not alive.any():
        return result
    sd = c.diagonal()[alive].sqrt()
    values, vectors = torch.linalg.eigh(c[alive][:, alive] / sd[:, None] / sd)
    floor = torch.finfo(torch.float64).eps * len(values) * values[-1]
    # A direction without variance is a sum of units that is always the same: each unit in it follows from the others.
    tied = vectors[:, values <= floor].square().sum(1) > 1e-9
    nonzero = values > floor
    unique = 1 / (vectors[:, nonzero].square() / values[nonzero]).sum(1)
    result[alive] = torch.where(tied, 0.0, unique.clamp(0, 1))
    return result


def unit_agreement(first: Tensor, second: Tensor) -> Tensor:
    r"""Pearson's correlation of each unit with itself in a second reading of the same rows.

    .. math:: \rho_u = \mathrm{corr}_i(r_{iu}, r'_{iu})

    Args:
        first: r, (n, units).
        second: r', likewise, as re-encoded from the linked images.

    Returns:
        (units,), float64; nan where a unit does not vary on one side.

    Raises:
        ValueError: shapes differ or are not (n, units).

    Example:
        >>> round(float(unit_agreement(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [0.0]]))), 6)
        -1.0
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (n, units).")
    a, b = (side.detach().cpu().to(torch.float64) for side in (first, second))
    still = (a == a[:1]).all(0) | (b == b[:1]).all(0)  # rounding of the mean is no variation
    a, b = a - a.mean(0), b - b.mean(0)
    length = torch.where(still, 0.0, a.norm(dim=0) * b.norm(dim=0))
    correlation: Tensor = (a * b).sum(0) / length.where(length > 0, torch.nan)
    return correlation


def r2(truth: Tensor, predicted: Tensor) -> Tensor:
    r"""The share of variance explained, all columns together.

    .. math:: R^2 = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w \rVert^2}

    Args:
        truth: w, (n, columns); w̄ is its mean.
        predicted: ŵ, likewise.

    Returns:
        a scalar, float64; below 0 where the mean would do better, nan where nothing varies.

    Raises:
        ValueError: shapes differ or are not (n, columns).

    Example:
        >>> w = torch.tensor([[0.0], [2.0]])
        >>> float(r2(w, torch.tensor([[0.0], [1.0]])))
        0.5
    """
    error, around = (rows.sum() for rows in squares(truth, predicted))
    return 1 - error / around


def r2_within(truth: Tensor, predicted: Tensor, classes: Tensor) -> Tensor:
    r"""The share explained of what varies *within* classes: the honest figure where classes matter at all.

    .. math:: R^2_w = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w_{c(i)} \rVert^2}

    A link that knows nothing but the class, and answers its mean, reaches class agreement of 1.00 and R² of .7 to .8
    on digits; here it has 0. The means are those of the pairs given, so that the yardstick is as hard as can be.

    Args:
        truth: w, (n, columns).
        predicted: ŵ, likewise.
        classes: (n,).

    Returns:
        a scalar, float64; nan where nothing varies within classes.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> w = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> float(r2_within(w, torch.tensor([[1.0], [1.0], [11.0], [11.0]]), torch.tensor([0, 0, 1, 1])))
        0.0
    """
    error, around = (rows.sum() for rows in squares(truth, predicted, classes))
    return 1 - error / around


def squares(truth: Tensor, predicted: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row by row, the squared error and the squared distance to the mean (of the row's class): (n,) each, float64."""
    if truth.shape != predicted.shape or truth.dim() != 2:
        raise ValueError(
            f"got shapes {tuple(truth.shape)} and {tuple(predicted.shape)}; expected the same (n, columns) twice."
        )
    device = "cpu" if truth.device.type == "mps" else truth.device
    w, fitted = (side.detach().to(device).to(torch.float64) for side in (truth, predicted))
    centred = w - (w.mean(0) if classes is None else class_means(w, classes))
    # The mean of equal numbers is rounded: what is left of them is no variation.
    centred = torch.where(centred.abs() > 1e-12 * w.abs().amax(0), centred, 0.0) if len(w) else centred
    return (w - fitted).square().sum(1), centred.square().sum(1)


def class_means(rows: Tensor, classes: Tensor) -> Tensor:
    """Each row's class mean, (n, columns).

    Raises:
        ValueError: not one class a row.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([7, 7, 2]))
        tensor([[2.],
                [2.],
                [5.]])
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; expected one a row.")
    present, where, counts = classes.to(rows.device).unique(return_inverse=True, return_counts=True)
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = wide.new_zeros(len(present), rows.shape[1]).index_add_(0, where, wide)
    means: Tensor = (sums / counts[:, None]).to(rows.dtype)
    return means[where]


def mix_bits(numbers: Tensor) -> Tensor:
    """Scramble 64-bit integers so that every bit of the input changes about half of the bits of the answer.

    Example:
        >>> len(set(mix_bits(torch.arange(1000)).tolist()))
        1000

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators": the finaliser of SplitMix64.
    """
    z = numbers.to(torch.int64) + _as_signed(0x9E3779B97F4A7C15)
    z = (z ^ _shift_right(z, 30)) * _as_signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _as_signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def row_hashes(rows: Tensor) -> Tensor:
    """Return a 64-bit hash of each row's values as float32: equal rows have equal hashes.

    The hashes of the fitted rows, and the sampling keys that are made of them, are stored in link files. Another
    algorithm would not find leaks into links that were saved before.

    Args:
        rows: (n, columns), any float dtype; -0 counts as 0.

    Returns:
        (n,) int64.

    Example:
        >>> a, b = row_hashes(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
        >>> bool(a == b)
        False
    """
    bits = (rows.detach().flatten(1).to(torch.float32) + 0.0).contiguous().view(torch.int32).to(torch.int64)
    place = mix_bits(torch.arange(bits.shape[1], device=bits.device))
    return mix_bits(mix_bits(bits + place).sum(1))


def _as_signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift right as unsigned numbers do; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


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


def leaks(rows: Tensor, fit_hashes: Tensor) -> Tensor:
    """Which held-out rows were in the fit.

    Args:
        rows: (n, columns), held out, compared as float32.
        fit_hashes: :func:`row_hashes` of the fitted rows, (m,).

    Returns:
        (n,) bool.

    Example:
        >>> leaks(torch.tensor([[1.0], [2.0]]), row_hashes(torch.tensor([[2.0], [3.0]])))
        tensor([False,  True])
    """
    hashes = row_hashes(rows)
    return torch.isin(hashes, fit_hashes.to(hashes.device))


class Selectivity(NamedTuple):
    """What classes have to do with each unit.

    Attributes:
        classes: those that occur, (K,), in rising order.
        means: mean response to each, in the unit's standard deviations from its mean over all, (units, K), float64.
        explained: share of each unit's variance that lies between classes, (units,); nan for units that never vary.
    """

    classes: Tensor
    means: Tensor
    explained: Tensor


def selectivity(responses: Tensor, classes: Tensor) -> Selectivity:
    r"""Mean response of every unit to every class, and η².

    .. math:: z_{u,c} = \frac{\bar r_{u,c} - \bar r_u}{\sigma_u}, \qquad
              \eta^2_u = \sum_c \frac{n_c}{n}\, z_{u,c}^2

    Symbols: r̄ means over the images of a class, or over all; σ the standard deviation over all; n_c and n how many.

    Args:
        responses: (n, units), any float dtype.
        classes: (n,) whole numbers.

    Returns:
        a :class:`Selectivity` on the CPU; units that never vary have means of 0, and all have where there is one class.

    Raises:
        ValueError: shapes that do not fit, or responses that are not finite.

    Example:
        >>> found = selectivity(torch.tensor([[1.0], [1.0], [3.0], [3.0]]), torch.tensor([0, 0, 7, 7]))
        >>> found.means.tolist(), found.classes.tolist(), found.explained.tolist()
        ([[-1.0, 1.0]], [0, 7], [1.0])
    """
    if responses.dim() != 2 or tuple(classes.shape) != (len(responses),) or not len(responses):
        raise ValueError(
            f"responses have shape {tuple(responses.shape)} and classes {tuple(classes.shape)}; expected (n, units) "
            "and (n,)."
        )
    values = to_double(responses).cpu()
    if not values.isfinite().all():
        row, unit = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"responses hold nan or infinity, first of unit {unit} in row {row}; leave such rows out.")
    known, place = classes.cpu().unique(return_inverse=True)
    away = values - values.mean(0)
    spread = away.square().mean(0).sqrt()
    # Rounding leaves a constant unit with a tiny spread, by which nothing must be divided.
    alive = spread > 1e-9 * values.abs().amax(0).clamp_min(1e-30)
    scaled = torch.where(alive, away / spread.where(alive, torch.ones_like(spread)), torch.zeros_like(away))
    counts = torch.bincount(place, minlength=len(known)).to(scaled)
    means = scaled.new_zeros(len(known), values.shape[1]).index_add_(0, place, scaled) / counts[:, None]
    if len(known) == 1:  # what rounding leaves is not a mean
        means = torch.zeros_like(means)
    explained = (counts[:, None] / len(values) * means.square()).sum(0)
    return Selectivity(known, means.T.contiguous(), explained.where(alive, torch.full_like(explained, torch.nan)))


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
        raise ValueError(f"got {len(first)}, {len(second)} and {len(classes)} rows; expected as many of each.")
    if min(neighbours, rows_per_class, repeats) < 1:
        raise ValueError(
            f"got neighbours={neighbours}, rows_per_class={rows_per_class}, repeats={repeats}; expected >= 1."
        )
    generator = torch.Generator().manual_seed(seed)
    a, b = _standardize(first), _standardize(second)
    classes = classes.cpu()
    between = _between(a, b, classes, repeats, generator)
    groups = [
        members[torch.randperm(len(members), generator=generator)[:rows_per_class]]
        for members in ((classes == c).nonzero()[:, 0] for c in classes.unique())
        if len(members) >= 2 * neighbours + 2
    ]
    if not groups:
        return SemanticOrder(*between, None, None, None, None, None)
    spaces = [(torch.cdist(a[g], a[g]), torch.cdist(b[g], b[g])) for g in groups]
    ranks = [(_ranks(da), _ranks(db)) for da, db in spaces]
    near = [(_nearest(da, neighbours), _nearest(db, neighbours)) for da, db in spaces]
    order = [torch.arange(len(g)) for g in groups]
    within, shared = _rank_agreement(ranks, order), _share_in_both(near, order, neighbours)
    null = []
    for _ in range(repeats):
        order = [torch.randperm(len(g), generator=generator) for g in groups]
        null.append((_rank_agreement(ranks, order), _share_in_both(near, order, neighbours)))
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
    present, first = classes.unique(return_inverse=True)
    if len(present) < 4:  # three classes have three distances, which six orders can arrange
        return None, None
    where = torch.stack([(first == c).nonzero()[0, 0] for c in range(len(present))])
    means = [class_means(side, classes)[where] for side in (a, b)]
    ranks = [(_ranks(torch.cdist(means[0], means[0])), _ranks(torch.cdist(means[1], means[1])))]
    observed = _rank_agreement(ranks, [torch.arange(len(present))])
    null = [_rank_agreement(ranks, [torch.randperm(len(present), generator=generator)]) for _ in range(repeats)]
    return observed, _p(observed, null)


def _rank_agreement(ranks: list[tuple[Tensor, Tensor]], order: list[Tensor]) -> float:
    """Spearman's correlation, a product of ranks as vectors of length one; shuffling rows only shuffles the ranks."""
    each = [float((ra * rb[o][:, o]).sum()) for (ra, rb), o in zip(ranks, order, strict=True)]
    return sum(each) / len(each)


def _ranks(distances: Tensor) -> Tensor:
    """The distances' ranks, centred and scaled so that the sum of squares is one: (n, n), zeros on the diagonal."""
    above = torch.triu_indices(len(distances), len(distances), 1)
    half = torch.zeros_like(distances)
    half[above[0], above[1]] = rank_vectors(distances[above[0], above[1]][None])[0].nan_to_num(0.0)
    return (half + half.T) / 2**0.5


def _nearest(distances: Tensor, k: int) -> Tensor:
    """(n, n) bool: whether column j is among row i's k nearest others."""
    without_self = distances + torch.diag(torch.full((len(distances),), torch.inf, dtype=distances.dtype))
    return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, without_self.topk(k, largest=False).indices, True)


def _share_in_both(near: list[tuple[Tensor, Tensor]], order: list[Tensor], k: int) -> float:
    both = [(na & nb[o][:, o]).sum(1) for (na, nb), o in zip(near, order, strict=True)]
    return float(torch.cat(both).double().mean()) / k


def _p(observed: float, null: list[float]) -> float:
    return (1 + sum(value >= observed for value in null)) / (1 + len(null))


def _standardize(rows: Tensor) -> Tensor:
    wide = rows.detach().cpu().to(torch.float64)
    if not wide.isfinite().all():
        row = int((~wide.isfinite().flatten(1).all(1)).nonzero()[0, 0])
        raise ValueError(f"row {row} holds nan or infinity; distances to it mean nothing. Leave such rows out.")
    sd = wide.std(0)
    return (wide - wide.mean(0)) * torch.where(sd > 0, 1 / sd, 0.0)
