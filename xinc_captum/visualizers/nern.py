"""Pictures of kernels: what each neuron of a kernel-writing network wrote into a layer, and which layers it serves."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .style import (
    QUIET,
    array,
    bare,
    draw_signed,
    heading,
    limit_of,
    new_figure,
    signed_bar,
)

COLUMNS = 4


def mosaic(weight: Tensor) -> Tensor:
    """(F, C, h, w) as one map of kernels, a filter a row and a channel a column, NaN between them.

    Example:
        >>> mosaic(torch.zeros(2, 3, 3, 3)).shape
        torch.Size([7, 11])
    """
    filters, channels, height, width = weight.shape
    framed = torch.full((filters, height + 1, channels, width + 1), torch.nan, dtype=weight.dtype)
    framed[:, :height, :, :width] = weight.detach().cpu().permute(0, 2, 1, 3)
    return framed.reshape(filters * (height + 1), channels * (width + 1))[:-1, :-1]


def kernel_sheet(
    parts: Tensor,
    names: Sequence[str],
    expected: Tensor,
    *,
    generated: Tensor | None = None,
    layer: str = "",
    filters: int = 16,
    channels: int = 16,
) -> Figure:
    """The target's kernels, the generated ones, what is missing, and what each neuron wrote, on one scale.

    Args:
        parts: (n, F, C, h, w), such as some of a kernel canvas.
        names: one for each, such as "neuron 7" or "bias".
        expected: (F, C, h, w), the target's own weight.
        generated: likewise; None is the sum of ``parts``, which must then be all of them.
        layer: for the title.
        filters: at most so many are drawn, the first ones.
        channels: likewise.

    Raises:
        ValueError: shapes that do not fit, or another number of names.

    Example:
        >>> parts = torch.randn(5, 4, 3, 3, 3)
        >>> len(kernel_sheet(parts, list("abcde"), parts.sum(0)).axes)
        9
    """
    if parts.dim() != 5 or parts.shape[1:] != expected.shape or len(names) != len(parts):
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, expected {tuple(expected.shape)} and there are {len(names)} "
            "names; "
            "the shapes must be (n, F, C, h, w) and (F, C, h, w), with n names."
        )
    generated = parts.sum(0) if generated is None else generated
    first = [("the network's own kernels", expected), ("as generated", generated), ("missing", expected - generated)]
    tiles = [*first, *zip(names, parts, strict=True)]
    tiles = [(name, part[:filters, :channels]) for name, part in tiles]
    rows = -(-len(tiles) // COLUMNS)
    figure = new_figure(2.3 * COLUMNS, 0.9 + 2.3 * rows)
    shown = tuple(tiles[0][1].shape[:2])
    size = "" if shown == tuple(expected.shape[:2]) else f", the first {shown[0]} x {shown[1]} kernels"
    heading(figure, f"Who wrote {layer or 'the kernels'}", f"a filter a row, a channel a column{size}")
    limit = limit_of(torch.cat([part.detach().float().flatten().cpu() for _, part in tiles]))
    drawn = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (name, part) in zip(drawn, tiles, strict=False):
        draw_signed(axes, mosaic(part.float()), limit)
        bare(axes, name)
    for axes in drawn[len(tiles) :]:
        axes.remove()
    left = list(drawn[: len(tiles)])
    signed_bar(figure, left, limit, low="negative", high="positive", shrink=0.5)
    return figure


def layer_profile_sheet(share: Tensor, layers: Sequence[str], *, units: int = 40) -> Figure:
    """Which target layers each neuron serves more, or less, than the neurons do on average.

    Args:
        share: (neurons, layers), rows that sum to 1, such as a ``LayerProfile``'s without the bias.
        layers: their names.
        units: at most so many neurons, those whose profile is furthest from the average.

    Raises:
        ValueError: another number of dims, or of names.

    Example:
        >>> layer_profile_sheet(torch.rand(9, 3).softmax(1), ["a", "b", "c"]).axes[0].get_ylabel()
        'neurons, grouped by the layer they lean to'
    """
    if share.dim() != 2 or share.shape[1] != len(layers):
        raise ValueError(f"share has shape {tuple(share.shape)} for {len(layers)} layers; expected (neurons, layers).")
    living = (share.sum(1) > 0).nonzero()[:, 0]
    mean = share[living].mean(0)
    lean = (share[living] / mean.clamp_min(1e-12)).clamp_min(1e-3).log2()
    furthest = lean.abs().amax(1).argsort(descending=True)[:units]
    order = furthest[lean[furthest].argmax(1).argsort(stable=True)]
    figure = new_figure(max(9.0, 1.2 + 0.45 * len(layers)), 1.6 + 0.16 * len(order))
    heading(figure, "Which layers a neuron writes for", "red: more than the average neuron does; blue: less")
    axes = figure.subplots()
    draw_signed(axes, lean[order].clamp(-2, 2), 2.0, aspect="auto")
    axes.set_yticks(range(len(order)), [str(int(i)) for i in living[order]], fontsize=6)
    labels = [f"{name} ({part:.0%})" for name, part in zip(layers, array(mean), strict=True)]
    axes.set_xticks(range(len(layers)), labels, fontsize=7, rotation=30, ha="right", parse_math=False)
    axes.set_ylabel("neurons, grouped by the layer they lean to", fontsize=8, color=QUIET)
    signed_bar(figure, axes, 2.0, low="", high="", shrink=0.6)
    figure.axes[-1].set_yticks([-2, 0, 2], labels=["a quarter", "the average", "four times"])
    return figure
