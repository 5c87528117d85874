"""Move a layer's units to axis 1, and lay out the tokens of vision transformers as maps."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from ..hooks import ForwardFunc, image_size, unit_axis

_IMAGE: ContextVar[tuple[int, int] | None] = ContextVar("image", default=None)
ADVICE = (
    "unit_axis=1 for (rows, units, ...), unit_axis=-1 for (rows, ..., units), or layer_to_grid=, for example "
    "xinc_captum.layer_to_grid for (rows, tokens, channels)"
)


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
    """
    if activation.dim() <= 2:
        return activation
    if rearrange is not None:
        with lay_out_for(image_size(input_shape)):
            return rearrange(activation)
    axis = unit_axis(activation.shape, layer, forward_func, entered=input_shape, requested=axis, advice=ADVICE)
    return activation if axis == 1 else activation.movedim(axis, 1)


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
