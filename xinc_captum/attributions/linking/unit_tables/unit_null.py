"""Directions of a link that knows nothing: fitted on pairs that do not belong together."""

import torch
from torch import Tensor

from ....batch import chunks

BLOCK = 64  # units whose exchanged pairs are held at a time


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
            f"{repeats} repeats; wanted (n, units) and (n, latent_dim) of the same pairs, at least once."
        )
    labels = torch.zeros(len(latents)) if classes is None else classes.cpu()
    if labels.shape != (len(latents),):
        raise ValueError(f"classes have shape {tuple(labels.shape)} for {len(latents)} pairs; wanted one for each.")
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
        for start, stop in chunks(len(asked), BLOCK):
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
