"""Contributions of neurons, weight tokens and data patches to the images of a TransINR."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...batch import chunks
from .trans_inr import TransINR
from .writer import Modulations, Weights


def neuron_contributions(encoded: Tensor, weights: Weights, layer: int, out_bias: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Return the contributions of the neurons of a layer, and the remainder; they sum to the networks' outputs.

    .. math:: C_j = h_{j}\, J_{j}, \quad J = W_L G_{L-1} W_{L-1} \cdots G_{l+1} W_{l+1}, \qquad \Sigma_j C_j + \beta = y

    Symbols: h the layer's neurons after their ReLU (before ``out_bias`` at the last layer, where J is the identity); G
    the gates, 1 where a later neuron is positive at this point; β the output of the later biases through the same
    gates with h = 0. A neuron that is 0 everywhere has no contribution.

    Args:
        encoded: γ, (points, in).
        weights: of B networks.
        layer: 0 to L − 1.
        out_bias: part of β.

    Returns:
        C, (B, points, out, neurons), and β, (B, points, out).

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model, images = TransINR(seed=0), torch.rand(2, 1, 8, 8)
        >>> weights = model.weights(model.modulations(images))
        >>> c, rest = neuron_contributions(model.encoded((8, 8)), weights, 1, 0.5)
        >>> bool(((c.sum(-1) + rest) - model(images).flatten(2).mT).abs().max() < 1e-5)
        True

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), for the last layer; the gated form
    is activation x gradient, exact for piecewise linear networks.
    """
    hidden, last = encoded, len(weights.matrices) - 1
    activations, gates = encoded, []
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        preactivations = hidden @ matrix.mT + bias
        hidden = preactivations.relu() if i < last else preactivations
        if i == layer:
            activations = hidden
        elif i > layer:
            gates.append((preactivations > 0).to(preactivations) if i < last else torch.ones_like(preactivations))
    count, points, outputs = hidden.shape
    jacobian = torch.eye(outputs, dtype=hidden.dtype, device=hidden.device).expand(count, points, -1, -1)
    rest = torch.full_like(hidden, out_bias)
    for i in range(last, layer, -1):
        gated = jacobian * gates[i - layer - 1][:, :, None]
        rest = rest + (gated @ weights.biases[i][:, None])[..., 0]
        jacobian = gated @ weights.matrices[i][:, None]
    return jacobian * activations[:, :, None], rest


def sum_groups(contributions: Tensor, rows: int) -> Tensor:
    """Sum neurons of the same modulation: (…, neurons) to (…, rows); neuron j belongs to modulation j mod rows.

    Example:
        >>> sum_groups(torch.arange(6.0), 3)
        tensor([3., 5., 7.])
    """
    return contributions.reshape(*contributions.shape[:-1], -1, rows).sum(-2)


def midpoints(steps: int) -> Iterator[float]:
    """Return the points of the midpoint rule on [0, 1].

    Raises:
        ValueError: fewer than one step.

    Example:
        >>> list(midpoints(2))
        [0.25, 0.75]
    """
    if steps < 1:
        raise ValueError(f"n_steps is {steps}; expected at least 1.")
    return ((k + 0.5) / steps for k in range(steps))


def flatten_modulations(modulations: Modulations) -> Tensor:
    """Concatenate the modulations of each image: (B, numbers)."""
    return torch.cat([x.flatten(1) for x in modulations], 1)


def unflatten_modulations(model: TransINR, numbers: Tensor) -> Modulations:
    """Invert :func:`flatten_modulations`."""
    shapes = [mean.shape for mean in model.mean_modulations]
    parts = numbers.split([shape.numel() for shape in shapes], 1)
    return tuple(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))


class TokenIds(NamedTuple):
    """The token of each number of :func:`flatten_modulations`, (numbers,), and the number of tokens."""

    ids: Tensor
    number: int


def modulation_tokens(model: TransINR, layer: int | None) -> TokenIds:
    """Return the tokens of all layers, or those of one layer and one more for all other layers.

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model = TransINR(hidden=2, layers=2, count=1, groups=2)
        >>> modulation_tokens(model, None).ids.tolist(), modulation_tokens(model, 1).ids.tolist()
        ([0, 0, 0, 0, 1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    """
    ids_of_layers, start = [], 0
    for i, mean_modulation in enumerate(model.mean_modulations):
        rows, width = mean_modulation.shape
        ids = torch.arange(rows, device=mean_modulation.device).repeat_interleave(width)
        if layer is None:
            ids_of_layers.append(ids + start)
            start += rows
        else:
            ids_of_layers.append(ids if i == layer else torch.full_like(ids, model.writer.rows[layer]))
    return TokenIds(torch.cat(ids_of_layers), start if layer is None else model.writer.rows[layer] + 1)


def patch_masks(model: TransINR, size: tuple[int, int]) -> Tensor:
    """Return the pixels of each patch: (patches, H, W), 0 or 1; a pixel belongs to one patch."""
    rows, columns = model.tokens.grid(size)
    like = model.tokens.places
    y, x = (
        (torch.arange(side, device=like.device) + model.tokens.padding) // step == k[:, None]
        for side, step, k in zip(
            size, model.tokens.patch, (torch.arange(n, device=like.device) for n in (rows, columns)), strict=True
        )
    )
    return (y.reshape(rows, 1, -1, 1) & x.reshape(1, columns, 1, -1)).flatten(0, 1).to(like)


