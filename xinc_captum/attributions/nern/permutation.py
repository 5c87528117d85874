"""Which kernel gets which coordinate: paths on which each kernel is like the one before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["cross-filter", "in-filter", "none"]


@dataclass(frozen=True)
class LayerOrder:
    """The paths of one layer.

    Attributes:
        filters: (F,) order of the filters, "in-filter" only.
        channels: (F, C) order of each filter's channels, "in-filter" only.
        kernels: (F · C,) order of all kernels, "cross-filter" only.
    """

    filters: Tensor | None = None
    channels: Tensor | None = None
    kernels: Tensor | None = None

    def ranks(self, shape: tuple[int, ...]) -> Tensor:
        """(F · C,): which coordinate of its layer each kernel gets, its place on the path."""
        filters, channels = shape[:2]
        if self.kernels is not None:
            return self.kernels.argsort()
        if self.filters is None or self.channels is None:
            return torch.arange(filters * channels)
        return (self.filters.argsort()[:, None] * channels + self.channels.argsort(1)).flatten()


def order_kernels(weight: Tensor, kind: Kind = "cross-filter") -> LayerOrder:
    r"""Paths through the kernels of a layer, each going on with the kernel that is most like the last.

    .. math:: \pi_0 = 0, \qquad \pi_{s + 1} = \arg\max_{j \notin \pi} \cos(w_{\pi_s}, w_j)

    "cross-filter" is one path through all kernels of the layer; "in-filter" is a path through the channels of each
    filter, then one through the filters, by the sum over places of the cosines of their ordered kernels. Cosines of 1x1
    kernels are ±1, so "cross-filter" only sorts them by sign; within a filter they are compared by −(a − b)², of values
    divided by the layer's norm. The network is untouched: only the coordinate that a kernel gets changes. Ties go to
    the lower index.

    Args:
        weight: (F, C, h, w).
        kind: one of the three.

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
    unit = F.normalize(kernels, dim=-1, eps=1e-12)
    if kind == "cross-filter":
        return LayerOrder(kernels=greedy_paths(unit.flatten(0, 1)[None])[0].cpu())
    scalars = kernels.shape[-1] == 1
    within = greedy_paths(kernels / kernels.norm(), by="distance") if scalars else greedy_paths(unit)
    places = unit.gather(1, within[..., None].expand_as(unit))
    return LayerOrder(filters=greedy_paths(places.flatten(1)[None])[0].cpu(), channels=within.cpu())


def greedy_paths(rows: Tensor, by: Literal["product", "distance"] = "product") -> Tensor:
    """Nearest-neighbour paths that start at row 0, one in each batch: (batch, n, features) to (batch, n) indices.

    ``by`` is the inner product, highest first, or the squared distance, lowest first. n steps of O(n · features), all
    batches at once; rows that were visited are thrown out once they are half of what is left.

    Example:
        >>> greedy_paths(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]])).tolist()
        [[0, 2, 1]]
    """
    batch, n, _ = rows.shape
    each = torch.arange(batch, device=rows.device)
    left, names = rows.contiguous(), torch.arange(n, device=rows.device).expand(batch, n)
    closed = torch.zeros(batch, n, dtype=rows.dtype, device=rows.device)  # 0, and −∞ where visited
    at = torch.zeros(batch, dtype=torch.long, device=rows.device)
    path, since = [], 0
    for step in range(n):
        path.append(names[each, at])
        current = left[each, at]
        closed[each, at] = -torch.inf
        since += 1
        if step == n - 1:
            break
        if since > 256 and 2 * since > left.shape[1]:
            # In order, so that ties still go to the lower index; as many are open in every batch.
            open_ = (closed == 0).nonzero()[:, 1].view(batch, -1)
            left = left.gather(1, open_[..., None].expand(-1, -1, left.shape[-1]))
            names, closed, since = names.gather(1, open_), torch.zeros_like(open_, dtype=rows.dtype), 0
        if by == "product":
            near = torch.bmm(left, current[..., None])[..., 0]
        else:
            near = -(left - current[:, None]).square().sum(-1)
        at = near.add_(closed).argmax(1)
    return torch.stack(path, 1)


def pack(order: LayerOrder) -> Tensor | None:
    """The paths in as few bits as count their indices, as bytes: ⌈log₂ n⌉ each; None where there is nothing to keep.

    Example:
        >>> len(pack(LayerOrder(kernels=torch.randperm(1000))))  # 10 bits each
        1250
    """
    if order.kernels is not None:
        bits = _bits(order.kernels, len(order.kernels))
    elif order.filters is not None and order.channels is not None:
        filters, channels = order.channels.shape
        bits = torch.cat([_bits(order.filters, filters), _bits(order.channels.flatten(), channels)])
    else:
        return None
    bits = F.pad(bits, (0, -len(bits) % 8)).view(-1, 8)
    return (bits << torch.arange(7, -1, -1)).sum(1).to(torch.uint8)


def unpack(packed: Tensor | None, shape: Sequence[int], kind: Kind) -> LayerOrder:
    """What :func:`pack` took, for a weight of this shape.

    Raises:
        ValueError: bytes that belong to another shape, or no permutation.
    """
    if kind == "none" or packed is None:
        return LayerOrder()
    filters, channels = shape[:2]
    bits = (packed.long()[:, None] >> torch.arange(7, -1, -1) & 1).flatten()
    across, down, along = (_width(n) for n in (filters * channels, filters, channels))
    cross, within = across * filters * channels, down * filters + along * filters * channels
    if len(packed) != -(-(cross if kind == "cross-filter" else within) // 8):
        raise ValueError(f"{len(packed)} bytes of a permutation do not fit kernels of shape {tuple(shape)}.")
    if kind == "cross-filter":
        order = LayerOrder(kernels=_numbers(bits[:cross], across, filters * channels))
        whole = [order.kernels]
    else:
        first, rest = bits[: down * filters], bits[down * filters : within]
        each = _numbers(rest, along, filters * channels).view(filters, channels)
        order = LayerOrder(filters=_numbers(first, down, filters), channels=each)
        whole = [order.filters, *each]
    if any(path is None or not torch.equal(path.sort().values, torch.arange(len(path))) for path in whole):
        raise ValueError(f"a permutation of kernels of shape {tuple(shape)} names some twice; the file is damaged.")
    return order


def _width(count: int) -> int:
    return (count - 1).bit_length()


def _bits(numbers: Tensor, count: int) -> Tensor:
    return (numbers[:, None] >> torch.arange(_width(count) - 1, -1, -1) & 1).flatten()


def _numbers(bits: Tensor, width: int, count: int) -> Tensor:
    return (bits.view(count, width) << torch.arange(width - 1, -1, -1)).sum(1)
