"""Results of ``xinc link``: units, reconstructions, and the tensors for ``xinc explore``."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from .. import store
from ..attributions.linking import LatentLink, LinkAudit, Pairs
from ..attributions.linking.sweep import UnitSweep
from ..attributions.linking.unit_tables import UnitTable, quantify
from ..generators import ImageParts
from ..metrics.links import Selectivity, selectivity
from ..visualizers.explorer.images import smaller
from .command import EXPLORER_FILE
from .models import ClassifierAndGenerator, RealImages
from .sweep import evaluation_images

LONGEST = 128  # pixels per side of a stored frame; 36 units have about 200 frames


def shrink_frames(frames: Tensor) -> Tensor:
    """Return frames (S, C, H, W) in [0, 1] as uint8, with sides of at most 128 pixels."""
    return (torch.stack([smaller(one, LONGEST) for one in frames]) * 255).round().to(torch.uint8)


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
    real: RealImages | None

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
    store.write_tensors(folder / EXPLORER_FILE, tensors, kind="link-explorer")


def run_audit(
    models: ClassifierAndGenerator, link: LatentLink, fit: Pairs, test_pairs: Pairs, real: RealImages | None, seed: int
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
