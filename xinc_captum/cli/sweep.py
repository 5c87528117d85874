"""``xinc sweep``: command and page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor
from typer import Option

from .. import store
from ..attributions.linking.sweep import SweepTrust, UnitSweep
from ..metrics.fidelity import Fidelity
from ..visualizers import unit_filmstrips
from ..visualizers.layout import number, ordinal, predicate
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .models import (
    ClassifierAndGenerator,
    LinkFolder,
    LoadedLink,
    StartCount,
    StartImages,
    StartPhotos,
    generate_images,
    load_link,
    load_start_images,
)

BASES = 32  # with ten images, verdicts often depend on the sample


def evaluation_images(models: ClassifierAndGenerator, truncation: float, seed: int) -> Tensor:
    """Return the images in which units of a link are evaluated, (32, C, H, W), the same for its page and all sweeps.

    Truncation and seed are those of the link.
    """
    return generate_images(models, BASES, truncation, seed + 1)


@dataclass(frozen=True, eq=False)
class EvaluatedSweep:
    """A sweep of the start images, with the fidelity of the same sweep of the evaluation images."""

    sweep: UnitSweep
    fidelity: Fidelity

    @property
    def trust(self) -> SweepTrust:
        """Verdict by the evaluation images; at best weak if the link does not reconstruct the start images."""
        return replace(self.sweep, fidelity=self.fidelity).trust


FAR = 1.0  # distance of a link that always generates the mean image


class ReconstructionCheck(NamedTuple):
    """How well the link reconstructs a start image.

    The distance between the representations of the image and its reconstruction is the root mean square over the units
    that are not dead, in their standard deviations. The mean of all images has a distance of about 1.
    """

    name: str
    distance: float
    before: str  # predicted class of the start image
    after: str  # that of the reconstruction

    @property
    def doubt(self) -> str:
        """A sentence if the reconstruction is another image; empty otherwise."""
        if self.distance < FAR and self.before == self.after:
            return ""
        prediction = f"{self.after}, not {self.before}" if self.before != self.after else f"{self.after} too"
        return (
            f"{self.name}: its reconstruction is another image, at distance {self.distance:.2f} and predicted as "
            f"{prediction}; the frames show that image"
        )


def check_reconstructions(linked: LoadedLink, starts: StartImages) -> list[ReconstructionCheck]:
    """Reconstruct every start image and compare the representations."""
    models, link = linked.models, linked.link
    encoder = models.encoder()
    with torch.no_grad():
        r = encoder(starts.images.to(models.device))
        again = encoder.encode(models.generate(link(r, starts.predictions)).to(models.device))
    alive, sd = link.alive, link.r_sd
    away = (again.representations - r).to(sd)[:, alive] / sd[alive]
    distances = away.square().mean(1).sqrt().tolist()
    before, after = ([models.label(c) for c in one.tolist()] for one in (starts.predictions, again.logits.argmax(1)))
    return [ReconstructionCheck(*row) for row in zip(starts.names, distances, before, after, strict=True)]


def reconstruction_text(checks: Sequence[ReconstructionCheck]) -> str:
    """Return the reconstruction errors of the start images as text for the page."""
    far = [one.distance for one in checks]
    text = (
        "The frames show the reconstruction of each image, not the image itself. Their representations differ by "
        f"{min(far):.2f} to {max(far):.2f} standard deviations per unit (1: the mean of all images differs as much)."
    )
    return " ".join([text, *(f"{one.doubt}." for one in checks if one.doubt)])


class Span(StrEnum):
    """Ranges of a unit's values."""

    quantile = "quantile"
    minmax = "minmax"
    sd = "sd"


class Way(StrEnum):
    """Directions in which the latent moves with the unit."""

    marginal = "marginal"
    partial = "partial"
    within_class = "within_class"


class Mode(StrEnum):
    """Values relative to the image's own (anchored) or absolute."""

    anchored = "anchored"
    replaced = "replace"


