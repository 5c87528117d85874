"""Verdicts on accentuations, canvases and links: the records, and the rules that rate the evidence."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .statistics import Interval, spearman

Rating = Literal["holds", "weak", "fails"]
RATINGS: tuple[Rating, ...] = get_args(Rating)  # from best to worst

OFF_PATH = 0.64  # of the similarity among natural images: below it, other channels cause the score
ON_PATH = 0.85  # likewise: below it, the verdict is weak
ONE_PATH = 0.9  # natural images this similar have one path for any content, as in an untrained network
FAINT = 0.1  # of the gain: a smaller gain in a second model does not count as agreement
ROUGH = 0.5  # of the change's energy above .25 cycles per pixel: more looks like noise


@dataclass(frozen=True)
class Verdict:
    """A rating and the reason for it, the base class of every ``.trust``.

    Attributes:
        verdict: "holds", "weak" or "fails".
        because: the reason, one clause or several with semicolons between them, worst first.
    """

    verdict: Rating
    because: str

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.because}"

    def __iter__(self) -> Iterator[str]:
        """Iterate over the rating and the reason, so that ``rating, because = result.trust`` works."""
        return iter((self.verdict, self.because))


def weigh(against: Sequence[str], doubts: Sequence[str], support: Sequence[str]) -> tuple[Rating, str]:
    """Return "fails" with what speaks against a result; else "weak" with the doubts; else "holds" with the support."""
    if against:
        return "fails", "; ".join(against)
    if doubts:
        return "weak", "; ".join(doubts)
    return "holds", "; ".join(support)


@dataclass(frozen=True)
class RowTrust(Verdict):
    """The verdict on one image and its evidence; numbers are None where their input was not given.

    Attributes:
        path: similarity of its path vectors (:func:`path_vector`) at the later layers to those of natural images.
        kept: similarity of its path vectors to those of its seed, which is a natural image too.
        natural: median similarity of a natural image's path vectors to those of the others.
        seed: similarity of the seed's path vectors to those of natural images.
        shuffled: the same as ``path``, in the model with shuffled weights.
        transfer: gain of a second model's score for the same target, in the requested direction.
        high_frequency: fraction of the change's energy above .25 cycles per pixel.
        gained: gain of the score, in the requested direction.
    """

    path: float | None
    kept: float | None
    natural: float | None
    seed: float | None
    shuffled: float | None
    transfer: float | None
    high_frequency: float | None
    gained: float | None


@dataclass(frozen=True)
class Trust(Verdict):
    """The verdict on a batch of images, which is that of the worst, and the verdict on each image."""

    rows: tuple[RowTrust, ...]

    @classmethod
    def of(cls, rows: Sequence[RowTrust]) -> "Trust":
        """Return the verdict on all rows, that of the worst."""
        worst = max(rows, key=lambda row: RATINGS.index(row.verdict))
        return cls(worst.verdict, worst.because, tuple(rows))


def judge_accentuation(
    *,
    path: float | None = None,
    kept: float | None = None,
    natural: float | None = None,
    seed: float | None = None,
    shuffled: float | None = None,
    transfer: float | None = None,
    high_frequency: float | None = None,
    gained: float | None = None,
) -> RowTrust:
    """Return the verdict on one accentuated image, from the evidence that :class:`RowTrust` explains.

    *fails* if the score changed in the wrong direction; if the path similarity (to natural images or to the seed,
    whichever is higher) is below .64 of that among natural images and no second model's score rises; if a second
    model's score does not rise; if more than half of the change's energy is above .25 cycles per pixel; or if a number
    is nan.

    *weak* if the score did not change; if no path was compared; if the path similarity is below .85 of that among
    natural images, or below .64 and a second model's score rises; if the similarity among natural images is below .2
    or above .9; or if a second model gains less than .1 as much. Otherwise *holds*.
    """
    evidence = (path, kept, natural, seed, shuffled, transfer, high_frequency, gained)
    if gained is not None and gained == 0:
        return RowTrust("weak", "nothing was gained, so there is nothing to judge", *evidence)
    if any(number is not None and math.isnan(number) for number in evidence):
        return RowTrust("fails", "some of the evidence is not a number", *evidence)
    against: list[str] = []
    doubts: list[str] = []
    taken = ""
    if gained is not None and gained < 0:
        against.append(f"the score went the other way ({gained:+.2g})")
    if path is not None and natural is not None:
        nearest = path if kept is None else max(path, kept)
        whose = "its own photo" if nearest > path else "natural images"
        beside = f"; {path:.2f} to natural images" if nearest > path else ""
        similarity = f"(similarity {nearest:.2f}{beside}, theirs {natural:.2f})"
        taken = f"its path through the layers is that of {whose} {similarity}"
        if nearest < OFF_PATH * natural and (transfer is None or transfer <= 0):
            against.append(f"its path through the layers is not that of natural images {similarity}")
        elif nearest < OFF_PATH * natural:
            doubts.append(
                f"its path through the layers is not that of natural images {similarity}, though a second model sees "
                f"it ({transfer:+.2g})"
            )
        elif nearest < ON_PATH * natural:
            doubts.append(f"its path through the layers differs from that of natural images {similarity}")
        if natural < 0.2:
            doubts.append(f"the natural images do not agree on a path themselves (similarity {natural:.2f})")
        if natural > ONE_PATH:
            doubts.append(
                f"all natural images take one path (similarity {natural:.2f}), so that it tells nothing; is the "
                "network trained?"
            )
    else:
        doubts.append("no natural images were given to compare its path through the layers with")
    if high_frequency is not None and high_frequency > ROUGH:
        against.append(
            f"{high_frequency:.0%} of the change is finer than four pixels a cycle, which is noise to the eye"
        )
    if transfer is not None and transfer <= 0:
        against.append(f"a second model does not see it (its score changed by {transfer:+.2g})")
    elif transfer is not None and gained is not None and transfer < FAINT * gained:
        doubts.append(f"a second model hardly sees it ({transfer:+.2g} beside {gained:+.2g})")
    support = [taken] if transfer is None else [taken, f"a second model sees it too ({transfer:+.2g})"]
    return RowTrust(*weigh(against, doubts, support), *evidence)


def path_vector(activation: Tensor, gradient: Tensor, unit_axis: int | None = None) -> Tensor:
    r"""Return the path vector of a score at a layer, the contribution of each channel: (rows, channels), float32.

    .. math:: v_c = \sum_{hw} a_{chw} \, \partial f / \partial a_{chw}

    Symbols: a the activation, f the score. The channels are on ``unit_axis``; None is the last of three axes, (rows,
    tokens, channels), and else axis 1.

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039): activation x gradient of each layer.
    """
    share = activation.detach().float() * gradient.detach().float()  # products of half numbers overflow
    axis = unit_axis if unit_axis is not None else 2 if share.dim() == 3 else 1
    share = share.movedim(axis, 1)
    return share.flatten(2).sum(2) if share.dim() > 2 else share


def path_similarity(paths: Sequence[Tensor], natural: Sequence[Tensor]) -> Tensor:
    r"""Return the similarity of path vectors to the mean of natural images: Pearson's, averaged over layers, (rows,).

    .. math:: s = \mathrm{mean}_l\; \mathrm{corr}(v_l, \mathrm{mean}_i\; n_{il} / \lVert n_{il} \rVert)

    Symbols: v_l the path vectors at layer l, (rows, channels), n_il that of natural image i.
    """
    means = [_unit(n).mean(0, keepdim=True) for n in natural]
    return torch.stack([_correlation(v, mean) for v, mean in zip(paths, means, strict=True)]).mean(0)


def leave_one_out(natural: Sequence[Tensor]) -> Tensor:
    """Return each natural image's similarity to the mean of the others, (M,), from (M, channels) for each layer."""
    count = natural[0].shape[0]
    if count < 2:
        raise ValueError(f"got {count} natural image; expected at least 2 to compare.")
    units = [_unit(n) for n in natural]
    return torch.stack([_correlation(n, (n.sum(0, keepdim=True) - n) / (count - 1)) for n in units]).mean(0)


