"""Fields of an image (intensity, edges, opponent colours), and rank correlations of contributions with them."""

from typing import NamedTuple

import torch
from torch import Tensor

from .._optional import require
from .spread import check_magnitudes
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
        """The p-values (units,), (1 + hits) / (1 + repeats), by rolled fields with at least the same correlation."""
        hits = (self.shifted.abs() >= self.rho.abs() - 1e-12).sum(0)
        return ((1 + hits) / (1 + len(self.shifted))).where(self.rho.isfinite(), torch.nan)

    @property
    def below_five_percent(self) -> float:
        """The fraction of units with a map whose p-value is at most .05; it is .05 by chance."""
        chance = self.chance[self.rho.isfinite()]
        return float((chance <= 0.05).double().mean())


def association(magnitudes: Tensor, field: Tensor, *, generator: torch.Generator, repeats: int = 99) -> Association:
    r"""Return Spearman's correlation, over pixels, of each unit's magnitudes with a field such as intensity or edges.

    .. math:: \rho_u = \mathrm{corr}\bigl(\mathrm{rank}_p\, a_{u,p},\; \mathrm{rank}_p\, f_p\bigr)

    Control: the field rolled by random offsets. Both maps are smooth, so neighbouring pixels are not independent, and
    the textbook p-value of ρ is far too small; rolling keeps the smoothness.

    Args:
        magnitudes: (units, *size), >= 0. For the total of the layer: ``magnitudes.sum(0, keepdim=True)``.
        field: size, for example :func:`intensity` or :func:`edges` of the image.
        generator: of the control.
        repeats: of the control; a p-value of 5 % needs at least 19.

    Returns:
        an :class:`Association`.

    Raises:
        ValueError: a field of another size or constant, no repeats, magnitudes that are negative or not finite.

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
    r"""Return the luminance of an image.

    .. math:: I = 0.299\,R + 0.587\,G + 0.114\,B

    Args:
        image: (C, H, W), floats in [0, 1]; other than three channels are averaged.

    Returns:
        (H, W).

    Raises:
        ValueError: 8-bit values, or another number of dims.

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
    r"""Return the edge strength: the magnitude of the Sobel gradient of the intensity (scikit-image, ``analysis``).

    .. math:: E = \sqrt{\left((S_x * I)^2 + (S_y * I)^2\right) / 2}

    Args:
        image: (C, H, W), floats in [0, 1].

    Returns:
        (H, W).

    Raises:
        ValueError: 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> edges(torch.ones(3, 4, 4)).amax()
        tensor(0.)
    """
    filters = require("skimage.filters", purpose="Sobel's filter", extra="analysis")
    grey = intensity(image).detach()
    return torch.from_numpy(filters.sobel(grey.double().cpu().numpy())).to(grey)


def opponents(image: Tensor) -> Tensor:
    r"""Return opponent colours: luminance, red against green, blue against yellow.

    .. math:: (I,\; R - G,\; B - (R + G) / 2)

    Args:
        image: (3, H, W), floats in [0, 1].

    Returns:
        (3, H, W).

    Raises:
        ValueError: another number of channels.

    Example:
        >>> opponents(torch.tensor([1.0, 0.0, 0.0])[:, None, None]).flatten().tolist()[1:]
        [1.0, -0.5]
    """
    grey = intensity(image)
    if image.shape[0] != 3:
        raise ValueError(f"image has {image.shape[0]} channels; expected 3 for colours.")
    red, green, blue = image
    return torch.stack([grey, red - green, blue - (red + green) / 2])
