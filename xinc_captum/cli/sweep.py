"""Command and page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from .. import store
from ..attributions.linking.sweep import SweepTrust, UnitSweep
from ..metrics.fidelity import Fidelity
from ..visualizers import unit_filmstrips
from ..visualizers.layout import number, ordinal, predicate
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, find_device, record_settings, result_folder, save_picture
from .errors import UsageError
from .models import ClassifierAndGenerator, LoadedLink, load_link, model_names
from .photos import StartImages, generate_images, load_start_images

BASES = 32  # with ten, two draws of them often disagree about a unit


def evaluation_images(models: ClassifierAndGenerator, truncation: float, seed: int) -> Tensor:
    """The pictures in which units of a link are judged, (32, C, H, W): the same for its page and for every sweep.

    Args:
        models: of the link.
        truncation: of the link.
        seed: of the link.
    """
    return generate_images(models, BASES, truncation, seed + 1)


@dataclass(frozen=True, eq=False)
class EvaluatedSweep:
    """A sweep that is shown, and how faithful it is in the pictures it is judged by.

    Attributes:
        shown: the sweep of the pictures on the page.
        fidelity: of the same sweep of other pictures.
    """

    sweep: UnitSweep
    fidelity: Fidelity

    @property
    def trust(self) -> SweepTrust:
        """As of a sweep, by the pictures judged; weak at best where the pictures shown are lost by being linked."""
        return replace(self.sweep, fidelity=self.fidelity).trust


FAR = 1.0  # a link that draws the mean of all pictures is as far away


class ReconstructionCheck(NamedTuple):
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
        prediction = f"{self.after}, not {self.before}" if self.before != self.after else f"{self.after}, as it is"
        return (
            f"{self.name}: the link draws another picture of it, {self.distance:.2f} away and answered "
            f"{prediction}; the "
            "frames are of that picture"
        )

    def to_dict(self) -> dict[str, str | float]:
        """For a manifest."""
        return self._asdict() | {"distance": round(self.distance, 4)}


def check_reconstructions(linked: LoadedLink, starts: StartImages) -> list[ReconstructionCheck]:
    """Link every start, draw, and look again."""
    models, link = linked.models, linked.link
    encoder = models.encoder()
    with torch.no_grad():
        r = encoder(starts.images.to(models.device))
        again = encoder.read(models.generate(link(r, starts.predictions)).to(models.device))
    alive, sd = link.alive, link.r_sd
    away = (again.representations - r).to(sd)[:, alive] / sd[alive]
    columns = zip(
        starts.names,
        away.square().mean(1).sqrt().tolist(),
        starts.predictions.tolist(),
        again.logits.argmax(1).tolist(),
        strict=True,
    )
    return [
        ReconstructionCheck(name, far, models.label(before), models.label(after))
        for name, far, before, after in columns
    ]


def reconstruction_text(checks: Sequence[ReconstructionCheck]) -> str:
    """How far the starts are from what the link draws of them, in words for a page."""
    far = [one.distance for one in checks]
    text = (
        "The frames are of what the link draws of each picture, not of the picture itself: to the network the two are "
        f"{min(far):.2f} to {max(far):.2f} standard deviations of a unit apart (1: as far as the mean of all pictures)."
    )
    return " ".join([text, *(f"{one.doubt}." for one in checks if one.doubt)])


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


@record_settings("sweep")
def sweep_command(
    folder: Annotated[Path, typer.Argument(help="What xinc link wrote.", show_default=False)],
    out: Out,
    units: Annotated[list[int], typer.Option("--unit", help="Unit to set; repeat for several.")] = [],
    photos: Annotated[
        list[Path], typer.Option("--photo", help="Picture to start from; repeat. Default: drawn ones.")
    ] = [],
    span: Annotated[Span, typer.Option(help="From where to where, by what the link has seen.")] = Span.quantile,
    way: Annotated[
        Way,
        typer.Option(
            "--direction", help="marginal: as units vary together; partial: the others held, the paper's way."
        ),
    ] = Way.marginal,
    mode: Annotated[
        Mode, typer.Option(help="anchored: from the picture's own value; replace: the paper's way.")
    ] = Mode.anchored,
    steps: Annotated[int, typer.Option(help="Values of the unit.", min=2)] = 6,
    count: Annotated[int, typer.Option(help="Pictures to draw where no --photo is given.", min=1)] = 5,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Draw pictures at several values of a unit, and say whether the unit followed."""
    if not units:
        raise UsageError("no unit to sweep; give --unit, as often as you like.")
    linked = load_link(folder, find_device(device))
    starts = load_start_images(linked.models, photos, count, linked.truncation, seed)
    try:
        sweeps = sweep_units(linked, starts, units, span, way, mode, steps)
    except (ValueError, IndexError) as error:
        raise UsageError(str(error)) from error
    checks = check_reconstructions(linked, starts)
    for one in sweeps:
        typer.echo(f"unit {one.sweep.unit} {predicate(one.trust)}")
    for line in (doubt for one in checks if (doubt := one.doubt)):
        typer.echo(line)
    note = {
        "seed": seed,
        "ends": model_names(linked.models),
        "link": {"folder": str(folder), "trust": linked.trust},
        "inputs": starts.inputs,
        "judged_in": BASES,
        "linked": [one.to_dict() for one in checks],
        "settings": {"span": span.value, "direction": way.value, "mode": mode.value, "steps": steps},
        "units": [{"unit": s.sweep.unit, "verdict": s.trust.verdict, "because": s.trust.because} for s in sweeps],
    }
    with result_folder(out, note) as result_path:
        _write(result_path, linked, starts, checks, sweeps, way)


