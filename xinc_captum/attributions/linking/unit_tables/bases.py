"""The pictures that units are turned around: drawn once, measured once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.parts import Parts, PictureParts
from ....generators.protocol import Generator
from ....metrics.measures import Measure, Movement, chosen
from ....metrics.part_means import part_area

SHAPE = ("area", "centroid", "ellipse")
COLOUR = ("luminance", "rgb", "lab")
GREY = ("luminance", "smooth_entropy")
Watch = Callable[[Tensor, Sequence[Measure], Sequence[Tensor], Tensor], None]


@dataclass(frozen=True, eq=False)
class Bases:
    """Latents with their classes, parts and measures.

    Attributes:
        latents: (n, latent_dim).
        groups: which of ``labels`` each base has, (n,).
        labels: the classes, or (None,).
        parts: where they are.
        measures: what is measured.
        values: of each measure over each base frame, (n, parts, columns); empty for movements.
        present: whether the part is large enough there, (n, parts).
    """

    latents: Tensor
    groups: Tensor
    labels: tuple[int | None, ...]
    parts: Parts
    measures: list[Measure | Movement]
    values: list[Tensor]
    present: Tensor

    @classmethod
    def draw(
        cls,
        generator: Generator,
        latents: Tensor,
        classes: Tensor | None,
        parts: Parts | None,
        measures: Sequence[str | Measure | Movement] | None,
        least_area: float,
        batch_size: int,
        watch: Watch | None = None,
    ) -> "Bases":
        """Draw and measure each base; ``watch`` sees latents, measures, values and presence while gradients pass.

        Raises:
            ValueError: no bases, classes of another number, an unknown measure, or a part that no base has.
        """
        if latents.dim() != 2 or not latents.is_floating_point() or not len(latents) or not latents.isfinite().all():
            raise ValueError(
                f"latents are {latents.dtype} of shape {tuple(latents.shape)}; wanted finite floats (n, latent_dim), "
                "one row for each base."
            )
        groups, labels = _grouped(classes, len(latents))
        where = parts if parts is not None else PictureParts()
        held: list[list[Tensor]] = []
        seen = []
        found: list[Measure | Movement] = []
        for start, stop in chunks(len(latents), batch_size):
            leaf = latents[start:stop].detach().requires_grad_(watch is not None)
            pictures, masks = where.draw(generator, leaf)
            if not found:
                quick = COLOUR if pictures.shape[1] == 3 else GREY
                found = chosen(measures if measures is not None else quick if parts is None else (*SHAPE, *quick))
            static = [m for m in found if isinstance(m, Measure)]
            values = [m.of(pictures, masks) for m in static]
            seen.append(part_area(pictures, masks)[..., 0].detach() >= least_area)
            if watch is not None:
                watch(leaf, static, values, seen[-1])
            held.append([v.detach() for v in values])
        present = torch.cat(seen)
        absent = [name for name, anywhere in zip(where.names, present.any(0).tolist(), strict=True) if not anywhere]
        if absent:
            raise ValueError(
                f"part {absent[0]!r} takes less than {least_area:g} of every base picture; leave it out, give bases "
                "that have it, or lower least_area."
            )
        measured = iter([torch.cat(one) for one in zip(*held, strict=True)])
        each = [next(measured) if isinstance(m, Measure) else latents.new_zeros(0) for m in found]
        return cls(latents.detach(), groups, labels, where, found, each, present)

    @property
    def rows(self) -> int:
        """How many bases."""
        return len(self.latents)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the measures' columns."""
        return tuple(column for measure in self.measures for column in measure.columns)

    @property
    def means(self) -> Tensor:
        """(classes, parts, columns), float32; nan where no base has the part, and for movements."""
        blank = (self.rows, len(self.parts.names))
        held = [
            v.float().cpu() if isinstance(m, Measure) else torch.full((*blank, len(m.columns)), torch.nan)
            for m, v in zip(self.measures, self.values, strict=True)
        ]
        values = torch.cat(held, 2).where(self.present[..., None].cpu(), torch.nan)
        return torch.stack([values[self.groups == group].nanmean(0) for group in range(len(self.labels))])

    def changes(self, generator: Generator, ends: Tensor, row: Tensor) -> Tensor:
        """Changes (k, parts, columns) from the first k latents of ``ends`` to the last k, around bases ``row`` (k,)."""
        pictures, masks = self.parts.draw(generator, ends)
        half = len(row)
        found = []
        for measure, base in zip(self.measures, self.values, strict=True):
            if isinstance(measure, Measure):
                value = measure.of(pictures, masks)
                found.append(measure.change(value[:half], value[half:], base[row]))
            else:
                found.append(measure.between(pictures[:half], pictures[half:], masks[:half]))
        return torch.cat(found, 2).where(self.present[row][..., None], torch.nan)


def _grouped(classes: Tensor | None, rows: int) -> tuple[Tensor, tuple[int | None, ...]]:
    if classes is None:
        return torch.zeros(rows, dtype=torch.long), (None,)
    if classes.shape != (rows,) or classes.is_floating_point():
        raise ValueError(
            f"classes are {classes.dtype} of shape {tuple(classes.shape)} for {rows} bases; wanted whole numbers "
            f"({rows},)."
        )
    labels, groups = classes.cpu().unique(return_inverse=True)
    return groups, tuple(int(label) for label in labels)
