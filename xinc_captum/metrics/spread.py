"""Magnitudes of contributions, their completeness, shares of units, and their spread over pixels and units.

Most functions use magnitudes a[u, p] ≥ 0, **units before pixels, frames before units**. An image has (units, *size)
with size (H, W), (L,) or (D, H, W); a clip has (frames, units, H, W). Masks follow the same order: (regions, *size),
and (frames, objects, H, W). Results keep the order of the remaining axes. Magnitudes that are negative, not finite, or
without pixels raise ValueError.
"""

import torch
from torch import Tensor


def magnitudes(canvas: Tensor) -> Tensor:
    r"""Return magnitudes of signed contributions, summed over channels, in float32 or wider.

    .. math:: a_{u,p} = \Sigma_{ch} \, |c_{u,ch,p}|

    The absolute value is taken first, so that contributions of opposite signs in two channels do not cancel. Leave out
    the secant rule's bias remainder, which is not a unit: ``canvas.to_tensor()[: canvas.units]``.

    Args:
        canvas: (units, channels, H, W), or (frames, units, channels, H, W); another number of dims raises ValueError.

    Example:
        >>> magnitudes(torch.tensor([[[[1.0]], [[-1.0]]]])).tolist()
        [[[2.0]]]
    """
    if canvas.dim() not in (4, 5):
        raise ValueError(
            f"canvas has shape {tuple(canvas.shape)}; expected (units, channels, H, W), or (frames, units, channels, "
            "H, W) for a clip."
        )
    return canvas.abs().sum(-3, dtype=torch.promote_types(canvas.dtype, torch.float32))


def check_magnitudes(magnitudes: Tensor) -> Tensor:
    """Return checked magnitudes of one image, (units, *size), in float64 (float32 on MPS)."""
    if magnitudes.dim() < 2 or not magnitudes.numel():
        raise ValueError(
            f"magnitudes have shape {tuple(magnitudes.shape)}; expected (units, H, W), or (units, pixels)."
        )
    return _check_values(magnitudes)


def check_clip(magnitudes: Tensor) -> Tensor:
    """Return checked magnitudes of a clip, (frames, units, H, W), in float64 (float32 on MPS)."""
    if magnitudes.dim() != 4 or not magnitudes.numel():
        raise ValueError(f"magnitudes have shape {tuple(magnitudes.shape)}; expected a clip, (frames, units, H, W).")
    if len(magnitudes) < 2:
        raise ValueError("magnitudes have 1 frame; expected at least 2, because frames are compared.")
    return _check_values(magnitudes)


