"""What it computed."""

from collections.abc import Sequence
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
from ..visualizers.explorer import Strip, explore_sweeps
from ..visualizers.explorer.images import smaller
from ..visualizers.layout import predicate
from .errors import UsageError
from .models import Ends
from .photos import Real
from .results import KEPT, Bundle
from .sweep import judging

LONGEST = 128  # pixels of a frame that is kept; of 36 units there are some 200


def reduced(frames: Tensor) -> Tensor:
    """Frames (S, C, H, W) in [0, 1] as they are kept, uint8, no side above 128 pixels."""
    return (torch.stack([smaller(one, LONGEST) for one in frames]) * 255).round().to(torch.uint8)


def keep(folder: Path, sweeps: Sequence[UnitSweep], rows: Sequence[int], films: Sequence[Tensor]) -> None:
    """Write into a link's bundle what its page shows.

    Args:
        folder: of the bundle.
        sweeps: of the units.
        rows: in which of its pictures each is shown.
        films: what :func:`shrinking_widths` made of the frames in that picture.
    """
    kept: dict[str, Tensor] = {}
    for one, row, film in zip(sweeps, rows, films, strict=True):
        tensors = {"values": one.values, "frames": film, "measured": one.response[row]}
        kept |= {f"unit_{one.unit}.{name}": tensor.cpu().contiguous() for name, tensor in tensors.items()}
    store.write_tensors(folder / KEPT, kept, kind="link-explorer")


def link_page(bundle: Bundle, path: Path) -> Path:
    """Of a link: what :func:`keep` left in the bundle.

    Raises:
        UsageError: the bundle is from before there was such a page.
    """
    note = bundle.note
    if not bundle.has(KEPT):
        raise UsageError(
            f"{bundle.folder} does not keep what this page shows; its own page is {bundle.folder / 'index.html'}. Run "
            "xinc link again to make both anew."
        )
    kept = bundle.tensors(KEPT)
    strips, rows, verdicts = {}, {}, {}
    for one in note["units"]:
        name, unit = f"unit {one['unit']}", f"unit_{one['unit']}"
        frames = kept[f"{unit}.frames"].float() / 255
        strips[name] = Strip(kept[f"{unit}.values"], frames[None], kept[f"{unit}.measured"][None])
        rows[name], verdicts[name] = [one["shown_in"]], (one["verdict"], one["because"])
    ends = note["ends"]
    return explore_sweeps(
        path,
        strips,
        rows=rows,
        title=f"What units of {ends['model']} mean to {ends['generator']}",
        verdicts=verdicts,
        facts={"network": ends["model"], "layer": f"input of {ends['layer']}", "generator": ends["generator"]},
        remark=f"The link between the two {predicate(note['trust'])}.",
    )


SHOWN = 36  # units on the sheet
CLASSES = 12  # that the sheet and the table name
MEASURED_IN = 16  # pictures that its changes are measured in
THIRDS = ("upper third", "middle third", "lower third")


@dataclass(frozen=True, eq=False)
class Units:
    """Some units, swept.

    Attributes:
        bases: pictures they were set in, (N, C, H, W).
        sweeps: one a unit; of the frames, the lowest and the highest.
        rows: which of the bases each unit's card shows.
        films: all frames of each unit in that one, small, (S, C, h, w), uint8.
        selective: what classes have to do with all units of the layer.
        table: what each changes, by third of the picture.
    """

    bases: Tensor = field(repr=False)
    sweeps: list[UnitSweep] = field(repr=False)
    rows: list[int]
    films: list[Tensor] = field(repr=False)
    selective: Selectivity
    table: UnitTable

    @property
    def classed(self) -> bool:
        """Whether there are classes to tell apart."""
        return len(self.selective.classes) > 1

    @property
    def numbers(self) -> list[int]:
        """The units, in the order of the sheet."""
        return [one.unit for one in self.sweeps]

    def class_names(self, ends: Ends) -> list[str]:
        """Of the columns of ``selective``."""
        return [ends.label(c) for c in self.selective.classes.tolist()]

    def notes(self) -> list[str]:
        """For each unit, where in the picture it changes most."""
        change = torch.stack([self.table.column(third, "luminance") for third in THIRDS], 1)
        base = self.table.base_value.nanmean(0)[:, self.table.measures.index("luminance")]
        found = []
        for row in 100 * (change / base.clamp_min(1e-3)).nan_to_num(0):
            third = int(row.abs().argmax())
            way = "brighter" if row[third] > 0 else "darker"
            found.append(f"most in the {THIRDS[third]}: {abs(float(row[third])):.0f} % {way}")
        return found


