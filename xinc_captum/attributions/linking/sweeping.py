"""Sweeps of many units in common batches, one result at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import torch
from torch import Tensor

from ...metrics.fidelity import fidelity
from ...metrics.probability import predicted_classes
from .linked_scene import Scene
from .loop import Shown
from .sweep import UnitSweep
from .unit_steps import (
    Direction,
    Values,
    unit_steps,
    unit_values,
)

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
                raise ValueError(f"{name} is {value!r}; wanted one of {', '.join(map(repr, get_args(known)))}.")
        if self.latents is not None and self.mode == "replace":
            raise ValueError("latents= are anchors, and mode 'replace' starts from the inputs' own representations.")

    def anchor(self, view: Scene) -> Shown:
        """The pictures that all sweeps of these rows start from."""
        if self.latents is None:
            return view.linked
        given = self.latents.detach()
        if given.shape != (len(view.r), view.loop.latent.shape[1]) or not bool(given.isfinite().all()):
            raise ValueError(
                f"latents have shape {tuple(given.shape)}; wanted finite ({len(view.r)}, {view.loop.latent.shape[1]}), "
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
        images=_plain(pictures),
        representations=_plain(representations),
        latents=_plain(latents),
        scores=_plain(scores),
        fidelity=found,
        unit=unit,
        base=_plain(anchor.pictures),
        base_representations=_plain(anchor.representations),
        base_scores=_plain(anchor.scores),
        own=_plain(own),
        agreement=agreement(anchor.scores, view.scores),
        settings=_described(how),
    )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def agreement(linked: Tensor, scores: Tensor) -> float:
    """Share of inputs whose linked picture has the input's class."""
    return float((predicted_classes(linked, scores) == predicted_classes(scores)).double().mean())


def _described(how: Sweeping) -> dict[str, Any]:
    span = how.values if isinstance(how.values, str) else "given"
    return {"mode": how.mode, "direction": how.direction, "values": span, "anchors": how.latents is not None}
