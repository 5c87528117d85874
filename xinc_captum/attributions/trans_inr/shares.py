"""Integrated contributions of tokens and patches."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...batch import chunks
from .trans_inr import TransINR
from .writer import Modulations, Weights


def neuron_shares(encoded: Tensor, weights: Weights, layer: int, out_bias: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Parts of the neurons that layer ``layer`` ends in, and the rest: together what the networks draw.

    .. math:: C_j = h_{j}\, J_{j}, \quad J = W_L G_{L-1} W_{L-1} \cdots G_{l+1} W_{l+1}, \qquad \Sigma_j C_j + \beta = y

    Symbols: h the layer's neurons after their ReLU (before ``out_bias`` at the last layer, where J is the identity); G
    the gates, 1 where a later neuron is positive at this point; β what the same gates let through of the later biases
    with h at 0. A neuron that is silent everywhere has no part.

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
        >>> shares, rest = neuron_shares(model.encoded((8, 8)), weights, 1, 0.5)
        >>> bool(((shares.sum(-1) + rest) - model(images).flatten(2).mT).abs().max() < 1e-5)
        True

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), for the last layer; the gated form
    is activation x gradient, exact for piecewise linear networks.
    """
    h, last = encoded, len(weights.matrices) - 1
    at, gates = encoded, []
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        z = h @ matrix.mT + bias
        h = z.relu() if i < last else z
        if i == layer:
            at = h
        elif i > layer:
            gates.append((z > 0).to(z) if i < last else torch.ones_like(z))
    count, points, outputs = h.shape
    carried = torch.eye(outputs, dtype=h.dtype, device=h.device).expand(count, points, -1, -1)
    rest = torch.full_like(h, out_bias)
    for i in range(last, layer, -1):
        gated = carried * gates[i - layer - 1][:, :, None]
        rest = rest + (gated @ weights.biases[i][:, None])[..., 0]
        carried = gated @ weights.matrices[i][:, None]
    return carried * at[:, :, None], rest


def group_sums(shares: Tensor, rows: int) -> Tensor:
    """Neurons to the modulations that wrote them: (…, neurons) to (…, rows); neuron j belongs to row j mod rows.

    Example:
        >>> group_sums(torch.arange(6.0), 3)
        tensor([3., 5., 7.])
    """
    return shares.reshape(*shares.shape[:-1], -1, rows).sum(-2)


def midpoints(steps: int) -> Iterator[float]:
    """Where a path from 0 to 1 is looked at.

    Raises:
        ValueError: fewer than one.

    Example:
        >>> list(midpoints(2))
        [0.25, 0.75]
    """
    if steps < 1:
        raise ValueError(f"n_steps is {steps}; expected at least 1.")
    return ((k + 0.5) / steps for k in range(steps))


def flat(modulations: Modulations) -> Tensor:
    """All numbers of a picture's modulations in a row: (B, numbers)."""
    return torch.cat([x.flatten(1) for x in modulations], 1)


def unflat(model: TransINR, numbers: Tensor) -> Modulations:
    """The inverse of :func:`flat`."""
    shapes = [mean.shape for mean in model.mean_modulations]
    parts = numbers.split([shape.numel() for shape in shapes], 1)
    return tuple(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))


class Owners(NamedTuple):
    """Which token each of :func:`flat`'s numbers is of, (numbers,), and how many tokens there are."""

    ids: Tensor
    entries: int


def owners(model: TransINR, layer: int | None) -> Owners:
    """The tokens of all layers, or those of one and, one past the last, everything else.

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model = TransINR(hidden=2, layers=2, count=1, groups=2)
        >>> owners(model, None).ids.tolist(), owners(model, 1).ids.tolist()
        ([0, 0, 0, 0, 1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    """
    found, start = [], 0
    for i, mean in enumerate(model.mean_modulations):
        rows, width = mean.shape
        ids = torch.arange(rows, device=mean.device).repeat_interleave(width)
        if layer is None:
            found.append(ids + start)
            start += rows
        else:
            found.append(ids if i == layer else torch.full_like(ids, model.writer.rows[layer]))
    return Owners(torch.cat(found), start if layer is None else model.writer.rows[layer] + 1)


def patch_masks(model: TransINR, size: tuple[int, int]) -> Tensor:
    """Which pixels each patch reads: (patches, H, W), 0 or 1; a pixel is read by one patch."""
    rows, columns = model.tokens.grid(size)
    like = model.tokens.places
    y, x = (
        (torch.arange(side, device=like.device) + model.tokens.padding) // step == k[:, None]
        for side, step, k in zip(
            size, model.tokens.patch, (torch.arange(n, device=like.device) for n in (rows, columns)), strict=True
        )
    )
    return (y.reshape(rows, 1, -1, 1) & x.reshape(1, columns, 1, -1)).flatten(0, 1).to(like)


def pushed(function: Callable[[Tensor], Tensor], at: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
    """A function's value, and its derivative along ``way``, row by row.

    Example:
        >>> pushed(torch.square, torch.tensor([3.0]), torch.tensor([0.5]))
        (tensor([9.]), tensor([3.]))
    """
    with torch.no_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(at, way)))
        return value, torch.zeros_like(value) if tangent is None else tangent