@record_settings("sweep")
def sweep_command(
    folder: LinkFolder,
    out: Out,
    units: Annotated[list[int], Option("--unit", help="Unit to sweep; repeat for several.")] = [],
    photos: StartPhotos = [],
    span: Annotated[
        Span, Option(help="Range of values, measured on the images that the link was fitted to.")
    ] = Span.quantile,
    way: Annotated[
        Way,
        Option(
            "--direction",
            help="marginal: other units change as they usually do; within_class: the same with class means removed; "
            "partial: other units stay fixed, as in the paper.",
        ),
    ] = Way.marginal,
    mode: Annotated[
        Mode, Option(help="anchored: relative to the image's own value; replace: absolute values, as in the paper.")
    ] = Mode.anchored,
    steps: Annotated[int, Option(help="Number of values of the unit.", min=2)] = 6,
    count: StartCount = 5,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Generate images at several values of a unit, and compare these with the values that the classifier measures."""
    if not units:
        raise UsageError("no unit to sweep; give --unit, once or several times.")
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
        **linked.note(starts, seed),
        "judged_in": BASES,
        "linked": [one._asdict() | {"distance": round(one.distance, 4)} for one in checks],
        "settings": {"span": span.value, "direction": way.value, "mode": mode.value, "steps": steps},
        "units": [{"unit": s.sweep.unit, "verdict": s.trust.verdict, "because": s.trust.because} for s in sweeps],
    }
    with result_folder(out, note) as result_path:
        _write(result_path, linked, starts, checks, sweeps, way)


def sweep_units(
    linked: LoadedLink, starts: StartImages, units: list[int], span: Span, way: Way, mode: Mode, steps: int
) -> list[EvaluatedSweep]:
    """Sweep the units in the start images and in the evaluation images of the link."""
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
    pictures, tensors = [], {"starts": starts.images.contiguous()}
    for evaluated in sweeps:
        one = evaluated.sweep
        caption = f"Unit {one.unit} at the input of {linked.models.layer}: {evaluated.trust}."
        figure = filmstrips(evaluated, linked.models, starts)
        pictures.append(save_picture(folder, f"unit_{one.unit}.png", figure, caption, dpi=120))
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
        f"Evaluated in {BASES} generated images, the same as on the page of the link, not in the {len(starts.names)} "
        "images shown. Moves: rank of the unit among all units that are not dead, by the change of its activation in "
        "standard deviations, measured by the network on the frames. Follows: Spearman's correlation of the values set "
        "with the values measured. Gain: measured change per change set. Class flips: frames with another predicted "
        "class."
    )
    write_report(
        folder,
        title=f"Sweeps of units of {linked.models.classifier.name}",
        lead="A unit of a classifier is set to several values, a link maps each representation to a latent, and a "
        "generator makes an image of it. The classifier then measures whether the unit follows. "
        f"{reconstruction_text(checks)} The link itself {predicate(linked.trust)}.",
        facts={
            **linked.models.facts,
            "direction": way.value,
            "images": f"{len(starts.names)} shown, {BASES} for the verdict",
        },
        sections=[Section("From low to high", tuple(pictures), Table(head, lines, caption))],
        foot="Made by xinc-captum. manifest.json holds the command, versions, seed and checksums; values, frames and "
        "responses are in sweeps.safetensors.",
    )


def filmstrips(evaluated: EvaluatedSweep, models: ClassifierAndGenerator, starts: StartImages) -> Figure:
    """Return the filmstrips of one unit, one row per start image, next to the start images."""
    sweep, fidelity = evaluated.sweep, evaluated.sweep.fidelity
    places = [f"moves {'most' if rank == 1 else ordinal(rank)} of {fidelity.alive}" for rank in fidelity.ranks.tolist()]
    follows = [f"follows {number(rho, 2)}" for rho in fidelity.rhos.tolist()]
    return unit_filmstrips(
        sweep.images.cpu(),
        sweep.values.cpu(),
        sweep.response.cpu(),
        rows=starts.names,
        notes=[f"{place}, {rho}" for place, rho in zip(places, follows, strict=True)],
        bases=sweep.base.cpu(),
        originals=starts.images,
        original_predictions=[models.label(c) for c in starts.predictions.tolist()],
        predictions=[[models.label(c) for c in row] for row in sweep.scores.argmax(-1).tolist()],
        origins=[models.label(c) for c in sweep.base_scores.argmax(-1).tolist()],
        trust=(evaluated.trust.verdict, evaluated.trust.because),
        title=f"Unit {sweep.unit} of {models.classifier.name}, input of {models.layer}",
    )