def _unit(paths: Tensor) -> Tensor:
    """Return unit vectors, so that images with high scores do not dominate the mean."""
    length: Tensor = paths.norm(dim=1, keepdim=True)
    return paths / length.clamp_min(torch.finfo(paths.dtype).tiny)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    a, b = (side.double() - side.double().mean(1, keepdim=True) for side in (first, second))
    length = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(torch.finfo(torch.float64).tiny)
    correlation: Tensor = (a * b).sum(1) / length
    return correlation.float()


def high_frequency_energy(change: Tensor, above: float = 0.25) -> Tensor:
    r"""Return the fraction of the energy of a change δ, (N, C, H, W), above a spatial frequency: (N,); nan if none.

    .. math:: \sum_{|f| > f_0} |\hat\delta_f|^2 \,/\, \sum_f |\hat\delta_f|^2

    Symbols: f_0, ``above``, in cycles per pixel; .25 is four pixels per cycle.
    """
    energy = torch.fft.fft2(change.float()).abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(side, device=change.device) for side in change.shape[-2:])
    fine = (rows[:, None] ** 2 + columns[None] ** 2).sqrt() > above
    share: Tensor = (energy * fine).sum((1, 2)) / energy.sum((1, 2))
    return share


CLOSE, FAR = 0.8, 0.5  # agreement: a canvas holds from the first and fails below the second
GAP = 1e-3  # largest accepted gap


