"""``xinc link``: units, results, page and command."""

import csv
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor
from typer import Option

from .. import store
from ..attributions.linking import LatentLink, LinkAudit, Pairs, make_pairs
from ..attributions.linking.sweep import UnitSweep
from ..attributions.linking.unit_tables import UnitTable, quantify
from ..attributions.linking.unit_tables.table import COLUMNS
from ..generators import ImageParts
from ..metrics.links import Selectivity, selectivity
from ..metrics.statistics import Interval
from ..visualizers import Measured, link_audit, selectivity_table, unit_sheet
from ..visualizers.explorer.images import smaller
from ..visualizers.layout import predicate
from ..visualizers.report import Section, write_report
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import ImageSet
from .models import (
    FILE,
    GENERATORS,
    MODEL_HELP,
    ClassifierAndGenerator,
    Weights,
    load_classifier_and_generator,
    load_real_images,
)
from .sweep import evaluation_images


def shrink_frames(frames: Tensor) -> Tensor:
    """Return frames (S, C, H, W) in [0, 1] as uint8, with sides of at most 128 pixels."""
    small = [smaller(one, 128) for one in frames]  # of all units together there are about 200
    return (torch.stack(small) * 255).round().to(torch.uint8)


MAX_UNITS = 36  # units in the figure
MAX_CLASSES = 12  # named in the figure and the table
MEASURED_IN = 16  # images in which changes are measured
THIRDS = ("upper third", "middle third", "lower third")


@dataclass(frozen=True, eq=False)
class Units:
    """Sweeps of some units, one per unit, with the frames of the lowest and the highest value."""

    bases: Tensor = field(repr=False)  # images in which units are set, (N, C, H, W)
    sweeps: list[UnitSweep] = field(repr=False)
    rows: list[int]  # for each unit, the index of the base image to show
    films: list[Tensor] = field(repr=False)  # for each unit, all frames of that image, small, (S, C, h, w), uint8
    selective: Selectivity  # of all units of the layer for classes
    table: UnitTable  # change that each unit causes, by third of the image

    @property
    def has_classes(self) -> bool:
        """Whether there is more than one class."""
        return len(self.selective.classes) > 1

    @property
    def numbers(self) -> list[int]:
        """Indices of the units, in the order of the figure."""
        return [one.unit for one in self.sweeps]

    def class_names(self, models: ClassifierAndGenerator) -> list[str]:
        """Return the names of the classes in ``selective``."""
        return [models.label(c) for c in self.selective.classes.tolist()]

    def notes(self) -> list[str]:
        """Return for each unit where in the image it changes most, as text."""
        change = torch.stack([self.table.column(third, "luminance") for third in THIRDS], 1)
        base = self.table.base_value.nanmean(0)[:, self.table.measures.index("luminance")]
        notes = []
        for row in 100 * (change / base.clamp_min(1e-3)).nan_to_num(0):
            third = int(row.abs().argmax())
            direction = "brighter" if row[third] > 0 else "darker"
            notes.append(f"most in the {THIRDS[third]}: {abs(float(row[third])):.0f} % {direction}")
        return notes