def jvp(function: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's value and its derivative along ``direction``, by forward mode.

    Example:
        >>> jvp(torch.square, torch.tensor([3.0]), torch.tensor([0.5]))
        (tensor([9.]), tensor([3.]))
    """
    with torch.no_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(point, direction)))
        return value, torch.zeros_like(value) if tangent is None else tangent


def modulation_contributions(
    model: TransINR,
    x: Modulations,
    x0: Modulations,
    tokens: TokenIds,
    size: tuple[int, int],
    steps: int,
    batch_size: int,
) -> Tensor:
    r"""Return the contributions of tokens to the change of the output from ``x0`` to ``x``: (B, tokens, C, H, W).

    .. math:: I_t = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_t \, da

    Args:
        model: the TransINR.
        x: modulations of B images.
        x0: start of the path: (1, rows, in) a layer for all images, or one for each.
        tokens: :func:`modulation_tokens`.
        size: of the output.
        steps: midpoints of the path.
        batch_size: networks in one pass.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017), sec. 3.
    """
    start, difference = flatten_modulations(x0), flatten_modulations(x) - flatten_modulations(x0)
    start = start.expand_as(difference)
    render = _renderer(model, size)
    total = _zeros(len(difference) * tokens.number, model, size, difference)
    for a in midpoints(steps):
        for low, high in chunks(len(total), batch_size):
            sample, token = _pairs(low, high, tokens.number, difference.device)
            direction = difference[sample] * (tokens.ids == token[:, None])
            total[low:high] += jvp(render, (start + a * difference)[sample], direction)[1] / steps
    return total.reshape(len(difference), tokens.number, *total.shape[1:])


def patch_contributions(
    model: TransINR, x: Tensor, x0: Tensor, mask: Tensor | None, size: tuple[int, int], steps: int, batch_size: int
) -> Tensor:
    r"""Return the contributions of patches to the change of the output from ``x0`` to ``x``: (B, patches, C, H, W).

    .. math:: D_q = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_q \, da

    Args:
        model: the TransINR.
        x: (B, C, H, W).
        x0: start of the path, like ``x``.
        mask: of visible patches or pixels, (B, …), or None.
        size: of the output.
        steps: midpoints of the path.
        batch_size: images in one pass.
    """
    difference, masks = x - x0, patch_masks(model, (x.shape[2], x.shape[3]))
    total = _zeros(len(x) * len(masks), model, size, x)
    for a in midpoints(steps):
        for low, high in chunks(len(total), batch_size):
            sample, patch = _pairs(low, high, len(masks), x.device)
            part_mask = None if mask is None else mask[sample]
            direction = difference[sample] * masks[patch][:, None]
            run = lambda images, mask=part_mask: model(images, mask, size)  # noqa: E731
            total[low:high] += jvp(run, (x0 + a * difference)[sample], direction)[1] / steps
    return total.reshape(len(x), len(masks), *total.shape[1:])


def patch_token_contributions(
    model: TransINR,
    x: Tensor,
    x0: Tensor,
    mask: Tensor | None,
    tokens: TokenIds,
    size: tuple[int, int],
    steps: int,
    batch_size: int,
    patches: Sequence[int] | None = None,
) -> Tensor:
    r"""Return :func:`patch_contributions` through each token: (B, patches, tokens, C, H, W).

    .. math:: D_{qt} = \int_0^1 \frac{\partial y}{\partial x_t} \frac{\partial x_t}{\partial q} \, da

    By the chain rule, the sum over tokens is :func:`patch_contributions` with the same steps, up to rounding.

    Args:
        model: the TransINR.
        x: (B, C, H, W).
        x0: start of the path, like ``x``.
        mask: of visible patches or pixels, (B, …), or None.
        tokens: :func:`modulation_tokens`.
        size: of the output.
        steps: midpoints of the path.
        batch_size: images or networks in one pass.
        patches: indices of patches; None is all.

    Raises:
        ValueError: an unknown patch.
    """
    difference, masks, render = x - x0, patch_masks(model, (x.shape[2], x.shape[3])), _renderer(model, size)
    if patches is not None:
        if not patches or not all(0 <= q < len(masks) for q in patches):
            raise ValueError(f"patches are {list(patches)}; expected one or more of 0 to {len(masks) - 1}.")
        masks = masks[list(patches)]
    total = _zeros(len(x) * len(masks) * tokens.number, model, size, x)
    for a in midpoints(steps):
        for first, stop in chunks(len(x) * len(masks), batch_size):
            sample, patch = _pairs(first, stop, len(masks), x.device)
            part_mask = None if mask is None else mask[sample]
            direction = difference[sample] * masks[patch][:, None]
            read = lambda part, part_mask=part_mask: flatten_modulations(model.modulations(part, part_mask))  # noqa: E731
            modulations, modulation_derivative = jvp(read, (x0 + a * difference)[sample], direction)
            for low, high in chunks((stop - first) * tokens.number, batch_size):
                row, token = _pairs(low, high, tokens.number, x.device)
                derivative = jvp(render, modulations[row], modulation_derivative[row] * (tokens.ids == token[:, None]))[
                    1
                ]
                total[first * tokens.number + low : first * tokens.number + high] += derivative / steps
    return total.reshape(len(x), len(masks), tokens.number, *total.shape[1:])


def _renderer(model: TransINR, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda numbers: model.paint(model.weights(unflatten_modulations(model, numbers)), size)


def _pairs(low: int, high: int, inner: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return pairs ``low`` to ``high`` of (outer, inner) indices; the inner index is the faster one."""
    row = torch.arange(low, high, device=device)
    return row // inner, row % inner


def _zeros(rows: int, model: TransINR, size: tuple[int, int], like: Tensor) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)  # bfloat16 has too few digits for sums of many steps
    return torch.zeros(rows, model.config["channels"], *size, dtype=dtype, device=like.device)
