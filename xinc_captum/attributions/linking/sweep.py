"""Unit sweeps, UnitSweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import to_hwc
from ...metrics.fidelity import Fidelity, fidelity
from ...metrics.probability import predict_classes
from ...metrics.trust import Rating as Verdict
from ...selectors import python_index
from ...store import bundle, write_tensors
from .latent_link import LatentLink
from .loop import Scene, Shown


@dataclass(frozen=True)
class SweepTrust:
    """A verdict on a sweep, and the clause that explains it."""

    verdict: Verdict
    because: str

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.because}"


@dataclass(frozen=True, eq=False)
class UnitSweep:
    """What :meth:`LinkedUnitVisualization.sweep` found; tensors are plain and detached.

    Attributes:
        values: what the unit was set to, (S,).
        images: as the generator drew them, (N, S, C, H, W) in [0, 1].
        representations: of every frame, looked at again, (N, S, units).
        latents: (N, S, latent_dim).
        scores: of every frame, (N, S, K).
        fidelity: how faithfully the frames show what was set.
        unit: column of the representation.
        base: the anchors' pictures, on which nothing was set, (N, C, H, W).
        base_representations: of these, (N, units).
        base_scores: (N, K).
        own: what the unit is in the anchors, (N,): a frame at this value is the base picture.
        agreement: share of rows whose base picture has the class of the input.
        settings: mode, direction and span, for the manifest.
    """

    values: Tensor
    images: Tensor
    representations: Tensor
    latents: Tensor
    scores: Tensor
    fidelity: Fidelity
    unit: int
    base: Tensor
    base_representations: Tensor
    base_scores: Tensor
    own: Tensor
    agreement: float
    settings: dict[str, Any]

    @property
    def response(self) -> Tensor:
        """The unit in every frame, as the network sees it: (N, S)."""
        return self.representations[..., self.unit]

    @property
    def trust(self) -> SweepTrust:
        """Holds, weak or fails, and because of what.

        It is a verdict of :class:`Fidelity`, and *weak* at best where half of the inputs or more change class by being
        linked alone: the frames then are no longer of them.
        """
        verdict, because = self.fidelity.verdict
        if self.agreement <= 0.5 and verdict != "fails":
            lost = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any unit is set"
            return SweepTrust("weak", f"{lost}; {because}")
        return SweepTrust(verdict, because)

    def save(self, path: str | Path) -> Path:
        """Write frames and numbers into a folder that appears whole or not at all.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        found = self.fidelity
        note = {
            "unit": self.unit,
            "trust": {"verdict": self.trust.verdict, "because": self.trust.because},
            "fidelity": {
                "rank": found.rank, "alive": found.alive, "rho": _none_for_nan(found.rho),
                "gain": _none_for_nan(found.gain),
                "flips": _none_for_nan(found.flips),
            },
            "agreement": self.agreement,
            "settings": self.settings,
        }  # fmt: skip
        held = {name: getattr(self, name) for name in _TENSORS} | {"ranks": found.ranks, "moved": found.moved}
        with bundle(path, note) as folder:
            write_tensors(folder / "sweep.safetensors", held, kind="sweep")
            if self.images.shape[2] in (1, 3):
                for row, frames in enumerate(self.images):
                    strip(frames).save(folder / f"row{row}.png")
        return Path(path)


_TENSORS = (
    "values", "images", "representations", "latents", "scores", "base", "base_representations", "base_scores", "own",
)  # fmt: skip


def strip(frames: Tensor) -> Image.Image:
    """Frames side by side, (S, C, H, W) in [0, 1], as a picture of bytes."""
    wide = torch.cat(list(frames.clamp(0, 1)), -1)
    return Image.fromarray(np.round(to_hwc(wide.expand(3, -1, -1)) * 255).astype(np.uint8))


def _none_for_nan(number: float) -> float | None:
    """As JSON takes it: there is no nan there."""
    return None if number != number else number


def columns(selector: Any, shape: tuple[int, ...], alive: Tensor) -> list[int]:
    """Columns of the representation.

    An int is a column; a tuple indexes the layer's own dims after the rows, where these were flattened, and else the
    columns.

    Args:
        selector: an int, or a tuple of ints and slices.
        shape: of the layer's activation, without the rows.
        alive: which columns varied over the link's pairs, (units,).

    Raises:
        TypeError: another kind of selector.
        IndexError: out of range, or a tuple of another length.
        ValueError: a dead unit.

    Example:
        >>> columns((1, slice(0, 2)), (3, 4), torch.ones(12))
        [4, 5]
    """
    selector, units = python_index(selector), len(alive)
    kept = shape if torch.Size(shape).numel() == units else (units,)
    index = selector if isinstance(selector, tuple) else (selector,)
    if isinstance(selector, list):
        raise TypeError(f"neuron_selector is a list of {len(selector)}; give one unit here, and a list to sweeps().")
    if any(isinstance(i, bool) or not isinstance(i, int | slice) for i in index) or isinstance(selector, slice):
        raise TypeError(
            f"neuron_selector {selector!r} is a {type(selector).__name__}; expected an int, which is a unit of the "
            "linked representation, or a tuple of ints and slices, which index the layer's own dims."
        )
    dims = kept if isinstance(selector, tuple) else (units,)
    if len(index) != len(dims):
        raise IndexError(f"neuron_selector {selector!r} has {len(index)} entries; the linked dims are {dims}.")
    for i, size in zip(index, dims, strict=True):
        if isinstance(i, int) and not -size <= i < size:
            raise IndexError(
                f"neuron_selector {selector!r} is out of range: the linked dims are {dims}, so {i} must lie in "
                f"[{-size}, {size - 1}]."
            )
    found: list[int] = torch.arange(units).view(dims)[index].flatten().tolist()
    if not found:
        raise IndexError(f"neuron_selector {selector!r} names no unit of {dims}.")
    dead = [u for u in found if not bool(alive[u])]
    if dead:
        raise ValueError(
            f"unit {dead[0]} is dead: it never varied over the pairs that the link was fitted to, so nothing is known "
            "of what it draws. link.alive tells the others."
        )
    return found


