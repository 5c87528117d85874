"""Video networks: NeRV and HNeRV."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import python_index
from .coordinates import NerfFrequencies
from .mlp import Layers, activation_maker, arguments_of, seeded

Activation = str | Callable[[], nn.Module]


class UpsamplingBlock(Layers):
    r"""Convolution → pixel shuffle → activation: (rows, c, h, w) to (rows, width, stride h, stride w).

    .. math:: y[o, s i + a, s j + b] = \sigma\big((W * x)[o s^2 + a s + b, i, j]\big), \quad 0 \le a, b < s

    Symbols: s the stride; W the kernels, zero padded so that the convolution keeps the size; σ the activation.

    Source: Chen et al., "NeRV" (NeurIPS 2021), sec. 3.
    """

    def __init__(
        self, channels: int, width: int, stride: int = 2, kernel_size: int = 3, activation: Activation = "gelu"
    ) -> None:
        conv = nn.Conv2d(channels, width * stride**2, kernel_size, padding=kernel_size // 2)
        parts = OrderedDict(conv=conv, shuffle=nn.PixelShuffle(stride), activation=activation_maker(activation)())
        super().__init__(parts)


def shrinking_widths(width: int, blocks: int, reduction: float = 1.2, least: int = 12) -> tuple[int, ...]:
    r"""Return widths that shrink from block to block, for ``widths=``.

    .. math:: w_0 = width, \quad w_{k+1} = \max(\mathrm{round}(w_k / reduction), least)

    The first map has ``width`` channels, and the result has one more entry than ``blocks``.

    Raises:
        ValueError: a width or a reduction that is not positive.

    Example:
        >>> shrinking_widths(36, 3, reduction=1.5)
        (36, 24, 16, 12)

    Source: Chen et al., "HNeRV: A Hybrid Neural Representation for Videos" (CVPR 2023), sec. 3.
    """
    if width < 1 or least < 1 or reduction <= 0:
        raise ValueError(
            f"width is {width}, least is {least} and reduction is {reduction:g}; expected all three above 0."
        )
    widths = [width]
    for _ in range(blocks):
        widths.append(max(round(widths[-1] / reduction), least))
    return tuple(widths)


def grid_of(size: tuple[int, int], strides: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the first map."""
    if not strides or min(strides) < 1:
        raise ValueError(
            f"strides are {tuple(strides)}; expected at least one block, each with a stride of at least 1."
        )
    factor = math.prod(strides)
    if len(size) != 2 or min(size) < 1 or any(side % factor for side in size):
        raise ValueError(
            f"size is {tuple(size)} and the strides {tuple(strides)} enlarge {factor} times; expected a height and a "
            f"width that {factor} divides. Choose other strides, or read the video with another size=."
        )
    return size[0] // factor, size[1] // factor


