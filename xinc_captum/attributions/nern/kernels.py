"""Represented layers, coordinates of their kernels, and cropping of predicted kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hooks import ForwardFunc, LayerError, exclusive, find_layer, modules_behind, refuse_sharded, unwrap


def parameter_name(layer: str) -> str:
    """Return the name of a layer's weight; "" is a network that is itself the layer."""
    return f"{layer}.weight" if layer else "weight"


@dataclass(frozen=True)
class Convolution:
    """One represented layer: its dotted name in the target, and its weight's (filters, channels of a group, h, w)."""

    name: str
    shape: tuple[int, int, int, int]

    @property
    def kernels(self) -> int:
        """Number of kernels: filters x channels."""
        return self.shape[0] * self.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a kernel."""
        return self.shape[2:]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.kernels * self.shape[2] * self.shape[3]


def target_behind(target: ForwardFunc) -> nn.Module:
    """Return the module with the weights, from that module or a function around it."""
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


@exclusive()  # a call in another thread may have exchanged the target's weights
def convolutions(target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None) -> tuple[Convolution, ...]:
    """Return the represented layers, in the order of ``layers``, or of ``named_modules()`` if it is None.

    Grouped and depthwise convolutions are represented too: their channel coordinate counts within the group. A weight
    that several convolutions share is represented once, under the name of the first. Arguments as for :class:`NeRN`.

    Raises:
        LayerError: no convolutions, an unknown layer, a layer that is not an ``nn.Conv2d``, is named twice, shares its
            weight with another one, has a computed weight, or a weight without values (lazy, or on the meta device).

    Example:
        >>> convolutions(nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 2, 1)))[1]
        Convolution(name='2', shape=(2, 4, 1, 1))
    """
    root = target_behind(target)
    names = {id(module): name for name, module in root.named_modules()}
    if layers is None:
        every: dict[int, nn.Module] = {}
        for module in root.modules():
            if isinstance(module, nn.Conv2d):
                weight = module._parameters.get("weight")
                every.setdefault(id(module if weight is None else weight), module)
        modules = list(every.values())
        if not modules:
            raise LayerError(
                f"the target {type(root).__name__} has no nn.Conv2d, and a NeRN represents kernels of convolutions; "
                "give a convolutional network."
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


@exclusive()
def find_represented(target: ForwardFunc, layers: Sequence[Convolution], layer: nn.Module | str) -> Convolution:
    """Return the entry of ``layers`` for a module or a dotted name."""
    module, root = find_layer(target, layer), target_behind(target)
    weight = module._parameters.get("weight")
    for one in layers:
        if weight is not None and root.get_submodule(one.name)._parameters["weight"] is weight:
            return one
    name = next((name for name, other in root.named_modules() if other is module), str(layer))
    raise LayerError(
        f"layer {name!r} is a {type(module).__name__} that this NeRN does not represent; expected one of "
        f"{', '.join(repr(one.name) for one in layers)}."
    )


def _describe(name: str, module: nn.Module) -> Convolution:
    if not isinstance(module, nn.Conv2d):
        raise LayerError(
            f"layer {name!r} is a {type(module).__name__}; expected an nn.Conv2d, whose kernels are (h, w)."
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
    filters, channels, height, width = weight.shape
    return Convolution(name, (filters, channels, height, width))


def check_finite_weights(weights: Mapping[str, Tensor]) -> None:
    """Check that all weights are finite."""
    bad = [name for name, weight in weights.items() if not bool(torch.isfinite(weight).all())]
    if bad:
        raise LayerError(
            f"the weights of {', '.join(map(repr, bad))} hold NaN or infinite values, which cannot be approximated; "
            "load another network, or leave these layers out with layers=."
        )


def kernel_size_for(layers: Sequence[Convolution], kernel_size: int | None) -> int:
    """Return the side K of the predicted kernels; None takes the largest side among the layers."""
    largest = max(max(layer.size) for layer in layers)
    if kernel_size is None:
        return largest
    if kernel_size < 1:
        raise ValueError(
            f"kernel_size is {kernel_size}; expected at least 1, or None for the largest among the layers."
        )
    if kernel_size < largest:
        larger = ", ".join(f"{one.name!r} {one.size[0]}x{one.size[1]}" for one in layers if max(one.size) > kernel_size)
        raise LayerError(
            f"kernels larger than the predicted {kernel_size}x{kernel_size} cannot be cut out of it: {larger}. Take "
            f"kernel_size={largest}, or leave these layers out with layers=."
        )
    return kernel_size


Scale = Literal["index", "local", "global"]


def kernel_coordinates(shapes: Sequence[tuple[int, ...]], scale: Scale = "index") -> Tensor:
    r"""Return one row (l, f, c) for every kernel, layer by layer, filter-major: (kernels, 3) float64.

    .. math:: index: (l, f, c) \qquad local: (l/L, f/F_l, c/C_l) \qquad global: (l, f, c) / \max(L, F_{1..L}, C_{1..L})

    Symbols: L layers, F_l filters and C_l channels of layer l, whose weights have the ``shapes`` (F, C, …). The
    released code always embeds indices, whatever its options, so "index" is the default.

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
        f, c = torch.meshgrid(torch.arange(filters), torch.arange(channels), indexing="ij")
        rows = torch.stack([torch.full_like(f, number), f, c], -1).reshape(-1, 3).double()
        if scale == "local":
            rows = rows / torch.tensor([len(shapes), filters, channels])
        elif scale == "global":
            rows = rows / largest
        parts.append(rows)
    return torch.cat(parts)


