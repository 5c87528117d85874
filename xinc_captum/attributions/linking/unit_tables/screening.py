"""Gradient screening, shuffled null."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....batch import chunks
from ....generators.features import layer_root
from ....generators.parts import Parts
from ....generators.protocol import Generator
from ....hooks import protect
from ....metrics.measures import Measure, Movement, resolve_measures
from ..latent_link import LatentLink
from .quantify import BLOCK, Bases, Kind, Reach, Steps, chosen_units
from .table import UnitTable


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
        for measure in resolve_measures(measures):
            if not (isinstance(measure, Measure) and measure.smooth):
                raise ValueError(
                    f"{', '.join(measure.columns)} cannot be screened: no gradient passes. For entropy there is "
                    "'smooth_entropy'; the rest wants quantify()."
                )
    with protect(layer_root(generator)), torch.enable_grad():
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


NULL_BLOCK = 64  # units whose exchanged pairs are held at a time


def shuffled_directions(
    representations: Tensor,
    latents: Tensor,
    units: Tensor | list[int] | range,
    *,
    classes: Tensor | None = None,
    repeats: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""The directions that a link would give units if their values were handed to other pairs (of the same class).

    .. math:: d^0_u = \frac{\mathrm{Cov}(w,\, r_{\pi(u)})}{\mathrm{Var}(r_u)}

    Symbols: π an exchange of the pairs, drawn anew for every unit and repeat, so that the directions are independent
    of each other however much the units say the same. Covariance and variance are those within classes, if classes are
    given. :func:`quantify` stretches each to the length of a unit's own direction: what is compared is where a step
    leads, not how long it is.

    Args:
        representations: of the pairs that the link was fitted on, (n, units).
        latents: likewise, (n, latent_dim).
        units: of the representations, k of them.
        classes: (n,), or None.
        repeats: how many for each unit; the smallest p-value that a query can give is 1 / (1 + k · repeats).
        generator: of the exchanges.

    Returns:
        (repeats · k, latent_dim), float64, to be given to :func:`quantify` or :func:`screen` as ``null``.

    Raises:
        ValueError: other shapes, a unit that does not vary (within classes), or no repeats.

    Example:
        >>> r, w = torch.rand(50, 3), torch.rand(50, 2)
        >>> shuffled_directions(r, w, [0, 2], repeats=10, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([20, 2])
    """
    if representations.dim() != 2 or latents.dim() != 2 or len(representations) != len(latents) or repeats < 1:
        raise ValueError(
            f"representations have shape {tuple(representations.shape)} and latents {tuple(latents.shape)}, with "
            f"{repeats} repeats; expected (n, units) and (n, latent_dim) of the same pairs, at least once."
        )
    labels = torch.zeros(len(latents)) if classes is None else classes.cpu()
    if labels.shape != (len(latents),):
        raise ValueError(f"classes have shape {tuple(labels.shape)} for {len(latents)} pairs; expected one for each.")
    group = labels.unique(return_inverse=True)[1]
    asked = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    values = _centred(representations.double().cpu()[:, asked], group)
    drawn = _centred(latents.double().cpu(), group)
    square = values.square().sum(0)
    rounding = torch.finfo(torch.float64).eps * len(values) * representations.double().cpu()[:, asked].abs().amax(0)
    still = (square <= len(values) * rounding.square()).nonzero()[:, 0]
    if len(still):
        raise ValueError(f"unit {int(asked[still[0]])} does not vary within classes; leave it out.")
    found = []
    by_group = group.argsort(stable=True)
    for _ in range(repeats):
        for start, stop in chunks(len(asked), NULL_BLOCK):
            size, where = (len(group), stop - start), generator.device
            keys = torch.rand(size, generator=generator, dtype=torch.float64, device=where).cpu() + group[:, None]
            order = keys.argsort(0)  # of each group's places, the group's members in a new order
            exchanged = torch.empty_like(keys)
            exchanged[by_group] = values[:, start:stop].gather(0, order)
            found.append(exchanged.T @ drawn / square[start:stop, None])
    return torch.cat(found)


def _centred(rows: Tensor, group: Tensor) -> Tensor:
    """Each row less the mean of its group."""
    count = group.bincount().to(rows)
    means = torch.zeros(len(count), rows.shape[1], dtype=rows.dtype).index_add_(0, group, rows) / count[:, None]
    return rows - means[group]
