"""Represented layers, coordinates and order of their kernels, and cropping of predicted kernels."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...hooks import ForwardFunc, LayerError, exclusive, find_layer, modules_behind, refuse_sharded, unwrap

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AVERAGE_POOLS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_TRANSPOSED_CONVOLUTIONS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def parameter_name(layer: str) -> str:
    """Return the name of a layer's weight; "" is a network that is itself the layer."""
    return f"{layer}.weight" if layer else "weight"


@dataclass(frozen=True)
class Convolution:
    """One represented layer: its dotted name in the target, and its weight's (filters, channels of a group, *size)."""

    name: str
    shape: tuple[int, ...]

    @property
    def kernels(self) -> int:
        """Number of kernels: filters x channels."""
        return self.shape[0] * self.shape[1]

    @property
    def size(self) -> tuple[int, ...]:
        """Sides of a kernel: (length,), (height, width) or (depth, height, width)."""
        return self.shape[2:]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def size_in(self, dims: int) -> tuple[int, ...]:
        """Return the size with leading ones, so that it has ``dims`` numbers: (9,) is (1, 9) in two dims."""
        return (1,) * (dims - len(self.size)) + self.size


def target_behind(target: ForwardFunc) -> nn.Module:
    """Return the module that has the weights; ``target`` is this module or a function around it."""
    # A module is the target itself, whatever other models its own code refers to.
    roots = [unwrap(target)] if isinstance(target, nn.Module) else modules_behind(target)
    if isinstance(target, torch.jit.ScriptModule | torch.jit.ScriptFunction) or any(
        isinstance(root, torch.jit.ScriptModule) for root in roots
    ):
        raise LayerError(
            f"target is a {type(target).__name__}: scripted and traced models run no Python hooks, so their weights "
            "cannot be exchanged. Give the original torch.nn.Module."
        )
    if len(roots) != 1:
        classes = ", ".join(type(root).__name__ for root in roots) or "none"
        raise LayerError(f"a NeRN represents one module, but {target!r} refers to {classes}; give the module itself.")
    refuse_sharded(roots, "a NeRN")
    return roots[0]


@exclusive()
def copy_target(target: ForwardFunc) -> nn.Module:
    """Return an independent copy of the module with the weights, without the graphs of tensors that it caches."""
    root = target_behind(target)
    held = (leaf for module in root.modules() for leaf in tree_leaves(vars(module)) if isinstance(leaf, Tensor))
    return copy.deepcopy(root, {id(one): one.detach().clone() for one in held if not one.is_leaf})


@exclusive()  # a call in another thread may have exchanged the target's weights
def convolutions(target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None) -> tuple[Convolution, ...]:
    """Return the represented layers, in the order of ``layers``, or of ``named_modules()`` if it is None.

    Grouped and depthwise convolutions are represented too: their channel coordinate counts within the group. A weight
    that several convolutions share is represented once, under the name of the first. Arguments as for :class:`NeRN`.

    Raises:
        LayerError: no convolutions, an unknown layer, a layer that is not an ``nn.Conv1d``, ``nn.Conv2d`` or
            ``nn.Conv3d``, is named twice, shares its weight with another one, has a computed weight, or a weight
            without values (lazy, or on the meta device).

    Example:
        >>> convolutions(nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 2, 1)))[1]
        Convolution(name='2', shape=(2, 4, 1, 1))
    """
    root = target_behind(target)
    names = {id(module): name for name, module in root.named_modules()}
    if layers is None:
        every: dict[int, nn.Module] = {}
        for module in root.modules():
            if isinstance(module, _CONVOLUTIONS):
                weight = module._parameters.get("weight")
                every.setdefault(id(module if weight is None else weight), module)
        modules = list(every.values())
        if not modules:
            raise LayerError(
                f"the target {type(root).__name__} has no nn.Conv1d, nn.Conv2d or nn.Conv3d, and a NeRN represents "
                "kernels of convolutions; give a convolutional network."
            )
    else:
        modules = [find_layer(target, layer) for layer in layers]
        if not modules:
            raise LayerError("layers is empty; name at least one convolution, or leave it out to take all.")
    described = tuple(_describe(names[id(module)], module) for module in modules)
    twice = sorted({layer.name for layer in described if sum(other.name == layer.name for other in described) > 1})
    if twice:
        raise LayerError(f"layers names {', '.join(map(repr, twice))} twice; name every convolution once.")
    first: dict[int, str] = {}
    for layer, module in zip(described, modules, strict=True):
        first_name = first.setdefault(id(module.weight), layer.name)
        if first_name != layer.name:
            raise LayerError(f"layers {first_name!r} and {layer.name!r} share one weight; name one of them.")
    return described


