"""The page of ``xinc link``: the audit, the sheet of units, the table of classes."""

import csv
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..attributions.linking.unit_tables.unit_table import COLUMNS
from ..visualizers import link_audit, selectivity_table, unit_sheet
from ..visualizers.report import Picture, Section, write_report
from ..visualizers.words import predicate
from .link_figures import figures
from .link_story import Story, Units

DPI = 120
SHOWN = 8  # pictures before and after the link
FEWEST = 4  # classes whose order can be compared


def write_page(folder: Path, story: Story) -> None:
    """Pictures, the table of changes and ``index.html`` into ``folder``."""
    ends, units, trust = story.ends, story.units, story.audit.trust
    with (folder / "units.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows(units.table.rows())
    believed = _picture(
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
    seen = _picture(
        folder,
        "units.png",
        sheet(units, story),
        f"Units that {'classes drive' if units.classed else 'vary'} most, each drawn low and high in one picture. "
        "Faded where the picture is not of the unit: where the unit itself moves less than others, or does not follow, "
        f"when the network looks at it. Each is judged in {len(units.bases)} pictures, of which one is shown.",
    )
    sections = [Section("How far to believe the link", (believed,)), Section("A field guide of units", (seen,))]
    if units.classed:
        driven = _picture(
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
    few = FEWEST <= len(known) <= 2 * FEWEST + 4
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


def _picture(folder: Path, file: str, figure: Figure, caption: str) -> Picture:
    figure.savefig(folder / file, dpi=DPI, metadata={"Software": None})
    return Picture(file, caption)
