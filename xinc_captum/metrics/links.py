"""Metrics of latent links: R², identifiability of units, selectivity, semantic order, leaks and duplicates."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..batch import random_generator
from .spread import to_double
from .statistics import rank_vectors


def tolerance(covariance: Tensor) -> Tensor:
    r"""Return the fraction of each unit's variance that other units do not explain, 1 / VIF: (units,) float64.

    .. math:: t_u = \frac{1}{C_{uu}\, (C^{-1})_{uu}} = 1 - R^2(r_u \mid \text{other units})

    Near 0, the partial coefficient of the unit is not identifiable, because other units can replace it. It is 0 if they
    determine the unit exactly, and nan if it does not vary.

    Args:
        covariance: C, (units, units), of representations; another shape raises ValueError.

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
    # A direction without variance is a constant sum of units, so each unit in it follows from the others.
    tied = vectors[:, values <= floor].square().sum(1) > 1e-9
    nonzero = values > floor
    unique = 1 / (vectors[:, nonzero].square() / values[nonzero]).sum(1)
    result[alive] = torch.where(tied, 0.0, unique.clamp(0, 1))
    return result


def unit_agreement(first: Tensor, second: Tensor) -> Tensor:
    r"""Return Pearson's correlation of each unit between two representations (n, units) of the same rows: (units,).

    .. math:: \rho_u = \mathrm{corr}_i(r_{iu}, r'_{iu})

    The second may be re-encoded from the linked images. The result is float64, nan if a unit does not vary in one of
    them. Raises ValueError for shapes that differ or are not (n, units).

    Example:
        >>> round(float(unit_agreement(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [0.0]]))), 6)
        -1.0
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (n, units).")
    a, b = (side.detach().cpu().to(torch.float64) for side in (first, second))
    still = (a == a[:1]).all(0) | (b == b[:1]).all(0)  # rounding errors of the mean are not variation
    a, b = a - a.mean(0), b - b.mean(0)
    length = torch.where(still, 0.0, a.norm(dim=0) * b.norm(dim=0))
    correlation: Tensor = (a * b).sum(0) / length.where(length > 0, torch.nan)
    return correlation


def r2(truth: Tensor, predicted: Tensor) -> Tensor:
    r"""Return the explained fraction of the variance over all columns, a float64 scalar; nan if nothing varies.

    .. math:: R^2 = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w \rVert^2}

    Symbols: w the truth and ŵ the prediction, (n, columns) both, else ValueError; w̄ the mean of w. It is below 0 if
    the mean predicts better.

    Example:
        >>> w = torch.tensor([[0.0], [2.0]])
        >>> float(r2(w, torch.tensor([[0.0], [1.0]])))
        0.5
    """
    error, around = (rows.sum() for rows in squares(truth, predicted))
    return 1 - error / around


def r2_within(truth: Tensor, predicted: Tensor, classes: Tensor) -> Tensor:
    r"""Return the explained fraction of the variance *within* classes, a float64 scalar; nan if nothing varies there.

    .. math:: R^2_w = 1 - \frac{\sum_i \lVert w_i - \hat w_i \rVert^2}{\sum_i \lVert w_i - \bar w_{c(i)} \rVert^2}

    A link that predicts the mean of the class reaches a class agreement of 1.00 and an R² of .7 to .8 on digits, but an
    R² within classes of 0. The means w̄_c are those of ``truth``, which makes the baseline as strong as possible. Other
    symbols, arguments and errors are those of :func:`r2`, with the class c(i) of each row, (n,).

    Example:
        >>> w = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> float(r2_within(w, torch.tensor([[1.0], [1.0], [11.0], [11.0]]), torch.tensor([0, 0, 1, 1])))
        0.0
    """
    error, around = (rows.sum() for rows in squares(truth, predicted, classes))
    return 1 - error / around


def squares(truth: Tensor, predicted: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each row's squared error and squared distance to the mean (of its class): (n,) each, float64."""
    if truth.shape != predicted.shape or truth.dim() != 2:
        raise ValueError(
            f"got shapes {tuple(truth.shape)} and {tuple(predicted.shape)}; expected the same (n, columns) twice."
        )
    device = "cpu" if truth.device.type == "mps" else truth.device
    w, fitted = (side.detach().to(device).to(torch.float64) for side in (truth, predicted))
    centred = w - (w.mean(0) if classes is None else class_means(w, classes))
    # The mean of equal numbers is rounded; such remainders are not variation.
    centred = torch.where(centred.abs() > 1e-12 * w.abs().amax(0), centred, 0.0) if len(w) else centred
    return (w - fitted).square().sum(1), centred.square().sum(1)


