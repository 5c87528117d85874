"""The yardstick of a weight error: the same error, spread at random."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from ...hooks import ForwardFunc, exclusive
from .convolutions import convolutions, parameter_name, target_behind


def with_noise(
    target: ForwardFunc, relative: float, layers: Sequence[nn.Module | str] | None = None, *, seed: int = 0
) -> nn.Module:
    r"""A copy of the target whose convolutions are off by a given share of their size, in a random direction.

    .. math:: \hat W_l = W_l + r\, \lVert W_l \rVert\, n_l / \lVert n_l \rVert, \qquad n_l \sim N(0, 1)

    A NeRN's relative error says little alone: one that was distilled errs where it does not matter. How accurate a
    network is under noise of the same size tells how much.

    Args:
        target: the network, or a function around it.
        relative: r, of every layer.
        layers: as in :class:`NeRN`.
        seed: of the directions, drawn on the CPU.

    Raises:
        LayerError: as :class:`NeRN`.
        ValueError: a negative r.

    Example:
        >>> conv = nn.Conv2d(3, 4, 3)
        >>> round(float((with_noise(conv, 0.5).weight - conv.weight).norm() / conv.weight.norm()), 4)
        0.5
    """
    if not relative >= 0:
        raise ValueError(f"relative is {relative}; wanted at least 0.")
    chosen = convolutions(target, layers)
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in chosen:
            weight = model.get_parameter(parameter_name(layer.name))
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(noise * (relative * weight.norm() / noise.norm()))
    return model
