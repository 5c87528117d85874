"""Changes of images by thousands of units: measured on two frames for each unit and base, or screened by gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.features import layer_root
from ....generators.parts import ImageParts, Parts
from ....generators.protocol import Generator
from ....hooks import protect
from ....metrics.parts import Measure, Movement, part_area, resolve_measures
from ....progress import progress
from ..link import Direction, Link
from .table import UnitTable

BLOCK = 256  # units whose directions are in memory at a time
SHAPE = ("area", "centroid", "ellipse")
COLOUR = ("luminance", "rgb", "lab")
GREY = ("luminance", "smooth_entropy")
Watch = Callable[[Tensor, Sequence[Measure], Sequence[Tensor], Tensor], None]


@dataclass(frozen=True, eq=False)
class Bases:
    """Base images, from which units are moved: latents (n, latent_dim) with their classes, parts and measures.

    Attributes:
        groups: index into ``labels`` of each base, (n,).
        labels: the classes, or (None,).
        values: of each measure for each base image, (n, parts, columns); empty for movements.
        present: whether the part is large enough, (n, parts).
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
        """Generate and measure each base; ``watch`` is called with the results of a batch, with their graph."""
        if latents.dim() != 2 or not latents.is_floating_point() or not len(latents) or not latents.isfinite().all():
            raise ValueError(
                f"latents are {latents.dtype} of shape {tuple(latents.shape)}; expected finite floats (n, latent_dim), "
                "one row per base image."
            )
        groups, labels = _group(classes, len(latents))
        shape = () if parts is None else SHAPE  # by default, the whole image has no shape to measure
        parts = ImageParts() if parts is None else parts
        batches: list[list[Tensor]] = []
        presence = []
        resolved: list[Measure | Movement] = []
        for start, stop in chunks(len(latents), batch_size):
            leaf = latents[start:stop].detach().requires_grad_(watch is not None)
            images, masks = parts.draw(generator, leaf)
            if not resolved:
                colour = COLOUR if images.shape[1] == 3 else GREY
                resolved = resolve_measures((*shape, *colour) if measures is None else measures)
            static = [m for m in resolved if isinstance(m, Measure)]
            values = [m.of(images, masks) for m in static]
            presence.append(part_area(images, masks)[..., 0].detach() >= least_area)
            if watch is not None:
                watch(leaf, static, values, presence[-1])
            batches.append([v.detach() for v in values])
        present = torch.cat(presence)
        absent = [name for name, anywhere in zip(parts.names, present.any(0).tolist(), strict=True) if not anywhere]
        if absent:
            raise ValueError(
                f"part {absent[0]!r} covers less than {least_area:g} of every base image; omit it, give bases that "
                "have it, or lower least_area."
            )
        measured = iter([torch.cat(same) for same in zip(*batches, strict=True)])
        each = [next(measured) if isinstance(m, Measure) else latents.new_zeros(0) for m in resolved]
        return cls(latents.detach(), groups, labels, parts, resolved, each, present)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the measures' columns."""
        return tuple(column for measure in self.measures for column in measure.columns)

    @property
    def means(self) -> Tensor:
        """Mean values, (classes, parts, columns), float32; nan for parts that no base has, and for movements."""
        blank = (len(self.latents), len(self.parts.names))
        filled = [
            v.float().cpu() if isinstance(m, Measure) else torch.full((*blank, len(m.columns)), torch.nan)
            for m, v in zip(self.measures, self.values, strict=True)
        ]
        values = torch.cat(filled, 2).where(self.present[..., None].cpu(), torch.nan)
        return torch.stack([values[self.groups == group].nanmean(0) for group in range(len(self.labels))])

    def changes(self, generator: Generator, ends: Tensor, index: Tensor) -> Tensor:
        """Return the changes from the first k latents of ``ends`` to the last k, (k, parts, columns).

        ``index`` (k,) is the base of each pair.
        """
        images, masks = self.parts.draw(generator, ends)
        half = len(index)
        changes = []
        for measure, base in zip(self.measures, self.values, strict=True):
            if isinstance(measure, Measure):
                value = measure.of(images, masks)
                changes.append(measure.change(value[:half], value[half:], base[index]))
            else:
                changes.append(measure.between(images[:half], images[half:], masks[:half]))
        return torch.cat(changes, 2).where(self.present[index][..., None], torch.nan)


