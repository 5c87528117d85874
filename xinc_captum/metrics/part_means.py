"""Means of fields over parts of pictures: what every measure of a part is made of."""

import torch
from torch import Tensor

from .pictures import LUMA


def check_parts(pictures: Tensor, masks: Tensor) -> None:
    """Refuse pictures and part masks that do not belong together.

    Raises:
        ValueError: pictures that are no floats (n, C, H, W), masks that are not (n, parts, H, W) of the same pictures,
            or no part.
    """
    if pictures.dim() != 4 or not pictures.is_floating_point():
        raise ValueError(
            f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; wanted floats in [0, 1], (n, C, H, W). "
            "Divide 8-bit values by 255."
        )
    rows, size = len(pictures), tuple(pictures.shape[2:])
    if masks.dim() != 4 or masks.shape[0] != rows or masks.shape[2:] != pictures.shape[2:] or not masks.shape[1]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for pictures of {tuple(pictures.shape)}; wanted "
            f"({rows}, parts, {size[0]}, {size[1]}) with at least one part. Of label pictures (n, H, W), make "
            "one mask a label first."
        )


def part_means(fields: Tensor, masks: Tensor) -> Tensor:
    r"""Mean of each field over each part; masks may be soft, and gradients reach both.

    .. math:: \bar f_{q,k} = \frac{\Sigma_p\, m_{q,p}\, f_{k,p}}{\Sigma_p\, m_{q,p}}

    Symbols: m the mask of part q, f field k, p the pixels.

    Args:
        fields: (n, fields, H, W), floats.
        masks: (n, parts, H, W), bool or weights in [0, 1]; parts may overlap.

    Returns:
        (n, parts, fields), in the fields' dtype; nan where a part is empty.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> picture = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> part_means(picture, torch.tensor([[[[0, 1, 1]]]]))
        tensor([[[0.7500]]])
    """
    check_parts(fields, masks)
    wide = torch.promote_types(fields.dtype, torch.float32)  # sums over pixels overflow in half precision
    weights = masks.to(fields.device, wide).flatten(2)
    return (weights @ fields.to(wide).flatten(2).transpose(1, 2) / sums(weights)).to(fields.dtype)


def sums(weights: Tensor) -> Tensor:
    """(n, parts, P) to (n, parts, 1), with nan instead of 0, so that an empty part has no mean."""
    total = weights.sum(2, keepdim=True)
    return total.where(total > 0, torch.nan)


def part_area(pictures: Tensor, masks: Tensor) -> Tensor:
    r"""Share of the picture that each part takes.

    .. math:: A_q = \frac{1}{P}\, \Sigma_p\, m_{q,p}

    Args:
        pictures: (n, C, H, W), floats in [0, 1]; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 1), from 0 to 1. In pixels: times H · W.

    Raises:
        ValueError: shapes that do not match, or masks that leave [0, 1].

    Example:
        >>> part_area(torch.zeros(1, 3, 2, 2), torch.tensor([[[[1, 0], [0, 0]]]])).item()
        0.25
    """
    check_parts(pictures, masks)
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; wanted bool, or weights in [0, 1]: "
            "divide a 0-255 mask by 255."
        )
    wide = torch.promote_types(pictures.dtype, torch.float32)
    return masks.to(pictures.device, wide).flatten(2).mean(2, keepdim=True).to(pictures.dtype)


def part_luminance(pictures: Tensor, masks: Tensor) -> Tensor:
    r"""Mean brightness of each part.

    .. math:: L_q = 0.299\,\bar R_q + 0.587\,\bar G_q + 0.114\,\bar B_q

    Args:
        pictures: (n, C, H, W), floats in [0, 1]; other than three channels are averaged.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 1), from 0 to 1; nan where a part is empty. Times 85, the number of the paper's released code, which
        also divides by the three channels.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> part_luminance(torch.ones(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).item()
        1.0

    Source: Wehrheim et al., "Linking in Style" (2024), its released code.
    """
    means = part_means(pictures, masks)
    if pictures.shape[1] != 3:
        return means.mean(2, keepdim=True)
    return (means * means.new_tensor(LUMA)).sum(2, keepdim=True)
