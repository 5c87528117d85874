"""Command and page."""

import csv
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from ..attributions.linking import LatentLink, LinkAudit, Pairs, make_pairs
from ..attributions.linking.unit_tables.table import COLUMNS
from ..metrics.statistics import Interval
from ..visualizers import Measured, link_audit, selectivity_table, unit_sheet
from ..visualizers.layout import predicate
from ..visualizers.report import Section, write_report
from .command import Device, Out, Seed, device_called, recorded, result_folder, save_picture
from .errors import UsageError
from .link_results import Story, Units, audited, keep, units_of
from .models import FILE, GENERATORS, MODELS, Ends, described, ends_called
from .photos import real_called


def figures(audit: LinkAudit) -> dict[str, list[Measured]]:
    """What was measured, for :func:`xinc_captum.visualizers.link_audit`; groups without figures are left out."""
    explained = [_measured("R²", audit.r2, audit.class_mean_r2, "class means alone")]
    if audit.classes > 1:
        within = _measured("R² within classes", audit.r2_within, audit.shuffled_within, "shuffled within classes")
        explained += [within, _measured("two-layer network, within", audit.mlp_r2_within, None, "")]
    else:  # then the mean is all that class means are, and no picture drawn can lose its class
        explained = [_measured("R²", audit.r2, audit.shuffled_within, "shuffled")]
        explained.append(_measured("two-layer network", audit.mlp_r2_within, None, ""))
    generated = audit.generated if audit.classes > 1 else None
    kept = [
        _measured("generated pictures", generated, audit.class_mean_agreement, "class means alone"),
        _measured("real pictures", audit.real, audit.class_mean_agreement, "class means alone"),
    ]
    back = [_measured("R² of the representation", audit.cycle_r2, None, "")]
    if audit.unit_cycle is not None:
        units = audit.unit_cycle[audit.unit_cycle.isfinite()]
        if len(units):
            low, middle, high = (float(units.double().quantile(q)) for q in (0.25, 0.5, 0.75))
            back.append(Measured("units, correlation", middle, low, high, None, ""))
    back.append(_measured("of searched latents", audit.search_cycle_r2, audit.search_from, "where the search began"))
    shared = []
    if audit.order is not None:
        order = audit.order
        shared = [
            _measured(f"between classes{_chance(order.between_p)}", order.between, None, ""),
            _measured(f"within classes{_chance(order.within_p)}", order.within, None, ""),
            _measured("nearest neighbours", order.neighbours, order.neighbours_chance, "by chance"),
        ]
    groups = {
        f"How much of the latent does the link explain, on {audit.pairs:,} pairs it has not seen?": explained,
        "Does a picture keep its class through the link?": kept,
        "Does the unit come back? Link, draw, and look again (units: the middle half of them)": back,
        "Do both spaces put the same things near one another?": shared,
    }
    found = {name: [one for one in group if one is not None] for name, group in groups.items()}
    return {name: group for name, group in found.items() if group}


def _chance(p: float | None) -> str:
    """How often shuffled classes, or rows within them, do as well."""
    return "" if p is None else f", p {p:.2f}" if p >= 0.01 else ", p < .01"


def _measured(name: str, value: Interval | float | None, control: float | None, said: str) -> Measured | None:
    if value is None:
        return None
    if isinstance(value, Interval):
        return Measured(name, value.value, value.low, value.high, control, said)
    return Measured(name, value, value, value, control, said)


_save_picture = partial(save_picture, dpi=120)
SHOWN = 8  # pictures before and after the link
FEWEST_CLASSES = 4  # classes whose order can be compared