def check_masks(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return checked masks of one image, (regions, *size), in float64 (float32 on MPS); none may be empty."""
    if masks.dim() != 1 + len(size) or tuple(masks.shape[1:]) != size or not len(masks):
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for an image of {size}; expected (regions, "
            f"{', '.join(map(str, size))}), one mask of the image's size for each region."
        )
    check_weights(masks, ". For a map of labels, use as_masks(labels).")
    empty = [i for i, area in enumerate(masks.flatten(1).sum(1).tolist()) if area == 0]
    if empty:
        raise ValueError(f"masks {empty[:8]} are empty; expected at least one pixel in each region. Drop them.")
    return to_double(masks)


def check_weights(masks: Tensor, advice: str = ": divide a 0-255 mask by 255.") -> None:
    """Check that masks are bool or weights in [0, 1]."""
    if not ((masks >= 0) & (masks <= 1)).all():  # negated, so that nan raises too
        low, high = float(masks.min()), float(masks.max())
        raise ValueError(f"masks go from {low:.3g} to {high:.3g}; expected bool, or weights in [0, 1]{advice}")


def to_double(values: Tensor) -> Tensor:
    """Return float64 values, for sums over millions of pixels; float32 on MPS, which has no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def _check_values(magnitudes: Tensor) -> Tensor:
    if not magnitudes.isfinite().all():
        raise ValueError("magnitudes have values that are not finite; expected finite ones >= 0.")
    if (magnitudes < 0).any():
        raise ValueError(
            f"magnitudes go down to {float(magnitudes.min()):.3g}; expected magnitudes >= 0. From a signed canvas, "
            "magnitudes(canvas) makes them."
        )
    return to_double(magnitudes.detach())


def share(magnitudes: Tensor, masks: Tensor | None = None) -> Tensor:
    r"""Return each unit's share of the total magnitude in each region, or in the whole image without masks: float64.

    .. math:: s_{R,u} = \Sigma_{p \in R}\, a_{u,p} \, / \, \Sigma_v \Sigma_{p \in R}\, a_{v,p}

    Args:
        magnitudes: (units, *size), >= 0.
        masks: (regions, *size), bool or weights in [0, 1]; another size or an empty region raises ValueError.

    Returns:
        (regions, units), each row of which sums to 1, or (units,) without masks; nan if the total is 0.

    Example:
        >>> share(torch.tensor([[3.0, 0.0], [1.0, 4.0]])).tolist()
        [0.375, 0.625]
    """
    wide = check_magnitudes(magnitudes)
    if masks is None:
        sums = wide.flatten(1).sum(1)
        return sums / sums.sum()
    inside = check_masks(masks, tuple(wide.shape[1:])).to(wide.device).flatten(1) @ wide.flatten(1).T
    return inside / inside.sum(1, keepdim=True)


def pool_cells(magnitudes: Tensor, grid: tuple[int, int] = (8, 16)) -> Tensor:
    r"""Return mean magnitudes over the cells of a grid: vectors of one length for canvases of any size, float64.

    .. math:: v_{u,g} = \mathrm{mean}_{p \in \text{cell } g}\; a_{u,p}

    The cells are those of :func:`grid_cells`. For a canvas larger than memory, compute the same from its sums over the
    regions ``as_masks(grid_cells(size, grid))``, divided by their areas.

    Args:
        magnitudes: (units, H, W), or (frames, units, H, W), >= 0; the result has ``grid`` instead of H and W.
        grid: rows and columns of cells; more than H and W raise ValueError.

    Example:
        >>> pool_cells(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]), (1, 2)).tolist()
        [[[3.0, 5.0]]]
    """
    if magnitudes.dim() not in (3, 4):
        raise ValueError(
            f"magnitudes have shape {tuple(magnitudes.shape)}; expected (units, H, W), or (frames, units, H, W) for a "
            "clip."
        )
    size = magnitudes.shape[-2:]
    if not all(1 <= cells <= side for cells, side in zip(grid, size, strict=True)):
        raise ValueError(f"grid is {grid} for images of {tuple(size)}; expected at least one pixel a cell.")
    wide = check_magnitudes(magnitudes)
    down, across = (_means(side, cells).to(wide) for side, cells in zip(size, grid, strict=True))
    return down @ wide @ across.T


def _means(side: int, cells: int) -> Tensor:
    """Return a (cells, side) matrix that computes means over cells."""
    member = (torch.arange(side) * cells // side == torch.arange(cells)[:, None]).double()
    return member / member.sum(1, keepdim=True)


def pixels_per_unit(magnitudes: Tensor) -> Tensor:
    r"""Return the number of pixels at which a unit contributes more than an equal share: (units,) int64.

    .. math:: n_u = \#\{p : a_{u,p} / \Sigma_v a_{v,p} > 1/N\}

    Symbols: a the magnitudes, (units, *size), N the number of units. Pixels without contributions count for no unit.
    Control: :func:`shuffle_units`, under which all units have about the same number.

    Example:
        >>> pixels_per_unit(torch.tensor([[3.0, 3.0, 1.0], [1.0, 0.0, 1.0]]))
        tensor([2, 0])

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code.
    """
    flat = check_magnitudes(magnitudes).flatten(1)
    return (flat * len(flat) > flat.sum(0)).sum(1)


def units_per_pixel(magnitudes: Tensor, covering: float = 0.9) -> Tensor:
    r"""Return how many of the layer's largest contributions lie at each pixel: size, int64.

    .. math:: n_p = \#\{u : a_{u,p} \ge t\}, \quad t = \max\{t : \Sigma_{a \ge t}\, a \ge q \,\Sigma a\}

    Symbols: a the magnitudes, (units, *size), q ``covering``, the fraction of the layer's total, in (0, 1], that the
    counted contributions sum to. Control: :func:`shuffle_pixels`. Divide by the number of units for the paper's heat
    map.

    Example:
        >>> units_per_pixel(torch.tensor([[8.0, 1.0], [1.0, 0.0]]), covering=0.8)
        tensor([1, 0])

    Source: as :func:`pixels_per_unit`, in which the threshold of one layer is applied to the maps of another.
    """
    _check_part(covering, "covering")
    wide = check_magnitudes(magnitudes)
    ordered = wide.flatten().sort(descending=True).values
    running = ordered.cumsum(0)
    place = torch.searchsorted(running, running[-1] * covering * (1 - 1e-12)).clamp_max(len(running) - 1)
    return ((wide >= ordered[place]) & (wide > 0)).sum(0)


def participation(magnitudes: Tensor, dim: int = 0) -> Tensor:
    r"""Return the effective number of contributors: 1 for a single one, N for N equal ones; nan where all are 0.

    .. math:: r = (\Sigma_i a_i)^2 \, / \, \Sigma_i a_i^2

    The sums run over ``dim`` of magnitudes a, (units, *size): 0 counts the units of each pixel. To count the pixels of
    each unit, give ``magnitudes.flatten(1)`` and 1. The result is float64.

    Example:
        >>> participation(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
        tensor([2., 1.], dtype=torch.float64)

    Source: the inverse participation ratio of Bell & Dean (1970).
    """
    wide = check_magnitudes(magnitudes)
    wide = wide / wide.amax(dim, keepdim=True)  # tiny magnitudes must not underflow when squared
    return wide.sum(dim).square() / wide.square().sum(dim)


def units_for(magnitudes: Tensor, part: float = 0.9) -> Tensor:
    r"""Return the smallest number of units that sum to a fraction of each pixel's total: size, int64; 0 if it is 0.

    .. math:: k_p = \min\{k : \Sigma_{i \le k} a_{(i),p} \ge q \,\Sigma_u a_{u,p}\}

    Symbols: a_(i) the i-th largest magnitude at the pixel, q ``part``, in (0, 1]. Control: :func:`shuffle_pixels`. For
    a whole layer: ``units_for(magnitudes.flatten(1).sum(1, keepdim=True))``.

    Example:
        >>> units_for(torch.tensor([[5.0, 1.0], [4.0, 0.0], [1.0, 0.0]]), part=0.9)
        tensor([2, 1])
    """
    _check_part(part, "part")
    wide = check_magnitudes(magnitudes)
    running = wide.sort(0, descending=True).values.cumsum(0)
    short = running < running[-1] * part * (1 - 1e-12)  # the last sum must reach 100 % of itself
    return (short.sum(0) + 1) * (running[-1] > 0)


def cumulative_share(magnitudes: Tensor) -> Tensor:
    r"""Return the share of a pixel's total that its k largest units sum to, averaged over pixels, for k from 0 to all.

    .. math:: S_k = \mathrm{mean}_p \; \Sigma_{i \le k} a_{(i),p} \, / \, \Sigma_u a_{u,p}

    Symbols: a_(i) the i-th largest magnitude at the pixel. The result is (units + 1,) float64 for magnitudes (units,
    *size). Pixels without contributions are left out. Control: :func:`shuffle_pixels`.

    Example:
        >>> cumulative_share(torch.tensor([[1.0], [3.0]])).tolist()
        [0.0, 0.75, 1.0]
    """
    flat = check_magnitudes(magnitudes).flatten(1)
    flat = flat[:, flat.sum(0) > 0]
    curve = (flat.sort(0, descending=True).values.cumsum(0) / flat.sum(0)).mean(1)
    return torch.cat([curve.new_zeros(1), curve])


def _check_part(part: float, name: str) -> None:
    if not 0 < part <= 1:
        raise ValueError(f"{name} is {part}; expected a fraction above 0 and at most 1.")


def completeness_error(shares: Tensor, output: Tensor) -> Tensor:
    r"""Return the largest difference of the contributions' sum from the output, relative to the output: a scalar.

    .. math:: \max |\Sigma_u c_u - y| \, / \, \max |y|

    Args:
        shares: c, (rows, units, *output_shape), including the bias remainder if there is one; summed in float32 or
            wider.
        output: y, (rows, *output_shape); another shape or no rows raise ValueError.

    Example:
        >>> completeness_error(torch.tensor([[0.5, 0.25]]), torch.tensor([1.0]))
        tensor(0.2500)
    """
    parts, full_output = _check_shapes(shares, output)
    return (parts.sum(1) - full_output).abs().max() / full_output.abs().max().clamp_min(
        torch.finfo(full_output.dtype).tiny
    )


def condition_number(shares: Tensor, output: Tensor) -> Tensor:
    r"""Return the ratio of the contributions' total magnitude to the magnitude of their sum: (rows, *output_shape).

    .. math:: \kappa = \Sigma_u |c_u| \, / \, |y|

    Symbols: c, y those of :func:`completeness_error`. 1 means that nothing cancels; log10 κ is the number of digits
    that are lost by cancellation. The arguments are the same.

    Example:
        >>> condition_number(torch.tensor([[2.0, -1.0]]), torch.tensor([1.0]))
        tensor([3.])
    """
    parts, full_output = _check_shapes(shares, output)
    return parts.abs().sum(1) / full_output.abs().clamp_min(torch.finfo(full_output.dtype).tiny)


def _check_shapes(shares: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in float32 or wider, as float16 overflows; other shapes raise an error (no broadcasting)."""
    if shares.dim() < 2 or (len(shares), *shares.shape[2:]) != tuple(output.shape) or not output.numel():
        raise ValueError(
            f"shares have shape {tuple(shares.shape)} and output {tuple(output.shape)}; expected (rows, units, "
            "*output_shape) and (rows, *output_shape), for example output[:, target]."
        )
    wide, full_output = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (shares, output))
    return wide, full_output
