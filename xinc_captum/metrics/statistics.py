"""Rank correlations, bootstrap intervals, p-values, permutation controls, and probabilities of classes."""

import math
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..batch import output_entry, python_index, random_generator, read_output
from ..hooks import ForwardFunc, protect


class Interval(NamedTuple):
    """A value of the original rows with its bootstrap interval, ``low`` to ``high``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio_interval(
    above: Tensor, below: Tensor, *, level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> Interval:
    r"""Return a ratio of sums with a percentile bootstrap interval over rows; nan if every resample divides by 0.

    .. math:: \frac{\sum_i a_i}{\sum_i b_i}, \qquad \text{and the same for rows sampled with replacement}

    For an accuracy, a is 1 for each hit and b is 1; for 1 − R², a is the squared errors and b the squared distances to
    the mean (of all rows). Resamples with a denominator of 0 are left out. The resamples are drawn by torch, because
    results that were recorded before must be reproduced exactly; ``scipy.stats.bootstrap`` draws others.

    Args:
        above: a, (n,); no rows, or another shape than b's, raise ValueError.
        below: b, (n,).
        level: fraction of resamples within the interval, in (0, 1), else ValueError.
        repeats: number of resamples, at least 1, else ValueError.
        seed: random seed of the resamples.

    Example:
        >>> ratio_interval(torch.ones(50), torch.ones(50))
        Interval(value=1.0, low=1.0, high=1.0)

    Source: Efron, Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    if above.shape != below.shape or above.dim() != 1 or not len(above):
        raise ValueError(f"got shapes {tuple(above.shape)} and {tuple(below.shape)}; expected the same (n,), n >= 1.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a fraction between 0 and 1.")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected at least 1 resample.")
    sides = torch.stack([above, below]).detach().cpu().to(torch.float64)
    n, generator = len(above), random_generator(seed)
    draws = (torch.randint(n, (min(50, repeats - done), n), generator=generator) for done in range(0, repeats, 50))
    sums = torch.cat([sides[:, rows].sum(2) for rows in draws], dim=1)
    ratios = (sums[0] / sums[1])[sums[1] != 0]
    if not len(ratios):
        return Interval(*[float("nan")] * 3)
    ends = ratios.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Interval(float(sides[0].sum() / sides[1].sum()), float(ends[0]), float(ends[1]))


def mean_interval(values: Tensor, *, level: float = 0.95, repeats: int = 1000, seed: int = 0) -> Interval:
    """Return the mean of the finite values, (n,), with the interval of :func:`ratio_interval`, nan for fewer than two.

    Example:
        >>> mean_interval(torch.tensor([2.0, 2.0, torch.nan]))
        Interval(value=2.0, low=2.0, high=2.0)
    """
    numbers = values[values.isfinite()]
    if len(numbers) < 2:
        return Interval(float(numbers[0]) if len(numbers) else math.nan, math.nan, math.nan)
    return ratio_interval(numbers, torch.ones_like(numbers), level=level, repeats=repeats, seed=seed)


def complement(interval: Interval) -> Interval:
    """Return one minus an interval, for example the explained fraction for an unexplained one.

    Example:
        >>> complement(Interval(0.25, 0.0, 0.5))
        Interval(value=0.75, low=0.5, high=1.0)
    """
    return Interval(1 - interval.value, 1 - interval.high, 1 - interval.low)


def chance_of(observed: Tensor, null: Tensor) -> Tensor:
    r"""Return permutation p-values, how often the null reaches the observed statistic: (n,) float64.

    .. math:: p_i = \frac{1 + \#\{j : T^0_j \ge T_i\}}{1 + V}

    Args:
        observed: T, (n,), floats; larger is stronger, nan gets p = 1.
        null: T⁰, its V values under the null, pooled over units, which must have the same distribution under it; nan
            are left out, and at least one value must remain, else ValueError.

    Example:
        >>> chance_of(torch.tensor([5.0, 1.5]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.2500, 0.7500], dtype=torch.float64)

    Source: Phipson & Smyth, "Permutation p-values should never be zero" (2010).
    """
    valid = null[~null.isnan()].double() if null.dim() == 1 else null
    if observed.dim() != 1 or null.dim() != 1 or not len(valid):
        raise ValueError(
            f"observed has shape {tuple(observed.shape)} and the null {tuple(null.shape)}; expected (n,) and (V,), "
            "with values in the null that are not nan."
        )
    ordered = valid.sort().values
    values = observed.double().nan_to_num(nan=-torch.inf)
    reached = len(ordered) - torch.searchsorted(ordered, values.to(ordered), right=False)
    p = (1 + reached).double() / (1 + len(ordered))
    return p.where(~observed.isnan().to(p.device), 1.0)