def write_page(folder: Path, story: Story) -> None:
    """Pictures, the table of changes and ``index.html`` into ``folder``."""
    ends, units, trust = story.ends, story.units, story.audit.trust
    with (folder / "units.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows(units.table.rows())
    believed = _save_picture(
        folder,
        "audit.png",
        audit(story),
        "Above, pictures and what comes out when the classifier looks at them and the link draws what it saw. Below, "
        "every figure beside its control. "
        + (
            "A link that knows nothing but the class keeps the class of every picture: what it explains within classes "
            "is the honest figure."
            if units.classed
            else "The network gives all of the generator's pictures one class, so nothing is said of keeping it."
        ),
    )
    seen = _save_picture(
        folder,
        "units.png",
        sheet(units, story),
        f"Units that {'classes drive' if units.classed else 'vary'} most, each drawn low and high in one picture. "
        "Faded where the picture is not of the unit: where the unit itself moves less than others, or does not follow, "
        f"when the network looks at it. Each is judged in {len(units.bases)} pictures, of which one is shown.",
    )
    sections = [Section("How far to believe the link", (believed,)), Section("A field guide of units", (seen,))]
    if units.classed:
        driven = _save_picture(
            folder,
            "selectivity.png",
            selectivity_table(
                units.selective.means[units.numbers],
                units=units.numbers,
                classes=units.class_names(ends),
                explained=units.selective.explained[units.numbers].nan_to_num(0),
            ),
            "What drives the units above: their mean response to each class.",
        )
        sections.append(Section("Which classes drive them", (driven,)))
    write_report(
        folder,
        title=f"What units of {ends.classifier.name} mean to {ends.generator_name}",
        lead="A classifier looked at pictures that a generator had drawn, and one linear map, fitted in closed form, "
        "says which latent draws what a layer represents. Set a unit, and the map and the generator draw what changes. "
        f"This link {predicate(trust)}.",
        facts={
            "network": ends.model_name,
            "layer": f"input of {ends.layer}",
            "generator": ends.generator_name,
            "pairs": f"{story.drawn:,} ({100 * story.kept:.0f} % of those drawn)",
            "link": f"{story.link.variant}, {len(story.link.alive)} units, {int((~story.link.alive).sum())} dead",
            "real pictures": "none" if story.real is None else story.real.words,
        },
        sections=sections,
        foot="Made by xinc-captum. link.safetensors is the link, which xinc sweep and xinc counterfactual take; "
        "units.csv says how much brighter each unit makes each third of the picture; explorer.safetensors holds all "
        "frames of the units, of which xinc explore makes one file; manifest.json holds the command, versions, seed, "
        "checksums and every figure of the audit.",
    )


def audit(story: Story) -> Figure:
    """The picture of the audit."""
    rows = torch.linspace(0, len(story.held_out) - 1, min(SHOWN, len(story.held_out))).long()
    before = story.ends.draw(story.held_out.latents[rows])
    pictures = {"generated": (before, story.through(before))}
    if story.real is not None:
        real = story.real.pictures[:SHOWN]
        pictures["real"] = (real, story.through(real))
    known = story.held_out.classes.unique()
    few = FEWEST_CLASSES <= len(known) <= 2 * FEWEST_CLASSES + 4
    return link_audit(
        figures(story.audit),
        verdict=(story.audit.trust.verdict, story.audit.trust.because),
        pictures=pictures,
        orders=_orders(story) if few else None,
        classes=[story.ends.label(c) for c in known.tolist()] if few else None,
        title=f"How far to believe the link from {story.ends.classifier.name} to {story.ends.generator_name}",
    )


def sheet(units: Units, story: Story) -> Figure:
    """The sheet of units."""
    pairs = [(one.images[row, [0, -1]]).cpu() for one, row in zip(units.sweeps, units.rows, strict=True)]
    both = torch.stack(pairs, 1)
    return unit_sheet(
        both[0],
        both[1],
        units=units.numbers,
        ranks=torch.tensor([float(one.fidelity.rank) for one in units.sweeps]),
        followed=torch.tensor([one.fidelity.rho for one in units.sweeps]),
        count=int(story.link.alive.sum()),
        verdicts=[one.trust.verdict for one in units.sweeps],
        selectivity=units.selective.means[units.numbers] if units.classed else None,
        classes=units.class_names(story.ends) if units.classed else None,
        notes=units.notes(),
        title=f"{len(units.sweeps)} of the {len(story.link.alive)} units at the input of {story.ends.layer}",
    )


def _orders(story: Story) -> dict[str, Tensor]:
    """How alike the means of the classes are, in both spaces."""
    pairs = story.held_out
    spaces = {"in the classifier's layer": pairs.representations, "in the generator's latents": pairs.latents}
    return {name: _alike(values, pairs.classes) for name, values in spaces.items()}


def _alike(values: Tensor, classes: Tensor) -> Tensor:
    values, classes = values.double().cpu(), classes.cpu()
    away = (values - values.mean(0)) / values.std(0).clamp_min(1e-9)
    return torch.corrcoef(torch.stack([away[classes == c].mean(0) for c in classes.unique()]))


FEWEST = 3  # pairs of a class, of which one is then held out


class Variant(StrEnum):
    """Forms of the link."""

    linear = "linear"
    per_class = "per_class"
    fourier_features = "fourier_features"


@recorded("link", "real")
def link_command(
    out: Out,
    model: Annotated[
        str, typer.Option(help=f"{', '.join(MODELS)}, or module:function that returns a network.")
    ] = "mnist_convnet",
    generator: Annotated[
        str, typer.Option(help=f"{', '.join(GENERATORS)}, or module:function that returns a generator.")
    ] = "mnist_generator",
    layer: Annotated[
        str | None, typer.Option(help="Layer whose input is linked, by its dotted name. Default: the last linear one.")
    ] = None,
    variant: Annotated[Variant, typer.Option(help="Form of the link.")] = Variant.linear,
    pairs: Annotated[
        int, typer.Option(help="Pictures to link, three a class or more; a fifth is held out.", min=20)
    ] = 3000,
    truncation: Annotated[float, typer.Option(help="How far pictures may be from the mean of their class.")] = 0.7,
    real: Annotated[
        str | None, typer.Option(help="Real pictures to try the link on: a folder, or mnist_digits.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Link a classifier's layer to a generator, audit the link, and show what units mean."""
    ends = ends_called(model, generator, layer, device_called(device))
    photos = real_called(real, ends)
    known = int(getattr(ends.generator, "num_classes", 0))
    if pairs < FEWEST * known:
        raise UsageError(
            f"--pairs is {pairs}; {generator} draws {known} classes, and a fifth of each is held out: expected "
            "at least "
            f"{FEWEST * known}, and {10 * known} or more for an audit that can tell what varies within a class."
        )
    typer.echo(f"drawing {pairs:,} pictures by {generator} and showing them to {model} …")
    found = pairs_of(ends, pairs, truncation, seed)
    link = LatentLink(variant.value, seed=seed)
    try:
        fit, held_out = found.split(0.2, seed=seed)
        link.fit(fit.representations, fit.latents, fit.classes, manifest=found.manifest)
    except ValueError as error:
        raise UsageError(f"{error} Give more --pairs, or another --variant.") from error
    audit = audited(ends, link, fit, held_out, photos, seed)
    typer.echo(f"the link {predicate(audit.trust)}")
    typer.echo("setting units …")
    units = units_of(ends, link, held_out, truncation, seed)
    story = Story(ends, link, held_out, len(found), found.kept, audit, units, photos)
    note = {
        "seed": seed,
        "ends": described(ends),
        "trust": str(audit.trust),
        "truncation": truncation,
        "variant": variant.value,
        "pairs": {**found.manifest, "count": len(found), "kept": round(found.kept, 4)},
        "audit": {name: value for name, value in audit.to_dict().items() if not name.startswith("unit_")},
        "units": [
            {
                "unit": s.unit,
                "verdict": s.trust.verdict,
                "because": s.trust.because,
                "rank": s.fidelity.rank,
                "rho": round(s.fidelity.rho, 4),
                "shown_in": f"drawn: {ends.label(int(s.base_scores[row].argmax()))}",
            }
            for s, row in zip(units.sweeps, units.rows, strict=True)
        ],
    }
    with result_folder(out, note) as folder:
        link.save(folder / FILE)
        write_page(folder, story)
        keep(folder, units.sweeps, units.rows, units.films)


def pairs_of(ends: Ends, count: int, truncation: float, seed: int) -> Pairs:
    """Pairs of the ends; only pictures answered as they were meant, where both know the same classes.

    Raises:
        UsageError: too few pictures are answered as meant, or a count that cannot be.
    """
    try:
        return make_pairs(
            ends.classifier.model,
            ends.layer,
            ends.generator,
            count,
            truncation=truncation,
            rng=seed,
            keep_class=ends.share_classes,
            preprocess=ends.preprocess,
            show_progress=True,
        )
    except ValueError as error:
        raise UsageError(f"{error} What this command lets you change are --truncation, --pairs and --seed.") from error
