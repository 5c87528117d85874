"""NeRV: a network that draws a whole frame from its time."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .encodings import NerfFrequencies
from .layers import Layers, activation_maker, seeded
from .upsampling import Activation, described, grid_of


class NeRV(Layers):
    r"""Time → encoding → stem → (convolution → pixel shuffle → activation) x blocks → head.

    .. math:: frame(t) = head(block_n(\cdots block_1(stem(\gamma(t)))))

    Children, in order: ``encoding``; ``stem`` with ``linear1``, ``activation1``, … and ``map``, which folds a row into
    (width, height, width of the first map); ``blocks.0`` … with ``conv``, ``shuffle``, ``activation``; ``head``, a
    convolution; ``squash`` if asked for. Without it the pixels lie near [0, 1], not strictly in it: the last layer
    stays linear, so that what its units paint adds up.

    Args:
        size: (H, W) of a frame; the product of the strides must divide both.
        widths: channels of the stem's map and of each block's; :func:`reduced` makes some.
        strides: how much each block enlarges.
        kernel_sizes: of the blocks: one odd number, or one each.
        stem: units of the hidden layers before the stem's last one.
        octaves: frequencies of the encoding of time.
        base: from each frequency to the next.
        activation: a name, or what makes the module (``Sine``); one with a name can be saved.
        head_kernel_size: odd.
        channels: of a frame.
        squash: end with a sigmoid.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: sizes that do not fit one another.

    Example:
        >>> from xinc_captum.inr import times
        >>> NeRV((16, 24), widths=(4, 4, 4), strides=(2, 2))(times(5)).shape
        torch.Size([5, 3, 16, 24])

    Source: Chen et al., "NeRV: Neural Representations for Videos" (NeurIPS 2021), sec. 3.
    """

    def __init__(
        self,
        size: tuple[int, int],
        widths: Sequence[int] = (9, 24, 20, 14),
        strides: Sequence[int] = (2, 2, 2),
        *,
        kernel_sizes: int | Sequence[int] = 3,
        stem: Sequence[int] = (64,),
        octaves: int = 20,
        base: float = 1.25,
        activation: Activation = "gelu",
        head_kernel_size: int = 3,
        channels: int = 3,
        squash: bool = False,
        seed: int | None = None,
    ) -> None:
        self.config: dict[str, Any] = {
            "size": list(size),
            "widths": list(widths),
            "strides": list(strides),
            "kernel_sizes": kernel_sizes if isinstance(kernel_sizes, int) else list(kernel_sizes),
            "stem": list(stem),
            "octaves": octaves,
            "base": base,
            "activation": activation,
            "head_kernel_size": head_kernel_size,
            "channels": channels,
            "squash": squash,
        }
        grid = grid_of(size, strides)
        activate = activation_maker(activation)
        with seeded(seed):
            encode = NerfFrequencies(1, octaves, base)
            first: OrderedDict[str, nn.Module] = OrderedDict()
            width = encode.out_features
            for i, units in enumerate((*stem, widths[0] * math.prod(grid)), start=1):
                first[f"linear{i}"] = nn.Linear(width, units)
                first[f"activation{i}"] = activate()
                width = units
            first["map"] = nn.Unflatten(1, (widths[0], *grid))
            parts = described(self.config)
        super().__init__(OrderedDict(encoding=encode, stem=Layers(first), **parts))

    def forward(self, t: Tensor) -> Tensor:
        """(rows,) or (rows, 1) times in [0, 1] to frames (rows, C, H, W).

        Raises:
            ValueError: another shape, or whole numbers.
        """
        if t.dim() not in (1, 2) or (t.dim() == 2 and t.shape[1] != 1) or not t.is_floating_point():
            raise ValueError(
                f"times are {t.dtype} of shape {tuple(t.shape)}; wanted floats in [0, 1] of shape (rows,) or "
                "(rows, 1), as times(frames) makes them."
            )
        frames: Tensor = super().forward(t.reshape(-1, 1))
        return frames