def _group(classes: Tensor | None, rows: int) -> tuple[Tensor, tuple[int | None, ...]]:
    """Return the index of each base's class, and the classes."""
    if classes is None:
        return torch.zeros(rows, dtype=torch.long), (None,)
    if classes.shape != (rows,) or classes.is_floating_point():
        raise ValueError(
            f"classes are {classes.dtype} of shape {tuple(classes.shape)} for {rows} bases; expected integers, "
            f"({rows},)."
        )
    labels, groups = classes.cpu().unique(return_inverse=True)
    return groups, tuple(int(label) for label in labels)


Reach = float | Literal["minmax", "quantile"]


def resolve_units(link: Link, units: Tensor | list[int] | range | None) -> Tensor:
    """Return units as a tensor on the CPU, each live and once; None returns all live units."""
    alive = link.alive.cpu()
    if units is None:
        return alive.nonzero()[:, 0]
    index = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    if index.dim() != 1 or not len(index) or int(index.min()) < 0 or int(index.max()) >= len(alive):
        raise ValueError(f"units are {_few(index)}; expected some of 0 to {len(alive) - 1}, the link's units.")
    if len(index.unique()) != len(index):
        raise ValueError(f"units are {_few(index)}; expected each unit once.")
    dead = index[~alive[index]]
    if len(dead):
        raise ValueError(
            f"units {_few(dead)} are dead: they do not vary over the pairs of the link, so they have no direction. "
            "Omit them, or give units=None for all live units."
        )
    return index


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps of each of k units from each of ``rows`` bases.

    Attributes:
        reach: length of a step in standard deviations, or the name of the link's bounds.
        representations: of the bases, (rows, units), if ``reach`` is a name.
        null: (v, latent_dim) directions used instead; direction i is scaled to the length of that of unit i modulo k.
    """

    link: Link
    units: Tensor
    rows: int
    reach: Reach
    kind: Direction
    representations: Tensor | None = None
    null: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the arguments before any image is generated."""
        if isinstance(self.reach, str):
            if self.reach not in ("minmax", "quantile"):
                raise ValueError(
                    f"reach is {self.reach!r}; expected a number of standard deviations, 'minmax' or 'quantile'."
                )
            shape, r = (self.rows, len(self.link.alive)), self.representations
            if r is None or r.shape != shape:
                raise ValueError(
                    f"representations have shape {None if r is None else tuple(r.shape)}; reach {self.reach!r} needs "
                    f"those of the bases, {shape}, because it sets each unit to a value."
                )
        elif not self.reach > 0:
            raise ValueError(f"reach is {self.reach}; expected a positive number of standard deviations.")
        width = self.link.direction(self.units[:1], self.kind).shape[1]
        if self.null is not None and (self.null.dim() != 2 or not len(self.null) or self.null.shape[1] != width):
            raise ValueError(
                f"null has shape {tuple(self.null.shape)}; expected directions (any number, {width}), "
                "such as those of shuffled_directions()."
            )

    def __len__(self) -> int:
        """Return the number of directions."""
        return len(self.units) if self.null is None else len(self.null)

    def block(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Return directions (block, latent_dim), and the steps down and up from each base, (block, rows or 1, 2)."""
        units = self.units[torch.arange(begin, end) % len(self.units)]
        moves = self.link.direction(units, self.kind)
        if self.null is not None:
            other = self.null[begin:end].to(moves)
            lengths = other.norm(dim=1, keepdim=True).clamp_min(torch.finfo(moves.dtype).tiny)
            moves = other * moves.norm(dim=1, keepdim=True) / lengths
        if isinstance(self.reach, str):
            r = cast(Tensor, self.representations)  # checked in __post_init__
            values = r[:, units.to(r.device)].T.to(moves)
            return moves, self.link.bounds(units, self.reach).to(moves)[:, None] - values[:, :, None]
        size = self.reach * self.link.r_sd.to(moves)[units]
        return moves, torch.stack([-size, size], 1)[:, None]


def _few(units: Tensor) -> str:
    first = ", ".join(str(u) for u in units.flatten()[:6].tolist())
    return f"[{first}{', …' if units.numel() > 6 else ''}]"


def quantify(
    generator: Generator,
    link: Link,
    latents: Tensor,
    units: Tensor | list[int] | range | None = None,
    *,
    classes: Tensor | None = None,
    parts: Parts | None = None,
    measures: Sequence[str | Measure | Movement] | None = None,
    direction: Direction = "marginal",
    reach: Reach = 0.5,
    representations: Tensor | None = None,
    null: Tensor | None = None,
    least_area: float = 0.001,
    batch_size: int = 64,
    show_progress: bool = False,
) -> UnitTable:
    r"""Return the change of each measure of each part when a unit goes down and up, around base images.

    .. math:: \Delta_{u,c,q,m} = \mathrm{mean}_{w \in c}\;
              \delta_m\bigl(G(w + d_u\,s^-_u),\; G(w + d_u\,s^+_u)\bigr)_q

    Symbols: w the latents of the bases, d_u the direction of unit u, s⁻ and s⁺ its steps down and up, δ the change of
    measure m between the two frames over part q (relative for areas, wrapped for orientations). Only sums of measures
    are stored, so memory grows with the table alone.

    Args:
        generator: latents to images.
        link: a fitted :class:`LatentLink`.
        latents: the bases, (n, latent_dim).
        units: numbers of the link's units; None uses all live units.
        classes: (n,) integers, or None for one row of the table over all bases.
        parts: of the images; None uses the whole image as the one part.
        measures: names of :data:`xinc_captum.metrics.MEASURES`, or measures of your own; None uses those of colour or
            grey value, and of shape if ``parts`` is given.
        direction: "marginal", "partial" or "within_class" (:meth:`LatentLink.direction`).
        reach: standard deviations of the unit, down and up from each base; or its bounds, "minmax" or "quantile".
        representations: (n, units) of the bases; needed if ``reach`` is the name of bounds.
        null: directions of shuffled pairs, for queries (:func:`shuffled_directions`).
        least_area: share of the image; a base whose part is smaller does not count for that part.
        batch_size: number of frames generated at a time.
        show_progress: whether to show a progress bar.

    Raises:
        ValueError: bases, classes, units, measures, parts or options that are invalid or do not match.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import LatentLink
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> latents = generator.sample_latents(50, generator=torch.Generator().manual_seed(0))
        >>> link = LatentLink().fit(2 * latents, latents)
        >>> quantify(generator, link, latents[:3], [0, 2], measures=["luminance"]).change.shape
        torch.Size([2, 1, 1, 1])

    Source: Wehrheim et al., "Linking in Style" (2024), quantification; bases, null and grouping are additions.
    """
    width = link.moments.latent_dim
    if latents.dim() == 2 and latents.shape[1] != width:
        raise ValueError(
            f"latents have shape {tuple(latents.shape)}, but the link returns latents of {width} numbers; give "
            "latents of the generator that the link was fitted to."
        )
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; expected at least 2, the two frames of a unit.")
    steps = Steps(link, resolve_units(link, units), len(latents), reach, direction, representations)
    null_steps = None if null is None else replace(steps, null=null)
    with protect(layer_root(generator)), torch.no_grad():
        bases = Bases.draw(generator, latents, classes, parts, measures, least_area, batch_size)
        sums = _sweep(generator, bases, steps, batch_size // 2, show_progress)
        null_sums = None if null_steps is None else _sweep(generator, bases, null_steps, batch_size // 2, show_progress)
    frames = len(latents) * (1 + 2 * len(steps) + (0 if null_steps is None else 2 * len(null_steps)))
    note = {"direction": direction, "reach": reach, "bases": len(latents), "least_area": least_area, "frames": frames}
    return unit_table(bases, steps.units, sums, null_sums, note)


Statistics = tuple[Tensor, Tensor, Tensor]


def unit_table(
    bases: Bases, units: Tensor, real: Statistics, null: Statistics | None, note: dict[str, Any]
) -> UnitTable:
    """Return the table of mean, spread and number of changes, (units, classes, parts, columns), and the null's mean."""
    change, spread, count = real
    null_change = None if null is None else null[0].float()
    parts, columns = bases.parts.names, bases.columns
    return UnitTable(
        units, bases.labels, parts, columns, change.float(), spread.float(), count.int(), bases.means, null_change, note
    )


def _sweep(generator: Generator, bases: Bases, steps: Steps, pairs: int, show_progress: bool) -> Statistics:
    """Generate and measure two frames for each step and base, ``pairs`` at a time; return mean, spread and number."""
    rows = len(bases.latents)
    shape = (len(steps), len(bases.labels), len(bases.parts.names), len(bases.columns))
    first, second, count = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
    flat = [t.view(-1, *shape[2:]) for t in (first, second, count)]
    blocks = chunks(len(steps), BLOCK)
    batches = sum(len(chunks((end - begin) * rows, pairs)) for begin, end in blocks)
    bar = progress(range(batches), "units", show=show_progress)
    for begin, end in blocks:
        moves, sizes = (t.to(bases.latents) for t in steps.block(begin, end))
        for start, stop in chunks((end - begin) * rows, pairs):
            next(bar, None)
            pair = torch.arange(start, stop)
            unit, row = pair // rows, pair % rows
            size = sizes[unit, row if sizes.shape[1] > 1 else 0]
            ends = bases.latents[row][:, None] + moves[unit][:, None] * size[:, :, None]
            change = bases.changes(generator, ends.transpose(0, 1).flatten(0, 1), row).double().cpu()
            cell = (unit + begin) * shape[1] + bases.groups[row]
            known = ~change.isnan()
            change = change.where(known, 0.0)
            for total, value in zip(flat, (change, change**2, known.double()), strict=True):
                total.index_add_(0, cell, value)
    mean = first / count
    return mean, (second / count - mean**2).clamp_min(0).sqrt(), count


def screen(
    generator: Generator,
    link: Link,
    latents: Tensor,
    units: Tensor | list[int] | range | None = None,
    *,
    classes: Tensor | None = None,
    parts: Parts | None = None,
    measures: Sequence[str | Measure | Movement] | None = None,
    direction: Direction = "marginal",
    reach: Reach = 0.5,
    representations: Tensor | None = None,
    null: Tensor | None = None,
    least_area: float = 0.001,
    batch_size: int = 64,
) -> UnitTable:
    r"""Return the first-order approximation of :func:`quantify`, from one gradient per measure, part and base.

    .. math:: \Delta_{u,c,q,m} \approx \mathrm{mean}_{w \in c}\;
              (s^+_u - s^-_u)\, \Bigl\langle \frac{\partial m_q(G(w))}{\partial w},\; d_u \Bigr\rangle

    The cost is one forward pass and (columns × parts) backward passes, for any number of units; the null adds almost
    nothing. The approximation is good for small steps only: use it to rank units, then measure the best
    (``table.strongest(…)``) with :func:`quantify`.

    The arguments are those of :func:`quantify`, but the generator must be differentiable, measures smooth (the quick
    ones are), and masks of parts soft for measures of shape; ``batch_size`` is the number of bases generated at a time.

    Raises:
        ValueError: as :func:`quantify`, or no gradient through the generator, a measure or the masks.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> from xinc_captum.attributions.linking import LatentLink
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> latents = generator.sample_latents(50, generator=torch.Generator().manual_seed(0))
        >>> link = LatentLink().fit(2 * latents, latents)
        >>> screen(generator, link, latents[:3], measures=["luminance"]).strongest("picture", "luminance", 2).shape
        torch.Size([2])
    """
    if not getattr(generator, "differentiable", True):
        raise ValueError(
            "the generator is not differentiable, and screening needs its gradient; use quantify() instead."
        )
    steps = Steps(link, resolve_units(link, units), len(latents), reach, direction, representations)
    if measures is not None:
        for measure in resolve_measures(measures):
            if not (isinstance(measure, Measure) and measure.smooth):
                raise ValueError(
                    f"{', '.join(measure.columns)} cannot be screened, because it has no gradient. Use "
                    "'smooth_entropy' for entropy, and quantify() for other measures."
                )
    batches: list[Tensor] = []

    def watch(leaf: Tensor, static: Sequence[Measure], values: Sequence[Tensor], present: Tensor) -> None:
        batches.append(_gradients(leaf, static, values, present))

    with protect(layer_root(generator)), torch.enable_grad():
        bases = Bases.draw(generator, latents, classes, parts, measures, least_area, batch_size, watch)
    with torch.no_grad():
        gradients = torch.cat(batches)
        means = _first_order(gradients, bases, steps)
        null_means = None if null is None else _first_order(gradients, bases, replace(steps, null=null))
    note = {"order": 1, "direction": direction, "reach": reach, "bases": len(latents), "least_area": least_area}
    return unit_table(bases, steps.units, means, null_means, note)


def _gradients(leaf: Tensor, measures: Sequence[Measure], values: Sequence[Tensor], present: Tensor) -> Tensor:
    """Return the gradient of each change by the latents, (rows, parts, columns, latent_dim); nan for missing parts."""
    gradients = []
    for measure, value in zip(measures, values, strict=True):
        base = value.detach()
        after = base.clone().requires_grad_()
        (scale,) = torch.autograd.grad(measure.change(base, after, base).nansum(), after)
        for column in range(value.shape[2]):
            for part in range(value.shape[1]):
                gradient = None
                if value.requires_grad:
                    total = value[:, part, column].sum()
                    (gradient,) = torch.autograd.grad(total, leaf, retain_graph=True, allow_unused=True)
                if gradient is None:
                    raise ValueError(
                        f"{measure.columns[column]} of part {part} has no gradient by the latents, because "
                        "its masks are not a smooth function of the image. Give soft masks (FeatureParts, or a sigmoid "
                        "of the image), or omit the measure."
                    )
                gradients.append(gradient.where(present[:, part, None], torch.nan) * scale[:, part, column, None])
    columns = sum(value.shape[2] for value in values)
    stacked: Tensor = torch.stack(gradients, 1).unflatten(1, (columns, -1))
    return stacked.transpose(1, 2)


def _first_order(gradients: Tensor, bases: Bases, steps: Steps) -> Statistics:
    """Return mean, spread and number over the bases of each class, (steps, classes, parts, columns)."""
    pieces = []
    for begin, end in chunks(len(steps), BLOCK):
        moves, sizes = (t.to(gradients) for t in steps.block(begin, end))
        change = torch.einsum("rpcd,ud->urpc", gradients, moves) * (sizes[..., 1] - sizes[..., 0])[..., None, None]
        groups = [change[:, bases.groups == group].double().cpu() for group in range(len(bases.labels))]
        count = torch.stack([(~group.isnan()).sum(1) for group in groups], 1)
        mean = torch.stack([group.nanmean(1) for group in groups], 1)
        square = torch.stack([group.square().nanmean(1) for group in groups], 1)
        pieces.append((mean, (square - mean**2).clamp_min(0).sqrt(), count))
    mean, spread, count = (torch.cat(same) for same in zip(*pieces, strict=True))
    return mean, spread, count
