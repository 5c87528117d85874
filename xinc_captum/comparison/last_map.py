"""The layer at which Grad-CAM is usually read: the last one that still says where."""

import torch
from torch import Tensor, nn

from ..ascent.early import passed
from ..ascent.reading import Reader
from ..hooks import ForwardFunc
from .methods import Preprocess


def last_map(model: ForwardFunc, images: Tensor, preprocess: Preprocess | None = None) -> nn.Module | None:
    """The last module that hands over a map (N, channels, h, w) of more than one place, or None.

    None too where most of what the network hands on are tokens (N, places, channels): the only map of a vision
    transformer is that of its first layer. Of several that end with the same map, such as a block and the activation
    function at its end, it is the outermost.

    Args:
        model: the classifier, or any function around it.
        images: (N, C, H, W) in [0, 1], seen once, without gradients.
        preprocess: what turns images in [0, 1] into the model's inputs.

    Example:
        >>> pool = torch.nn.AdaptiveAvgPool2d(1)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), pool, torch.nn.Flatten())
        >>> last_map(model, torch.rand(1, 3, 8, 8))
        ReLU()
    """
    with torch.no_grad():
        ended = passed(Reader(model, preprocess), images, ())
    maps = [module for module, shape in ended if len(shape) == 4 and shape[2] * shape[3] > 1]
    tokens = sum(len(shape) == 3 and shape[1] > 1 for _, shape in ended)
    return maps[-1] if len(maps) > tokens else None
