"""Figures of kernels: contributions of the neurons of a kernel-generating network, and the layers they serve."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import QUIET, add_signed_colorbar, array, bare, draw_signed, heading, limit_of, new_figure

KERNEL_COLUMNS = 4


def mosaic(weight: Tensor) -> Tensor:
    """Arrange kernels (F, C, h, w) in one map, one row per filter and one column per channel, NaN between them.

    Example:
        >>> mosaic(torch.zeros(2, 3, 3, 3)).shape
        torch.Size([7, 11])
    """
    filters, channels, height, width = weight.shape
    cells = torch.full((filters, height + 1, channels, width + 1), torch.nan, dtype=weight.dtype)
    cells[:, :height, :, :width] = weight.detach().cpu().permute(0, 2, 1, 3)
    return cells.reshape(filters * (height + 1), channels * (width + 1))[:-1, :-1]


def kernel_sheet(
    parts: Tensor,
    names: Sequence[str],
    target: Tensor,
    *,
    generated: Tensor | None = None,
    layer: str = "",
    filters: int = 16,
    channels: int = 16,
) -> Figure:
    """Draw target kernels, generated kernels, their difference, and the contribution of each neuron, on one scale.

    Args:
        parts: (n, F, C, h, w), contributions, such as a selection from a kernel canvas.
        names: name of each contribution, such as "neuron 7" or "bias".
        target: (F, C, h, w), the target's own weight.
        generated: (F, C, h, w); None uses the sum of ``parts``, which must then be complete.
        layer: name for the title.
        filters: number of filters, at most; the first ones are drawn.
        channels: number of channels, at most.

    Raises:
        ValueError: shapes that do not match, or a wrong number of names.

    Example:
        >>> parts = torch.randn(5, 4, 3, 3, 3)
        >>> len(kernel_sheet(parts, list("abcde"), parts.sum(0)).axes)
        9
    """
    if parts.dim() != 5 or parts.shape[1:] != target.shape or len(names) != len(parts):
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, target {tuple(target.shape)}, with {len(names)} names; expected "
            "(n, F, C, h, w) and (F, C, h, w), with n names."
        )
    generated = parts.sum(0) if generated is None else generated
    first = [("target kernels", target), ("generated kernels", generated), ("difference", target - generated)]
    tiles = [(name, part[:filters, :channels]) for name, part in [*first, *zip(names, parts, strict=True)]]
    rows = -(-len(tiles) // KERNEL_COLUMNS)
    figure = new_figure(2.3 * KERNEL_COLUMNS, 0.9 + 2.3 * rows)
    size = tuple(tiles[0][1].shape[:2])
    note = "" if size == tuple(target.shape[:2]) else f", the first {size[0]} x {size[1]} kernels"
    heading(
        figure, f"Which neurons generate {layer or 'the kernels'}", f"one row per filter, one column per channel{note}"
    )
    limit = limit_of(torch.cat([part.detach().float().flatten().cpu() for _, part in tiles]))
    cells = figure.subplots(rows, KERNEL_COLUMNS, squeeze=False).ravel()
    for axes, (name, part) in zip(cells, tiles, strict=False):
        draw_signed(axes, mosaic(part.float()), limit)
        bare(axes, name)
    for axes in cells[len(tiles) :]:
        axes.remove()
    add_signed_colorbar(figure, list(cells[: len(tiles)]), limit, low="negative", high="positive", shrink=0.5)
    return figure


def layer_profile_sheet(share: Tensor, layers: Sequence[str], *, units: int = 40) -> Figure:
    """Draw which target layers each neuron contributes to more, or less, than the average neuron.

    Args:
        share: (neurons, layers), rows that sum to 1, such as those of a ``LayerProfile`` without the bias.
        layers: names of the layers.
        units: number of neurons, at most; those whose profile is furthest from the average are drawn.

    Raises:
        ValueError: another number of dimensions, or of names.

    Example:
        >>> layer_profile_sheet(torch.rand(9, 3).softmax(1), ["a", "b", "c"]).axes[0].get_ylabel()
        'neurons, grouped by their main layer'
    """
    if share.dim() != 2 or share.shape[1] != len(layers):
        raise ValueError(f"share has shape {tuple(share.shape)} for {len(layers)} layers; expected (neurons, layers).")
    alive = (share.sum(1) > 0).nonzero()[:, 0]
    mean = share[alive].mean(0)
    ratio = (share[alive] / mean.clamp_min(1e-12)).clamp_min(1e-3).log2()
    furthest = ratio.abs().amax(1).argsort(descending=True)[:units]
    order = furthest[ratio[furthest].argmax(1).argsort(stable=True)]
    figure = new_figure(max(9.0, 1.2 + 0.45 * len(layers)), 1.6 + 0.16 * len(order))
    heading(figure, "Which layers each neuron contributes to", "red: more than the average neuron; blue: less")
    axes = figure.subplots()
    draw_signed(axes, ratio[order].clamp(-2, 2), 2.0, aspect="auto")
    axes.set_yticks(range(len(order)), [str(int(i)) for i in alive[order]], fontsize=6)
    labels = [f"{name} ({part:.0%})" for name, part in zip(layers, array(mean), strict=True)]
    axes.set_xticks(range(len(layers)), labels, fontsize=7, rotation=30, ha="right", parse_math=False)
    axes.set_ylabel("neurons, grouped by their main layer", fontsize=8, color=QUIET)
    add_signed_colorbar(figure, axes, 2.0, low="", high="", shrink=0.6)
    figure.axes[-1].set_yticks([-2, 0, 2], labels=["a quarter", "the average", "four times"])
    return figure