@dataclass(frozen=True)
class CanvasTrust(Verdict):
    """The verdict on a canvas and its evidence; numbers are None where they do not apply.

    Attributes:
        agreement: Spearman's ρ of the contributions with the changes that setting units to zero causes.
        gap: difference between the sum of the contributions and the output, as a fraction of the output; only for rules
            whose contributions sum to the output.
    """

    agreement: float | None = None
    gap: float | None = None


def ablation_agreement(shares: Tensor, missing: Tensor) -> float | None:
    r"""Return how well a canvas agrees with the effects of setting units to zero, over units and positions.

    .. math:: \rho = \mathrm{spearman}_{u, o}(c_{u o},\; y_o(a) - y_o(a_u := 0))

    Symbols: c the contributions ``shares`` of unit u to output o; ``missing`` the effects, y the output, a_u the unit's
    activation. If their shapes differ, magnitudes Σ_channel |c| of (units, channels, places) are compared. The result
    is 0 if one of them is constant, None if both are.
    """
    if shares.shape != missing.shape:
        shares, missing = shares.abs().sum(1), missing.abs().sum(1)
    correlations = spearman(shares.reshape(1, -1), missing.reshape(1, -1)).values
    if len(correlations):
        return round(float(correlations[0]), 12)
    level = all(bool((side == side.flatten()[0]).all()) for side in (shares, missing))
    return None if level else 0.0


def judge_canvas(*, agreement: float | None = None, gap: float | None = None) -> CanvasTrust:
    """Return the verdict on a canvas.

    It *fails* if its agreement with the removal of units is below .5, or if contributions that should sum to the output
    differ from it by more than a thousandth. It *holds* from an agreement of .8. Between the two, or without a
    comparison, it is *weak*.
    """
    if gap is not None and not gap <= GAP:
        return CanvasTrust("fails", f"its parts miss the output by {gap:.2g} of it", agreement, gap)
    if agreement is None:
        return CanvasTrust("weak", "neither it nor setting units to zero tells units and places apart", agreement, gap)
    verdict: Rating = "holds" if agreement >= CLOSE else "weak" if agreement >= FAR else "fails"
    how = {"holds": "as", "weak": "only roughly as", "fails": "unlike what"}[verdict]
    joint = "and" if verdict == "holds" else "though"
    clause = "" if gap is None else f", {joint} its parts add up to the output"
    text = f"it ranks units and places {how} setting them to zero does (ρ {agreement:.2f}){clause}"
    return CanvasTrust(verdict, text, agreement, gap)


WITHIN = 0.4  # R² within classes above the control; below it, single units change hardly anything
MARGIN = 0.05  # above the shuffled control
LEAKED = 0.01
REPEATED = 0.05  # fraction of the fitted, or of the held-out, pairs that repeat others
GENERATED, REAL, CYCLE = 0.9, 0.7, 0.5  # fractions of images that keep their class, and R², for "holds"
HALF = 0.5  # fraction of images that keep their class, below which a link fails


class LinkTrust(Verdict):
    """The verdict on a link."""


