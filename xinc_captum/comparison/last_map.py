"""The layer at which Grad-CAM is usually read: the last one that still says where."""

from torch import Tensor, nn

from ..attributions.accentuation.early import passed
from ..attributions.accentuation.reading import Reader
from ..hooks import ForwardFunc, untouched
from .methods import Preprocess


def last_map(model: ForwardFunc, images: Tensor, preprocess: Preprocess | None = None) -> nn.Module | None:
    """The last module whose activation is a map of the images with more than one place, or None.

    A map is (N, channels, h, w) or (N, h, w, channels), decided as :func:`xinc_captum.hooks.unit_axis` does; modules
    that the images do not reach, such as a branch for another input, are left out.

    None too where most of what the network hands on are tokens (N, places, channels) and some of them come after the
    last map: the only map of a vision transformer is that of its first layer. Of several that end with the same map,
    such as a block and the activation function at its end, it is the outermost.

    Args:
        model: the classifier, or any function around it.
        images: (N, C, H, W) in [0, 1].
        preprocess: what turns images in [0, 1] into the model's inputs.

    Example:
        >>> pool = torch.nn.AdaptiveAvgPool2d(1)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), pool, torch.nn.Flatten())
        >>> last_map(model, torch.rand(1, 3, 8, 8))
        ReLU()
    """
    with untouched(model):
        ended = passed(Reader(model, preprocess), images, ())
    maps = [at for at, one in enumerate(ended) if one.places and one.places[0] * one.places[1] > 1]
    tokens = [at for at, one in enumerate(ended) if len(one.shape) == 3 and one.shape[1] > 1]
    if not maps or (len(maps) <= len(tokens) and tokens[-1] > maps[-1]):
        return None
    return ended[maps[-1]].module
