"""Contribution against intensity, edges, or any other field over the picture: a statistic with its control."""

from typing import NamedTuple

import torch
from torch import Tensor

from .amounts import check_picture
from .rank import rank_vectors
from .shuffles import shifts


class Association(NamedTuple):
    """Rank correlations with a field, and with the same field elsewhere.

    Attributes:
        rho: (units,), nan for units whose map is constant.
        shifted: (repeats, units), the same with the field rolled over the picture.
    """

    rho: Tensor
    shifted: Tensor

    @property
    def chance(self) -> Tensor:
        """How often a rolled field does as well, (units,): the p-value (1 + hits) / (1 + repeats)."""
        hits = (self.shifted.abs() >= self.rho.abs() - 1e-12).sum(0)
        return ((1 + hits) / (1 + len(self.shifted))).where(self.rho.isfinite(), torch.nan)

    @property
    def below_five_percent(self) -> float:
        """The part of the units with a map whose chance is at most .05; chance alone makes it .05."""
        chance = self.chance[self.rho.isfinite()]
        return float((chance <= 0.05).double().mean())


def association(amounts: Tensor, field: Tensor, *, generator: torch.Generator, repeats: int = 99) -> Association:
    r"""Spearman's correlation, over pixels, of each unit's amounts with a field such as intensity or edges.

    .. math:: \rho_u = \mathrm{corr}\bigl(\mathrm{rank}_p\, a_{u,p},\; \mathrm{rank}_p\, f_p\bigr)

    Control: the field rolled over the picture by random offsets. Both sides are smooth, so neighbouring pixels say
    the same thing again and the textbook p-value of ρ is far too small; rolling keeps the smoothness.

    Args:
        amounts: (units, *size), >= 0. For what the whole layer paints: ``amounts.sum(0, keepdim=True)``.
        field: size, for example :func:`intensity` or :func:`edges` of the picture.
        generator: of the control.
        repeats: of the control; 19 are the fewest that can reach 5 %.

    Returns:
        an :class:`Association`.

    Raises:
        ValueError: a field of another size or constant, no repeats, amounts that are negative or not finite.

    Example:
        >>> amounts = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
        >>> association(amounts, amounts[0], generator=torch.Generator().manual_seed(0)).rho.round(decimals=6)
        tensor([1.], dtype=torch.float64)

    Source: the released code of Padmanabhan et al. (CVPR 2024) shows this as a picture, without a number.
    """
    wide = check_picture(amounts)
    size = tuple(wide.shape[1:])
    if tuple(field.shape) != size or not field.isfinite().all() or field.min() == field.max():
        raise ValueError(
            f"field has shape {tuple(field.shape)} and values from {float(field.min()):.3g} to "
            f"{float(field.max()):.3g}; wanted the picture's {size}, finite and not constant."
        )
    maps = rank_vectors(wide.flatten(1))
    ranks = rank_vectors(field.detach().to(wide).flatten()[None]).view(size)  # rolled ranks are ranks of the rolled
    axes = tuple(range(len(size)))
    rolled = torch.stack([ranks.roll(offset, axes).flatten() for offset in shifts(size, repeats, generator)])
    return Association(maps @ ranks.flatten(), rolled @ maps.T)
