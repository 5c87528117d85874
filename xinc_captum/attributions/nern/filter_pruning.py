"""The first application: filters that a NeRN misses most are taken out first, beside two orders that need no NeRN."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ...hooks import ForwardFunc, exclusive
from .convolutions import target_behind
from .error_map import error_map

if TYPE_CHECKING:
    from .nern import NeRN

By = Literal["error", "magnitude", "random"]
Filter = tuple[str, int]


def filter_ranking(nern: NeRN, by: By = "error", *, seed: int = 0) -> list[Filter]:
    r"""All filters of the represented layers, those to be taken out first first.

    .. math:: error: \lVert W_f - \hat W_f \rVert / \lVert W_f \rVert \text{, largest first} \qquad
        magnitude: \lVert W_f \rVert / \textstyle\sqrt{\mathrm{mean}_{f'} \lVert W_{f'} \rVert^2}
        \text{, smallest first}

    Our reading of the paper's first application, of which no code was released: distillation is said to make a NeRN
    faithful to the weights that matter, so what it misses by most of its size should matter least. Small filters are
    missed by most of their size too, so compare with "magnitude" (within each layer) and "random" before believing it.

    Args:
        nern: the network; its target must hold the weights that it was fitted to.
        by: one of the three.
        seed: of "random".

    Returns:
        (layer's name, filter) of every filter.

    Raises:
        ValueError: an unknown order.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> len(filter_ranking(NeRN(nn.Conv2d(3, 4, 3))))
        4

    Source: Ashkenazi et al. (ICLR 2023), applications, as we read them; magnitude: Li et al. (ICLR 2017).
    """
    if by not in get_args(By):
        raise ValueError(f"by is {by!r}; wanted one of {', '.join(map(repr, get_args(By)))}.")
    filters = [(layer.name, f) for layer in nern.layers for f in range(layer.shape[0])]
    if by == "random":
        order = torch.randperm(len(filters), generator=torch.Generator().manual_seed(seed))
    else:
        scores = []
        for layer in nern.layers:
            found = error_map(nern, layer.name)
            size = found.filter_magnitude
            scores.append(-found.filter_error if by == "error" else size / size.square().mean().sqrt())
        order = torch.cat(scores).argsort(stable=True)
    return [filters[i] for i in order.tolist()]


def without_filters(target: ForwardFunc, filters: Sequence[Filter]) -> nn.Module:
    """A copy of the target in which these filters are zero, their biases too.

    A batch norm after them still adds its own constant: nothing else is changed, and nothing is fitted again.

    Args:
        target: the network, or a function around it.
        filters: (layer's name, filter), such as the beginning of a :func:`filter_ranking`.

    Example:
        >>> conv = without_filters(nn.Sequential(nn.Conv2d(1, 3, 3)), [("0", 2)])[0]
        >>> conv.weight.flatten(1).abs().sum(1)[2].item()
        0.0
    """
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    with torch.no_grad():
        for name, number in filters:
            layer = model.get_submodule(name)
            for tensor in (layer.weight, layer.bias):
                if isinstance(tensor, Tensor):
                    tensor[number] = 0
    return model
