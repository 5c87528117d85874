"""Sweep thousands of units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.features import layer_root
from ....generators.parts import ImageParts, Parts
from ....generators.protocol import Generator
from ....hooks import protect
from ....metrics.measures import Measure, Movement, resolve_measures
from ....metrics.parts import part_area
from ....progress import progress
from ..latent_link import LatentLink
from .table import UnitTable

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
                f"latents are {latents.dtype} of shape {tuple(latents.shape)}; expected finite floats (n, latent_dim), "
                "one row for each base."
            )
        groups, labels = _grouped(classes, len(latents))
        where = parts if parts is not None else ImageParts()
        held: list[list[Tensor]] = []
        seen = []
        found: list[Measure | Movement] = []
        for start, stop in chunks(len(latents), batch_size):
            leaf = latents[start:stop].detach().requires_grad_(watch is not None)
            pictures, masks = where.draw(generator, leaf)
            if not found:
                quick = COLOUR if pictures.shape[1] == 3 else GREY
                found = resolve_measures(
                    measures if measures is not None else quick if parts is None else (*SHAPE, *quick)
                )
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
            f"classes are {classes.dtype} of shape {tuple(classes.shape)} for {rows} bases; expected whole numbers "
            f"({rows},)."
        )
    labels, groups = classes.cpu().unique(return_inverse=True)
    return groups, tuple(int(label) for label in labels)


Kind = Literal["marginal", "partial", "within_class"]
Reach = float | Literal["minmax", "quantile"]


def chosen_units(link: LatentLink, units: Tensor | list[int] | range | None) -> Tensor:
    """The units asked for, on the CPU; None: all that live.

    Raises:
        ValueError: none, one out of range, one twice, or a dead one.

    Example:
        >>> r = torch.rand(9, 3)
        >>> chosen_units(LatentLink().fit(r * torch.tensor([1.0, 0.0, 1.0]), r), None)
        tensor([0, 2])
    """
    alive = link.alive.cpu()
    if units is None:
        return alive.nonzero()[:, 0]
    asked = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    if asked.dim() != 1 or not len(asked) or int(asked.min()) < 0 or int(asked.max()) >= len(alive):
        raise ValueError(f"units are {_few(asked)}; expected some of 0 to {len(alive) - 1}, the link's units.")
    if len(asked.unique()) != len(asked):
        raise ValueError(f"units are {_few(asked)}; one is asked for twice.")
    dead = asked[~alive[asked]]
    if len(dead):
        raise ValueError(
            f"units {_few(dead)} are dead: they never varied when the link was fitted, so it knows no direction for "
            "them. Leave them out, or give units=None for all that live."
        )
    return asked


@dataclass(frozen=True, eq=False)
class Steps:
    """Where each unit leads from each base, block by block.

    Attributes:
        link: fitted.
        units: of it, (k,).
        rows: number of bases.
        reach: how far: standard deviations, or the name of the link's bounds.
        kind: of direction.
        representations: of the bases, (rows, units), where ``reach`` is a name.
        null: (v, latent_dim) directions taken instead, each stretched to the length of a unit's own: row i to that of
            unit i modulo k.
    """

    link: LatentLink
    units: Tensor
    rows: int
    reach: Reach
    kind: Kind
    representations: Tensor | None = None
    null: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit, before any picture is drawn."""
        if isinstance(self.reach, str):
            if self.reach not in ("minmax", "quantile"):
                raise ValueError(
                    f"reach is {self.reach!r}; expected a number of standard deviations, 'minmax' or 'quantile'."
                )
            expected, own = (self.rows, len(self.link.alive)), self.representations
            if own is None or own.shape != expected:
                raise ValueError(
                    f"reach {self.reach!r} sets each unit to a value, so the bases' own representations are needed, "
                    f"{expected}; got {None if own is None else tuple(own.shape)}."
                )
        elif not self.reach > 0:
            raise ValueError(f"reach is {self.reach}; expected a positive number of standard deviations.")
        width = self.link.direction(self.units[:1], self.kind).shape[1]
        if self.null is not None and (self.null.dim() != 2 or not len(self.null) or self.null.shape[1] != width):
            raise ValueError(
                f"null has shape {tuple(self.null.shape)}; expected directions (any number, {width}), as "
                "shuffled_directions() gives them."
            )

    def __len__(self) -> int:
        """How many directions."""
        return len(self.units) if self.null is None else len(self.null)

    def block(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Directions (block, latent_dim), and how far down and up from each base, (block, rows or 1, 2)."""
        units = self.units[torch.arange(begin, end) % len(self.units)]
        moves = self.link.direction(units, self.kind)
        if self.null is not None:
            other = self.null[begin:end].to(moves)
            lengths = other.norm(dim=1, keepdim=True).clamp_min(torch.finfo(moves.dtype).tiny)
            moves = other * moves.norm(dim=1, keepdim=True) / lengths
        if isinstance(self.reach, str):
            own = self._own(units).to(moves)
            return moves, self.link.bounds(units, self.reach).to(moves)[:, None] - own[:, :, None]
        far = self.reach * self.link.r_sd.to(moves)[units]
        return moves, torch.stack([-far, far], 1)[:, None]

    def _own(self, units: Tensor) -> Tensor:
        held = self.representations
        if held is None:  # __post_init__ has seen to it
            raise ValueError("representations of the bases are needed.")
        return held[:, units.to(held.device)].T


def _few(units: Tensor) -> str:
    shown = ", ".join(str(u) for u in units.flatten()[:6].tolist())
    return f"[{shown}{', …' if units.numel() > 6 else ''}]"


BLOCK = 256  # units whose directions are held at a time


def quantify(
    generator: Generator,
    link: LatentLink,
    latents: Tensor,
    units: Tensor | list[int] | range | None = None,
    *,
    classes: Tensor | None = None,
    parts: Parts | None = None,
    measures: Sequence[str | Measure | Movement] | None = None,
    direction: Kind = "marginal",
    reach: Reach = 0.5,
    representations: Tensor | None = None,
    null: Tensor | None = None,
    least_area: float = 0.001,
    batch_size: int = 64,
    show_progress: bool = False,
) -> UnitTable:
    r"""How much each unit changes each measure of each part, when it is turned down and up around real bases.

    .. math:: \Delta_{u,c,q,m} = \mathrm{mean}_{w \in c}\;
              \delta_m\bigl(G(w + d_u\,s^-_u),\; G(w + d_u\,s^+_u)\bigr)_q

    Symbols: w the latents of the bases, d_u the direction of unit u, s⁻ and s⁺ its steps down and up, δ the change of
    measure m between the two frames over part q (relative for areas, wrapped for orientations).

    Each base is drawn once and each unit takes two frames a base; only sums of measures are kept, so memory grows with
    the table alone.

    Args:
        generator: draws the frames.
        link: a fitted :class:`LatentLink`, of any classifier's layer.
        latents: the bases, (n, latent_dim).
        units: of the link; None: all that live.
        classes: (n,) whole numbers, or None: one row of the table for all.
        parts: where they are in a picture; None: the whole picture is one.
        measures: names of :data:`xinc_captum.metrics.MEASURES`, or measures of your own; None: all quick ones.
        direction: "marginal", "partial" or "within_class", as the link knows them.
        reach: standard deviations of the unit, down and up from each base; or "minmax" or "quantile": the link's
            bounds, whatever the base's own value, which ``representations`` then tell.
        representations: (n, units) of the bases.
        null: directions of a link fitted on shuffled pairs, :func:`shuffled_directions`; queries want them. Each is
            swept as a unit is, at the length of one.
        least_area: share of the picture; a base whose part is smaller does not count for that part.
        batch_size: frames drawn at once.
        show_progress: a bar on standard error.

    Returns:
        :class:`UnitTable`.

    Raises:
        ValueError: no bases, latents or classes that do not fit, units out of range or dead, an unknown measure, masks
            that do not match the pictures, or a part that no base has.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import LatentLink
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> latents = generator.sample_latents(50, generator=torch.Generator().manual_seed(0))
        >>> link = LatentLink().fit(2 * latents, latents)
        >>> quantify(generator, link, latents[:3], [0, 2], measures=["luminance"]).change.shape
        torch.Size([2, 1, 1, 1])

    Source: Wehrheim et al., "Linking in Style" (2024), quantification; steps around bases, null and grouping are ours.
    """
    width = link.moments.latent_dim
    if latents.dim() == 2 and latents.shape[1] != width:
        raise ValueError(
            f"latents have shape {tuple(latents.shape)}, but the link makes latents of {width} numbers; give latents "
            "of the generator that the link was fitted to."
        )
    asked = chosen_units(link, units)
    real = Steps(link, asked, len(latents), reach, direction, representations)
    beside = None if null is None else replace(real, null=null)
    with protect(layer_root(generator)), torch.no_grad():
        bases = Bases.draw(generator, latents, classes, parts, measures, least_area, batch_size)
        sweep = _Sweep(generator, bases, batch_size, show_progress)
        change, spread, count = sweep.through(real)
        chance = None if beside is None else sweep.through(beside)[0]
    note = {
        "direction": direction,
        "reach": reach,
        "bases": len(latents),
        "least_area": least_area,
        "frames": bases.rows * (1 + 2 * len(real) + (0 if beside is None else 2 * len(beside))),
    }
    return UnitTable(
        asked, bases.labels, bases.parts.names, bases.columns, change, spread, count, bases.means, chance, note
    )


class _Sweep:
    """Two frames for each unit and base, measured and forgotten."""

    def __init__(self, generator: Generator, bases: Bases, batch_size: int, show_progress: bool) -> None:
        if batch_size < 2:
            raise ValueError(f"batch_size is {batch_size}; expected at least 2, the two frames of a unit.")
        self.generator, self.bases, self.pairs, self.show = generator, bases, batch_size // 2, show_progress

    def through(self, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, spread and number of changes over the bases of each class, (steps, classes, parts, columns)."""
        bases, rows = self.bases, self.bases.rows
        shape = (len(steps), len(bases.labels), len(bases.parts.names), len(bases.columns))
        first, second, count = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
        flat = [t.view(-1, *shape[2:]) for t in (first, second, count)]
        blocks = chunks(len(steps), BLOCK)
        total = sum(len(chunks((end - begin) * rows, self.pairs)) for begin, end in blocks)
        bar = progress(range(total), "units", show=self.show)
        for begin, end in blocks:
            moves, far = (t.to(bases.latents) for t in steps.block(begin, end))
            for start, stop in chunks((end - begin) * rows, self.pairs):
                next(bar, None)
                pair = torch.arange(start, stop)
                unit, row = pair // rows, pair % rows
                size = far[unit, row if far.shape[1] > 1 else 0]
                ends = bases.latents[row][:, None] + moves[unit][:, None] * size[:, :, None]
                change = bases.changes(self.generator, ends.transpose(0, 1).flatten(0, 1), row).double().cpu()
                place = (unit + begin) * shape[1] + bases.groups[row]
                known = ~change.isnan()
                change = change.where(known, 0.0)
                for into, value in zip(flat, (change, change**2, known.double()), strict=True):
                    into.index_add_(0, place, value)
        mean = first / count
        spread = (second / count - mean**2).clamp_min(0).sqrt()
        return mean.float(), spread.float(), count.int()
