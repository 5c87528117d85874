"""Where a kernel lies in its network: layer, filter, channel."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Scale = Literal["index", "local", "global"]


def kernel_coordinates(shapes: Sequence[tuple[int, ...]], scale: Scale = "index") -> Tensor:
    r"""One row (l, f, c) for every kernel: layer by layer, filter-major, channel-minor.

    .. math:: index: (l, f, c) \qquad local: (l/L, f/F_l, c/C_l) \qquad global: (l, f, c) / \max(L, F_{1..L}, C_{1..L})

    Symbols: L layers, F_l filters and C_l channels of layer l. The released code embeds bare indices whatever its
    options say, so "index" is the default.

    Args:
        shapes: of the weights, (F, C, …) each.
        scale: one of the three.

    Returns:
        (kernels, 3) float64.

    Raises:
        ValueError: an unknown scale.

    Example:
        >>> kernel_coordinates([(2, 1, 3, 3), (1, 2, 3, 3)]).tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]

    Source: Ashkenazi et al., "NeRN: Learning Neural Representations for Neural Networks" (ICLR 2023), sec. 3.1.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; wanted one of {', '.join(map(repr, get_args(Scale)))}.")
    largest = max(len(shapes), *(max(shape[:2]) for shape in shapes))
    parts = []
    for number, (filters, channels, *_) in enumerate(shapes):
        f, c = torch.meshgrid(torch.arange(filters), torch.arange(channels), indexing="ij")
        rows = torch.stack([torch.full_like(f, number), f, c], -1).reshape(-1, 3).double()
        if scale == "local":
            rows = rows / torch.tensor([len(shapes), filters, channels])
        elif scale == "global":
            rows = rows / largest
        parts.append(rows)
    return torch.cat(parts)
