"""Rank all units at once to first order: a few gradients instead of two frames a unit."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.features import drawing
from ....generators.parts import Parts
from ....generators.protocol import Generator
from ....hooks import guarded
from ....metrics.measures import Measure, Movement, chosen
from ..latent_link import LatentLink
from .bases import Bases
from .quantify import BLOCK
from .reach import Kind, Reach, Steps, chosen_units
from .unit_table import UnitTable


def screen(
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
) -> UnitTable:
    r"""What :func:`quantify` would find, to first order, from one gradient a measure and part for each base.

    .. math:: \Delta_{u,c,q,m} \approx \mathrm{mean}_{w \in c}\;
              (s^+_u - s^-_u)\, \Bigl\langle \frac{\partial m_q(G(w))}{\partial w},\; d_u \Bigr\rangle

    The cost is one forward pass and as many backward passes as there are columns times parts, for any number of
    units. First order is good for small steps only: rank with it, then sweep the short list
    (``table.strongest(…)``) with :func:`quantify`.

    Args:
        generator: draws the bases; gradients must pass.
        link: a fitted :class:`LatentLink`, of any classifier's layer.
        latents: the bases, (n, latent_dim).
        units: of the link; None: all that live.
        classes: (n,) whole numbers, or None: one row of the table for all.
        parts: where they are; soft masks, if measures of shape are asked for.
        measures: smooth ones; None: all quick ones, which are.
        direction: "marginal", "partial" or "within_class".
        reach: as in :func:`quantify`.
        representations: likewise.
        null: likewise; it costs next to nothing here.
        least_area: likewise.
        batch_size: bases drawn at once.

    Returns:
        :class:`UnitTable`; ``spread`` is over bases.

    Raises:
        ValueError: as :func:`quantify`; a measure that is not smooth, a generator that is not differentiable, or masks
            through which a measure of shape has no gradient.

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
            "this generator says that it is not differentiable, and screening follows gradients through it; use "
            "quantify() on fewer units instead."
        )
    asked = chosen_units(link, units)
    real = Steps(link, asked, len(latents), reach, direction, representations)
    slopes: list[Tensor] = []

    def watch(leaf: Tensor, static: Sequence[Measure], values: Sequence[Tensor], present: Tensor) -> None:
        slopes.append(_slopes(leaf, static, values, present))

    if measures is not None:
        for measure in chosen(measures):
            if not (isinstance(measure, Measure) and measure.smooth):
                raise ValueError(
                    f"{', '.join(measure.columns)} cannot be screened: no gradient passes. For entropy there is "
                    "'smooth_entropy'; the rest wants quantify()."
                )
    with guarded(drawing(generator)), torch.enable_grad():
        bases = Bases.draw(generator, latents, classes, parts, measures, least_area, batch_size, watch)
    with torch.no_grad():
        every = torch.cat(slopes)
        change, spread, count = _first_order(every, bases, real)
        chance = None if null is None else _first_order(every, bases, replace(real, null=null))[0]
    note = {"order": 1, "direction": direction, "reach": reach, "bases": len(latents), "least_area": least_area}
    return UnitTable(
        asked, bases.labels, bases.parts.names, bases.columns, change, spread, count, bases.means, chance, note
    )


def _slopes(leaf: Tensor, measures: Sequence[Measure], values: Sequence[Tensor], present: Tensor) -> Tensor:
    """Of each change with respect to the latents, (rows, parts, columns, latent_dim); nan where a part is missing."""
    found = []
    for measure, value in zip(measures, values, strict=True):
        base = value.detach()
        after = base.clone().requires_grad_()
        (unit_of_change,) = torch.autograd.grad(measure.change(base, after, base).nansum(), after)
        for column in range(value.shape[2]):
            for part in range(value.shape[1]):
                (slope,) = (
                    torch.autograd.grad(value[:, part, column].sum(), leaf, retain_graph=True, allow_unused=True)
                    if value.requires_grad
                    else (None,)
                )
                if slope is None:
                    raise ValueError(
                        f"{measure.columns[column]} of part {part} has no gradient with respect to the latents: its "
                        "masks do not follow the picture smoothly. Give soft masks (FeatureParts, or a sigmoid of the "
                        "picture), or leave the measure out."
                    )
                found.append(slope.where(present[:, part, None], torch.nan) * unit_of_change[:, part, column, None])
    columns = sum(value.shape[2] for value in values)
    stacked: Tensor = torch.stack(found, 1).unflatten(1, (columns, -1))
    return stacked.transpose(1, 2)


def _first_order(slopes: Tensor, bases: Bases, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, spread and number over the bases of each class, (steps, classes, parts, columns)."""
    pieces = []
    for begin, end in chunks(len(steps), BLOCK):
        moves, far = (t.to(slopes) for t in steps.block(begin, end))
        change = torch.einsum("rpcd,ud->urpc", slopes, moves) * (far[..., 1] - far[..., 0])[..., None, None]
        groups = [change[:, bases.groups == group].double().cpu() for group in range(len(bases.labels))]
        count = torch.stack([(~own.isnan()).sum(1) for own in groups], 1)
        mean = torch.stack([own.nanmean(1) for own in groups], 1)
        square = torch.stack([own.square().nanmean(1) for own in groups], 1)
        pieces.append((mean, (square - mean**2).clamp_min(0).sqrt(), count))
    mean, spread, count = (torch.cat(one) for one in zip(*pieces, strict=True))
    return mean.float(), spread.float(), count.int()
