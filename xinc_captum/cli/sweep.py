"""Command and page."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from .. import store
from ..attributions.linking.sweep import SweepTrust, UnitSweep
from ..metrics.fidelity import Fidelity
from ..visualizers import unit_filmstrips
from ..visualizers.layout import number, ordinal, predicate
from ..visualizers.report import Picture, Section, Table, write_report
from .errors import UsageError, device_called
from .models import Ends, Linked, described, linked_called
from .photos import Starts, drawn, starts_called
from .recorded import recorded

BASES = 32  # with ten, two draws of them often disagree about a unit


def judging(ends: Ends, truncation: float, seed: int) -> Tensor:
    """The pictures in which units of a link are judged, (32, C, H, W): the same for its page and for every sweep.

    Args:
        ends: of the link.
        truncation: of the link.
        seed: of the link.
    """
    return drawn(ends, BASES, truncation, seed + 1)


@dataclass(frozen=True, eq=False)
class Judged:
    """A sweep that is shown, and how faithful it is in the pictures it is judged by.

    Attributes:
        shown: the sweep of the pictures on the page.
        fidelity: of the same sweep of other pictures.
    """

    shown: UnitSweep
    fidelity: Fidelity

    @property
    def trust(self) -> SweepTrust:
        """As of a sweep, by the pictures judged; weak at best where the pictures shown are lost by being linked."""
        return replace(self.shown, fidelity=self.fidelity).trust


FAR = 1.0  # a link that draws the mean of all pictures is as far away


class Kept(NamedTuple):
    """A start beside its reconstruction.

    Attributes:
        name: of the start.
        distance: between what the network makes of both, a root mean square over the live units in their standard
            deviations; 1 is about what the mean of all pictures would have.
        before: the network's answer to the start.
        after: its answer to the reconstruction.
    """

    name: str
    distance: float
    before: str
    after: str

    @property
    def doubt(self) -> str:
        """Why the frames are not of the start, in words; nothing where they may be."""
        if self.distance < FAR and self.before == self.after:
            return ""
        answers = f"{self.after}, not {self.before}" if self.before != self.after else f"{self.after}, as it is"
        return (
            f"{self.name}: the link draws another picture of it, {self.distance:.2f} away and answered {answers}; the "
            "frames are of that picture"
        )

    def to_dict(self) -> dict[str, str | float]:
        """For a manifest."""
        return self._asdict() | {"distance": round(self.distance, 4)}


def kept_of(linked: Linked, starts: Starts) -> list[Kept]:
    """Link every start, draw, and look again."""
    ends, link = linked.ends, linked.link
    encoder = ends.encoder()
    with torch.no_grad():
        r = encoder(starts.pictures.to(ends.device))
        again = encoder.read(ends.draw(link(r, starts.answers)).to(ends.device))
    alive, sd = link.alive, link.r_sd
    away = (again.representations - r).to(sd)[:, alive] / sd[alive]
    found = zip(
        starts.names,
        away.square().mean(1).sqrt().tolist(),
        starts.answers.tolist(),
        again.logits.argmax(1).tolist(),
        strict=True,
    )
    return [Kept(name, far, ends.label(before), ends.label(after)) for name, far, before, after in found]


def said_of(kept: Sequence[Kept]) -> str:
    """How far the starts are from what the link draws of them, in words for a page."""
    far = [one.distance for one in kept]
    said = (
        "The frames are of what the link draws of each picture, not of the picture itself: to the network the two are "
        f"{min(far):.2f} to {max(far):.2f} standard deviations of a unit apart (1: as far as the mean of all pictures)."
    )
    return " ".join([said, *(f"{one.doubt}." for one in kept if one.doubt)])


DPI = 120


class Span(StrEnum):
    """From where to where a unit is set."""

    quantile = "quantile"
    minmax = "minmax"
    sd = "sd"


class Way(StrEnum):
    """Where the latent goes when the unit rises."""

    marginal = "marginal"
    partial = "partial"
    within_class = "within_class"


class Mode(StrEnum):
    """Whether a sweep starts from the picture's own value."""

    anchored = "anchored"
    replaced = "replace"


