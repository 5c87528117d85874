"""Sweep thousands of units through a generator and keep the measures, not the pictures."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.features import drawing
from ....generators.parts import Parts
from ....generators.protocol import Generator
from ....hooks import guarded
from ....metrics.measures import Measure, Movement
from ....progress import progress
from ..latent_link import LatentLink
from .bases import Bases
from .reach import Kind, Reach, Steps, chosen_units
from .unit_table import UnitTable

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
    with guarded(drawing(generator)), torch.no_grad():
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
            raise ValueError(f"batch_size is {batch_size}; wanted at least 2, the two frames of a unit.")
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
