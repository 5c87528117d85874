"""Fields of an image (intensity, edges, colours) and its regions, and tests of whether units follow them."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .._optional import require
from .spread import check_magnitudes, check_masks
from .statistics import rank_vectors, shifts


class Association(NamedTuple):
    """Rank correlations with a field, and with shifted copies of the field.

    Attributes:
        rho: (units,), nan for units whose map is constant.
        shifted: (repeats, units), the same with the field rolled by random offsets.
    """

    rho: Tensor
    shifted: Tensor

    @property
    def chance(self) -> Tensor:
        """The p-values, (units,): (1 + hits) / (1 + repeats); a hit is a rolled field with at least the same |ρ|."""
        hits = (self.shifted.abs() >= self.rho.abs() - 1e-12).sum(0)
        return ((1 + hits) / (1 + len(self.shifted))).where(self.rho.isfinite(), torch.nan)

    @property
    def below_five_percent(self) -> float:
        """The fraction of units with a p-value of at most .05, without constant maps; it is .05 by chance."""
        chance = self.chance[self.rho.isfinite()]
        return float((chance <= 0.05).double().mean())


def association(magnitudes: Tensor, field: Tensor, *, generator: torch.Generator, repeats: int = 99) -> Association:
    r"""Return Spearman's correlation, over pixels, of each unit's magnitudes with a field such as intensity or edges.

    .. math:: \rho_u = \mathrm{corr}\bigl(\mathrm{rank}_p\, a_{u,p},\; \mathrm{rank}_p\, f_p\bigr)

    Control: the field rolled by random offsets. Both maps are smooth, so neighbouring pixels are not independent, and
    the textbook p-value of ρ is far too small; rolling keeps the smoothness.

    Args:
        magnitudes: a, (units, *size), >= 0. For the total of the layer: ``magnitudes.sum(0, keepdim=True)``.
        field: f, size, such as :func:`intensity` or :func:`edges`; another size or a constant field raises ValueError.
        generator: of the offsets.
        repeats: number of rolled fields, at least 1; a p-value of 5 % needs at least 19.

    Example:
        >>> magnitudes = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
        >>> association(magnitudes, magnitudes[0], generator=torch.Generator().manual_seed(0)).rho.round(decimals=6)
        tensor([1.], dtype=torch.float64)

    Source: the released code of Padmanabhan et al. (CVPR 2024) shows this as an image, without a number.
    """
    wide = check_magnitudes(magnitudes)
    size = tuple(wide.shape[1:])
    if tuple(field.shape) != size or not field.isfinite().all() or field.min() == field.max():
        raise ValueError(
            f"field has shape {tuple(field.shape)} and values from {float(field.min()):.3g} to "
            f"{float(field.max()):.3g}; expected the image's {size}, finite and not constant."
        )
    maps = rank_vectors(wide.flatten(1))
    ranks = rank_vectors(field.detach().to(wide).flatten()[None]).view(size)  # rolled ranks are ranks of the rolled
    axes = tuple(range(len(size)))
    rolled = torch.stack([ranks.roll(offset, axes).flatten() for offset in shifts(size, repeats, generator)])
    return Association(maps @ ranks.flatten(), rolled @ maps.T)


LUMA = (0.299, 0.587, 0.114)


def intensity(image: Tensor) -> Tensor:
    r"""Return the luminance (H, W) of an image (C, H, W), floats in [0, 1]; other than three channels are averaged.

    .. math:: I = 0.299\,R + 0.587\,G + 0.114\,B

    Raises ValueError for 8-bit values, or another number of dims.

    Example:
        >>> intensity(torch.ones(3, 1, 1))
        tensor([[1.]])

    Source: ITU-R BT.601.
    """
    if image.dim() != 3 or not image.is_floating_point():
        raise ValueError(
            f"image is {image.dtype} of shape {tuple(image.shape)}; expected floats in [0, 1], (C, H, W). Divide 8-bit "
            "values by 255: filtered as they are, they wrap around."
        )
    if image.shape[0] != 3:
        return image.mean(0)
    weights = torch.tensor(LUMA, dtype=image.dtype, device=image.device)
    return (weights[:, None, None] * image).sum(0)


def edges(image: Tensor) -> Tensor:
    r"""Return the edge strength, the magnitude of the intensity's Sobel gradient (scikit-image, extra ``analysis``).

    .. math:: E = \sqrt{\left((S_x * I)^2 + (S_y * I)^2\right) / 2}

    Symbols: I the :func:`intensity`, S_x and S_y Sobel's kernels. Arguments, shapes and errors are those of I.

    Example:
        >>> edges(torch.ones(3, 4, 4)).amax()
        tensor(0.)
    """
    filters = require("skimage.filters", purpose="Sobel's filter", extra="analysis")
    grey = intensity(image).detach()
    return torch.from_numpy(filters.sobel(grey.double().cpu().numpy())).to(grey)


def opponents(image: Tensor) -> Tensor:
    r"""Return opponent colours (3, H, W) of an image (3, H, W): luminance, red against green, blue against yellow.

    .. math:: (I,\; R - G,\; B - (R + G) / 2)

    Raises ValueError as :func:`intensity`, and for another number of channels.

    Example:
        >>> opponents(torch.tensor([1.0, 0.0, 0.0])[:, None, None]).flatten().tolist()[1:]
        [1.0, -0.5]
    """
    grey = intensity(image)
    if image.shape[0] != 3:
        raise ValueError(f"image has {image.shape[0]} channels; expected 3 for colours.")
    red, green, blue = image
    return torch.stack([grey, red - green, blue - (red + green) / 2])


LEARNT_FROM = 20_000  # pixels; k-means on more gives the same centres, slower


def as_masks(labels: Tensor) -> Tensor:
    """Return one mask for each value of integer ``labels``, (*size), in ascending order: (regions, *size) bool.

    Negative labels belong to no region. Raises ValueError for labels that are not integers, or none >= 0.

    Example:
        >>> as_masks(torch.tensor([[0, 2, -1]])).int().tolist()
        [[[1, 0, 0]], [[0, 1, 0]]]
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or not (labels >= 0).any():
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected integers, some of them >= 0."
        )
    present = labels[labels >= 0].unique()
    masks: Tensor = labels == present.view(-1, *[1] * labels.dim())
    return masks


