"""Whether units care about regions: more in some than their area accounts for, and more than chance does."""

from typing import NamedTuple

import torch
from torch import Tensor

from .amounts import check_masks, check_picture
from .shuffles import shifts


def preference(amounts: Tensor, masks: Tensor) -> Tensor:
    r"""How much more a unit paints in a region than the region's area accounts for.

    .. math:: \delta_{u,R} = \frac{\Sigma_{p \in R}\, a_{u,p} - E_{u,R}}{E_{u,R}},
              \quad E_{u,R} = \frac{|R|}{P}\, \Sigma_p\, a_{u,p}

    Symbols: a the amounts, R a region of area \|R\|, P the number of pixels. 0: as much as its area; -1: nothing;
    1: twice as much. Signs are kept for every kind of region.

    Args:
        amounts: (units, *size), >= 0.
        masks: (regions, *size), bool or weights in [0, 1]; they may overlap and leave pixels out.

    Returns:
        (units, regions), float64; nan for units that paint nothing.

    Raises:
        ValueError: masks of another size, empty ones, or amounts that are negative or not finite.

    Example:
        >>> preference(torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False], [False, True]]))
        tensor([[ 0.5000, -0.5000]], dtype=torch.float64)

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code.
    """
    wide = check_picture(amounts)
    return _preference(wide.flatten(1), check_masks(masks, tuple(wide.shape[1:])).to(wide.device).flatten(1))


class RegionTest(NamedTuple):
    """A statistic of regions with its two controls.

    Attributes:
        preference: δ, (units, regions).
        variance: of δ over the regions, (units,); the larger, the more the unit cares which region it is.
        scattered: the same for regions of the same areas made of random pixels, (repeats, units).
        shifted: the same for these regions elsewhere, (repeats, units).
    """

    preference: Tensor
    variance: Tensor
    scattered: Tensor
    shifted: Tensor

    @property
    def above_chance(self) -> float:
        """Median variance over living units in units of the scattered control's: 1 is nothing."""
        return _over(self.variance, self.scattered)

    @property
    def above_elsewhere(self) -> float:
        """Median variance over living units in units of the shifted control's: 1 is any place would do."""
        return _over(self.variance, self.shifted)


def region_test(amounts: Tensor, masks: Tensor, *, generator: torch.Generator, repeats: int = 10) -> RegionTest:
    r"""The variance of preferences over regions, beside two area-matched controls.

    .. math:: V_u = \mathrm{mean}_R\,(\delta_{u,R} - \mathrm{mean}_R\, \delta_{u,R})^2

    *Scattered*: all regions' pixels are exchanged at random, so areas and overlaps stay; smooth maps beat it whatever
    the regions are. *Shifted*: the regions are rolled over the picture as they are, so areas, shapes and smoothness
    stay; only a kind of region that means something beats it. Grid cells shifted are grid cells: they are their own
    control and come to about 1.

    Args:
        amounts: (units, *size), >= 0.
        masks: (regions, *size), bool or weights in [0, 1].
        generator: of the controls.
        repeats: of each control.

    Returns:
        a :class:`RegionTest`.

    Raises:
        ValueError: masks of another size, empty ones, no repeats, or amounts that are negative or not finite.

    Example:
        >>> amounts = torch.cat([torch.zeros(1, 8), torch.ones(1, 8)], 1)
        >>> masks = torch.stack([amounts[0] == 0, amounts[0] == 1])
        >>> region_test(amounts, masks, generator=torch.Generator().manual_seed(0)).variance
        tensor([1.], dtype=torch.float64)

    Source: as :func:`preference`, where grid cells were combs and only they kept signs; the controls are ours.
    """
    wide = check_picture(amounts)
    size = tuple(wide.shape[1:])
    regions = check_masks(masks, size).to(wide.device)
    flat, pixels = wide.flatten(1), regions[0].numel()
    found = _preference(flat, regions.flatten(1))
    scattered, shifted = [], []
    for offset in shifts(size, repeats, generator):
        order = torch.randperm(pixels, generator=generator, device=generator.device).to(wide.device)
        scattered.append(_variance(_preference(flat, regions.flatten(1)[:, order])))
        rolled = regions.roll(offset, tuple(range(1, regions.dim())))
        shifted.append(_variance(_preference(flat, rolled.flatten(1))))
    return RegionTest(found, _variance(found), torch.stack(scattered), torch.stack(shifted))


def _preference(flat: Tensor, regions: Tensor) -> Tensor:
    expected = flat.sum(1, keepdim=True) * (regions.sum(1) / regions.shape[1])
    return (flat @ regions.T - expected) / expected


def _variance(preferences: Tensor) -> Tensor:
    return preferences.var(1, correction=0)


def _over(values: Tensor, control: Tensor) -> float:
    return float(values.nanmedian() / control.nanmedian())