@recorded("sweep")
def sweep_command(
    folder: Path,
    out: Path,
    units: list[int],
    photos: list[Path],
    span: Span,
    way: Way,
    mode: Mode,
    steps: int,
    count: int,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc sweep`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    if not units:
        raise UsageError("no unit to sweep; give --unit, as often as you like.")
    linked = linked_called(folder, device_called(device))
    starts = starts_called(linked.ends, photos, count, linked.truncation, seed)
    try:
        sweeps = swept(linked, starts, units, span, way, mode, steps)
    except (ValueError, IndexError) as error:
        raise UsageError(str(error)) from error
    kept = kept_of(linked, starts)
    for one in sweeps:
        typer.echo(f"unit {one.shown.unit} {predicate(one.trust)}")
    for line in (doubt for one in kept if (doubt := one.doubt)):
        typer.echo(line)
    note = {
        "seed": seed,
        "ends": described(linked.ends),
        "link": {"folder": str(folder), "trust": linked.trust},
        "inputs": starts.inputs,
        "judged_in": BASES,
        "linked": [one.to_dict() for one in kept],
        "settings": {"span": span.value, "direction": way.value, "mode": mode.value, "steps": steps},
        "units": [{"unit": s.shown.unit, "verdict": s.trust.verdict, "because": s.trust.because} for s in sweeps],
    }
    with store.bundle(out, note) as place:
        _write(place, linked, starts, kept, sweeps, way)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (place / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def swept(
    linked: Linked, starts: Starts, units: list[int], span: Span, way: Way, mode: Mode, steps: int
) -> list[Judged]:
    """Sweep the units in the pictures that are shown and, alike, in those by which the link's own page judges it."""
    method = linked.ends.method(linked.link)
    judges = judging(linked.ends, linked.truncation, linked.seed)
    shown, judged = (
        method.sweeps(
            pictures.to(linked.ends.device), units, span.value, steps=steps, mode=mode.value,
            direction=way.value, attribute_to_neuron_input=True,
        )
        for pictures in (starts.pictures, judges)
    )  # fmt: skip
    fidelities = [one.fidelity for one in judged]
    return [Judged(one, fidelity) for one, fidelity in zip(shown, fidelities, strict=True)]


def _write(
    place: Path, linked: Linked, starts: Starts, kept_of_starts: list[Kept], sweeps: list[Judged], way: Way
) -> None:
    layer = linked.ends.layer
    pictures, kept = [], {"starts": starts.pictures.contiguous()}
    for judged in sweeps:
        one = judged.shown
        file = f"unit_{one.unit}.png"
        strips(judged, linked.ends, starts.names, starts).savefig(place / file, dpi=DPI, metadata={"Software": None})
        said = f"Unit {one.unit} at the input of {layer}: {judged.trust}."
        pictures.append(Picture(file, said))
        tensors = {"values": one.values, "images": one.images, "measured": one.response, "scores": one.scores}
        kept |= {f"unit_{one.unit}.{key}": value.cpu().contiguous() for key, value in tensors.items()}
    store.write_tensors(place / "sweeps.safetensors", kept, kind="sweeps")
    head = ("unit", "verdict", "moves", "follows", "gain", "class flips")
    lines = tuple(
        (
            str(one.shown.unit),
            one.trust.verdict,
            f"{ordinal(one.fidelity.rank)} of {one.fidelity.alive}",
            number(one.fidelity.rho, 2),
            number(one.fidelity.gain, 2),
            f"{100 * one.fidelity.flips:.0f} %" if one.fidelity.flips == one.fidelity.flips else "–",
        )
        for one in sweeps
    )
    caption = (
        f"Judged by {BASES} pictures of the generator's, the same as on the page of the link, not by the "
        f"{len(starts.names)} shown. Moves: the unit's place among all living units by how far each moves, in its own "
        "standard deviations, when the network looks at the frames. Follows: Spearman's correlation of the values set "
        "with those measured. Gain: how much of a step arrives. Class flips: frames to which the network answers "
        "another class."
    )
    write_report(
        place,
        title=f"What units of {linked.ends.classifier.name} show",
        lead="A unit of a classifier is set to one value after another, a link turns each representation into a "
        "latent, and a generator draws it. Whether the pictures are of that unit is measured by showing them to the "
        f"classifier again. {said_of(kept_of_starts)} The link itself {predicate(linked.trust)}.",
        facts={
            "network": linked.ends.model_name,
            "layer": f"input of {layer}",
            "generator": linked.ends.generator_name,
            "direction": way.value,
            "pictures": f"{len(starts.names)} shown, {BASES} judged",
        },
        sections=[Section("From low to high", tuple(pictures), Table(head, lines, caption))],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; values, frames and "
        "responses are in sweeps.safetensors.",
    )


def strips(judged: Judged, ends: Ends, names: Sequence[str], starts: Starts | None = None) -> Figure:
    """The filmstrips of one unit, one row a start; the starts themselves beside what the link makes of them."""
    sweep, found = judged.shown, judged.shown.fidelity
    places = [f"moves {'most' if rank == 1 else ordinal(rank)} of {found.alive}" for rank in found.ranks.tolist()]
    follows = [f"follows {number(rho, 2)}" for rho in found.rhos.tolist()]
    return unit_filmstrips(
        sweep.images.cpu(),
        sweep.values.cpu(),
        sweep.response.cpu(),
        rows=names,
        notes=[f"{place}, {rho}" for place, rho in zip(places, follows, strict=True)],
        bases=sweep.base.cpu(),
        originals=None if starts is None else starts.pictures,
        original_predictions=None if starts is None else [ends.label(c) for c in starts.answers.tolist()],
        predictions=[[ends.label(c) for c in row] for row in sweep.scores.argmax(-1).tolist()],
        origins=[ends.label(c) for c in sweep.base_scores.argmax(-1).tolist()],
        trust=(judged.trust.verdict, judged.trust.because),
        title=f"Unit {sweep.unit} of {ends.classifier.name}, input of {ends.layer}",
    )
