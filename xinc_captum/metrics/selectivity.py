"""Which classes drive which units: mean responses to a class on the unit's own scale, and how much classes explain."""

from typing import NamedTuple

import torch
from torch import Tensor

from .amounts import wide


class Selectivity(NamedTuple):
    """What classes have to do with each unit.

    Attributes:
        classes: those that occur, (K,), in rising order.
        means: mean response to each, in the unit's standard deviations from its mean over all, (units, K), float64.
        explained: share of each unit's variance that lies between classes, (units,); nan for units that never vary.
    """

    classes: Tensor
    means: Tensor
    explained: Tensor


def selectivity(responses: Tensor, classes: Tensor) -> Selectivity:
    r"""Mean response of every unit to every class, and η².

    .. math:: z_{u,c} = \frac{\bar r_{u,c} - \bar r_u}{\sigma_u}, \qquad
              \eta^2_u = \sum_c \frac{n_c}{n}\, z_{u,c}^2

    Symbols: r̄ means over the pictures of a class, or over all; σ the standard deviation over all; n_c and n how many.

    Args:
        responses: (n, units), any float dtype.
        classes: (n,) whole numbers.

    Returns:
        a :class:`Selectivity` on the CPU; units that never vary have means of 0, and all have where there is one class.

    Raises:
        ValueError: shapes that do not fit, or responses that are not finite.

    Example:
        >>> found = selectivity(torch.tensor([[1.0], [1.0], [3.0], [3.0]]), torch.tensor([0, 0, 7, 7]))
        >>> found.means.tolist(), found.classes.tolist(), found.explained.tolist()
        ([[-1.0, 1.0]], [0, 7], [1.0])
    """
    if responses.dim() != 2 or tuple(classes.shape) != (len(responses),) or not len(responses):
        raise ValueError(
            f"responses have shape {tuple(responses.shape)} and classes {tuple(classes.shape)}; wanted (n, units) and "
            "(n,)."
        )
    values = wide(responses).cpu()
    if not values.isfinite().all():
        row, unit = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"responses hold nan or infinity, first of unit {unit} in row {row}; leave such rows out.")
    known, place = classes.cpu().unique(return_inverse=True)
    away = values - values.mean(0)
    spread = away.square().mean(0).sqrt()
    # Rounding leaves a constant unit with a tiny spread, by which nothing must be divided.
    alive = spread > 1e-9 * values.abs().amax(0).clamp_min(1e-30)
    scaled = torch.where(alive, away / spread.where(alive, torch.ones_like(spread)), torch.zeros_like(away))
    counts = torch.bincount(place, minlength=len(known)).to(scaled)
    means = scaled.new_zeros(len(known), values.shape[1]).index_add_(0, place, scaled) / counts[:, None]
    if len(known) == 1:  # what rounding leaves is not a mean
        means = torch.zeros_like(means)
    explained = (counts[:, None] / len(values) * means.square()).sum(0)
    return Selectivity(known, means.T.contiguous(), explained.where(alive, torch.full_like(explained, torch.nan)))
