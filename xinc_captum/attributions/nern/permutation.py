"""The order in which kernels get coordinates: paths on which consecutive kernels are similar."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["cross-filter", "in-filter", "none"]


@dataclass(frozen=True)
class LayerOrder:
    """The order of the kernels of one layer.

    Attributes:
        filters: (F,) order of the filters, "in-filter" only.
        channels: (F, C) order of each filter's channels, "in-filter" only.
        kernels: (F · C,) order of all kernels, "cross-filter" only.
    """

    filters: Tensor | None = None
    channels: Tensor | None = None
    kernels: Tensor | None = None

    def ranks(self, shape: tuple[int, ...]) -> Tensor:
        """Return the position of each kernel on the path, which is its coordinate: (F · C,)."""
        filters, channels = shape[:2]
        if self.kernels is not None:
            return self.kernels.argsort()
        if self.filters is None or self.channels is None:
            return torch.arange(filters * channels)
        return (self.filters.argsort()[:, None] * channels + self.channels.argsort(1)).flatten()


def order_kernels(weight: Tensor, kind: Kind = "cross-filter") -> LayerOrder:
    r"""Return paths through the kernels of a layer; each next kernel is the one most similar to the last.

    .. math:: \pi_0 = 0, \qquad \pi_{s + 1} = \arg\max_{j \notin \pi} \cos(w_{\pi_s}, w_j)

    "cross-filter" is one path through all kernels of the layer; "in-filter" is a path through the channels of each
    filter, then a path through the filters, by the summed cosines of their ordered kernels. Cosines of 1x1
    kernels are ±1, so "cross-filter" only sorts them by sign; within a filter they are compared by −(a − b)², of values
    divided by the layer's norm. The weights (F, C, h, w) do not change, only the coordinates of the kernels. Ties go
    to the lower index.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> order_kernels(torch.tensor([1.0, -1.0, 2.0, -2.0]).view(2, 2, 1, 1)).kernels.tolist()
        [0, 2, 1, 3]

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.3, and the released code.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"permutation is {kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}.")
    if kind == "none":
        return LayerOrder()
    filters, channels = weight.shape[:2]
    kernels = weight.detach().float().reshape(filters, channels, -1)
    directions = F.normalize(kernels, dim=-1, eps=1e-12)
    if kind == "cross-filter":
        return LayerOrder(kernels=greedy_paths(directions.flatten(0, 1)[None])[0].cpu())
    scalars = kernels.shape[-1] == 1
    within = greedy_paths(kernels / kernels.norm(), by="distance") if scalars else greedy_paths(directions)
    ordered_directions = directions.gather(1, within[..., None].expand_as(directions))
    return LayerOrder(filters=greedy_paths(ordered_directions.flatten(1)[None])[0].cpu(), channels=within.cpu())


def greedy_paths(rows: Tensor, by: Literal["product", "distance"] = "product") -> Tensor:
    """Return nearest-neighbour paths from row 0, one for each batch: (batch, n, features) to (batch, n) indices.

    ``by`` is the inner product, highest first, or the squared distance, lowest first. n steps of O(n · features),
    batched; visited rows are removed once they are half of the remaining ones.

    Example:
        >>> greedy_paths(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]])).tolist()
        [[0, 2, 1]]
    """
    batch, n, _ = rows.shape
    batch_index = torch.arange(batch, device=rows.device)
    remaining, indices = rows.contiguous(), torch.arange(n, device=rows.device).expand(batch, n)
    visited_mask = torch.zeros(batch, n, dtype=rows.dtype, device=rows.device)  # 0, and −∞ where visited
    current_index = torch.zeros(batch, dtype=torch.long, device=rows.device)
    path, visited = [], 0
    for step in range(n):
        path.append(indices[batch_index, current_index])
        current = remaining[batch_index, current_index]
        visited_mask[batch_index, current_index] = -torch.inf
        visited += 1
        if step == n - 1:
            break
        if visited > 256 and 2 * visited > remaining.shape[1]:
            # In order, so that ties still go to the lower index; each batch has the same number of unvisited rows.
            unvisited = (visited_mask == 0).nonzero()[:, 1].view(batch, -1)
            remaining = remaining.gather(1, unvisited[..., None].expand(-1, -1, remaining.shape[-1]))
            indices, visited = indices.gather(1, unvisited), 0
            visited_mask = torch.zeros_like(unvisited, dtype=rows.dtype)
        if by == "product":
            similarity = torch.bmm(remaining, current[..., None])[..., 0]
        else:
            similarity = -(remaining - current[:, None]).square().sum(-1)
        current_index = similarity.add_(visited_mask).argmax(1)
    return torch.stack(path, 1)


def pack(order: LayerOrder) -> Tensor | None:
    """Pack the paths into bytes with ⌈log₂ n⌉ bits for each index; None for the natural order."""
    if order.kernels is not None:
        return to_bytes(to_bits(order.kernels, _width(len(order.kernels))))
    if order.filters is None or order.channels is None:
        return None
    filters, channels = order.channels.shape
    return to_bytes(
        torch.cat([to_bits(order.filters, _width(filters)), to_bits(order.channels.flatten(), _width(channels))])
    )


def unpack(packed: Tensor | None, shape: Sequence[int], kind: Kind) -> LayerOrder:
    """Return the order that :func:`pack` packed, for a weight of this shape."""
    if kind == "none" or packed is None:
        return LayerOrder()
    filters, channels = shape[:2]
    bits = to_bits(packed.long(), 8)
    kernel_bits, filter_bits, channel_bits = (_width(n) for n in (filters * channels, filters, channels))
    cross_length = kernel_bits * filters * channels
    within_length = filter_bits * filters + channel_bits * filters * channels
    if len(packed) != -(-(cross_length if kind == "cross-filter" else within_length) // 8):
        raise ValueError(f"{len(packed)} bytes of a permutation do not fit kernels of shape {tuple(shape)}.")
    if kind == "cross-filter":
        order = LayerOrder(kernels=_numbers(bits[:cross_length], kernel_bits, filters * channels))
        paths = [order.kernels]
    else:
        filter_part, channel_part = bits[: filter_bits * filters], bits[filter_bits * filters : within_length]
        channels_of_filters = _numbers(channel_part, channel_bits, filters * channels).view(filters, channels)
        order = LayerOrder(filters=_numbers(filter_part, filter_bits, filters), channels=channels_of_filters)
        paths = [order.filters, *channels_of_filters]
    if any(path is None or not torch.equal(path.sort().values, torch.arange(len(path))) for path in paths):
        raise ValueError(f"a permutation of kernels of shape {tuple(shape)} contains duplicates; the file is damaged.")
    return order


def _width(count: int) -> int:
    return (count - 1).bit_length()


def to_bits(numbers: Tensor, width: int) -> Tensor:
    """Return the lowest ``width`` bits of each integer, the highest bit first."""
    return (numbers[:, None] >> torch.arange(width - 1, -1, -1) & 1).flatten()


def to_bytes(bits: Tensor) -> Tensor:
    """Return bytes of eight bits, the last one filled up with zeros."""
    return _numbers(F.pad(bits, (0, -len(bits) % 8)), 8, -(-len(bits) // 8)).to(torch.uint8)


def _numbers(bits: Tensor, width: int, count: int) -> Tensor:
    return (bits.view(count, width) << torch.arange(width - 1, -1, -1)).sum(1)