def modulation_shares(
    model: TransINR, x: Modulations, x0: Modulations, owner: Owners, size: tuple[int, int], steps: int, rows: int
) -> Tensor:
    r"""Parts of tokens in the change of what is drawn from ``x0`` to ``x``: (B, owners, C, H, W).

    .. math:: I_t = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_t \, da

    Args:
        model: what draws.
        x: modulations of B pictures.
        x0: where the path begins: (1, rows, in) a layer for all, or one each.
        owner: :func:`owners`.
        size: of what is drawn.
        steps: midpoints of the path.
        rows: networks drawn at once.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017), sec. 3.
    """
    start, way = flat(x0), flat(x) - flat(x0)
    start = start.expand_as(way)
    paint = _painter(model, size)
    total = _zeros(len(way) * owner.entries, model, size, way)
    for a in midpoints(steps):
        for low, high in chunks(len(total), rows):
            b, entry = _pairs(low, high, owner.entries, way.device)
            along = way[b] * (owner.ids == entry[:, None])
            total[low:high] += pushed(paint, (start + a * way)[b], along)[1] / steps
    return total.reshape(len(way), owner.entries, *total.shape[1:])


def patch_shares(
    model: TransINR, x: Tensor, x0: Tensor, seen: Tensor | None, size: tuple[int, int], steps: int, rows: int
) -> Tensor:
    r"""Parts of data patches in the change of what is drawn from picture ``x0`` to ``x``: (B, patches, C, H, W).

    .. math:: D_q = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_q \, da

    Args:
        model: what reads and draws.
        x: (B, C, H, W).
        x0: where the path begins, like ``x``.
        seen: what may be looked at, (B, …), or None.
        size: of what is drawn.
        steps: midpoints of the path.
        rows: pictures read at once.
    """
    way, masks = x - x0, patch_masks(model, (x.shape[2], x.shape[3]))
    total = _zeros(len(x) * len(masks), model, size, x)
    for a in midpoints(steps):
        for low, high in chunks(len(total), rows):
            b, patch = _pairs(low, high, len(masks), x.device)
            mask = None if seen is None else seen[b]
            along = way[b] * masks[patch][:, None]
            drawn = pushed(lambda part, mask=mask: model(part, mask, size), (x0 + a * way)[b], along)  # type: ignore[misc]
            total[low:high] += drawn[1] / steps
    return total.reshape(len(x), len(masks), *total.shape[1:])


def composed_shares(
    model: TransINR,
    x: Tensor,
    x0: Tensor,
    seen: Tensor | None,
    owner: Owners,
    size: tuple[int, int],
    steps: int,
    rows: int,
    patches: Sequence[int] | None = None,
) -> Tensor:
    r""":func:`patch_shares` split by the token that carries them: (B, patches, owners, C, H, W).

    .. math:: D_{qt} = \int_0^1 \frac{\partial y}{\partial x_t} \frac{\partial x_t}{\partial q} \, da

    The chain rule inside the integral: the sum over tokens is :func:`patch_shares` with as many steps, to rounding.

    Args:
        model: what reads and draws.
        x: (B, C, H, W).
        x0: where the path begins, like ``x``.
        seen: what may be looked at, (B, …), or None.
        owner: :func:`owners`.
        size: of what is drawn.
        steps: midpoints of the path.
        rows: networks drawn at once, and pictures read at once.
        patches: only these, in this order; None is all.

    Raises:
        ValueError: a patch that is not there.
    """
    way, masks, paint = x - x0, patch_masks(model, (x.shape[2], x.shape[3])), _painter(model, size)
    if patches is not None:
        if not patches or not all(0 <= q < len(masks) for q in patches):
            raise ValueError(f"patches are {list(patches)}; expected one or more of 0 to {len(masks) - 1}.")
        masks = masks[list(patches)]
    total = _zeros(len(x) * len(masks) * owner.entries, model, size, x)
    for a in midpoints(steps):
        for first, stop in chunks(len(x) * len(masks), rows):
            b, patch = _pairs(first, stop, len(masks), x.device)
            mask = None if seen is None else seen[b]
            along = way[b] * masks[patch][:, None]
            read = lambda part, mask=mask: flat(model.modulations(part, mask))  # noqa: E731
            at, moved = pushed(read, (x0 + a * way)[b], along)
            for low, high in chunks((stop - first) * owner.entries, rows):
                row, entry = _pairs(low, high, owner.entries, x.device)
                drawn = pushed(paint, at[row], moved[row] * (owner.ids == entry[:, None]))[1]
                total[first * owner.entries + low : first * owner.entries + high] += drawn / steps
    return total.reshape(len(x), len(masks), owner.entries, *total.shape[1:])


def _painter(model: TransINR, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda numbers: model.paint(model.weights(unflat(model, numbers)), size)


def _pairs(low: int, high: int, inner: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows ``low`` to ``high`` of (outer, inner) pairs, inner the faster."""
    row = torch.arange(low, high, device=device)
    return row // inner, row % inner


def _zeros(rows: int, model: TransINR, size: tuple[int, int], like: Tensor) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)  # sums of many steps want more digits than bfloat16 has
    return torch.zeros(rows, model.config["channels"], *size, dtype=dtype, device=like.device)
