"""Analyses of a NeRN: embedding levels, error maps, filter rankings, layer profiles and weight noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ...batch import random_generator
from ...hooks import ForwardFunc
from ...metrics.statistics import spearman
from .kernel_canvas import KernelCanvas
from .kernel_network import KernelNetwork
from .kernels import convolutions, copy_target, parameter_name


class EmbeddingLevels(NamedTuple):
    """Contributions of coordinates and levels to a generated weight.

    Attributes:
        parts: (coordinates, levels, *weight shape). Coordinates are layer, filter, channel; one if fusion is "sum".
        bias: shaped like the weight; parts and bias sum to Ŵ_l.
    """

    parts: Tensor
    bias: Tensor


def embedding_levels(nern: KernelNetwork, layer: nn.Module | str, *, memory_budget: int = 1 << 28) -> EmbeddingLevels:
    r"""Sum the contributions of the embedding's entries over sine and cosine.

    .. math:: E[d, i] = C_0[\sin_{d,i}] + C_0[\cos_{d,i}], \qquad \textstyle\sum_{d, i} E[d, i] + \beta_0 = \hat W_l

    Symbols: C_0 and β_0 the contributions and the bias of :class:`KernelCanvas` at the embedding, d a coordinate, i a
    level, of frequency bⁱ/2 per index. With a base b < 1, low levels change from kernel to kernel, high levels slowly.
    The bias is large: it is the output of the predictor without coordinates, through the gates of each kernel, so it
    also changes from kernel to kernel. Arguments and errors as for :class:`KernelCanvas`.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> embedding_levels(NeRN(nn.Conv2d(3, 4, 3), levels=6), "").parts.shape
        torch.Size([3, 6, 4, 3, 3, 3])
    """
    canvas = KernelCanvas(nern, layer, 0, memory_budget=memory_budget).to_tensor()
    parts = canvas[:-1].unflatten(0, (nern.embedding.groups, nern.embedding.levels, 2)).sum(2)
    return EmbeddingLevels(parts, canvas[-1])


class ErrorMap(NamedTuple):
    """Errors of the generated weight of one layer.

    Attributes:
        error: W − Ŵ, shaped like the weight.
        kernel_error: ‖W − Ŵ‖ / ‖W‖ of each kernel, (filters, channels); infinite for zero kernels with an error.
        kernel_magnitude: ‖W‖ of each kernel.
        filter_error, filter_magnitude: of each filter, (filters,).
        correlation: Spearman correlation of kernel_error and kernel_magnitude; NaN if one is constant.
    """

    error: Tensor
    kernel_error: Tensor
    filter_error: Tensor
    kernel_magnitude: Tensor
    filter_magnitude: Tensor
    correlation: float


def error_map(nern: KernelNetwork, layer: nn.Module | str) -> ErrorMap:
    r"""Return the reconstruction error of a layer, with the magnitudes as a control.

    .. math:: E_l = W_l - \hat W_l, \qquad \sqrt{\textstyle\sum_l \sum E_l^2 / N} = L_{reconstruction}

    Symbols: W and Ŵ the target's and the generated weight of layer l, N the number of all represented weights.
    This is a map of errors, not of importance: small kernels have larger relative errors. In measured NeRNs, with and
    without distillation, most of the apparent information on importance is already in the magnitude. So the magnitudes
    and their rank correlation with the error are part of the result. The target must have the weights that the NeRN was
    fitted to.

    Raises:
        LayerError: a layer that is not represented.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> error_map(NeRN(nn.Conv2d(3, 4, 3)), "").kernel_error.shape
        torch.Size([4, 3])
    """
    represented_layer = nern.layer(layer)
    with torch.no_grad():
        weight = nern.target_weights()[represented_layer.name]
        error = weight - nern.cut(nern.predicted(represented_layer), represented_layer)
    kernels, filters = (_relative(error.flatten(start), weight.flatten(start)) for start in (2, 1))
    finite = torch.isfinite(kernels[0])
    correlations = spearman(kernels[0][finite][None], kernels[1][finite][None]).values
    correlation = float(correlations) if len(correlations) else float("nan")
    return ErrorMap(error, kernels[0], filters[0], kernels[1], filters[1], correlation)


def _relative(error: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    error_norm, magnitude = error.norm(dim=-1), weight.norm(dim=-1)
    return torch.where(error_norm > 0, error_norm / magnitude, error_norm), magnitude


By = Literal["error", "magnitude", "random"]
Filter = tuple[str, int]


def filter_ranking(nern: KernelNetwork, by: By = "error", *, seed: int = 0) -> list[Filter]:
    r"""Return all filters of the represented layers, in the order in which to remove them.

    .. math:: error: \lVert W_f - \hat W_f \rVert / \lVert W_f \rVert \text{, largest first} \qquad
        magnitude: \lVert W_f \rVert / \textstyle\sqrt{\mathrm{mean}_{f'} \lVert W_{f'} \rVert^2}
        \text{, smallest first}

    Symbols: W_f filter f. This is our interpretation of the paper's first application, whose code was not released:
    distillation should make a NeRN accurate for the weights that matter, so filters with the largest relative error
    should matter least. Small filters also have large relative errors, so compare with "magnitude" (within each layer)
    and "random". The target must have the weights that the NeRN was fitted to. A filter is (name of its layer, index).

    Raises:
        ValueError: an unknown order.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> len(filter_ranking(NeRN(nn.Conv2d(3, 4, 3))))
        4

    Source: Ashkenazi et al. (ICLR 2023), applications, in our interpretation; magnitude: Li et al. (ICLR 2017).
    """
    if by not in get_args(By):
        raise ValueError(f"by is {by!r}; expected one of {', '.join(map(repr, get_args(By)))}.")
    filters = [(layer.name, f) for layer in nern.layers for f in range(layer.shape[0])]
    if by == "random":
        order = torch.randperm(len(filters), generator=random_generator(seed))
    else:
        scores = []
        for layer in nern.layers:
            result = error_map(nern, layer.name)
            magnitude = result.filter_magnitude
            scores.append(-result.filter_error if by == "error" else magnitude / magnitude.square().mean().sqrt())
        order = torch.cat(scores).argsort(stable=True)
    return [filters[i] for i in order.tolist()]


def without_filters(target: ForwardFunc, filters: Sequence[Filter]) -> nn.Module:
    """Return a copy of the target in which these filters and their biases are zero.

    The filters are pairs as :func:`filter_ranking` returns them. A batch norm after them still adds its constant:
    nothing else is changed, and nothing is fitted again.

    Example:
        >>> conv = without_filters(nn.Sequential(nn.Conv2d(1, 3, 3)), [("0", 2)])[0]
        >>> conv.weight.flatten(1).abs().sum(1)[2].item()
        0.0
    """
    model = copy_target(target)
    with torch.no_grad():
        for name, number in filters:
            layer = model.get_submodule(name)
            for tensor in (layer.weight, layer.bias):
                if isinstance(tensor, Tensor):
                    tensor[number] = 0
    return model


class LayerProfile(NamedTuple):
    """Distribution of the contributions of a predictor layer's neurons over the target's layers.

    Attributes:
        share: (units + 1, layers), each row sums to 1, or to 0 for a neuron without contributions.
        signed: (units + 1, layers) sums of the contributions; each column sums to the sum of Ŵ_l.
        layers: the names of the columns.
    """

    share: Tensor
    signed: Tensor
    layers: tuple[str, ...]


def layer_profile(nern: KernelNetwork, at: int = -1, *, memory_budget: int = 1 << 28) -> LayerProfile:
    r"""Return the share of each layer in each predictor neuron's contributions; the bias is the last row.

    .. math:: S[i, l] = \sum |C_l[i]| \,/\, \sum_{l'} \sum |C_{l'}[i]|, \qquad T[i, l] = \sum C_l[i]

    Symbols: C_l[i] the contribution of neuron i to the weight of layer l. Large layers have large shares for every
    neuron, because they have most weights: compare rows, not columns.
    Arguments as for :class:`KernelCanvas`.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> layer_profile(NeRN(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 1)))).share.shape
        torch.Size([41, 2])
    """
    canvases = [KernelCanvas(nern, layer, at, memory_budget=memory_budget) for layer in nern.layers]
    sums = torch.stack([canvas.magnitudes() for canvas in canvases], 1)
    total = sums.sum(1, keepdim=True)
    share = torch.where(total > 0, sums / total.clamp_min(torch.finfo(total.dtype).tiny), sums)
    signed = torch.stack([canvas.totals() for canvas in canvases], 1)
    return LayerProfile(share, signed, tuple(layer.name for layer in nern.layers))


def with_noise(
    target: ForwardFunc, relative: float, layers: Sequence[nn.Module | str] | None = None, *, seed: int = 0
) -> nn.Module:
    r"""Return a copy of the target whose convolutions have random errors of a given relative size.

    .. math:: \hat W_l = W_l + r\, \lVert W_l \rVert\, n_l / \lVert n_l \rVert, \qquad n_l \sim N(0, 1)

    A NeRN's relative error alone is hard to interpret: a distilled NeRN has its errors where they matter little.
    Compare its accuracy with that of a network with noise of the same size r, ``relative``. The noise is drawn on the
    CPU.

    Raises:
        LayerError, ValueError: invalid layers, as for :class:`NeRN`; a negative r.

    Example:
        >>> conv = nn.Conv2d(3, 4, 3)
        >>> round(float((with_noise(conv, 0.5).weight - conv.weight).norm() / conv.weight.norm()), 4)
        0.5
    """
    if not relative >= 0:
        raise ValueError(f"relative is {relative}; expected at least 0.")
    model = copy_target(target)
    generator = random_generator(seed)
    with torch.no_grad():
        for layer in convolutions(target, layers):
            weight = model.get_parameter(parameter_name(layer.name))
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(noise * (relative * weight.norm() / noise.norm()))
    return model