def judge_link(
    *,
    r2: Interval,
    r2_within: Interval | None = None,
    shuffled: float | None = None,
    leaked: float = 0.0,
    generated: Interval | None = None,
    real: Interval | None = None,
    cycle: float | None = None,
    classes: int | None = None,
    pairs: int | None = None,
    units: int | None = None,
    duplicates: float = 0.0,
    held_out_duplicates: float = 0.0,
) -> LinkTrust:
    """Return the verdict on a link.

    It *fails* if more than 1 % of the held-out pairs were in the fit, if the interval of its R² within classes ends
    less than .05 above the control, a link of shuffled pairs (below 0 counts as 0), or if fewer than half of the images
    keep their class. It *holds* if all evidence was measured, R² within classes is .4 above the control, .9 of the
    generated and .7 of the real images keep their class, and the cycle r → w → image → r' explains half of r. Class
    agreement alone is not evidence *for* a link, because class means reach 1.00. The control can be above 0: if the
    directions that separate classes also vary within them, a linear map through class means explains a part of that. A
    link is at most *weak* if more than 5 % of the fitted or of the held-out pairs repeat others. Repeated fitted pairs
    overstate the amount of data, and leave-one-out R² is too high, because a copy of each pair stays in the fit;
    repeated held-out pairs make the intervals too narrow.

    Args:
        r2: R² of the held-out pairs.
        r2_within: R² of the held-out pairs within classes; None if nothing varies within their classes.
        shuffled: R² within classes of a link fitted to pairs shuffled within classes.
        leaked: fraction of held-out pairs that were in the fit.
        generated: fraction of generated images that keep their class when linked.
        real: the same for real images.
        cycle: R² of the representation of the linked image.
        classes: number of classes of the held-out pairs; for one class, class agreement is not evidence.
        pairs: number of fitted pairs; with one map for each class, those of the class with the fewest pairs for its
            units.
        units: number of active units. If it is not below the number of pairs (repeated ones count once), this is added
            to other doubts; alone it is no doubt, because held-out pairs measure such a map anyway.
        duplicates: fraction of the fitted pairs whose latents repeat those of others.
        held_out_duplicates: the same for the held-out pairs.

    Example:
        >>> some = Interval(0.9, 0.8, 1.0)
        >>> judge_link(r2=some, r2_within=Interval(0.01, -0.1, 0.04), shuffled=0.0).verdict
        'fails'
    """
    against: list[str] = []
    doubts: list[str] = []
    if leaked > LEAKED:
        against.append(f"{leaked:.0%} of the held-out pairs were in the fit")
    explained = ""
    if r2_within is None:
        doubts.append(
            f"nothing varies within the classes of the held-out pairs (is there but one of each?), so that R² {r2} may "
            "be that of class means"
        )
    else:
        beside = "" if shuffled is None else f", shuffled {shuffled:.2f}"
        where = "" if classes == 1 else " within classes"
        explained = f"it explains {r2_within} of the latents{where}{beside}"
        if not r2_within.high > max(shuffled or 0.0, 0.0) + MARGIN:  # nan counts against a link
            although = "" if classes == 1 else f", whatever R² says ({r2})"
            against.append(f"{where} it explains nothing (R² {r2_within}{beside}){although}".lstrip())
        elif not r2_within.value - max(shuffled or 0.0, 0.0) >= WITHIN:
            doubts.append(f"it explains only {r2_within} of the latents{where}{beside}")
        if shuffled is None:
            doubts.append("no fitted pairs were given for a shuffled control")
    if classes == 1 and generated is not None:
        doubts.append("all held-out pairs are of one class, so that keeping it says nothing")
    for name, share, enough in (("generated", generated, GENERATED), ("real", real, REAL)):
        if share is None:
            doubts.append(f"no {name} pictures were looked at")
        elif not share.value >= HALF:
            against.append(f"only {share} of {name} pictures keep their class")
        elif share.value < enough:
            doubts.append(f"{share} of {name} pictures keep their class")
    if cycle is not None and not cycle >= CYCLE:
        doubts.append(f"the linked picture gives back {cycle:.2f} of the representation")
    if duplicates > REPEATED:
        doubts.append(
            f"{duplicates:.0%} of the fitted pairs repeat others, so that it was fitted to fewer than it seems"
        )
    if held_out_duplicates > REPEATED:
        doubts.append(f"{held_out_duplicates:.0%} of the held-out pairs repeat others; intervals are too narrow")
    if pairs is not None and units is not None and pairs * (1 - duplicates) <= units:  # a reason, but no doubt alone
        repeated = f", {duplicates:.0%} of them repeated" if duplicates > REPEATED else ""
        few = f"a map of {units} live units was fitted to only {pairs} pairs{repeated}"
        against, doubts = against and [*against, few], doubts and [few, *doubts]
    return LinkTrust(*weigh(against, doubts, [f"{explained}, and {real} of real pictures keep their class"]))