def grid_cells(size: tuple[int, int], grid: tuple[int, int] = (4, 8)) -> Tensor:
    """Return labels (H, W), int64, in row-major order, of rectangular cells of nearly equal size.

    The released code confuses the axes: its "cells" consist of every fourth row and eighth column, spread over the
    whole image, so that all of them are similar.

    Args:
        size: (H, W).
        grid: rows and columns of cells; more cells than pixels raise ValueError.

    Example:
        >>> grid_cells((2, 5), (1, 2)).tolist()
        [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    """
    if not all(1 <= cells <= side for cells, side in zip(grid, size, strict=True)):
        raise ValueError(f"grid is {grid} for an image of {size}; expected at least one pixel a cell.")
    rows, columns = (torch.arange(side) * cells // side for side, cells in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def outside(masks: Tensor) -> Tensor:
    """Return the region that no object covers: (regions, *size) to (1, *size), bool.

    In the released code, "other" is the union of the objects instead.

    Example:
        >>> outside(torch.tensor([[[True, False, False]], [[False, True, False]]])).tolist()
        [[[False, False, True]]]
    """
    return ~(masks > 0).any(0, keepdim=True)


def colour_regions(image: Tensor, regions: int = 32, *, seed: int = 0) -> Tensor:
    """Return labels, int64, of pixels with similar colours, by k-means (scikit-learn, extra ``analysis``).

    Args:
        image: (C, H, W), or (frames, C, H, W) with the same colours for all frames, floats, else ValueError; the result
            has no C.
        regions: k, the number of clusters; fewer different pixels raise ValueError.
        seed: of k-means' first centres.

    Example:
        >>> colour_regions(torch.tensor([[[0.0, 0.1, 0.9, 1.0]]]), 2).unique(return_counts=True)[1].tolist()
        [2, 2]
    """
    if image.dim() not in (3, 4) or not image.is_floating_point():
        raise ValueError(
            f"image is {image.dtype} of shape {tuple(image.shape)}; expected floats (C, H, W), or (frames, C, H, W)."
        )
    return group_features(image.detach().movedim(-3, -1), regions, seed=seed)


def group_features(features: Tensor, groups: int, *, seed: int = 0) -> Tensor:
    """Return k-means labels over the last axis: (…, features) to (…) int64.

    Centres are fitted to at most 20,000 rows, sampled with ``seed``; each row gets the label of its nearest centre.
    """
    rows: NDArray[np.float64] = features.detach().double().cpu().flatten(0, -2).numpy()
    if not np.isfinite(rows).all():
        raise ValueError("the features hold NaN or infinity; expected finite values for k-means.")
    different = len(np.unique(rows.round(12), axis=0)) if len(rows) <= LEARNT_FROM else groups
    if not 1 <= groups <= different:
        raise ValueError(f"got {groups} groups for {len(rows)} rows, of which {different} differ; give fewer groups.")
    cluster = require("sklearn.cluster", purpose="k-means", extra="analysis")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:LEARNT_FROM]
    means = cluster.KMeans(groups, n_init=4, random_state=seed).fit(rows[chosen])
    labels = torch.from_numpy(means.predict(rows)).long()
    return labels.view(features.shape[:-1]).to(features.device)


