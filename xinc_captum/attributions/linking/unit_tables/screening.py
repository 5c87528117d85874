"""Screen units by gradients, and directions of shuffled pairs as a null."""

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
from ..link import Direction, Link
from .quantify import BLOCK, Bases, Reach, Statistics, Steps, resolve_units, unit_table
from .table import UnitTable


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

    The cost is one forward pass and (columns × parts) backward passes, for any number of units and at almost none for
    the null. The approximation is good for small steps only: use it to rank units, then measure the best
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


NULL_BLOCK = 64  # units whose permuted pairs are in memory at a time


def shuffled_directions(
    representations: Tensor,
    latents: Tensor,
    units: Tensor | list[int] | range,
    *,
    classes: Tensor | None = None,
    repeats: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return directions of k units whose values are permuted between pairs (of the same class), for ``null=``.

    .. math:: d^0_u = \frac{\mathrm{Cov}(w,\, r_{\pi(u)})}{\mathrm{Var}(r_u)}

    Symbols: r (n, units) and w (n, latent_dim) the pairs that the link was fitted to; π a permutation of these, new for
    every unit and repeat, so the directions, (repeats · k, latent_dim) in float64, are independent even if the units
    are correlated. Covariance and variance are those within classes if classes, (n,), are given. :func:`quantify`
    scales each to the length of a unit's own direction. The smallest p-value of a query is 1 / (1 + k · repeats).

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
    index = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    values = _centre(representations.double().cpu()[:, index], group)
    centred = _centre(latents.double().cpu(), group)
    square = values.square().sum(0)
    rounding = torch.finfo(torch.float64).eps * len(values) * representations.double().cpu()[:, index].abs().amax(0)
    constant = (square <= len(values) * rounding.square()).nonzero()[:, 0]
    if len(constant):
        raise ValueError(f"unit {int(index[constant[0]])} does not vary within classes; leave it out.")
    directions = []
    by_group = group.argsort(stable=True)
    for _ in range(repeats):
        for start, stop in chunks(len(index), NULL_BLOCK):
            size, device = (len(group), stop - start), generator.device
            keys = torch.rand(size, generator=generator, dtype=torch.float64, device=device).cpu() + group[:, None]
            order = keys.argsort(0)  # a permutation within each group
            permuted = torch.empty_like(keys)
            permuted[by_group] = values[:, start:stop].gather(0, order)
            directions.append(permuted.T @ centred / square[start:stop, None])
    return torch.cat(directions)


def _centre(rows: Tensor, group: Tensor) -> Tensor:
    """Return each row minus the mean of its group."""
    count = group.bincount().to(rows)
    means = torch.zeros(len(count), rows.shape[1], dtype=rows.dtype).index_add_(0, group, rows) / count[:, None]
    return rows - means[group]
