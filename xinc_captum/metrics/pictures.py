"""What a picture itself offers to explain a canvas with: intensity, edges, colours."""

import torch
from torch import Tensor

from .._extra import needed

LUMA = (0.299, 0.587, 0.114)


def intensity(picture: Tensor) -> Tensor:
    r"""Brightness as people see it.

    .. math:: I = 0.299\,R + 0.587\,G + 0.114\,B

    Args:
        picture: (C, H, W), floats in [0, 1]; other than three channels are averaged.

    Returns:
        (H, W).

    Raises:
        ValueError: 8-bit values, or another number of dims.

    Example:
        >>> intensity(torch.ones(3, 1, 1))
        tensor([[1.]])

    Source: ITU-R BT.601.
    """
    if picture.dim() != 3 or not picture.is_floating_point():
        raise ValueError(
            f"picture is {picture.dtype} of shape {tuple(picture.shape)}; wanted floats in [0, 1], (C, H, W). Divide "
            "8-bit values by 255: filtered as they are, they wrap around."
        )
    if picture.shape[0] != 3:
        return picture.mean(0)
    weights = torch.tensor(LUMA, dtype=picture.dtype, device=picture.device)
    return (weights[:, None, None] * picture).sum(0)


def edges(picture: Tensor) -> Tensor:
    r"""Edge strength: the magnitude of Sobel's gradient of the intensity (scikit-image, extra ``analysis``).

    .. math:: E = \sqrt{\left((S_x * I)^2 + (S_y * I)^2\right) / 2}

    Args:
        picture: (C, H, W), floats in [0, 1].

    Returns:
        (H, W).

    Raises:
        ValueError: 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> edges(torch.ones(3, 4, 4)).amax()
        tensor(0.)
    """
    filters = needed("skimage.filters", purpose="Sobel's filter", extra="analysis")
    grey = intensity(picture).detach()
    return torch.from_numpy(filters.sobel(grey.double().cpu().numpy())).to(grey)


def opponents(picture: Tensor) -> Tensor:
    r"""Colour in three numbers: brightness, red against green, blue against yellow.

    .. math:: (I,\; R - G,\; B - (R + G) / 2)

    Args:
        picture: (3, H, W), floats in [0, 1].

    Returns:
        (3, H, W).

    Raises:
        ValueError: another number of channels.

    Example:
        >>> opponents(torch.tensor([1.0, 0.0, 0.0])[:, None, None]).flatten().tolist()[1:]
        [1.0, -0.5]
    """
    grey = intensity(picture)
    if picture.shape[0] != 3:
        raise ValueError(f"picture has {picture.shape[0]} channels; colours want 3.")
    red, green, blue = picture
    return torch.stack([grey, red - green, blue - (red + green) / 2])