@dataclass(frozen=True, eq=False)
class Story:
    """What one page is about.

    Attributes:
        ends: what is linked.
        link: the link.
        held_out: pairs it has not seen.
        drawn: how many pairs there are in all.
        kept: share of the pictures drawn that became pairs.
        audit: how far to believe it.
        units: some units, swept.
        real: real pictures, or None.
    """

    ends: Ends
    link: LatentLink
    held_out: Pairs
    drawn: int
    kept: float
    audit: LinkAudit
    units: Units
    real: Real | None

    def through(self, pictures: Tensor) -> Tensor:
        """What the link makes of pictures, (n, C, H, W) on the host."""
        seen = self.ends.encoder().read(pictures.to(self.ends.device))
        with torch.no_grad():
            return self.ends.draw(self.link(seen.representations, seen.logits.argmax(1)))


def audited(ends: Ends, link: LatentLink, fit: Pairs, held_out: Pairs, real: Real | None, seed: int) -> LinkAudit:
    """The audit with all controls but the slow ceiling."""
    pictures = None if real is None else real.pictures.to(ends.device)
    return link.audit(held_out, fit, encoder=ends.encoder(), generator=ends.generator, real=pictures, seed=seed)


def units_of(ends: Ends, link: LatentLink, pairs: Pairs, truncation: float, seed: int) -> Units:
    """Sweep the most selective units of each class in turn (of one class: those that vary most), and measure them."""
    selective = frequent(selectivity(pairs.representations, pairs.classes), pairs.classes)
    if len(selective.classes) > 1:
        chosen = by_class(selective, link.alive.cpu(), SHOWN)
    else:
        chosen = by_variance(pairs.representations.cpu(), link.alive.cpu(), SHOWN)
    bases = judging(ends, truncation, seed)
    answers = ends.answers(bases).argmax(1).tolist()
    favourites = selective.classes[selective.means[chosen].argmax(1)].tolist()
    rows = [answers.index(c) if c in answers else 0 for c in favourites]
    sweeps, films = [], []
    stream = ends.method(link).sweeps(bases.to(ends.device), chosen, attribute_to_neuron_input=True)
    for one, row in zip(stream, rows, strict=True):
        films.append(reduced(one.images[row]))
        sweeps.append(replace(one, images=one.images[:, [0, -1]]))  # all frames of large pictures are many
    latents = pairs.latents[torch.linspace(0, len(pairs) - 1, min(MEASURED_IN, len(pairs))).long()]
    parts = ImageParts(thirds(ends.shape), THIRDS)
    table = quantify(ends.generator, link, latents.to(ends.device), chosen, parts=parts, measures=["luminance"])
    return Units(bases, sweeps, rows, films, selective, table)


def frequent(found: Selectivity, classes: Tensor) -> Selectivity:
    """The most frequent classes only, where there are too many to name."""
    if len(found.classes) <= CLASSES:
        return found
    counts = (classes.cpu()[:, None] == found.classes).sum(0)
    kept = counts.argsort(descending=True, stable=True)[:CLASSES].sort().values
    return Selectivity(found.classes[kept], found.means[:, kept], found.explained)


def by_class(found: Selectivity, alive: Tensor, count: int) -> list[int]:
    """Living units, as many of each class as of any other, those that it drives most; in the order of the classes."""
    means = found.means.clone()
    means[~alive] = -torch.inf
    taken: list[list[int]] = [[] for _ in found.classes]
    for turn in range(min(count, int(alive.sum()))):
        own = turn % len(taken)
        best = int(means[:, own].argmax())
        taken[own].append(best)
        means[best] = -torch.inf
    return [unit for units in taken for unit in units]


def by_variance(representations: Tensor, alive: Tensor, count: int) -> list[int]:
    """Living units, those that vary most first."""
    spread = representations.double().var(0).where(alive, -1.0)
    return spread.argsort(descending=True, stable=True)[: min(count, int(alive.sum()))].tolist()


def thirds(shape: tuple[int, int, int]) -> Tensor:
    """Masks of the upper, middle and lower third, (3, H, W)."""
    _, height, width = shape
    place = torch.arange(height) * 3 // height
    return (place == torch.arange(3)[:, None])[:, :, None].expand(-1, -1, width).float()