def blocks_from_config(config: Mapping[str, Any]) -> "OrderedDict[str, nn.Module]":
    """Build ``blocks``, ``head`` and, for outputs within [0, 1], ``squash`` from the ``config`` of a network."""
    widths, strides, kernel_sizes = config["widths"], config["strides"], config["kernel_sizes"]
    head_kernel_size, squash = config["head_kernel_size"], config["squash"]
    if len(widths) != len(strides) + 1 or min(widths) < 1:
        raise ValueError(
            f"widths are {tuple(widths)} for {len(strides)} blocks; expected {len(strides) + 1} of at least 1: one "
            "of the stem and one of each block."
        )
    kernels = [kernel_sizes] * len(strides) if isinstance(kernel_sizes, int) else list(kernel_sizes)
    if len(kernels) != len(strides):
        raise ValueError(
            f"kernel_sizes are {tuple(kernels)} for {len(strides)} blocks; expected one each, or one number."
        )
    if any(kernel < 1 or kernel % 2 == 0 for kernel in (*kernels, head_kernel_size)):
        raise ValueError(
            f"kernels are {(*kernels, head_kernel_size)} wide (the last one is the head's); expected odd sizes."
        )
    blocks = [
        UpsamplingBlock(before, width, stride, kernel, config["activation"])
        for before, width, stride, kernel in zip(widths[:-1], widths[1:], strides, kernels, strict=True)
    ]
    head = nn.Conv2d(widths[-1], config["channels"], head_kernel_size, padding=head_kernel_size // 2)
    torch.nn.init.constant_(head.bias, 0.0 if squash else 0.5)  # type: ignore[arg-type]  # start from grey
    parts: OrderedDict[str, nn.Module] = OrderedDict(blocks=Layers(*blocks), head=head)
    if squash:
        parts["squash"] = nn.Sigmoid()
    return parts


def _config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor without the seed, with lists for sequences, as in the JSON of a file."""
    arguments = arguments_of(values, "seed")
    sequences = [name for name, one in arguments.items() if isinstance(one, Sequence) and not isinstance(one, str)]
    return arguments | {name: list(arguments[name]) for name in sequences}


class ContentEncoder(Layers):
    r"""Frames to content embeddings: (rows, C, H, W) to (rows, embedding, H / Π strides, W / Π strides).

    Children: ``stages.0`` … with ``conv`` (its kernel is as wide as its stride: no overlap), ``norm`` and
    ``block`` (torchvision's ConvNeXt block), and ``embed``, a 1 x 1 convolution.

    Source: Chen et al., "HNeRV" (CVPR 2023), sec. 3; Liu et al., "A ConvNet for the 2020s" (CVPR 2022), fig. 4.
    """

    def __init__(self, strides: Sequence[int], width: int = 64, embedding: int = 16, channels: int = 3) -> None:
        # Imported here: torchvision takes two seconds to import, most of them for a compiler.
        from torchvision.models.convnext import CNBlock, LayerNorm2d  # type: ignore[import-untyped]

        stages = []
        for i, stride in enumerate(strides):
            conv = nn.Conv2d(width if i else channels, width, stride, stride=stride)
            block = CNBlock(width, layer_scale=1e-6, stochastic_depth_prob=0.0)
            stages.append(Layers(OrderedDict(conv=conv, norm=LayerNorm2d(width, eps=1e-6), block=block)))
        super().__init__(OrderedDict(stages=Layers(*stages), embed=nn.Conv2d(width, embedding, 1)))


class HNeRV(Layers):
    r"""Frame → encoder → content embedding → stem → (convolution → pixel shuffle → activation) x blocks → head.

    .. math:: frame' = D(E(frame)), \quad D = head \circ block_n \circ \cdots \circ block_1 \circ stem

    Children: ``encoder`` (E) and ``decoder`` (D) with ``stem.conv`` (1 x 1), ``stem.activation`` and the blocks and
    head of a :class:`NeRV`. To explain the decoder, compute ``embeddings = model.encoder(frames)`` once;
    ``model.decoder(embeddings)`` returns the frames. The other arguments are those of :class:`NeRV`.

    Args:
        widths: channels of the stem's map and of each block's; None is ``shrinking_widths(36, blocks)``.
        kernel_sizes: of the blocks, one number or one each; None is 1, 3, then 5, as in the paper.
        embedding: channels of a content embedding.
        encoder_strides: of the encoder's stages, with the product of ``strides``; None reverses ``strides``.
        encoder_width: channels inside the encoder.

    Raises:
        ValueError: sizes that do not fit together.

    Example:
        >>> model = HNeRV((16, 24), widths=(6, 6, 6), strides=(2, 2), embedding=4, encoder_width=8)
        >>> embeddings = model.encoder(torch.rand(2, 3, 16, 24))
        >>> embeddings.shape, model.decoder(embeddings).shape
        (torch.Size([2, 4, 4, 6]), torch.Size([2, 3, 16, 24]))

    Source: Chen et al., "HNeRV: A Hybrid Neural Representation for Videos" (CVPR 2023), sec. 3.
    """

    encoder: ContentEncoder
    decoder: Layers

    def __init__(
        self,
        size: tuple[int, int],
        widths: Sequence[int] | None = None,
        strides: Sequence[int] = (2, 2, 2),
        *,
        kernel_sizes: int | Sequence[int] | None = None,
        embedding: int = 16,
        encoder_strides: Sequence[int] | None = None,
        encoder_width: int = 64,
        activation: Activation = "gelu",
        head_kernel_size: int = 3,
        channels: int = 3,
        squash: bool = False,
        seed: int | None = None,
    ) -> None:
        widths = shrinking_widths(36, len(strides)) if widths is None else widths
        if kernel_sizes is None:
            kernel_sizes = [min(1 + 2 * i, 5) for i in range(len(strides))]
        encoder_strides = tuple(reversed(strides)) if encoder_strides is None else encoder_strides
        self.config = _config(locals())
        grid_of(size, strides)
        if math.prod(encoder_strides) != math.prod(strides):
            raise ValueError(
                f"the encoder shrinks {math.prod(encoder_strides)} times and the decoder enlarges "
                f"{math.prod(strides)} times; expected encoder_strides whose product is that of strides."
            )
        with seeded(seed):
            encoder = ContentEncoder(encoder_strides, encoder_width, embedding, channels)
            stem = Layers(
                OrderedDict(conv=nn.Conv2d(embedding, widths[0], 1), activation=activation_maker(activation)())
            )
            parts = blocks_from_config(self.config)
        super().__init__(OrderedDict(encoder=encoder, decoder=Layers(OrderedDict(stem=stem, **parts))))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the decoder's reconstruction of frames (rows, C, H, W) in [0, 1]."""
        shape = (self.config["channels"], *self.config["size"])
        if tuple(frames.shape[1:]) != shape:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; expected (rows, {', '.join(map(str, shape))}). For "
                "embeddings, call model.decoder(embeddings)."
            )
        outputs: Tensor = super().forward(frames)
        return outputs


class NeRV(Layers):
    r"""Time → encoding → stem → (convolution → pixel shuffle → activation) x blocks → head.

    .. math:: frame(t) = head(block_n(\cdots block_1(stem(\gamma(t)))))

    Children, in order: ``encoding``; ``stem`` with ``linear1``, ``activation1``, … and ``map``, which reshapes a row to
    (channels, height, width) of the first map; ``blocks.0`` … with ``conv``, ``shuffle``, ``activation``; ``head``, a
    convolution; ``squash`` if requested. Without ``squash`` pixels may lie slightly outside [0, 1]: the last
    layer is linear, so the contributions of its units add up.

    Args:
        size: (H, W) of a frame; the product of the strides must divide both.
        widths: channels of the stem's map and of each block's, for example of :func:`shrinking_widths`.
        strides: factor by which each block enlarges its input.
        kernel_sizes: of the blocks: one odd number, or one each.
        stem: units of the hidden layers before the stem's last one.
        octaves: frequencies of the encoding of time.
        base: ratio of consecutive frequencies.
        activation: a name, or a function that makes the module (``Sine``); only names can be saved.
        head_kernel_size: odd.
        channels: of a frame.
        squash: end with a sigmoid.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: sizes that do not fit together.

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
        self.config = _config(locals())
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
            first["map"] = nn.Unflatten(1, python_index((widths[0], *grid)))
            parts = blocks_from_config(self.config)
        super().__init__(OrderedDict(encoding=encode, stem=Layers(first), **parts))

    def forward(self, t: Tensor) -> Tensor:
        """Map times in [0, 1], (rows,) or (rows, 1), to frames (rows, C, H, W)."""
        if t.dim() not in (1, 2) or (t.dim() == 2 and t.shape[1] != 1) or not t.is_floating_point():
            raise ValueError(
                f"times are {t.dtype} of shape {tuple(t.shape)}; expected floats in [0, 1] of shape (rows,) or "
                "(rows, 1), as times(frames) makes them."
            )
        frames: Tensor = super().forward(t.reshape(-1, 1))
        return frames
