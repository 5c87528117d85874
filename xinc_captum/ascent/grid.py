"""Where the units and the positions of a layer are, for layers whose tensors do not say so themselves."""

import math

from torch import Tensor


def layer_to_grid(
    activation: Tensor,
    *,
    token_axis: int = 1,
    channel_axis: int = 2,
    skip: int | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The tokens of a vision transformer's layer, laid out as a map: (rows, channels, h, w).

    Args:
        activation: (rows, tokens, channels), or the axes named below.
        token_axis: which axis holds the tokens.
        channel_axis: which axis holds the channels.
        skip: tokens before the first patch (class and register tokens); None takes none or one, whichever leaves a
            square number of patches.
        size: (h, w) of the patches; None is a square.

    Raises:
        ValueError: not three axes, or tokens that do not fill the map.

    Example:
        >>> layer_to_grid(torch.rand(2, 197, 384)).shape
        torch.Size([2, 384, 14, 14])

    ``functools.partial(layer_to_grid, skip=5)`` is handed to NeuronFeatureAccentuation where a model has registers.
    """
    axes = (token_axis % 3, channel_axis % 3)
    if activation.dim() != 3 or 0 in axes or axes[0] == axes[1]:
        raise ValueError(
            f"the layer hands over {tuple(activation.shape)} and the axes are token_axis={token_axis}, "
            f"channel_axis={channel_axis}; wanted (rows, tokens, channels) and two different axes after the rows."
        )
    tokens = activation.permute(0, axes[1], axes[0])
    count = tokens.shape[2]
    if skip is None:
        fits = [first for first in (0, 1) if _fills(count - first, size)]
        if not fits:
            raise ValueError(
                f"the layer has {count} tokens, and neither {count} nor {count - 1} of them make "
                f"{'a square' if size is None else f'a map of {size}'}; say skip= and size=."
            )
        skip = fits[0]
    if not 0 <= skip < count or not _fills(count - skip, size):
        raise ValueError(
            f"skip={skip} leaves {count - skip} of {count} tokens, which do not make "
            f"{'a square; say size=' if size is None else f'a map of {size}'}."
        )
    side = math.isqrt(count - skip)
    grid: Tensor = tokens[:, :, skip:].unflatten(2, size or (side, side))
    return grid


def _fills(count: int, size: tuple[int, int] | None) -> bool:
    return count == (math.isqrt(max(count, 0)) ** 2 if size is None else size[0] * size[1]) and count > 0
