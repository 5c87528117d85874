"""A trained network without classes, with what it takes to use one: how it wants its images, and how large."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Backbone:
    """A trained network that answers features; called with images in [0, 1] it gives one vector an image.

    Args:
        name: the function of :mod:`xinc_captum.zoo` that made it.
        model: the network, in eval mode.
        preprocess: from images in [0, 1] to what the network takes.
        size: height and width of the images that it takes.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> colours = Backbone("mean", model, lambda images: 2 * images - 1, 8)
        >>> colours(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5, 3])
    """

    name: str
    model: nn.Module = field(repr=False)
    preprocess: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, channels) of images (N, 3, size, size) in [0, 1]."""
        features: Tensor = self.model(self.preprocess(images))
        return features