def one_column(selector: Any, shape: tuple[int, ...], alive: Tensor) -> int:
    """As :func:`columns`, for a single unit.

    Raises:
        ValueError: several units.
    """
    found = columns(selector, shape, alive)
    if len(found) > 1:
        raise ValueError(
            f"neuron_selector {selector!r} names {len(found)} units, and a value is set to one; name one of them."
        )
    return found[0]


Direction = Literal["marginal", "partial", "within_class"]
Span = Literal["quantile", "minmax", "sd"]
Values = Tensor | Sequence[float] | Span


def unit_steps(
    link: LatentLink,
    r: Tensor,
    unit: int,
    values: Tensor,
    *,
    anchor: Tensor,
    own: Tensor,
    direction: Direction = "marginal",
    classes: Tensor | None = None,
) -> Tensor:
    r"""Latents on the way from an anchor along which a unit should take each value.

    .. math:: w_{ns} = a_n + (v_s - o_n)\, d_u, \qquad
        \text{partial: } w_{ns} = a_n + \mathrm{link}(r_n + (v_s - o_n) e_u) - \mathrm{link}(r_n)

    Symbols: a the anchor, o the unit's value there, d_u the link's direction. The paper sets r_u := v and leaves all
    other units as they are: that is ``direction="partial"`` with a = link(r) and o = r_u. The picture seldom follows:
    it has fewer degrees of freedom than there are units, and the others, which stay, say the opposite. The marginal
    direction lets the others go along as they do in the generator's own pictures.

    Args:
        link: a fitted link.
        r: representations, (n, units).
        unit: u.
        values: v, (S,).
        anchor: latents, (n, latent_dim).
        own: (n,).
        direction: one of three, see :meth:`LatentLink.direction`.
        classes: of the rows, (n,), where the link wants them.

    Returns:
        (n, S, latent_dim), in the anchor's dtype.

    Example:
        >>> r = torch.rand(50, 3)
        >>> link = LatentLink(ridge=0.0).fit(r, r @ torch.rand(3, 2))
        >>> w = link(r[:4])
        >>> unit_steps(link, r[:4], 0, torch.tensor([0.0, 1.0]), anchor=w, own=r[:4, 0]).shape
        torch.Size([4, 2, 2])

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865), tuning of one unit.
    """
    away = values.to(own)[None] - own[:, None]
    if direction != "partial":
        return anchor[:, None] + away.to(anchor)[..., None] * link.direction([unit], direction)[0].to(anchor)
    rows = r[:, None].repeat(1, len(values), 1)
    rows[..., unit] += away.to(r)
    many = None if classes is None else classes.repeat_interleave(len(values))
    linked: Tensor = link(rows.flatten(0, 1), many).unflatten(0, away.shape)
    base: Tensor = link(r, classes)
    return linked.to(anchor) + (anchor - base.to(anchor))[:, None]


def unit_values(link: LatentLink, unit: int, values: Values, steps: int = 5) -> Tensor:
    """The values a unit is to take, (S,) float64: those given, or ``steps`` of them over a span that the link knows.

    Args:
        link: a fitted link.
        unit: which.
        values: numbers, or the span ``"quantile"``, ``"minmax"`` or ``"sd"`` (:meth:`LatentLink.bounds`).
        steps: how many over a span.

    Raises:
        ValueError: no values, values that are not finite, an unknown span, or fewer than two steps.
    """
    if isinstance(values, str):
        if values not in get_args(Span):
            raise ValueError(f"values is {values!r}; expected numbers, or the span 'quantile', 'minmax' or 'sd'.")
        if steps < 2:
            raise ValueError(f"steps is {steps}; expected at least 2, from one end of the span to the other.")
        low, high = link.bounds([unit], values)[0].tolist()
        return torch.linspace(low, high, steps, dtype=torch.float64)
    given = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if given.dim() != 1 or not given.numel() or not given.isfinite().all():
        raise ValueError(
            f"values have shape {tuple(given.shape)}, {int((~given.isfinite()).sum())} of them not finite; expected "
            "finite numbers, (S,), or the span 'quantile', 'minmax' or 'sd'."
        )
    return given


