"""The plain way to fewer bytes, beside every NeRN: the same weights in few bits, one scale a filter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...hooks import ForwardFunc, exclusive
from .convolutions import convolutions, parameter_name, target_behind
from .nern_file import kept


class Quantised(NamedTuple):
    """A network whose weights, or those of some convolutions, were rounded.

    Attributes:
        model: a plain module with the rounded weights in it, as floats.
        bytes: of a safetensors file with the integers, the scales and the rest of the network.
        relative_error: ‖W − Ŵ‖ / ‖W‖ over the rounded weights.
    """

    model: nn.Module
    bytes: int
    relative_error: float


def quantised(
    target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None, bits: int = 8, *, all_weights: bool = False
) -> Quantised:
    r"""Round the weights of convolutions to integers of so many bits, one scale a filter.

    .. math:: \hat W_f = s_f \,\mathrm{round}(W_f / s_f), \qquad s_f = \max |W_f| / (2^{bits - 1} - 1)

    Args:
        target: the network; a copy is changed.
        layers: as in :class:`NeRN`.
        all_weights: round every parameter of two or more dims, such as those of linear layers, and not ``layers``
            alone. Biases and buffers stay as they are. A file of a whole network in so many bits has this size.
        bits: 2 to 8; two integers of 4 bits share a byte, and so on, and scales are float32.

    Raises:
        LayerError: as :class:`NeRN`.
        ValueError: other bits.

    Example:
        >>> found = quantised(nn.Sequential(nn.Conv2d(3, 8, 3)), bits=4)
        >>> found.relative_error < 0.2
        True

    Source: per-channel symmetric rounding to nearest, e.g. Krishnamoorthi (arXiv 1806.08342), sec. 2.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; wanted 2 to 8.")
    chosen = convolutions(target, layers)
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    weights = {layer.name: model.get_parameter(parameter_name(layer.name)) for layer in chosen}
    if all_weights:
        known = {id(weight) for weight in weights.values()}
        weights |= {
            name: weight
            for name, weight in model.named_parameters()
            if weight.dim() > 1 and weight.is_floating_point() and id(weight) not in known
        }
    changed = {id(weight) for weight in weights.values()}
    shared = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in changed}
    tensors = {f"kept.{name}": value for name, value in kept(model, chosen).items() if name not in shared}
    error = total = 0.0
    with torch.no_grad():
        for name, weight in weights.items():
            scale, whole = rounded(weight, bits)
            found = (whole * scale).to(weight)
            error += float((found - weight).double().square().sum())
            total += float(weight.double().square().sum())
            weight.copy_(found)
            tensors[f"scale.{name}"] = scale.flatten().float().cpu().contiguous()
            tensors[f"weight.{name}"] = packed_integers(whole, bits)
    return Quantised(model, len(save(tensors)), (error / total) ** 0.5 if total else 0.0)


def rounded(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A scale for each first index, (F, 1, …), and the integers, as floats shaped like the weight."""
    most = 2 ** (bits - 1) - 1
    flat = weight.detach().flatten(1).float()
    scale = (flat.abs().amax(1) / most).clamp_min(torch.finfo(torch.float32).tiny)
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return scale, (weight.detach().float() / scale).round().clamp(-most, most)


def packed_integers(whole: Tensor, bits: int) -> Tensor:
    """Two's complement, ``bits`` a number, as bytes."""
    numbers = whole.flatten().long().cpu() & (2**bits - 1)
    each = (numbers[:, None] >> torch.arange(bits - 1, -1, -1) & 1).flatten()
    each = nn.functional.pad(each, (0, -len(each) % 8)).view(-1, 8)
    return (each << torch.arange(7, -1, -1)).sum(1).to(torch.uint8)
