"""HNeRV: a network that condenses a frame into a small map and draws the frame from it."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .layers import Layers, activation_maker, seeded
from .upsampling import Activation, described, grid_of, reduced


class ContentEncoder(Layers):
    r"""Frames to content embeddings: (rows, C, H, W) to (rows, embedding, H / Π strides, W / Π strides).

    Children: ``stages.0`` … with ``conv`` (as wide as its stride, so that no pixel is seen twice), ``norm`` and
    ``block`` (torchvision's ConvNeXt block), and ``embed``, a 1 x 1 convolution.

    Args:
        strides: how much each stage shrinks.
        width: channels of every stage.
        embedding: channels that come out.
        channels: of a frame.

    Example:
        >>> ContentEncoder((2, 2), width=8, embedding=3)(torch.rand(1, 3, 8, 12)).shape
        torch.Size([1, 3, 2, 3])

    Source: Chen et al., "HNeRV" (CVPR 2023), sec. 3; Liu et al., "A ConvNet for the 2020s" (CVPR 2022), fig. 4.
    """

    def __init__(self, strides: Sequence[int], width: int = 64, embedding: int = 16, channels: int = 3) -> None:
        # Not above: torchvision takes two seconds to import, most of them for a compiler.
        from torchvision.models.convnext import CNBlock, LayerNorm2d  # type: ignore[import-untyped]

        stages = []
        for i, stride in enumerate(strides):
            stages.append(
                Layers(
                    OrderedDict(
                        conv=nn.Conv2d(width if i else channels, width, stride, stride=stride),
                        norm=LayerNorm2d(width, eps=1e-6),
                        block=CNBlock(width, layer_scale=1e-6, stochastic_depth_prob=0.0),
                    )
                )
            )
        super().__init__(OrderedDict(stages=Layers(*stages), embed=nn.Conv2d(width, embedding, 1)))


class HNeRV(Layers):
    r"""Frame → encoder → content embedding → stem → (convolution → pixel shuffle → activation) x blocks → head.

    .. math:: frame' = D(E(frame)), \quad D = head \circ block_n \circ \cdots \circ block_1 \circ stem

    Children: ``encoder`` (E) and ``decoder`` (D) with ``stem.conv`` (1 x 1), ``stem.activation``, ``blocks.0`` … with
    ``conv``, ``shuffle``, ``activation``, then ``head`` and, if asked for, ``squash``. Both are modules of their own:
    ``embeddings = model.encoder(frames)`` once, then ``model.decoder(embeddings)`` draws the frames, and is what to
    explain with embeddings as rows.

    Args:
        size: (H, W) of a frame; the product of the strides must divide both.
        widths: channels of the stem's map and of each block's; None is ``reduced(36, blocks)``.
        strides: how much each block of the decoder enlarges.
        kernel_sizes: of the blocks, one number or one each; None is 1, 3, then 5, as in the paper.
        embedding: channels of a content embedding.
        encoder_strides: how much each stage shrinks, with the product of ``strides``; None is them, reversed.
        encoder_width: channels inside the encoder.
        activation: of the decoder: a name, or what makes the module; one with a name can be saved.
        head_kernel_size: odd.
        channels: of a frame.
        squash: end with a sigmoid, which keeps pixels strictly within [0, 1] and the last layer from being linear.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: sizes that do not fit one another.

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
        widths = reduced(36, len(strides)) if widths is None else widths
        if kernel_sizes is None:
            kernel_sizes = [min(1 + 2 * i, 5) for i in range(len(strides))]
        shrink = tuple(reversed(strides)) if encoder_strides is None else encoder_strides
        self.config: dict[str, Any] = {
            "size": list(size),
            "widths": list(widths),
            "strides": list(strides),
            "kernel_sizes": kernel_sizes if isinstance(kernel_sizes, int) else list(kernel_sizes),
            "embedding": embedding,
            "encoder_strides": list(shrink),
            "encoder_width": encoder_width,
            "activation": activation,
            "head_kernel_size": head_kernel_size,
            "channels": channels,
            "squash": squash,
        }
        grid_of(size, strides)
        if math.prod(shrink) != math.prod(strides):
            raise ValueError(
                f"the encoder shrinks {math.prod(shrink)} times and the decoder enlarges {math.prod(strides)} times; "
                "wanted encoder_strides whose product is that of strides."
            )
        with seeded(seed):
            encoder = ContentEncoder(shrink, encoder_width, embedding, channels)
            stem = Layers(
                OrderedDict(conv=nn.Conv2d(embedding, widths[0], 1), activation=activation_maker(activation)())
            )
            parts = described(self.config)
        super().__init__(OrderedDict(encoder=encoder, decoder=Layers(OrderedDict(stem=stem, **parts))))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (rows, C, H, W) in [0, 1] to the same frames, as the decoder draws them.

        Raises:
            ValueError: another shape.
        """
        wanted = (self.config["channels"], *self.config["size"])
        if tuple(frames.shape[1:]) != wanted:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}; wanted (rows, {', '.join(map(str, wanted))}). To draw from "
                "embeddings, call model.decoder(embeddings)."
            )
        drawn: Tensor = super().forward(frames)
        return drawn