def sweep_units(
    linked: LoadedLink, starts: StartImages, units: list[int], span: Span, way: Way, mode: Mode, steps: int
) -> list[EvaluatedSweep]:
    """Sweep the units in the pictures that are shown and, alike, in those by which the link's own page judges it."""
    method = linked.models.visualization(linked.link)
    evaluated_in = evaluation_images(linked.models, linked.truncation, linked.seed)
    sweeps, evaluations = (
        method.sweeps(
            pictures.to(linked.models.device), units, span.value, steps=steps, mode=mode.value,
            direction=way.value, attribute_to_neuron_input=True,
        )
        for pictures in (starts.images, evaluated_in)
    )  # fmt: skip
    fidelities = [one.fidelity for one in evaluations]
    return [EvaluatedSweep(one, fidelity) for one, fidelity in zip(sweeps, fidelities, strict=True)]


def _write(
    folder: Path,
    linked: LoadedLink,
    starts: StartImages,
    checks: list[ReconstructionCheck],
    sweeps: list[EvaluatedSweep],
    way: Way,
) -> None:
    layer = linked.models.layer
    pictures, tensors = [], {"starts": starts.images.contiguous()}
    for evaluated in sweeps:
        one = evaluated.sweep
        file = f"unit_{one.unit}.png"
        caption = f"Unit {one.unit} at the input of {layer}: {evaluated.trust}."
        pictures.append(
            save_picture(folder, file, filmstrips(evaluated, linked.models, starts.names, starts), caption, dpi=120)
        )
        arrays = {"values": one.values, "images": one.images, "measured": one.response, "scores": one.scores}
        tensors |= {f"unit_{one.unit}.{key}": value.cpu().contiguous() for key, value in arrays.items()}
    store.write_tensors(folder / "sweeps.safetensors", tensors, kind="sweeps")
    head = ("unit", "verdict", "moves", "follows", "gain", "class flips")
    lines = tuple(
        (
            str(one.sweep.unit),
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
        folder,
        title=f"What units of {linked.models.classifier.name} show",
        lead="A unit of a classifier is set to one value after another, a link turns each representation into a "
        "latent, and a generator draws it. Whether the pictures are of that unit is measured by showing them to the "
        f"classifier again. {reconstruction_text(checks)} The link itself {predicate(linked.trust)}.",
        facts={
            "network": linked.models.model_name,
            "layer": f"input of {layer}",
            "generator": linked.models.generator_name,
            "direction": way.value,
            "pictures": f"{len(starts.names)} shown, {BASES} judged",
        },
        sections=[Section("From low to high", tuple(pictures), Table(head, lines, caption))],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; values, frames and "
        "responses are in sweeps.safetensors.",
    )


def filmstrips(
    evaluated: EvaluatedSweep, models: ClassifierAndGenerator, names: Sequence[str], starts: StartImages | None = None
) -> Figure:
    """The filmstrips of one unit, one row a start; the starts themselves beside what the link makes of them."""
    sweep, fidelity = evaluated.sweep, evaluated.sweep.fidelity
    places = [f"moves {'most' if rank == 1 else ordinal(rank)} of {fidelity.alive}" for rank in fidelity.ranks.tolist()]
    follows = [f"follows {number(rho, 2)}" for rho in fidelity.rhos.tolist()]
    return unit_filmstrips(
        sweep.images.cpu(),
        sweep.values.cpu(),
        sweep.response.cpu(),
        rows=names,
        notes=[f"{place}, {rho}" for place, rho in zip(places, follows, strict=True)],
        bases=sweep.base.cpu(),
        originals=None if starts is None else starts.images,
        seen=None if starts is None else [models.label(c) for c in starts.predictions.tolist()],
        answers=[[models.label(c) for c in row] for row in sweep.scores.argmax(-1).tolist()],
        origins=[models.label(c) for c in sweep.base_scores.argmax(-1).tolist()],
        trust=(evaluated.trust.verdict, evaluated.trust.because),
        title=f"Unit {sweep.unit} of {models.classifier.name}, input of {models.layer}",
    )