Crop = Literal["center", "average", "max"]
Size = tuple[int, int]


def crop(predicted: Tensor, size: Size, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""Cut (h, w) kernels out of predicted K x K kernels.

    .. math:: center: P_{o + i, o' + j} \qquad average, max: \mathrm{pool}_{(K-h+1) \times (K-w+1)}(P)_{i, j}

    Symbols: P (…, kernels, K, K), the result (…, kernels, h, w); o = ⌊(K − h)/2⌋, o' likewise; the windows of the pools
    have stride 1. Linear in P, except "max", which takes the positions of the maxima of ``chosen_by``,
    (kernels, K, K), or of P.

    Raises:
        ValueError: a size larger than K or below 1, or an unknown method.

    Example:
        >>> crop(torch.arange(9.0).view(1, 3, 3), (1, 1)).item()
        4.0

    Source: the released code of Ashkenazi et al. (ICLR 2023), where sizes above K silently give wrong results.
    """
    side = predicted.shape[-1]
    height, width = size
    if how not in get_args(Crop):
        raise ValueError(f"crop is {how!r}; expected one of {', '.join(map(repr, get_args(Crop)))}.")
    if not (1 <= height <= side and 1 <= width <= side):
        raise ValueError(f"{height}x{width} kernels cannot be cut out of {side}x{side}; predict larger ones.")
    if size == (side, side):
        return predicted
    if how == "center":
        row, column = (side - height) // 2, (side - width) // 2
        return predicted[..., row : row + height, column : column + width]
    if how == "average":
        flat = F.avg_pool2d(predicted.reshape(-1, 1, side, side), (side - height + 1, side - width + 1), 1)
        return flat.reshape(*predicted.shape[:-2], height, width)
    taps = _largest(predicted if chosen_by is None else chosen_by, size)
    flat = predicted.flatten(-2).gather(-1, taps.expand(*predicted.shape[:-2], -1))
    return flat.reshape(*predicted.shape[:-2], height, width)


def uncrop(weights: Tensor, side: int, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""Return the transpose of :func:`crop`: gradients of cut kernels as gradients of predicted kernels.

    .. math:: \langle \mathrm{crop}(P), G \rangle = \langle P, \mathrm{uncrop}(G) \rangle

    Symbols: G (…, kernels, h, w), the result (…, kernels, K, K) with K = ``side``; other arguments as for :func:`crop`.

    Raises:
        ValueError: "max" without ``chosen_by``.

    Example:
        >>> uncrop(torch.ones(1, 1, 1), 3)[0, 1].tolist()
        [0.0, 1.0, 0.0]
    """
    height, width = weights.shape[-2:]
    if (height, width) == (side, side):
        return weights
    if how == "center":
        row, column = (side - height) // 2, (side - width) // 2
        return F.pad(weights, (column, side - width - column, row, side - height - row))
    if how == "average":
        window = torch.ones(1, 1, side - height + 1, side - width + 1, dtype=weights.dtype, device=weights.device)
        flat = F.conv_transpose2d(weights.reshape(-1, 1, height, width), window / window.numel())
        return flat.reshape(*weights.shape[:-2], side, side)
    if chosen_by is None:
        raise ValueError("the transpose of 'max' needs chosen_by=, the predicted kernels.")
    taps = _largest(chosen_by, (height, width)).expand(*weights.shape[:-2], -1)
    flat = torch.zeros(*weights.shape[:-2], side * side, dtype=weights.dtype, device=weights.device)
    return flat.scatter_add(-1, taps, weights.flatten(-2)).reshape(*weights.shape[:-2], side, side)


def _largest(predicted: Tensor, size: Size) -> Tensor:
    """Return flat indices (…, kernels, h · w) of the maximum of each window."""
    side = predicted.shape[-1]
    window = (side - size[0] + 1, side - size[1] + 1)
    flat = predicted.detach().reshape(-1, 1, side, side)
    _, taps = F.max_pool2d(flat, window, 1, return_indices=True)
    return taps.reshape(*predicted.shape[:-2], -1)
