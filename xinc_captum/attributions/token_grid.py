"""Move a layer's units to axis 1, and lay out the tokens of vision transformers as maps."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..hooks import ForwardFunc, image_size, unit_axis
from ..hooks.layout import attends, class_axis, parents_of, refuse_windows

_IMAGE: ContextVar[tuple[int, int] | None] = ContextVar("image", default=None)
ADVICE = (
    "unit_axis=1 for (rows, units, ...), unit_axis=-1 for (rows, ..., units), or layer_to_grid=, for example "
    "xinc_captum.layer_to_grid for (rows, tokens, channels)"
)
# Parameters that become tokens in front of the patches, in torchvision, timm, transformers, open_clip and DINOv2.
PREFIX = {
    *("cls_token", "class_token", "class_embedding", "dist_token", "distillation_token"),
    *("reg_token", "register_tokens", "storage_tokens"),
}
SKIPS = (0, 1, 2, 4, 5, 8, 9)  # tokens before the patches: usual numbers of class, distillation and registers


@contextmanager
def lay_out_for(image: tuple[int, int] | None) -> Iterator[None]:
    """Inside the block, lay tokens out in the aspect ratio of an image, (height, width); None lays out a square."""
    token = _IMAGE.set(image)
    try:
        yield
    finally:
        _IMAGE.reset(token)


def units_second(
    activation: Tensor,
    layer: nn.Module,
    forward_func: ForwardFunc,
    input_shape: Sequence[int],
    rearrange: Callable[[Tensor], Tensor] | None,
    axis: int | None,
) -> Tensor:
    """Return a layer's activation (rows, ...) as (rows, units), or as (rows, units, *positions).

    ``rearrange`` is the caller's ``layer_to_grid=``; ``axis`` is its ``unit_axis=``, unused if ``rearrange`` is given.
    Without both, the tokens of a vision transformer become a map by :func:`token_layout`.
    """
    if activation.dim() <= 2:
        return activation
    if rearrange is not None:
        with lay_out_for(image_size(input_shape)):
            return rearrange(activation)
    if axis is None:
        refuse_windows(activation, layer, forward_func, len(activation))
    advice = ADVICE
    if axis is None and activation.dim() == 3:
        layout = token_layout(activation.shape, layer, forward_func, input_shape)
        if isinstance(layout, TokenLayout):
            return layout.grid(activation)
        advice += f". {layout}" if layout else ""
    axis = unit_axis(activation.shape, layer, forward_func, entered=input_shape, requested=axis, advice=advice)
    return activation if axis == 1 else activation.movedim(axis, 1)


class TokenLayout(NamedTuple):
    """How tokens (rows, tokens, channels) make a map: ``skip`` tokens, then ``size`` (h, w) patches row by row."""

    skip: int
    size: tuple[int, int]

    def grid(self, tokens: Tensor) -> Tensor:
        """Return the map, (rows, channels, h, w)."""
        return layer_to_grid(tokens, skip=self.skip, size=self.size)

    def replace(self, tokens: Tensor, grid: Tensor) -> Tensor:
        """Return the tokens with the patches of a map."""
        return torch.cat([tokens[:, : self.skip], grid.flatten(2).mT], 1)

    def __str__(self) -> str:
        size = f", size={self.size}" if self.size[0] != self.size[1] else ""
        return f"layer_to_grid=functools.partial(layer_to_grid, skip={self.skip}{size})"


def token_layout(
    shape: Sequence[int], layer: nn.Module, forward_func: ForwardFunc, input_shape: Sequence[int]
) -> TokenLayout | str:
    """Return how a layer's tokens, of shape (rows, tokens, channels), make a map, or the reason why this is unknown.

    The patch embedding in the nearest module around the layer, and the input's size, determine (h, w). The number of
    tokens in front of the patches is ``num_prefix_tokens`` of timm's models, or that of class, distillation and
    register tokens among the parameters. Stages of pyramids, as in Swin, halve (h, w). Where the model does not tell,
    the layout is used if it is the only one that fits, or the only one of square patches that fill the input.
    """
    image = image_size(input_shape)
    if len(shape) != 3 or shape[1] == 1 or len(input_shape) != 4 or image is None:
        return ""
    around = [layer, *parents_of(layer, forward_func)]
    names = [type(module).__name__ for module in around]
    if any("decoder" in name.lower() for name in names):
        return "The layer is in a decoder, whose tokens need not be patches"
    if ordered := [name for name in names if name.lower().startswith("hiera")]:
        return f"{ordered[-1]} orders its tokens by mask units, not row by row"
    if _is_text(around):
        return "The layer reads text"
    model = next((module for module in around if _embedding(module, input_shape[1]) is not None), None)
    if model is None and not attends(around[-1]):
        return ""
    skips, sizes = _candidates(around, model, input_shape)

    def readings(count: int) -> list[TokenLayout]:
        fitting = [TokenLayout(skip, size) for skip in skips for size in sizes(count - skip) if math.prod(size) > 1]
        layouts = sorted({one for one in fitting if one.skip + math.prod(one.size) == count})
        exact = [
            one for one in layouts if image[0] * one.size[1] == image[1] * one.size[0] and not image[0] % one.size[0]
        ]
        return layouts if model is not None else exact or layouts

    layouts = readings(shape[1])
    if class_axis(layer, shape) == 1:
        return "Its class has the channels on axis 1"
    if readings(shape[2]) and not _channels_last(around, shape):
        both = "axis 1 and axis 2 have" if layouts else "axis 2 has"
        return f"It may be (rows, channels, tokens): {both} as many entries as a map of the input has positions"
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        return f"{shape[1]} tokens fit several maps: {' or '.join(map(str, layouts))}"
    if model is None:
        return f"{shape[1]} tokens, without 0 to {max(skips)} of them, make no map of the {image[0]} x {image[1]} input"
    (height, width), *_ = sizes(0)
    return (
        f"{type(model).__name__} has {height} x {width} = {height * width} patches of the {image[0]} x {image[1]} "
        f"input and {' or '.join(map(str, skips))} tokens before them, and the layer has {shape[1]} tokens"
    )


Sizes = Callable[[int], list[tuple[int, int]]]


def _candidates(
    around: Sequence[nn.Module], model: nn.Module | None, input_shape: Sequence[int]
) -> tuple[tuple[int, ...], Sizes]:
    """Return the possible numbers of tokens before the patches, and a function from a number of patches to (h, w)."""
    image = (input_shape[2], input_shape[3])
    numbers: list[Any] = [getattr(module, "num_prefix_tokens", None) for module in around]
    number = next((one for one in numbers if isinstance(one, int)), None)
    prefix = _prefix(around[-1] if model is None else model) if number is None else number
    known = () if prefix is None else tuple(sorted({0, prefix}))
    embedding = None if model is None else _embedding(model, input_shape[1])
    if model is None or embedding is None:

        def by_ratio(count: int) -> list[tuple[int, int]]:
            size = _sides(count, None, image)
            return [] if size is None else [size]

        return known or SKIPS, by_ratio
    pyramid = _is_pyramid(model)
    sizes = _pyramid(_first_sizes(model, embedding, image), 6 if pyramid else 0)
    return known or ((0,) if pyramid else SKIPS), lambda _: sizes


def _embedding(module: nn.Module, channels: int) -> nn.Conv2d | None:
    """Return the first strided convolution over the image's channels, inside a module."""
    convolutions = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    strided = (m for m in convolutions if m.in_channels == channels and m.groups == 1 and max(m.stride) > 1)
    return next(strided, None)