ANGLES = tuple(math.pi * i / 4 for i in range(4))
SIGMAS = (1.0, 3.0)  # pixels
FREQUENCIES = (0.05, 0.15, 0.25)  # cycles per pixel


def gabor_bank() -> list[Tensor]:
    r"""Return 24 complex Gabor filters (h, w), ordered by angle, σ and frequency (scikit-image, extra ``analysis``).

    .. math:: g(x) = e^{-|x|^2 / 2\sigma^2} \,(e^{2\pi i f x \cdot n_\theta} - m)

    Symbols: θ in {0, 45, 90, 135}°, n_θ its direction (0 along the columns), σ in {1, 3} pixels, f in {.05, .15, .25}
    cycles per pixel, m the mean under the envelope. Without m, low frequencies in narrow envelopes would respond to
    brightness, not to texture.
    """
    filters = require("skimage.filters", purpose="the Gabor bank", extra="analysis")
    bank = []
    for theta, sigma, frequency in itertools.product(ANGLES, SIGMAS, FREQUENCIES):
        kernel = torch.from_numpy(filters.gabor_kernel(frequency, theta, sigma_x=sigma, sigma_y=sigma))
        envelope = kernel.abs()
        bank.append(kernel - envelope * (kernel.sum() / envelope.sum()))
    return bank