def _describe(name: str, module: nn.Module) -> Convolution:
    if not isinstance(module, _CONVOLUTIONS):
        raise LayerError(
            f"layer {name!r} is a {type(module).__name__}; expected an nn.Conv1d, nn.Conv2d or nn.Conv3d: leave this "
            "layer out, and its weights stay those of the target."
        )
    weight = module._parameters.get("weight")
    if isinstance(weight, nn.parameter.UninitializedParameter) or (weight is not None and weight.is_meta):
        where = "on the meta device" if weight.is_meta else "lazy and was never called"
        raise LayerError(f"the weight of layer {name!r} has no values: it is {where}; load or run the network first.")
    if not isinstance(weight, nn.Parameter):
        raise LayerError(
            f"the weight of layer {name!r} is computed from other parameters (weight norm or another parametrization); "
            "remove that first, with torch.nn.utils.parametrize.remove_parametrizations (or torch.nn.utils."
            "remove_weight_norm for the older kind), or leave the layer out."
        )
    return Convolution(name, tuple(weight.shape))


def kernel_size_for(layers: Sequence[Convolution], kernel_size: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the size of the predicted kernels, with as many numbers as the layer of most dims has.

    An int is the side of every dim. None takes the largest side of each dim, or, if all layers are ``nn.Conv2d``, one
    side K for both dims, as in the released code.
    """
    dims = max(len(layer.size) for layer in layers)
    sizes = {layer.name: layer.size_in(dims) for layer in layers}
    largest = tuple(max(sides) for sides in zip(*sizes.values(), strict=True))
    if kernel_size is None:
        return (max(largest),) * 2 if all(len(layer.size) == 2 for layer in layers) else largest
    predicted = (kernel_size,) * dims if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(predicted) != dims or min(predicted) < 1:
        sides = "" if dims == 1 else f" or {dims} such sides,"
        raise ValueError(
            f"kernel_size is {kernel_size}; expected at least 1,{sides} or None for the largest among the layers."
        )
    larger = [name for name, size in sizes.items() if any(a > b for a, b in zip(size, predicted, strict=True))]
    if larger:
        cure = max(largest) if isinstance(kernel_size, int) else largest
        raise LayerError(
            f"kernels larger than the predicted {_by(predicted)} cannot be cut out of it: "
            f"{', '.join(f'{name!r} {_by(sizes[name])}' for name in larger)}. Take kernel_size={cure}, or leave these "
            "layers out with layers=."
        )
    return predicted


def _by(size: Sequence[int]) -> str:
    """Return a size as text, such as 3x3."""
    return "x".join(map(str, size))


Scale = Literal["index", "local", "global"]


def kernel_coordinates(shapes: Sequence[tuple[int, ...]], scale: Scale = "index") -> Tensor:
    r"""Return one row (l, f, c) for every kernel, layer by layer, filter-major: (kernels, 3) float64.

    .. math:: index: (l, f, c) \qquad local: (l/L, f/F_l, c/C_l) \qquad global: (l, f, c) / \max(L, F_{1..L}, C_{1..L})

    Symbols: l, f and c the indices of layer, filter and channel; L layers; F_l filters and C_l channels of layer l,
    whose weight has the shape (F_l, C_l, …). The released code always embeds indices, so "index" is the default.

    Raises:
        ValueError: an unknown scale.

    Example:
        >>> kernel_coordinates([(2, 1, 3, 3), (1, 2, 3, 3)]).tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]

    Source: Ashkenazi et al., "NeRN: Learning Neural Representations for Neural Networks" (ICLR 2023), sec. 3.1.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; expected one of {', '.join(map(repr, get_args(Scale)))}.")
    largest = max(len(shapes), *(max(shape[:2]) for shape in shapes))
    parts = []
    for number, (filters, channels, *_) in enumerate(shapes):
        sizes = {"index": (1, 1, 1), "local": (len(shapes), filters, channels), "global": (largest,) * 3}
        rows = torch.cartesian_prod(torch.tensor([number]), torch.arange(filters), torch.arange(channels))
        parts.append(rows.double() / torch.tensor(sizes[scale]))
    return torch.cat(parts)


Kind = Literal["cross-filter", "in-filter", "none"]


