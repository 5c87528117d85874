"""A constraint for training a network whose kernels a NeRN will find easy: neighbours should be alike."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hooks import ForwardFunc
from .convolutions import convolutions, target_behind


def smoothness_loss(target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None) -> Tensor:
    r"""How unlike neighbouring kernels are, along channels and along filters; add it, times 1e-4, to a training loss.

    .. math:: -\sum_{l: k > 1} \sum_{f, c} \cos(W_{f, c}, W_{f, c + 1}) + \cos(W_{f, c}, W_{f + 1, c})
        + \sum_{l: k = 1} \sum_{f, c} |W_{f, c} - W_{f, c + 1}| + |W_{f, c} - W_{f + 1, c}|

    1x1 kernels are compared by distance, since the cosine of two numbers is only their sign. The released code
    normalises one of the two numbers there and not the other, which looks like a slip and is not repeated.

    Args:
        target: the network that is being trained; the loss reaches its parameters.
        layers: modules or dotted names; None takes every ``nn.Conv2d``.

    Returns:
        a scalar; lower is smoother.

    Raises:
        LayerError: as :func:`convolutions`.

    Example:
        >>> conv = nn.Conv2d(1, 3, 3)
        >>> _ = conv.weight.data.fill_(1.0)  # two pairs of equal neighbours
        >>> round(smoothness_loss(conv).item(), 4)
        -2.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.3.
    """
    root = target_behind(target)
    terms = []
    for layer in convolutions(target, layers):
        weight = root.get_submodule(layer.name).weight
        assert isinstance(weight, Tensor)  # noqa: S101 - convolutions() looked
        terms.append(layer_roughness(weight))
    return torch.stack(terms).sum()


def layer_roughness(weight: Tensor) -> Tensor:
    """The terms of one layer's weight (F, C, h, w), a scalar."""
    kernels = weight.flatten(2)
    pairs = ((kernels[:, 1:], kernels[:, :-1]), (kernels[1:], kernels[:-1]))
    if kernels.shape[2] == 1:
        return torch.stack([(a - b).abs().sum() for a, b in pairs]).sum()
    return -torch.stack([F.cosine_similarity(a, b, dim=2).sum() for a, b in pairs]).sum()