def false_discovery_rate(p: Tensor) -> Tensor:
    r"""Return the smallest false discovery rate at which each test is significant (Benjamini-Hochberg): (n,) float64.

    .. math:: q_{(i)} = \min_{j \ge i}\, \min\Bigl(1,\; \frac{n\, p_{(j)}}{j}\Bigr)

    Symbols: p_(j) the j-th smallest of n p-values. Of all tests with q <= .05, at most one in twenty is expected to be
    false, if the p-values ``p``, (n,), are independent or positively dependent. Raises ValueError for another shape, or
    values outside [0, 1].

    Example:
        >>> false_discovery_rate(torch.tensor([0.01, 0.5, 0.02]))
        tensor([0.0300, 0.5000, 0.0300], dtype=torch.float64)

    Source: Benjamini & Hochberg, "Controlling the false discovery rate" (1995).
    """
    if p.dim() != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p has shape {tuple(p.shape)}; expected (n,) p-values from 0 to 1.")
    from scipy.stats import false_discovery_control

    return torch.from_numpy(false_discovery_control(p.detach().double().cpu().numpy())).to(p.device)


class Correlations(NamedTuple):
    """Spearman's coefficient of each map, and the number of maps left out, which are constant or not finite."""

    values: Tensor
    left_out: int