@dataclass(frozen=True, eq=False)
class LinkResults:
    """Everything that the page shows."""

    models: ClassifierAndGenerator
    link: LatentLink
    test_pairs: Pairs  # held out
    pair_count: int  # of all pairs
    acceptance: float  # share of the generated images that became pairs
    audit: LinkAudit
    units: Units
    real: ImageSet | None

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the images that the generator makes of images through the link, (n, C, H, W), on the CPU."""
        encoded = self.models.encoder().encode(images.to(self.models.device))
        with torch.no_grad():
            return self.models.generate(self.link(encoded.representations, encoded.logits.argmax(1)))


def write_explorer_files(folder: Path, units: Units) -> None:
    """Write the values, measurements and small frames of the units for ``xinc explore``."""
    tensors: dict[str, Tensor] = {}
    for one, row, film in zip(units.sweeps, units.rows, units.films, strict=True):
        arrays = {"values": one.values, "frames": film, "measured": one.response[row]}
        tensors |= {f"unit_{one.unit}.{name}": tensor.cpu().contiguous() for name, tensor in arrays.items()}
    store.write_tensors(folder / "explorer.safetensors", tensors, kind="link-explorer")


def run_audit(
    models: ClassifierAndGenerator, link: LatentLink, fit: Pairs, test_pairs: Pairs, real: ImageSet | None, seed: int
) -> LinkAudit:
    """Audit the link with all controls except the slow upper bound."""
    images = None if real is None else real.images.to(models.device)
    return link.audit(test_pairs, fit, encoder=models.encoder(), generator=models.generator, real=images, seed=seed)


def sweep_selected_units(
    models: ClassifierAndGenerator, link: LatentLink, pairs: Pairs, truncation: float, seed: int
) -> Units:
    """Sweep and measure the most selective units of each class; with one class, the units with the largest variance."""
    selective = most_frequent_classes(selectivity(pairs.representations, pairs.classes), pairs.classes)
    if len(selective.classes) > 1:
        chosen = select_by_class(selective, link.alive.cpu(), MAX_UNITS)
    else:
        chosen = select_by_variance(pairs.representations.cpu(), link.alive.cpu(), MAX_UNITS)
    bases = evaluation_images(models, truncation, seed)
    predictions = models.predict(bases).argmax(1).tolist()
    preferred = selective.classes[selective.means[chosen].argmax(1)].tolist()
    rows = [predictions.index(c) if c in predictions else 0 for c in preferred]
    sweeps, films = [], []
    stream = models.visualization(link).sweeps(bases.to(models.device), chosen, attribute_to_neuron_input=True)
    for one, row in zip(stream, rows, strict=True):
        films.append(shrink_frames(one.images[row]))
        sweeps.append(replace(one, images=one.images[:, [0, -1]]))  # all frames of large images take much memory
    latents = pairs.latents[torch.linspace(0, len(pairs) - 1, min(MEASURED_IN, len(pairs))).long()]
    parts = ImageParts(thirds(models.shape), THIRDS)
    table = quantify(models.generator, link, latents.to(models.device), chosen, parts=parts, measures=["luminance"])
    return Units(bases, sweeps, rows, films, selective, table)


def most_frequent_classes(result: Selectivity, classes: Tensor) -> Selectivity:
    """Keep only the most frequent classes if there are too many to name."""
    if len(result.classes) <= MAX_CLASSES:
        return result
    counts = (classes.cpu()[:, None] == result.classes).sum(0)
    columns = counts.argsort(descending=True, stable=True)[:MAX_CLASSES].sort().values
    return Selectivity(result.classes[columns], result.means[:, columns], result.explained)


def select_by_class(result: Selectivity, alive: Tensor, count: int) -> list[int]:
    """Return the units that are not dead and most selective for each class, equally many per class, by class."""
    means = result.means.clone()
    means[~alive] = -torch.inf
    chosen: list[list[int]] = [[] for _ in result.classes]
    for turn in range(min(count, int(alive.sum()))):
        class_index = turn % len(chosen)
        best = int(means[:, class_index].argmax())
        chosen[class_index].append(best)
        means[best] = -torch.inf
    return [unit for units in chosen for unit in units]


def select_by_variance(representations: Tensor, alive: Tensor, count: int) -> list[int]:
    """Return the units that are not dead and have the largest variance, largest first."""
    spread = representations.double().var(0).where(alive, -1.0)
    return spread.argsort(descending=True, stable=True)[: min(count, int(alive.sum()))].tolist()


def thirds(shape: tuple[int, int, int]) -> Tensor:
    """Return masks of the upper, middle and lower third, (3, H, W)."""
    _, height, width = shape
    place = torch.arange(height) * 3 // height
    return (place == torch.arange(3)[:, None])[:, :, None].expand(-1, -1, width).float()


def audit_measurements(audit: LinkAudit) -> dict[str, list[Measured]]:
    """Return the measurements of an audit in groups; a group without measurements is left out."""
    if audit.classes > 1:
        explained = [
            _measurement("R²", audit.r2, audit.class_mean_r2, "class means alone"),
            _measurement("R² within classes", audit.r2_within, audit.shuffled_within, "shuffled within classes"),
            _measurement("two-layer network, within", audit.mlp_r2_within),
        ]
    else:  # the only class mean is the mean, and no image can change its class
        explained = [
            _measurement("R²", audit.r2, audit.shuffled_within, "shuffled"),
            _measurement("two-layer network", audit.mlp_r2_within),
        ]
    generated = audit.generated if audit.classes > 1 else None
    agreement = [
        _measurement("generated images", generated, audit.class_mean_agreement, "class means alone"),
        _measurement("real images", audit.real, audit.class_mean_agreement, "class means alone"),
    ]
    cycle = [_measurement("R² of the representation", audit.cycle_r2)]
    if audit.unit_cycle is not None:
        units = audit.unit_cycle[audit.unit_cycle.isfinite()]
        if len(units):
            low, middle, high = (float(units.double().quantile(q)) for q in (0.25, 0.5, 0.75))
            cycle.append(Measured("units, correlation", middle, low, high, None, ""))
    cycle.append(_measurement("of searched latents", audit.search_cycle_r2, audit.search_from, "before the search"))
    similarity = []
    if (order := audit.order) is not None:
        similarity = [
            _measurement(f"between classes{_chance(order.between_p)}", order.between),
            _measurement(f"within classes{_chance(order.within_p)}", order.within),
            _measurement("nearest neighbours", order.neighbours, order.neighbours_chance, "by chance"),
        ]
    groups = {
        f"How much of the latent does the link explain, on {audit.pairs:,} held-out pairs?": explained,
        "Does an image keep its class through the link?": agreement,
        "Does the round trip link, generator, classifier return the unit (units: the middle half of them)?": cycle,
        "Are the same classes close to each other in both spaces?": similarity,
    }
    present = {name: [one for one in group if one is not None] for name, group in groups.items()}
    return {name: group for name, group in present.items() if group}


def _chance(p: float | None) -> str:
    """Return the p value against shuffled classes, or samples shuffled within classes, as text."""
    return "" if p is None else f", p {p:.2f}" if p >= 0.01 else ", p < .01"


def _measurement(
    name: str, value: Interval | float | None, control: float | None = None, control_name: str = ""
) -> Measured | None:
    if value is None:
        return None
    if isinstance(value, Interval):
        return Measured(name, value.value, value.low, value.high, control, control_name)
    return Measured(name, value, value, value, control, control_name)


_save_picture = partial(save_picture, dpi=120)
MAX_IMAGES = 8  # images before and after the link
FEWEST_CLASSES = 4  # fewest classes whose order can be compared


def write_page(folder: Path, results: LinkResults) -> None:
    """Write the figures, the table of changes and ``index.html`` into ``folder``."""
    models, units, trust = results.models, results.units, results.audit.trust
    with (folder / "units.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows(units.table.rows())
    audit = _save_picture(
        folder,
        "audit.png",
        audit_figure(results),
        "Top: images, and the images that the generator makes of them through the classifier and the link. Bottom: "
        "each measurement with its control. "
        + (
            "A link that depends on the class alone keeps the class of every image, so what it explains within classes "
            "is the number that counts."
            if units.has_classes
            else "The network predicts one class for all generated images, so whether they keep it is not measured."
        ),
    )
    sheet = _save_picture(
        folder,
        "units.png",
        unit_figure(units, results),
        f"Units {'with the most class-selective responses' if units.has_classes else 'that vary most'}, each at a low "
        "and a high value in one image. Faded if the change is not specific to the unit: measured by the "
        "network, the unit moves less than others or does not follow. "
        f"Each verdict rests on {len(units.bases)} images, of which one is shown.",
    )
    sections = [Section("How reliable the link is", (audit,)), Section("Units at a low and a high value", (sheet,))]
    if units.has_classes:
        selectivity = _save_picture(
            folder,
            "selectivity.png",
            selectivity_table(
                units.selective.means[units.numbers],
                units=units.numbers,
                classes=units.class_names(models),
                explained=units.selective.explained[units.numbers].nan_to_num(0),
            ),
            "Units of the figure above.",
        )
        sections.append(Section("Mean response of each unit to each class", (selectivity,)))
    write_report(
        folder,
        title=f"What units of {models.classifier.name} change in images of {models.generator_name}",
        lead="A linear map from a layer of a classifier to the latents of a generator was fitted in closed form, on "
        "generated images. If a unit is set to another value, the map and the generator show what changes. This link "
        f"{predicate(trust)}.",
        facts={
            **models.facts,
            "pairs": f"{results.pair_count:,} ({100 * results.acceptance:.0f} % of the generated images)",
            "link": f"{results.link.variant}, {len(results.link.alive)} units, {int((~results.link.alive).sum())} dead",
            "real images": "none" if results.real is None else results.real.description,
        },
        sections=sections,
        foot="Made by xinc-captum. link.safetensors holds the link, for xinc sweep and xinc counterfactual; units.csv "
        "the change of brightness by each unit in each third of the image; explorer.safetensors the frames of the "
        "units, for xinc explore; manifest.json the command, versions, seed, checksums and all numbers of the audit.",
    )


def audit_figure(results: LinkResults) -> Figure:
    """Return the figure of the audit."""
    rows = torch.linspace(0, len(results.test_pairs) - 1, min(MAX_IMAGES, len(results.test_pairs))).long()
    before = results.models.generate(results.test_pairs.latents[rows])
    pictures = {"generated": (before, results.reconstruct(before))}
    if results.real is not None:
        real = results.real.images[:MAX_IMAGES]
        pictures["real"] = (real, results.reconstruct(real))
    pairs = results.test_pairs
    known = pairs.classes.unique()
    few = FEWEST_CLASSES <= len(known) <= 2 * FEWEST_CLASSES + 4
    spaces = {"in the classifier's layer": pairs.representations, "in the generator's latents": pairs.latents}
    return link_audit(
        audit_measurements(results.audit),
        verdict=(results.audit.trust.verdict, results.audit.trust.because),
        pictures=pictures,
        orders={name: _class_correlations(one, pairs.classes) for name, one in spaces.items()} if few else None,
        classes=[results.models.label(c) for c in known.tolist()] if few else None,
        title=f"How reliable is the link from {results.models.classifier.name} to {results.models.generator_name}?",
    )


def unit_figure(units: Units, results: LinkResults) -> Figure:
    """Return the figure of units."""
    pairs = [(one.images[row, [0, -1]]).cpu() for one, row in zip(units.sweeps, units.rows, strict=True)]
    both = torch.stack(pairs, 1)
    return unit_sheet(
        both[0],
        both[1],
        units=units.numbers,
        ranks=torch.tensor([float(one.fidelity.rank) for one in units.sweeps]),
        followed=torch.tensor([one.fidelity.rho for one in units.sweeps]),
        count=int(results.link.alive.sum()),
        verdicts=[one.trust.verdict for one in units.sweeps],
        selectivity=units.selective.means[units.numbers] if units.has_classes else None,
        classes=units.class_names(results.models) if units.has_classes else None,
        notes=units.notes(),
        title=f"{len(units.sweeps)} of the {len(results.link.alive)} units at the input of {results.models.layer}",
    )


def _class_correlations(values: Tensor, classes: Tensor) -> Tensor:
    """Return the correlations between the class means of representations or latents."""
    values, classes = values.double().cpu(), classes.cpu()
    away = (values - values.mean(0)) / values.std(0).clamp_min(1e-9)
    return torch.corrcoef(torch.stack([away[classes == c].mean(0) for c in classes.unique()]))


FEWEST = 3  # pairs per class, one of which is held out


class Variant(StrEnum):
    """Forms of the link."""

    linear = "linear"
    per_class = "per_class"
    fourier_features = "fourier_features"


@record_settings("link", "real", "weights")
def link_command(
    out: Out,
    model: Annotated[str, Option(help=MODEL_HELP)] = "mnist_convnet",
    generator: Annotated[
        str, Option(help=f"{', '.join(GENERATORS)}, or module:function that returns a generator.")
    ] = "mnist_generator",
    layer: Annotated[
        str | None, Option(help="Layer whose input is linked, by its dotted name. Default: the last linear layer.")
    ] = None,
    variant: Annotated[
        Variant,
        Option(
            help="linear: one map, as in the paper; per_class: one map per class; fourier_features: a non-linear map."
        ),
    ] = Variant.linear,
    pairs: Annotated[
        int, Option(help="Number of generated images, at least three per class; a fifth is held out.", min=20)
    ] = 3000,
    truncation: Annotated[
        float, Option(help="Truncation of the latents: 1 leaves them as sampled, 0 gives the mean of the class.")
    ] = 0.7,
    real: Annotated[str | None, Option(help="Real images to validate the link on: a folder, or mnist_digits.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Link a classifier's layer to a generator, audit the link, and show what its units mean."""
    models = load_classifier_and_generator(model, generator, layer, find_device(device), weights)
    photos = load_real_images(real, models)
    n_classes = int(getattr(models.generator, "num_classes", 0))
    if pairs < FEWEST * n_classes:
        raise UsageError(
            f"--pairs is {pairs}; {generator} has {n_classes} classes, and a fifth of each is held out: expected at "
            f"least {FEWEST * n_classes}, and {10 * n_classes} or more for an audit of the variation within classes."
        )
    typer.echo(f"generating {pairs:,} images with {generator} and passing them through {model} …")
    samples = pairs_of(models, pairs, truncation, seed)
    link = LatentLink(variant.value, seed=seed)
    try:
        fit, test_pairs = samples.split(0.2, seed=seed)
        link.fit(fit.representations, fit.latents, fit.classes, manifest=samples.manifest)
    except ValueError as error:
        raise UsageError(f"{error} Give more --pairs, or another --variant.") from error
    audit = run_audit(models, link, fit, test_pairs, photos, seed)
    typer.echo(f"the link {predicate(audit.trust)}")
    typer.echo("sweeping units …")
    units = sweep_selected_units(models, link, test_pairs, truncation, seed)
    results = LinkResults(models, link, test_pairs, len(samples), samples.kept, audit, units, photos)
    note = {
        "seed": seed,
        "ends": models.names,
        "trust": str(audit.trust),
        "truncation": truncation,
        "variant": variant.value,
        "pairs": {**samples.manifest, "count": len(samples), "kept": round(samples.kept, 4)},
        "audit": {name: value for name, value in audit.to_dict().items() if not name.startswith("unit_")},
        "units": [
            {
                "unit": s.unit,
                "verdict": s.trust.verdict,
                "because": s.trust.because,
                "rank": s.fidelity.rank,
                "rho": round(s.fidelity.rho, 4),
                "shown_in": f"drawn: {models.label(int(s.base_scores[row].argmax()))}",
            }
            for s, row in zip(units.sweeps, units.rows, strict=True)
        ],
    }
    with result_folder(out, note) as folder:
        link.save(folder / FILE)
        write_page(folder, results)
        write_explorer_files(folder, units)


def pairs_of(models: ClassifierAndGenerator, count: int, truncation: float, seed: int) -> Pairs:
    """Sample pairs; if both models have the same classes, only images whose class is predicted correctly."""
    try:
        return make_pairs(
            models.classifier.model,
            models.layer,
            models.generator,
            count,
            truncation=truncation,
            rng=seed,
            keep_class=models.share_classes,
            preprocess=models.preprocess,
            show_progress=True,
        )
    except ValueError as error:
        raise UsageError(f"{error} The options to change are --truncation, --pairs and --seed.") from error