def gabor_responses(image: Tensor) -> Tensor:
    """Return the magnitude of the response of each of 24 Gabor filters (scikit-image): (24, H, W), float64.

    .. math:: r_{k,p} = |(g_k * I)(p)|

    Symbols: g_k the filters of :func:`.gabor_bank`, I the :func:`intensity` of the image, padded by repeating the
    border; its errors are raised here too. The released code filters 8-bit values into 8-bit responses, which overflow,
    and uses only the first angle.

    Example:
        >>> gabor_responses(torch.full((3, 8, 8), 0.5)).amax() < 1e-12
        tensor(True)
    """
    grey = intensity(image).cpu().double()[None, None]
    responses = []
    for kernel in gabor_bank():
        h, w = kernel.shape
        around = F.pad(grey, [w // 2, w // 2, h // 2, h // 2], mode="replicate")
        both = torch.stack([kernel.real, kernel.imag])[:, None].flip(2, 3)  # a convolution, not a correlation
        responses.append(F.conv2d(around, both)[0].norm(dim=0))
    return torch.stack(responses).to(image.device)


def gabor_regions(image: Tensor, regions: int = 24, *, seed: int = 0) -> Tensor:
    """Return labels (H, W), int64, of pixels with similar texture (scikit-image, scikit-learn).

    They are k-means clusters of :func:`gabor_responses` divided by their standard deviation. Arguments and errors are
    those of :func:`colour_regions`, for one image in [0, 1].

    Example:
        >>> gabor_regions(torch.rand(3, 12, 16), 4).shape
        torch.Size([12, 16])
    """
    responses = gabor_responses(image)
    spread = responses.flatten(1).std(1).clamp_min(1e-12)[:, None, None]
    return group_features((responses / spread).movedim(0, -1), regions, seed=seed)


def preference(magnitudes: Tensor, masks: Tensor) -> Tensor:
    r"""Return how much more a unit contributes in a region than its area predicts: (units, regions), float64.

    .. math:: \delta_{u,R} = \frac{\Sigma_{p \in R}\, a_{u,p} - E_{u,R}}{E_{u,R}},
              \quad E_{u,R} = \frac{|R|}{P}\, \Sigma_p\, a_{u,p}

    Symbols: R a region of area \|R\|, P the number of pixels. 0 is as much as its area predicts, -1 nothing, 1 twice as
    much, nan a unit without contributions.

    Args:
        magnitudes: a, (units, *size), >= 0 and finite, else ValueError.
        masks: (regions, *size), bool or weights in [0, 1]; they may overlap and leave pixels out. Another size or an
            empty region raises ValueError.

    Example:
        >>> preference(torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False], [False, True]]))
        tensor([[ 0.5000, -0.5000]], dtype=torch.float64)

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code.
    """
    wide = check_magnitudes(magnitudes)
    return _preference(wide.flatten(1), check_masks(masks, tuple(wide.shape[1:])).to(wide.device).flatten(1))


class RegionTest(NamedTuple):
    """A statistic of regions with its two controls.

    Attributes:
        preference: δ, (units, regions).
        variance: of δ over the regions, (units,); larger for units that prefer some regions.
        scattered: the same for random regions of the same areas, (repeats, units).
        shifted: the same for shifted regions, (repeats, units).
    """

    preference: Tensor
    variance: Tensor
    scattered: Tensor
    shifted: Tensor

    @property
    def above_chance(self) -> float:
        """Median variance over active units divided by that of the scattered control; 1 means no preference."""
        return float(self.variance.nanmedian() / self.scattered.nanmedian())

    @property
    def above_elsewhere(self) -> float:
        """Median variance over active units divided by that of the shifted control; 1 means no effect of position."""
        return float(self.variance.nanmedian() / self.shifted.nanmedian())


def region_test(magnitudes: Tensor, masks: Tensor, *, generator: torch.Generator, repeats: int = 10) -> RegionTest:
    r"""Return the variance of preferences over regions, with two area-matched controls.

    .. math:: V_u = \mathrm{mean}_R\,(\delta_{u,R} - \mathrm{mean}_R\, \delta_{u,R})^2

    *Scattered*: the pixels of all regions are permuted at random, which keeps areas and overlaps; smooth maps exceed it
    for any regions. *Shifted*: the regions are rolled over the image, which keeps areas, shapes and smoothness; only
    meaningful regions exceed it. Shifted grid cells are grid cells again, so their ratio is about 1. Each control has
    ``repeats`` draws, at least one, from ``generator``; other arguments and errors are those of :func:`preference`.

    Example:
        >>> magnitudes = torch.cat([torch.zeros(1, 8), torch.ones(1, 8)], 1)
        >>> masks = torch.stack([magnitudes[0] == 0, magnitudes[0] == 1])
        >>> region_test(magnitudes, masks, generator=torch.Generator().manual_seed(0)).variance
        tensor([1.], dtype=torch.float64)

    Source: as :func:`preference`, in which only grid cells kept signs; the controls are ours.
    """
    wide = check_magnitudes(magnitudes)
    size = tuple(wide.shape[1:])
    regions = check_masks(masks, size).to(wide.device)
    flat, pixels = wide.flatten(1), regions[0].numel()
    preferences, scattered, shifted = _preference(flat, regions.flatten(1)), [], []
    for offset in shifts(size, repeats, generator):
        order = torch.randperm(pixels, generator=generator, device=generator.device).to(wide.device)
        scattered.append(_preference(flat, regions.flatten(1)[:, order]).var(1, correction=0))
        rolled = regions.roll(offset, tuple(range(1, regions.dim())))
        shifted.append(_preference(flat, rolled.flatten(1)).var(1, correction=0))
    variance = preferences.var(1, correction=0)
    return RegionTest(preferences, variance, torch.stack(scattered), torch.stack(shifted))


def _preference(flat: Tensor, regions: Tensor) -> Tensor:
    by_area = flat.sum(1, keepdim=True) * (regions.sum(1) / regions.shape[1])
    return (flat @ regions.T - by_area) / by_area
