"""What compare() can measure of a method's maps, one column each."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from ..hooks import ForwardFunc
from ..metrics import (
    DeletionInsertion,
    Probability,
    deletion_insertion,
    energy_in_mask,
    gini,
    pointing_game,
    probabilities,
    road,
    spearman,
    top_overlap,
)
from .maps import faults

DRAWS, SQUARES = 8, 32  # perturbed copies of an image, for sensitivity and for infidelity
RADIUS = 0.02  # of the perturbation under which a map should stay what it is, Captum's own default
SIDE = 8  # a removed square is an eighth of the picture


@dataclass(frozen=True)
class Case:
    """One method's maps and everything a measure may look at.

    Attributes:
        explain: as many photos, changed ones too, to maps (N, H, W), as often as expected.
        classify: photos in [0, 1] to outputs (N, classes).
        photos: (N, C, H, W).
        maps: (N, H, W), on the photos' device.
        target: (N,), long.
        reference: the reference method's maps, or None.
        segmentation: (N, H, W), or None.
        steps: points on the curves.
        seed: of all that is random.
        probability: what the outputs are, see :func:`xinc_captum.metrics.probabilities`.
    """

    explain: Callable[[Tensor], Tensor]
    classify: ForwardFunc
    photos: Tensor
    maps: Tensor
    target: Tensor
    reference: Tensor | None
    segmentation: Tensor | None
    steps: int
    seed: int
    probability: Probability = "auto"

    @cached_property
    def curves(self) -> DeletionInsertion:
        """Areas of deletion, towards the mean colour, and of insertion; one run of the model gives both."""
        grey = self.photos.mean((2, 3), keepdim=True)
        return deletion_insertion(
            self.classify, self.photos, self.maps, self.target, baseline=grey, steps=self.steps, scores=self.probability
        )


@dataclass(frozen=True)
class Column:
    """One measure.

    Attributes:
        name: by which it is asked for.
        title: at the head of its column.
        better: "↓" where less is better, "↑" where more is, "" where neither.
        of: a case to (N,) values, nan where there is none; None where the case lacks what it takes.
        digits: after the point.
        meaning: what the number is, in a few words, for readers who do not know it.
    """

    name: str
    title: str
    better: Literal["↓", "↑", ""]
    of: Callable[[Case], Tensor | None]
    digits: int = 2
    meaning: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        if self in COLUMNS:
            return _by_name, (self.name,)
        try:
            pickle.dumps(self.of)
        except Exception:  # whatever its parts raise
            of: Callable[[Case], Tensor | None] = _not_pickled
        else:
            of = self.of
        return Column, (self.name, self.title, self.better, of, self.digits, self.meaning)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Column":
        return self  # frozen, and of a function

    def __copy__(self) -> "Column":
        return self


def _by_name(name: str) -> Column:
    return next(column for column in COLUMNS if column.name == name)


def _not_pickled(_: Case) -> None:
    raise TypeError(
        "this measure was unpickled without its function, which was a lambda or defined inside another function. "
        "Define it at the top of a module, or give compare() the measure anew."
    )


def _agreement(case: Case) -> Tensor | None:
    if case.reference is None:
        return None
    pairs = zip(case.maps.cpu(), case.reference, strict=True)
    found = [spearman(one.flatten()[None], other.flatten()[None]).values for one, other in pairs]
    return torch.stack([v[0].float() if len(v) else torch.tensor(torch.nan) for v in found])


def _overlap(case: Case) -> Tensor | None:
    if case.reference is None:
        return None
    silent = torch.tensor([bool(flaw) for flaw in faults(case.reference)])
    return top_overlap(case.maps.cpu(), case.reference).masked_fill(silent, torch.nan)


def _pointing(case: Case) -> Tensor | None:
    return None if case.segmentation is None else pointing_game(case.maps.cpu(), case.segmentation.cpu())


def _energy(case: Case) -> Tensor | None:
    return None if case.segmentation is None else energy_in_mask(case.maps.cpu().clamp_min(0), case.segmentation.cpu())


def _sensitivity(case: Case) -> Tensor:
    def explain(photos: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Captum stacks the copies of a photo; here each photo's copy stands where the photo stood, so that what a
        # method draws for it is the same.
        draws = photos[0].to(case.photos.dtype).unflatten(0, (len(case.photos), -1))
        return (torch.stack([case.explain(draw) for draw in draws.unbind(1)], 1).flatten(0, 1)[:, None],)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        found: Tensor = sensitivity_max(explain, case.photos, perturb_radius=RADIUS, n_perturb_samples=DRAWS)
    return found


def _road(case: Case) -> Tensor:
    return road(case.classify, case.photos, case.maps, case.target, seed=case.seed, scores=case.probability)


def _infidelity(case: Case) -> Tensor:
    grey = case.photos.mean((2, 3), keepdim=True)
    generator = torch.Generator().manual_seed(case.seed)
    size = case.photos.shape[-2:]
    sides = [max(n // SIDE, 1) for n in size]

    def without_a_square(photos: Tensor) -> tuple[Tensor, Tensor]:
        gone = torch.zeros(len(photos), 1, *size, dtype=photos.dtype)
        for row in gone:
            top, left = (
                int(torch.randint(n - side + 1, (), generator=generator)) for n, side in zip(size, sides, strict=True)
            )
            row[:, top : top + sides[0], left : left + sides[1]] = 1
        gone = gone.to(photos.device)
        colour = grey.repeat_interleave(len(photos) // len(grey), 0)
        return gone.expand_as(photos), torch.where(gone > 0, colour, photos)

    parts = case.maps[:, None].expand_as(case.photos).to(case.photos.dtype) / case.photos.shape[1]
    found: Tensor = infidelity(
        lambda photos: probabilities(case.classify(photos), case.probability),
        without_a_square,
        case.photos,
        parts,
        target=case.target,
        n_perturb_samples=SQUARES,
        max_examples_per_batch=max(32, len(case.photos)),
        normalize=True,
    )
    return found


COLUMNS = (
    Column(
        "deletion", "deletion AUC", "↓", lambda c: c.curves.deletion,
        meaning="area under the class's probability, strongest pixels removed first",
    ),
    Column(
        "insertion", "insertion AUC", "↑", lambda c: c.curves.insertion,
        meaning="area under the class's probability, strongest pixels added first",
    ),
    Column(
        "road", "ROAD", "↑", _road, 3,
        "what the probability loses without the strongest pixels, less what it loses without the weakest, halved",
    ),
    Column(
        "sparseness", "Gini", "", lambda c: gini(c.maps.clamp_min(0)),
        meaning="how few pixels hold how much of the map: 0 all alike, 1 a single pixel",
    ),
    Column("agreement", "ρ with {reference}", "", _agreement, meaning="rank correlation with the map of the reference"),
    Column(
        "overlap", "top-10 % IoU with {reference}", "", _overlap,
        meaning="how much the strongest tenths of both maps' pixels overlap: 0 not at all, 1 wholly",
    ),
    Column("pointing", "pointing game", "↑", _pointing, meaning="share of maps whose strongest pixel is in the mask"),
    Column("energy", "energy in mask", "↑", _energy, meaning="share of the map that lies in the mask"),
    Column(
        "sensitivity", "max-sensitivity", "↓", _sensitivity,
        meaning=f"how much the map moves, relatively, when pixels move by at most {RADIUS}",
    ),
    Column(
        "infidelity", "infidelity x 1000", "↓", lambda c: 1000 * _infidelity(c),
        meaning="squared error of the map's own word on what the probability loses without a square",
    ),
)  # fmt: skip
DEFAULT = tuple(column.name for column in COLUMNS[:8])
ALL = tuple(column.name for column in COLUMNS)
TAKEN = ("method", "seconds", "cpu_seconds", "forwards", "backwards", "peak MB", "left_out", "fault", "error")


def select_columns(metrics: Sequence[str | Column]) -> tuple[Column, ...]:
    """The columns of these names; a :class:`Column` of your own goes through as it is.

    Raises:
        ValueError: a name that is not known, twice the same, or one of the costs.

    Example:
        >>> [column.title for column in select_columns(["sparseness"])]
        ['Gini']
    """
    known = {column.name: column for column in COLUMNS}
    unknown = [one for one in metrics if isinstance(one, str) and one not in known]
    if unknown:
        raise ValueError(f"no measure is called {unknown[0]!r}; known are {', '.join(map(repr, known))}.")
    found = tuple(known[one] if isinstance(one, str) else one for one in metrics)
    names = [column.name for column in found]
    if len(set(names)) < len(names):
        raise ValueError(f"metrics name something twice: {', '.join(map(repr, names))}.")
    if taken := [name for name in names if name in TAKEN]:
        raise ValueError(
            f"a measure is called {taken[0]!r}, as a cost or remark of every row is; give it another name."
        )
    return found
