"""Pictures of one size and colour for a network that wants another."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sized:
    """Resizes, turns grey into three equal channels or colour into grey, and goes on with the network's own part.

    Args:
        then: the network's preprocessing, or None.
        size: height and width that it wants; None leaves pictures as large as they are.
        channels: that it wants; None leaves them.

    Example:
        >>> Sized(None, 8, 3)(torch.rand(2, 1, 4, 4)).shape
        torch.Size([2, 3, 8, 8])
    """

    then: Callable[[Tensor], Tensor] | None
    size: int | None
    channels: int | None

    def __call__(self, pictures: Tensor) -> Tensor:
        """As the network wants them; differentiable."""
        if self.channels is not None and pictures.shape[1] != self.channels:
            grey = pictures.mean(1, keepdim=True)
            pictures = grey.expand(-1, self.channels, -1, -1)
        if self.size is not None and tuple(pictures.shape[2:]) != (self.size, self.size):
            size = (self.size, self.size)
            pictures = torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        return pictures if self.then is None else self.then(pictures)