@dataclass(frozen=True)
class LayerOrder:
    """The order of a layer's kernels: ``kernels`` (F · C,), or ``filters`` (F,) and ``channels`` (F, C) if "in-filter".

    If all are None, the order is that of the weight.
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

    Symbols: π_s the kernel at step s, w_j the values of kernel j. "cross-filter" is one path through all kernels of the
    layer; "in-filter" is a path through the channels of each filter, then a path through the filters, by the summed
    cosines of their ordered kernels. Cosines of 1x1 kernels are ±1, so "cross-filter" only sorts them by sign; within a
    filter two values a and b, divided by the layer's norm, are compared by −(a − b)². The weights (F, C, …) do not
    change, only the coordinates of the kernels. Ties go to the lower index.

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

    ``by`` is the inner product, highest first, or the squared distance, lowest first. There are n steps of
    O(n · features), each for all batches; visited rows are removed once they are half of the remaining ones.

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


Crop = Literal["center", "average", "max"]
Size = tuple[int, ...]


def crop(predicted: Tensor, size: Size, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""Cut (h, w) kernels out of predicted K x K kernels; also kernels of one or three dims.

    .. math:: center: P_{o + i, o' + j} \qquad average, max: \mathrm{pool}_{(K-h+1) \times (K-w+1)}(P)_{i, j}

    Symbols: P (…, kernels, K, K), the result (…, kernels, h, w); o = ⌊(K − h)/2⌋, o' likewise; the windows of the pools
    have stride 1. "center" and "average" are linear in P. "max" takes the values at the maxima of ``chosen_by``,
    (kernels, K, K), or of P if it is None. With ``size`` (k,) or (d, h, w), P ends in one or three dims; the sides of P
    may differ.

    Raises:
        ValueError: a size larger than that of P or below 1, not of one to three dims, or an unknown method.

    Example:
        >>> crop(torch.arange(9.0).view(1, 3, 3), (1, 1)).item()
        4.0

    Source: the released code of Ashkenazi et al. (ICLR 2023), where sizes above K silently give wrong results.
    """
    dims = len(size)
    if not 1 <= dims <= 3 or predicted.dim() <= dims:
        raise ValueError(
            f"size is {size} and predicted has shape {tuple(predicted.shape)}; expected one to three sides, and "
            "(…, kernels, *sides)."
        )
    sides = tuple(predicted.shape[-dims:])
    if how not in get_args(Crop):
        raise ValueError(f"crop is {how!r}; expected one of {', '.join(map(repr, get_args(Crop)))}.")
    if not all(1 <= one <= side for one, side in zip(size, sides, strict=True)):
        raise ValueError(f"{_by(size)} kernels cannot be cut out of {_by(sides)}; predict larger ones.")
    if tuple(size) == sides:
        return predicted
    if how == "center":
        for dim, (one, side) in enumerate(zip(size, sides, strict=True), predicted.dim() - dims):
            predicted = predicted.narrow(dim, (side - one) // 2, one)
        return predicted
    leading = predicted.shape[:-dims]
    if how == "average":
        flat = _AVERAGE_POOLS[dims - 1](predicted.reshape(-1, 1, *sides), _window(size, sides), 1)
        return flat.reshape(*leading, *size)
    taps = _largest(predicted if chosen_by is None else chosen_by, size)
    flat = predicted.flatten(-dims).gather(-1, taps.expand(*leading, -1))
    return flat.reshape(*leading, *size)


def uncrop(weights: Tensor, side: int | Size, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""Return the transpose of :func:`crop`: gradients of cut kernels as gradients of predicted kernels.

    .. math:: \langle \mathrm{crop}(P), G \rangle = \langle P, \mathrm{uncrop}(G) \rangle

    Symbols: G (…, kernels, h, w), the result (…, kernels, K, K) with K = ``side``; other arguments as for :func:`crop`.
    For one or three dims, or sides that differ, ``side`` is a tuple.

    Raises:
        ValueError: "max" without ``chosen_by``.

    Example:
        >>> uncrop(torch.ones(1, 1, 1), 3)[0, 1].tolist()
        [0.0, 1.0, 0.0]
    """
    sides = (side, side) if isinstance(side, int) else tuple(side)
    dims = len(sides)
    size, leading = tuple(weights.shape[-dims:]), weights.shape[:-dims]
    if size == sides:
        return weights
    if how == "center":
        padding: list[int] = []
        for one, full in zip(reversed(size), reversed(sides), strict=True):  # F.pad takes the last dim first
            padding += [(full - one) // 2, full - one - (full - one) // 2]
        return F.pad(weights, padding)
    if how == "average":
        window = torch.ones(1, 1, *_window(size, sides), dtype=weights.dtype, device=weights.device)
        spread: Tensor = _TRANSPOSED_CONVOLUTIONS[dims - 1](weights.reshape(-1, 1, *size), window / window.numel())
        return spread.reshape(*leading, *sides)
    if chosen_by is None:
        raise ValueError("the transpose of 'max' needs chosen_by=, the predicted kernels.")
    taps = _largest(chosen_by, size).expand(*leading, -1)
    flat = torch.zeros(*leading, math.prod(sides), dtype=weights.dtype, device=weights.device)
    return flat.scatter_add(-1, taps, weights.flatten(-dims)).reshape(*leading, *sides)


def _window(size: Size, sides: Size) -> list[int]:
    """Return the sides of the pooling windows, of stride 1, that reduce ``sides`` to ``size``."""
    return [side - one + 1 for one, side in zip(size, sides, strict=True)]


def _largest(predicted: Tensor, size: Size) -> Tensor:
    """Return flat indices (…, kernels, numbers of a kernel) of the maximum of each window."""
    dims = len(size)
    sides = tuple(predicted.shape[-dims:])
    flat = predicted.detach().reshape(-1, 1, *sides)
    _, taps = _MAX_POOLS[dims - 1](flat, _window(size, sides), 1, return_indices=True)
    return taps.reshape(*predicted.shape[:-dims], -1)