def spearman(first: Tensor, second: Tensor) -> Correlations:
    r"""Return Spearman's rank correlation of each row of ``first``, (rows, n), with the same row of ``second``.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}(a), \mathrm{rank}(b))

    Every row is divided by its largest magnitude and rounded to 1e-6 before ranking; ties get their average rank.
    Otherwise rounding errors would split exact ties (inactive units) and turn a correlation of 1.0 into 0.7. Rows that
    are constant or not finite in either tensor have no rank correlation; the ``values`` are those of the others, (k,)
    float64. Raises ValueError for shapes that differ or are not (rows, n).

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 15.0]])).values
        tensor([0.5000], dtype=torch.float64)

    Source: Spearman 1904; average ranks as in Kendall 1945.
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(
            f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (rows, n) twice."
        )
    a, b = _centred_ranks(first), _centred_ranks(second)
    lengths = a.norm(dim=1), b.norm(dim=1)
    varying = (lengths[0] > 0) & (lengths[1] > 0)
    values = ((a * b).sum(1) / (lengths[0] * lengths[1]))[varying]
    return Correlations(values, int((~varying).sum()))


def _centred_ranks(rows: Tensor) -> Tensor:
    """Return centred ranks of rows divided by their largest magnitude and rounded; nan for a row that is not finite."""
    rows = rows.detach().double()
    rows = rows.masked_fill(~rows.isfinite().all(1, keepdim=True), torch.nan)
    largest = rows.abs().amax(1, keepdim=True)
    scaled = torch.where(largest > 0, rows / largest.clamp_min(torch.finfo(torch.float64).tiny), rows)
    ranks = average_ranks(scaled.round(decimals=6))
    return ranks - ranks.mean(1, keepdim=True)


def average_ranks(rows: Tensor) -> Tensor:
    """Return ranks 1 … n within each row, averaged over ties: (rows, n); all nan for a row with nan."""
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(rows.detach().cpu().double().numpy(), axis=1)).to(rows.device)


def rank_vectors(rows: Tensor) -> Tensor:
    r"""Return centred ranks of rows (…, n) as unit vectors, float64: dot products are Spearman correlations.

    .. math:: \rho(a, b) = v(a) \cdot v(b)

    Use it to correlate all rows with all others; :func:`spearman` compares rows in pairs, and rounds likewise. Rows
    that are constant or not finite have no rank correlation; their vectors are nan.

    Example:
        >>> v = rank_vectors(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 15.0]]))
        >>> round(float(v[0] @ v[1]), 6)
        0.5
    """
    centred = _centred_ranks(rows.reshape(-1, rows.shape[-1]))
    length = centred.norm(dim=1, keepdim=True)
    vectors: Tensor = (centred / length.where(length > 0, torch.nan)).reshape(rows.shape)
    return vectors


class Agreement(NamedTuple):
    """Rank agreement of canvases over pixels, the mean over units (nan if all maps are constant), and over units.

    ``left_out`` counts the constant maps.
    """

    spatial: float
    total: float
    left_out: int


def canvas_agreement(maps: Tensor, truth: Tensor) -> Agreement:
    """Return the Spearman agreement of canvases (units, channels, pixels), whose numbers of channels may differ.

    A map is Σ_channel |c|; spatial = mean over units of ρ(map, true map) over pixels; total = ρ over units of
    Σ_pixels map.

    Example:
        >>> maps = torch.rand(4, 3, 50)
        >>> canvas_agreement(maps, 2 * maps).total
        1.0
    """
    flat = [side.abs().sum(1) for side in (maps, truth)]
    spatial, left_out = spearman(*flat)
    total, _ = spearman(*(side.double().sum(1)[None] for side in flat))
    mean = float(spatial.mean()) if len(spatial) else float("nan")
    return Agreement(mean, round(float(total[0]), 12) if len(total) else float("nan"), left_out)


def shuffle_units(magnitudes: Tensor, generator: torch.Generator) -> Tensor:
    """Return magnitudes (units, *size) permuted over the units at every pixel, which removes each unit's own pattern.

    Example:
        >>> shuffle_units(torch.tensor([[1.0], [2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffle(magnitudes, 0, generator)


def shuffle_pixels(magnitudes: Tensor, generator: torch.Generator) -> Tensor:
    """Return magnitudes (units, *size) permuted over the pixels for every unit, which removes the overlap of units.

    Example:
        >>> shuffle_pixels(torch.tensor([[1.0, 2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffle(magnitudes.flatten(1), 1, generator).view_as(magnitudes)


def shifts(size: tuple[int, ...], repeats: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Return random nonzero offsets for ``torch.roll``, which wraps around the borders.

    Rolling changes only the position, and keeps areas, shapes and smoothness, which random pixels would not. Raises
    ValueError for an image of one pixel, or no repeats.

    Example:
        >>> shifts((1, 2), 2, torch.Generator())
        [(0, 1), (0, 1)]
    """
    pixels = torch.Size(size).numel()
    if pixels < 2 or repeats < 1:
        raise ValueError(f"got {pixels} pixel(s) and {repeats} repeats; a shifted control needs at least 2 and 1.")
    flat = torch.randint(1, pixels, (repeats,), generator=generator, device=generator.device)
    return list(zip(*(axis.tolist() for axis in torch.unravel_index(flat, size)), strict=True))


def shuffle_within(rows: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows (n, columns) permuted within classes (n,), which keeps only their relation to the class.

    Raises ValueError unless there is one class for each row.

    Example:
        >>> shuffle_within(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), torch.Generator()).tolist()
        [[1.0], [2.0]]
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; expected one a row.")
    order = torch.arange(len(rows))
    for c in classes.unique().cpu():
        members = (classes.cpu() == c).nonzero()[:, 0]
        keys = torch.rand(len(members), generator=generator, device=generator.device).cpu()
        order[members] = members[keys.argsort()]
    return rows[order.to(rows.device)]


def _shuffle(values: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Return values permuted along one dim, independently for every index of the others."""
    keys = torch.rand(values.shape, generator=generator, device=generator.device)
    return values.gather(dim, keys.argsort(dim).to(values.device))


Probability = Literal["auto", "softmax", "sigmoid", "identity", "none"]
Scores = Callable[[Tensor], Tensor] | Probability
PROBABILITIES: tuple[Probability, ...] = get_args(Probability)
SLACK = 1e-4  # by which probabilities of a row may miss a sum of 1: float32 sums of 20,000 classes miss it by 1e-6
SATURATED = 16.0  # logits beyond it have a float32 probability of 0 or 1, within rounding
WHERE = "(probability= of compare, counterfactual and ImageModel, scores= of the functions in xinc_captum.metrics)"


def probabilities(outputs: Tensor, kind: Probability = "auto") -> Tensor:
    """Return each class's probability, in float32 or wider: (N, classes) outputs to (N, classes).

    Args:
        outputs: (N, classes), as the classifier returns them.
        kind: what the outputs are.

            - ``"softmax"``: logits of classes that exclude each other.
            - ``"sigmoid"``: logits of independent classes (multi-label), or one column, the logit of a single class.
              Target 0 is that class; its probability is sigmoid(logit).
            - ``"identity"``: probabilities already, as of a model that ends in a softmax or a sigmoid.
            - ``"none"``: no probabilities, as of a regression. The outputs are returned unchanged.
            - ``"auto"``: ``"identity"`` where no output is negative and each row sums to 1 (within 1e-4, or 4 eps of
              a narrower dtype); else ``"sigmoid"`` for one column and ``"softmax"`` for several. A warning names the
              cases that the values alone do not decide.

    Raises:
        ValueError: another shape, an unknown kind, or ``"identity"`` for outputs outside [0, 1].

    Example:
        >>> probabilities(torch.tensor([[3.0, 3.0]])), probabilities(torch.tensor([[0.9, 0.1]]))
        (tensor([[0.5000, 0.5000]]), tensor([[0.9000, 0.1000]]))
    """
    if outputs.dim() != 2:
        raise ValueError(f"outputs have shape {tuple(outputs.shape)}; expected (N, classes).")
    decided = probability_kind(outputs, kind)
    return in_range(as_probabilities(outputs, decided), decided)


def probability_kind(
    outputs: Tensor,
    kind: Probability = "auto",
    model: ForwardFunc | None = None,
    *,
    saturated: Probability = "sigmoid",
) -> Probability:
    """Return the kind of a classifier's outputs, as defined by :func:`probabilities`; "auto" is never returned.

    Args:
        outputs: (N, classes); rows that are not finite are ignored.
        kind: returned unchanged if it is not "auto"; an unknown one raises ValueError.
        model: a function without arguments that computes outputs with gradients. It is called only if the values do not
            decide whether they are probabilities; they are if their last operation is a sigmoid.
        saturated: kind of one column of which every sigmoid rounds to 0 or 1. Measures of maps use "none", because
            such probabilities would not change with the image.

    Example:
        >>> probability_kind(torch.tensor([[0.2, 0.8]])), probability_kind(torch.tensor([[2.0, -1.0]]))
        ('identity', 'softmax')
    """
    if kind not in PROBABILITIES:
        raise ValueError(f"{kind!r} is no kind of outputs; expected one of {', '.join(map(repr, PROBABILITIES))}.")
    if kind != "auto":
        return kind
    single = outputs.shape[1] == 1
    logits: Probability = "sigmoid" if single else "softmax"
    rows = outputs.detach()
    rows = rows[rows.isfinite().all(1)]
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if not rows.numel():
        return logits
    slack = max(SLACK, 4 * torch.finfo(outputs.dtype).eps)
    low, high, miss = (float(v) for v in torch.stack([*rows.aminmax(), (rows.sum(1) - 1).abs().amax()]))
    inside = low >= 0 and high <= 1 + slack
    if inside and ((miss <= slack and not single) or _ends_in_sigmoid(outputs if model is None else model())):
        return "identity"
    text = ""
    if single and saturated == "none" and float(rows.abs().amin()) > SATURATED:
        logits = saturated
        text = (
            "The model has one output column, and the sigmoid of each of its outputs rounds to 0 or 1, so it is read "
            "as a regression ('none'). Give 'none' to confirm this, or 'sigmoid' where it is the logit of one class"
        )
    elif single:
        text = (
            "The model has one output column, which is read as the logit of one class: its probability is the sigmoid. "
            "Give 'sigmoid' to confirm this, 'identity' where it is a probability already, or 'none' for a regression"
        )
    elif inside:
        text = (
            "All outputs of the model lie in [0, 1] and do not sum to 1. They are read as logits of a softmax. Give "
            "'identity' where they are probabilities of independent classes, or 'softmax' or 'sigmoid' to confirm "
            "logits"
        )
    if text:
        warnings.warn(f"{text} {WHERE}.", stacklevel=3)
    return logits


def predict_classes(outputs: Tensor, like: Tensor | None = None) -> Tensor:
    """Return the predicted classes of outputs (..., classes): (...,) int64.

    For several columns it is the index of the largest. A single column has the classes 1 and 0; the class is 1 for a
    logit above 0, or for a value above 1/2 if all values of ``like``, by default ``outputs``, lie in [0, 1]. Give the
    same ``like`` for all outputs that are compared.

    Example:
        >>> predict_classes(torch.tensor([[0.1, 2.0]])), predict_classes(torch.tensor([[-3.0], [0.2]]))
        (tensor([1]), tensor([0, 1]))
    """
    if outputs.shape[-1] != 1:
        return outputs.argmax(-1)
    values = outputs if like is None else like
    shares = bool(((values >= 0) & (values <= 1)).all())
    return (outputs[..., 0] > (0.5 if shares else 0.0)).long()


def as_probabilities(outputs: Tensor, kind: Probability) -> Tensor:
    """Return probabilities of outputs of a known kind, without reading values, so that nothing waits for the device."""
    wide = torch.promote_types(outputs.dtype, torch.float32)
    if kind == "softmax":
        return outputs.softmax(1, dtype=wide)
    return outputs.to(wide).sigmoid() if kind == "sigmoid" else outputs.to(wide)


def in_range(values: Tensor, kind: Probability) -> Tensor:
    """Return the values; raise ValueError if their kind is "identity" and one lies outside [0, 1]."""
    if kind == "identity" and values.numel():
        low, high = (float(end) for end in values.detach().nan_to_num(0.5).aminmax())
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"the model's outputs go from {low:.3g} to {high:.3g}; expected probabilities in [0, 1] ('identity'). "
                "Give 'softmax' or 'sigmoid' for logits, or 'none' for a regression."
            )
    return values


def class_outputs(forward_func: ForwardFunc, images: Tensor, batch_size: int = 32) -> Tensor:
    """Run a classifier without gradients and return its outputs, (N, classes), checked by :func:`class_scores`."""
    parts = images.split(python_index(batch_size))
    with protect(forward_func), torch.no_grad():
        return torch.cat([class_scores(forward_func(some.clone()), len(some)) for some in parts])


AROUND = "a function around the model: lambda images: model(images)"


def class_scores(output: object, rows: int, way: str = AROUND) -> Tensor:
    """Return a classifier's output as one floating-point tensor (rows, classes).

    A dict, dataclass or tuple is read by :func:`~xinc_captum.batch.output_tensor`. Raises TypeError if no tensor can be
    chosen, ValueError for another dtype or shape. The message suggests ``way``, the start of the code that selects
    class scores.
    """
    code, scores = output_entry(output, rows, cure=f"Give {way}{{}}.")
    if scores.dim() == 2 and len(scores) == rows and scores.shape[1] and scores.is_floating_point():
        return scores
    hint = f"For another output, give {way}[...]."
    if scores.dim() == 4:
        hint = (
            f"For the maps of a segmentation, give {way}{code}.mean((2, 3)), the mean over the pixels for each class, "
            "or [:, :, row, column] in place of the mean, the scores of one pixel."
        )
    elif scores.numel() == rows:
        hint = f"For one score an image, keep its column: give {way}{code}.reshape(-1, 1)."
    raise ValueError(
        f"the model returned {scores.dtype} of shape {tuple(scores.shape)} for {rows} image{'s' * (rows > 1)}; "
        f"expected floats, ({rows}, classes). {hint}"
    )


def output_with_graph(forward_func: ForwardFunc, images: Tensor) -> Tensor | None:
    """Return the output for the first image with its graph, for :func:`probability_kind`; None without a graph."""
    with protect(forward_func), torch.inference_mode(False), torch.enable_grad():
        try:
            output = forward_func(images[:1].clone().detach().requires_grad_())
        except RuntimeError:  # weights made in inference mode, custom functions without a derivative
            return None
        scores = read_output(output, 1, None)
        return scores if isinstance(scores, Tensor) else None


_SAME_VALUES = ("View", "Reshape", "Squeeze", "Unsqueeze", "Alias", "Clone", "ToCopy", "Transpose", "Permute", "Slice")


def _ends_in_sigmoid(outputs: Tensor | None) -> bool:
    """Return whether the last operation in the graph that changed values was a sigmoid."""
    node = None if outputs is None else outputs.grad_fn
    while node is not None and node.name().startswith(_SAME_VALUES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(("Sigmoid", "Hardsigmoid"))