def class_means(rows: Tensor, classes: Tensor) -> Tensor:
    """Return each row's class mean, (n, columns); raise ValueError unless there is one class for each row.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([7, 7, 2])).tolist()
        [[2.0], [2.0], [5.0]]
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; expected one a row.")
    present, where, counts = classes.to(rows.device).unique(return_inverse=True, return_counts=True)
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    sums = wide.new_zeros(len(present), rows.shape[1]).index_add_(0, where, wide)
    means: Tensor = (sums / counts[:, None]).to(rows.dtype)
    return means[where]


def mix_bits(numbers: Tensor) -> Tensor:
    """Return 64-bit hashes of integers; every bit of the input changes about half of the bits of the hash.

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators": the finaliser of SplitMix64.
    """
    z = numbers.to(torch.int64) + (0x9E3779B97F4A7C15 - 2**64)  # as signed integers
    z = (z ^ _shift_right(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shift_right(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shift_right(z, 31)


def row_hashes(rows: Tensor) -> Tensor:
    """Return a 64-bit hash of each row's values as float32, (n,) int64: equal rows have equal hashes; -0 counts as 0.

    The hashes of the fitted rows, and the sampling keys that are made of them, are stored in link files. Another
    algorithm would not find leaks into links that were saved before.

    Example:
        >>> a, b = row_hashes(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
        >>> bool(a == b)
        False
    """
    bits = (rows.detach().flatten(1).to(torch.float32) + 0.0).contiguous().view(torch.int32).to(torch.int64)
    place = mix_bits(torch.arange(bits.shape[1], device=bits.device))
    return mix_bits(mix_bits(bits + place).sum(1))


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Return an unsigned shift to the right; torch's operator keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def duplicates(rows: Tensor) -> float:
    """Return the fraction of rows (n, columns) that repeat an earlier one, compared as float32: (n − unique) / n.

    Example:
        >>> duplicates(torch.tensor([[1.0], [2.0], [1.0], [1.0]]))
        0.5
    """
    hashes = row_hashes(rows)
    return (len(hashes) - len(hashes.unique())) / len(hashes)


def leaks(rows: Tensor, fit_hashes: Tensor) -> Tensor:
    """Return which held-out rows were in the fit, by the :func:`row_hashes` of the fitted rows: (n,) bool.

    Example:
        >>> leaks(torch.tensor([[1.0], [2.0]]), row_hashes(torch.tensor([[2.0], [3.0]])))
        tensor([False,  True])
    """
    hashes = row_hashes(rows)
    return torch.isin(hashes, fit_hashes.to(hashes.device))


class Selectivity(NamedTuple):
    """Mean responses of units to classes, and the variance that classes explain.

    Attributes:
        classes: the present classes, (K,), in ascending order.
        means: mean response to each class, minus the unit's mean, in its standard deviations, (units, K), float64.
        explained: fraction of each unit's variance between classes, (units,); nan for units without variance.
    """

    classes: Tensor
    means: Tensor
    explained: Tensor


def selectivity(responses: Tensor, classes: Tensor) -> Selectivity:
    r"""Return the mean response of every unit to every class, and η², on the CPU.

    .. math:: z_{u,c} = \frac{\bar r_{u,c} - \bar r_u}{\sigma_u}, \qquad
              \eta^2_u = \sum_c \frac{n_c}{n}\, z_{u,c}^2

    Symbols: r the responses, (n, units); r̄ their means over the images of a class, or over all; σ the standard
    deviation over all; n_c and n the numbers of images. Means are 0 for units without variance, and for all units of a
    single class. Raises ValueError unless there is one integer class for each row and the responses are finite.

    Example:
        >>> result = selectivity(torch.tensor([[1.0], [1.0], [3.0], [3.0]]), torch.tensor([0, 0, 7, 7]))
        >>> result.means.tolist(), result.classes.tolist(), result.explained.tolist()
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
    # Rounding errors give constant units a tiny spread, which must not be a divisor.
    alive = spread > 1e-9 * values.abs().amax(0).clamp_min(1e-30)
    scaled = torch.where(alive, away / spread.where(alive, torch.ones_like(spread)), torch.zeros_like(away))
    counts = torch.bincount(place, minlength=len(known)).to(scaled)
    means = scaled.new_zeros(len(known), values.shape[1]).index_add_(0, place, scaled) / counts[:, None]
    if len(known) == 1:  # nothing but rounding errors
        means = torch.zeros_like(means)
    explained = (counts[:, None] / len(values) * means.square()).sum(0)
    return Selectivity(known, means.T.contiguous(), explained.where(alive, torch.full_like(explained, torch.nan)))


@dataclass(frozen=True)
class SemanticOrder:
    """Similarity of the geometry of two spaces, between classes and within them.

    Attributes:
        between: Spearman's correlation of the distances between class means in one space and the other; None with fewer
            than four classes.
        between_p: its p-value, by permutations of the classes.
        within: the same for distances between rows of one class, averaged over classes; None if all classes are small.
        within_p: its p-value, by permutations within classes.
        neighbours: fraction of a row's k nearest rows of its class that are the same in both spaces; None likewise.
        neighbours_chance: its mean under permutations within classes.
        neighbours_p: its p-value, by permutations within classes.
    """

    between: float | None
    between_p: float | None
    within: float | None
    within_p: float | None
    neighbours: float | None
    neighbours_chance: float | None
    neighbours_p: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return the fields as a dict."""
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
    r"""Return representational similarity and shared neighbours, between and within classes, each with its own null.

    .. math:: \rho\big(\lVert \bar a_c - \bar a_d \rVert, \lVert \bar b_c - \bar b_d \rVert\big)_{c<d}, \qquad
        \mathrm{mean}_c\; \rho\big(\lVert a_i - a_j \rVert, \lVert b_i - b_j \rVert\big)_{i<j \in c}

    Symbols: ā_c the mean of a over class c; ρ Spearman's correlation over pairs. A similar arrangement of classes does
    not imply a similar order within them, on which changes of single units depend. So the two are reported separately.
    Columns are divided by their standard deviation first.

    Args:
        first: a, (n, units), for example representations.
        second: b, (n, latent_dim), for example latents of the same rows.
        classes: (n,).
        neighbours: k; classes with fewer than 2 k + 2 rows are left out within classes.
        rows_per_class: largest number of rows of a class, sampled at random.
        repeats: permutations of the null.
        seed: random seed of the sampled rows and the null.

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
        raise ValueError(f"got {len(first)}, {len(second)} and {len(classes)} rows; expected equal numbers.")
    if min(neighbours, rows_per_class, repeats) < 1:
        raise ValueError(
            f"got neighbours={neighbours}, rows_per_class={rows_per_class}, repeats={repeats}; expected >= 1."
        )
    generator = random_generator(seed)
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
    within_p, shared_p = _p(within, [w for w, _ in null]), _p(shared, [s for _, s in null])
    return SemanticOrder(*between, within, within_p, shared, chance, shared_p)


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
    """Return Spearman's correlation, a product of ranks as unit vectors; permuting rows only permutes the ranks."""
    each = [float((ra * rb[o][:, o]).sum()) for (ra, rb), o in zip(ranks, order, strict=True)]
    return sum(each) / len(each)


def _ranks(distances: Tensor) -> Tensor:
    """Return the ranks of distances, centred and scaled to a sum of squares of one: (n, n), zero on the diagonal."""
    above = torch.triu_indices(len(distances), len(distances), 1)
    half = torch.zeros_like(distances)
    half[above[0], above[1]] = rank_vectors(distances[above[0], above[1]][None])[0].nan_to_num(0.0)
    return (half + half.T) / 2**0.5


def _nearest(distances: Tensor, k: int) -> Tensor:
    """Return whether row j is among the k nearest others of row i: (n, n) bool."""
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
        raise ValueError(f"row {row} holds nan or infinity; expected finite values. Leave such rows out.")
    sd = wide.std(0)
    return (wide - wide.mean(0)) * torch.where(sd > 0, 1 / sd, 0.0)