def _first_sizes(model: nn.Module, conv: nn.Conv2d, image: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (h, w) of the patches, without and with incomplete patches at the edges, or of the model's default."""
    sizes: list[tuple[int, int]] = []
    patches: list[Any] = [conv.stride]
    if conv.kernel_size != conv.stride:  # an overlapping convolution, or the first of several
        pads: Any = conv.padding if isinstance(conv.padding, tuple) else (0, 0)
        height, width = (
            max(1, (side + 2 * pad - kernel) // stride + 1)
            for side, pad, kernel, stride in zip(image, pads, conv.kernel_size, conv.stride, strict=True)
        )
        sizes = [(height, width)]
        patches = [pair for m in model.modules() if (pair := _pair(getattr(m, "patch_size", None)))][:1]
    for down, across in patches:
        complete, padded = (image[0] // down, image[1] // across), (-(-image[0] // down), -(-image[1] // across))
        sizes = [*dict.fromkeys([complete, padded]), *sizes]
    defaults = (_default_size(module) for module in model.modules())
    return list(dict.fromkeys([*sizes, *(size for size in defaults if size)]))


def _default_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the (h, w) for which a patch embedding was made: a model may resize its input."""
    image, patch = (_pair(getattr(module, name, None)) for name in ("image_size", "patch_size"))
    if image and patch:
        return image[0] // patch[0], image[1] // patch[1]
    return _pair(getattr(module, "grid_size", None)) if patch else None


def _pair(value: Any) -> tuple[int, int] | None:
    pair = (value, value) if isinstance(value, int) else value
    two = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(one, int) and one > 0 for one in pair)
    return (pair[0], pair[1]) if two else None


def _pyramid(sizes: list[tuple[int, int]], levels: int) -> list[tuple[int, int]]:
    """Return the sizes, and those after up to ``levels`` halvings that drop or pad odd positions."""
    halved = dict.fromkeys(sizes)
    for _ in range(levels):
        halves = [(h // 2, w // 2) for h, w in halved] + [(-(-h // 2), -(-w // 2)) for h, w in halved]
        halved |= dict.fromkeys(half for half in halves if min(half) >= 1)
    return list(halved)


def _prefix(model: nn.Module) -> int | None:
    """Return the number of class, distillation and register tokens among the parameters, None if there are none."""
    counts: dict[str, int] = {}
    for path, parameter in model.named_parameters():
        name = path.rpartition(".")[2]
        if name in PREFIX:
            counts.setdefault(name, parameter.shape[-2] if parameter.dim() > 1 else 1)
    return sum(counts.values()) if counts else None


def _is_pyramid(model: nn.Module) -> bool:
    """Return whether a model has maps of several sizes: several strided convolutions, or norms of several widths."""
    named = [(name.lower(), module) for name, module in model.named_modules()]
    strided = [m for _, m in named if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    inner = ("attn", "attention", "mlp")  # norms of queries, keys and hidden units
    norms = [m for name, m in named if isinstance(m, nn.LayerNorm) and not any(part in name for part in inner)]
    return len(strided) > 1 or len({m.normalized_shape for m in norms}) > 1


def _channels_last(around: Sequence[nn.Module], shape: Sequence[int]) -> bool:
    """Return whether the layer's class, or the widths of linear modules and norms in and around it, decide for that."""
    if (kind := class_axis(around[0], shape)) is not None:
        return kind == -1
    if shape[1] == shape[2]:  # a layer with a norm inside; an MLP inside a block may run along the tokens
        return any(m.normalized_shape[-1] == shape[2] for m in around[0].modules() if isinstance(m, nn.LayerNorm))
    for module in around:
        inner = list(module.modules())
        norms = {m.normalized_shape[-1] for m in inner if isinstance(m, nn.LayerNorm)}
        for widths in (norms, {m.out_features for m in inner if isinstance(m, nn.Linear)}):
            if (shape[1] in widths) != (shape[2] in widths):
                return shape[2] in widths
    return False


def _is_text(around: Sequence[nn.Module]) -> bool:
    """Return whether the nearest configuration of transformers is that of a text model."""
    configs: list[Any] = [getattr(module, "config", None) for module in around]
    return "text" in next((str(config.model_type) for config in configs if hasattr(config, "model_type")), "")


def layer_to_grid(
    activation: Tensor,
    *,
    token_axis: int = 1,
    channel_axis: int = 2,
    skip: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return the tokens of a vision transformer's layer as a map, (rows, channels, h, w).

    ``functools.partial(layer_to_grid, skip=5)`` is the ``layer_to_grid=`` of a model with register tokens.

    Args:
        activation: (rows, tokens, channels), or with these axes in another order.
        token_axis: axis of the tokens.
        channel_axis: axis of the channels.
        skip: number of tokens before the first patch (class and register tokens); None: 0 or 1, the one that fits.
        size: (h, w), the patches in a column and in a row. None uses the aspect ratio of the model's input where a
            class of this package calls this function, and a square where you call it yourself.

    Raises:
        ValueError: not three axes, or tokens that do not fill the map.

    Example:
        >>> layer_to_grid(torch.rand(2, 197, 384)).shape
        torch.Size([2, 384, 14, 14])
    """
    axes = (token_axis % 3, channel_axis % 3)
    if activation.dim() != 3 or 0 in axes or axes[0] == axes[1]:
        raise ValueError(
            f"the layer returns {tuple(activation.shape)} and the axes are token_axis={token_axis}, "
            f"channel_axis={channel_axis}; expected (rows, tokens, channels) and two different axes after the rows."
        )
    tokens = activation.permute(0, axes[1], axes[0])
    count = tokens.shape[2]
    image = _IMAGE.get()
    shape = "a square" if image is None else f"a map with the shape of the image, {image[0]} x {image[1]}"
    shape = shape if size is None else f"a map of {size}"
    if skip is None:
        skip = next((first for first in (0, 1) if _sides(count - first, size, image) is not None), None)
    if skip is None:
        raise ValueError(
            f"the layer has {count} tokens, and neither {count} nor {count - 1} of them make {shape}; give skip= "
            "and size=."
        )
    sides = _sides(count - skip, size, image)
    if not 0 <= skip < count or sides is None:
        raise ValueError(
            f"skip={skip} leaves {count - skip} of {count} tokens, which do not make "
            f"{shape}{'; give size=' if size is None else ''}."
        )
    return tokens[:, :, skip:].reshape(*tokens.shape[:2], *sides)


def _sides(count: int, size: tuple[int, int] | None, image: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the height and width of ``count`` patches, or None where they do not fit."""
    if count < 1:
        return None
    if size is not None:
        return size if size[0] * size[1] == count else None
    if image is None or image[0] == image[1]:
        side = math.isqrt(count)
        return (side, side) if side * side == count else None
    height, width = image
    guess = max(1, round((height * width / count) ** 0.5))  # pixels along a square patch
    for patch in sorted(range(max(1, guess // 2), 2 * guess + 1), key=lambda patch: abs(patch - guess)):
        # incomplete patches at the edges are dropped, or the image is padded
        for sides in ((height // patch, width // patch), (-(-height // patch), -(-width // patch))):
            if sides[0] * sides[1] == count:
                return sides
    return None
