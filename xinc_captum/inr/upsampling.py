"""What NeRV and HNeRV share: blocks that enlarge a map by moving channels into space, and a head that paints."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .layers import Layers, activation_maker

Activation = str | Callable[[], nn.Module]


class UpsamplingBlock(Layers):
    r"""Convolution → pixel shuffle → activation: (rows, c, h, w) to (rows, width, stride h, stride w).

    .. math:: y[o, s i + a, s j + b] = \sigma\big((W * x)[o s^2 + a s + b, i, j]\big), \quad 0 \le a, b < s

    Symbols: s the stride; W the kernels, zero padded so that the convolution keeps the size; σ the activation.
    Children, in order: ``conv``, ``shuffle``, ``activation``.

    Args:
        channels: of the map that comes in.
        width: channels of the map that goes out.
        stride: how much taller and wider it gets; 1 keeps the size.
        kernel_size: odd.
        activation: a name, or what makes the module.

    Example:
        >>> UpsamplingBlock(4, 6, stride=2)(torch.rand(1, 4, 3, 5)).shape
        torch.Size([1, 6, 6, 10])

    Source: Chen et al., "NeRV" (NeurIPS 2021), sec. 3.
    """

    def __init__(
        self, channels: int, width: int, stride: int = 2, kernel_size: int = 3, activation: Activation = "gelu"
    ) -> None:
        conv = nn.Conv2d(channels, width * stride**2, kernel_size, padding=kernel_size // 2)
        parts = OrderedDict(conv=conv, shuffle=nn.PixelShuffle(stride), activation=activation_maker(activation)())
        super().__init__(parts)


def reduced(width: int, blocks: int, reduction: float = 1.2, least: int = 12) -> tuple[int, ...]:
    r"""Widths that shrink from block to block, for ``widths=``.

    .. math:: w_0 = width, \quad w_{k+1} = \max(\mathrm{round}(w_k / reduction), least)

    Args:
        width: channels of the first map.
        blocks: how many blocks follow it.
        reduction: every block divides by this much.
        least: no width falls below.

    Raises:
        ValueError: a width or a reduction that is not positive.

    Example:
        >>> reduced(36, 3, reduction=1.5)
        (36, 24, 16, 12)

    Source: Chen et al., "HNeRV: A Hybrid Neural Representation for Videos" (CVPR 2023), sec. 3.
    """
    if width < 1 or least < 1 or reduction <= 0:
        raise ValueError(
            f"width is {width}, least is {least} and reduction is {reduction:g}; wanted all three above zero."
        )
    widths = [width]
    for _ in range(blocks):
        widths.append(max(round(widths[-1] / reduction), least))
    return tuple(widths)


def grid_of(size: tuple[int, int], strides: Sequence[int]) -> tuple[int, int]:
    """Height and width of the map that the blocks start from.

    Raises:
        ValueError: a stride below 1, or a side of the picture that the strides do not divide.
    """
    if not strides or min(strides) < 1:
        raise ValueError(f"strides are {tuple(strides)}; wanted at least one block, each with a stride of at least 1.")
    factor = math.prod(strides)
    if len(size) != 2 or min(size) < 1 or any(side % factor for side in size):
        raise ValueError(
            f"size is {tuple(size)} and the strides {tuple(strides)} enlarge {factor} times; wanted a height and a "
            f"width that {factor} divides. Choose other strides, or read the video with size= such a pair."
        )
    return size[0] // factor, size[1] // factor


def upsampling(
    widths: Sequence[int],
    strides: Sequence[int],
    kernel_sizes: int | Sequence[int],
    *,
    head_kernel_size: int,
    activation: Activation,
    channels: int,
    squash: bool,
) -> "OrderedDict[str, nn.Module]":
    """The parts after a stem: ``blocks``, ``head`` and, to stay within [0, 1], ``squash``.

    Raises:
        ValueError: widths or kernel sizes that do not match the strides, or an even or empty kernel.
    """
    if len(widths) != len(strides) + 1 or min(widths) < 1:
        raise ValueError(
            f"widths are {tuple(widths)} for {len(strides)} blocks; wanted {len(strides) + 1} of at least 1: of the "
            "stem's map, and of each block."
        )
    kernels = [kernel_sizes] * len(strides) if isinstance(kernel_sizes, int) else list(kernel_sizes)
    if len(kernels) != len(strides):
        raise ValueError(
            f"kernel_sizes are {tuple(kernels)} for {len(strides)} blocks; wanted one each, or one number."
        )
    if any(kernel < 1 or kernel % 2 == 0 for kernel in (*kernels, head_kernel_size)):
        raise ValueError(
            f"kernels are {(*kernels, head_kernel_size)} wide, the head's last; wanted odd ones, which have a middle."
        )
    blocks = [
        UpsamplingBlock(before, width, stride, kernel, activation)
        for before, width, stride, kernel in zip(widths[:-1], widths[1:], strides, kernels, strict=True)
    ]
    head = nn.Conv2d(widths[-1], channels, head_kernel_size, padding=head_kernel_size // 2)
    torch.nn.init.constant_(head.bias, 0.0 if squash else 0.5)  # type: ignore[arg-type]  # start from grey
    parts: OrderedDict[str, nn.Module] = OrderedDict(blocks=Layers(*blocks), head=head)
    if squash:
        parts["squash"] = nn.Sigmoid()
    return parts


def described(config: Mapping[str, Any]) -> "OrderedDict[str, nn.Module]":
    """The parts after a stem, as a network's ``config`` describes them."""
    names = "widths strides kernel_sizes head_kernel_size activation channels squash".split()
    return upsampling(**{name: config[name] for name in names})