Mode = Literal["anchored", "replace"]


class SweepOptions(TypedDict, total=False):
    """What can be asked of a sweep; :class:`Sweeping` explains each."""

    steps: int
    mode: Mode
    direction: Direction
    latents: Tensor | None


@dataclass(frozen=True)
class Sweeping:
    """How units are swept.

    Attributes:
        values: numbers (S,), or a span the link knows: "quantile" (5 % to 95 %), "minmax", "sd".
        steps: values over a span.
        mode: "anchored" steps from the anchor's picture and from the value that the unit has when this is looked at, so
            that a unit's own value leaves the picture as it is; "replace" sets the unit in the input's representation,
            as the paper does, so that what linking loses is in the scale of every sweep.
        direction: "marginal", "partial" or "within_class" (:meth:`LatentLink.direction`).
        latents: anchors, (N, latent_dim), where the inputs are the generator's own pictures and their latents known;
            None links the inputs. Only for mode "anchored".
    """

    values: Values = "quantile"
    steps: int = 5
    mode: Mode = "anchored"
    direction: Direction = "marginal"
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, Mode), ("direction", self.direction, Direction)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, get_args(known)))}.")
        if self.latents is not None and self.mode == "replace":
            raise ValueError("latents= are anchors, and mode 'replace' starts from the inputs' own representations.")

    def anchor(self, view: Scene) -> Shown:
        """The pictures that all sweeps of these rows start from."""
        if self.latents is None:
            return view.linked
        given = self.latents.detach()
        if given.shape != (len(view.r), view.loop.latent.shape[1]) or not bool(given.isfinite().all()):
            raise ValueError(
                f"latents have shape {tuple(given.shape)}; expected finite ({len(view.r)}, "
                f"{view.loop.latent.shape[1]}), "
                "one a row."
            )
        return view.loop.shown(given.to(view.loop.latent), view.rows)

    def planned(self, view: Scene, anchor: Shown, unit: int) -> tuple[Tensor, Tensor, Tensor]:
        """Values (S,), the unit's own value in the anchors (N,), and latents (N, S, latent_dim)."""
        link = view.loop.link
        values = unit_values(link, unit, self.values, self.steps)
        own = view.r[:, unit] if self.mode == "replace" else anchor.representations[:, unit].to(view.r)
        with torch.no_grad():
            latents = unit_steps(
                link,
                view.r,
                unit,
                values,
                anchor=anchor.latents,
                own=own,
                direction=self.direction,
                classes=view.loop.classes_of(view.rows),
            )
        return values, own, latents


def swept(view: Scene, anchor: Shown, units: Sequence[int], how: Sweeping) -> list[UnitSweep]:
    """All units in common batches of at most the loop's limit, rows first."""
    plans = [how.planned(view, anchor, unit) for unit in units]
    rows = len(view.r)
    flat = torch.cat([latents.flatten(0, 1) for _, _, latents in plans])
    places = torch.cat([view.rows.repeat_interleave(len(values)) for values, _, _ in plans])
    shown = view.loop.shown(flat, places)
    results, start = [], 0
    for unit, (values, own, _) in zip(units, plans, strict=True):
        count = rows * len(values)
        results.append(_result(view, anchor, shown.take(slice(start, start + count)), unit, values, own, how))
        start += count
    return results


def units_at_once(view: Scene, how: Sweeping) -> int:
    """How many units fill a batch."""
    each = how.steps if isinstance(how.values, str) else len(how.values)
    return max(1, view.loop.limit // max(1, len(view.r) * each))


def _result(
    view: Scene, anchor: Shown, shown: Shown, unit: int, values: Tensor, own: Tensor, how: Sweeping
) -> UnitSweep:
    sizes = (len(view.r), len(values))
    latents, pictures, representations, scores = (
        t.unflatten(0, sizes) for t in (shown.latents, shown.pictures, shown.representations, shown.scores)
    )
    link = view.loop.link
    found = fidelity(
        representations,
        anchor.representations,
        values,
        unit,
        sd=link.r_sd,
        alive=link.alive,
        scores=scores,
        base_scores=anchor.scores,
    )
    return UnitSweep(
        values=values,
        images=_detach(pictures),
        representations=_detach(representations),
        latents=_detach(latents),
        scores=_detach(scores),
        fidelity=found,
        unit=unit,
        base=_detach(anchor.pictures),
        base_representations=_detach(anchor.representations),
        base_scores=_detach(anchor.scores),
        own=_detach(own),
        agreement=agreement(anchor.scores, view.scores),
        settings=_described(how),
    )


def _detach(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def agreement(linked: Tensor, scores: Tensor) -> float:
    """Share of inputs whose linked picture has the input's class."""
    return float((predict_classes(linked, scores) == predict_classes(scores)).double().mean())


def _described(how: Sweeping) -> dict[str, Any]:
    span = how.values if isinstance(how.values, str) else "given"
    return {"mode": how.mode, "direction": how.direction, "values": span, "anchors": how.latents is not None}
