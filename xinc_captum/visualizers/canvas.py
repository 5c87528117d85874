"""Figures of canvases: grids, single neurons, pixels, build-up of an image."""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from .layout import add_colorbar, array, draw_map, draw_photo, draw_signed, limit_of, new_figure
from .style import INK

UNIT_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd")
CHANNEL_COLOURS = ("#d62728", "#2ca02c", "#1f77b4")  # light of the red, green and blue channel


def brightness(maps: Tensor) -> Tensor:
    """Return the mean over channels, the change of brightness: (units, channels, H, W) to (units, H, W)."""
    return maps.mean(1) if maps.dim() == 4 else maps


def order_by_total(maps: Tensor) -> Tensor:
    """Return unit numbers from the largest Σ|c| to the smallest."""
    return maps.abs().flatten(1).sum(1).argsort(descending=True)


def canvas_grid(maps: Tensor, photo: Tensor, *, layer: str = "layer", neurons: int = 23) -> Figure:
    """Draw the photo and the signed maps of the strongest neurons of a layer, each on its own scale.

    Args:
        maps: (units, channels, H, W) or (units, H, W) contributions.
        photo: (C, H, W) in [0, 1].
        layer: name of the layer, for the heading.
        neurons: number of neurons, at most.

    Example:
        >>> figure = canvas_grid(torch.randn(6, 3, 8, 12), torch.rand(3, 8, 12))
        >>> figure.savefig("canvases.png")  # doctest: +SKIP
    """
    signed = brightness(maps)
    order = order_by_total(maps)[:neurons].tolist()
    totals = maps.abs().flatten(1).sum(1)
    columns = min(6, len(order) + 1)
    rows = math.ceil((len(order) + 1) / columns)
    height, width = photo.shape[-2:]
    cell = 2.0
    figure = new_figure(
        columns * cell + 0.9,
        rows * (0.93 * cell * height / width + 0.36) + 0.75,
        f"Contribution of each neuron of {layer}",
        f"the {len(order)} strongest of {len(maps)} neurons, strongest first, each on its own scale; "
        "%: share of the neuron in the contributions of the layer",
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    draw_photo(axes[0], photo, "the picture")
    for axis, unit in zip(axes[1:], order, strict=False):
        note = f"{100 * totals[unit] / totals.sum():.1f} %"
        draw_signed(axis, signed[unit], limit_of(signed[unit]), f"neuron {unit}", note=note)
    for axis in axes[len(order) + 1 :]:
        axis.set_axis_off()
    add_colorbar(figure, list(axes), 1.0, low="darkens", high="brightens", shrink=0.6, aspect=30)
    return figure


def neuron_over_photo(one: Tensor, photo: Tensor, *, unit: int, layer: str = "layer") -> Figure:
    """Draw the image, the canvas of one neuron over it, and the image minus a multiple of the neuron's contribution.

    Args:
        one: (channels, H, W) or (H, W), contribution of the neuron in the units of the photo.
        photo: (C, H, W), the network's output.
        unit: number of the neuron, for the heading.
        layer: name of the layer, for the heading.
    """
    signed = one.mean(0) if one.dim() == 3 else one
    limit = limit_of(signed)
    height, width = photo.shape[-2:]
    figure = new_figure(10.5, 3.0 * height / width + 0.8, f"What neuron {unit} of {layer} does to the picture")
    axes = figure.subplots(1, 3)
    draw_photo(axes[0], photo, "the picture")
    draw_photo(axes[1], photo, grey=True)
    strength = 0.9 * (signed.abs() / limit).clamp(0, 1)
    draw_signed(axes[1], signed, limit, f"where neuron {unit} adds and removes light", alpha=array(strength))
    times = max(1, round(0.35 / limit))  # the contribution of one neuron of many is too weak to be visible
    title = f"the picture minus {'' if times == 1 else f'{times} x '}its contribution"
    draw_photo(axes[2], photo - times * (one if one.dim() == 3 else one[None]), title)
    add_colorbar(figure, list(axes), limit, low="darkens", high="brightens", shrink=0.8, aspect=25)
    return figure


def pixel_contributors(
    photo: Tensor, pixel: tuple[int, int], values: Tensor, indices: Tensor, maps: Tensor, *, layer: str = "layer"
) -> Figure:
    """Draw the position of one pixel, the contributions of its strongest neurons, and the canvases of these neurons.

    Args:
        photo: (C, H, W) in [0, 1].
        pixel: (y, x).
        values: (k, channels) contributions to that pixel, strongest neuron first.
        indices: (k,) numbers of these neurons.
        maps: (k, H, W) or (k, channels, H, W), their canvases.
        layer: name of the layer, for the heading.
    """
    k = min(len(values), 8)
    signed, numbers = brightness(maps)[:k], indices[:k].tolist()
    height, width = photo.shape[-2:]
    side = math.ceil(k / 2)
    figure = new_figure(
        12,
        max(2 * (1.75 * height / width + 0.3) + 0.8, 3.6),
        f"Contributions of neurons of {layer} to one pixel",
        "middle: contribution of each neuron to the red, green and blue value of the pixel; right: contributions of "
        "the same neurons to all pixels (red: positive, blue: negative)",
    )
    grid = figure.add_gridspec(2, 3 + side, width_ratios=[1, 1, 1.05, *[1] * side])
    where = figure.add_subplot(grid[:, :2])
    draw_photo(where, photo, "the circled pixel …")
    _ring(where, pixel, 12)
    rest = photo[:, pixel[0], pixel[1]] - values[:k].sum(0)
    _channel_bars(figure.add_subplot(grid[:, 2]), values[:k], [f"neuron {n}" for n in numbers], rest)
    for i, number in enumerate(numbers):
        axis = figure.add_subplot(grid[i // side, 3 + i % side])
        draw_signed(axis, signed[i], limit_of(signed[i]), f"neuron {number}")
        _ring(axis, pixel, 5)
    return figure


def _ring(axes: Axes, pixel: tuple[int, int], size: float) -> None:
    y, x = pixel
    for colour, width in (("black", size / 3.5), ("white", size / 8)):
        axes.plot([x], [y], marker="o", markersize=size, fillstyle="none", color=colour, markeredgewidth=width)


def _channel_bars(axes: Axes, values: Tensor, names: list[str], rest: Tensor) -> None:
    """Draw one group of bars per neuron and one bar per channel, grey for other channels than red, green and blue."""
    contributions = array(values)
    channels = contributions.shape[1]
    colours = CHANNEL_COLOURS if channels == 3 else ["#777777"] * channels
    height = 0.8 / channels
    for c in range(channels):
        positions = [i + (c - (channels - 1) / 2) * height for i in range(len(names))]
        axes.barh(positions, contributions[:, c], height=height, color=colours[c])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_title("… is changed most by", fontsize=9, color=INK)
    remainder = "  ".join(f"{value:+.2f}" for value in array(rest))
    axes.set_xlabel(f"negative  |  positive\nall other neurons and biases: {remainder}", fontsize=7.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def dominant_units(photo: Tensor, strongest: Tensor, *, layer: str = "layer", colours: int = 8) -> Figure:
    """Draw which neuron contributes most to each pixel, the most frequent neurons in their own colours.

    Args:
        photo: (C, H, W) in [0, 1].
        strongest: (H, W) unit numbers, for example ``canvas.top_units(1).indices[0]``.
        layer: name of the layer, for the heading.
        colours: number of neurons with a colour; all others are grey.
    """
    numbers, counts = strongest.long().unique(return_counts=True)
    order = counts.argsort(descending=True)
    leaders = numbers[order][:colours].tolist()
    labels = torch.full(strongest.shape, len(leaders))
    for rank, unit in enumerate(leaders):
        labels[strongest.long() == unit] = rank
    palette = [UNIT_COLOURS[i % len(UNIT_COLOURS)] for i in range(len(leaders))] + ["#dddddd"]
    height, width = photo.shape[-2:]
    title = f"Which neuron of {layer} contributes most, pixel by pixel"
    figure = new_figure(11.5, 4.2 * height / width + 0.75, title)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 0.42])
    draw_photo(axes[0], photo, "the picture")
    title, top = "each pixel in the colour of its strongest neuron", len(leaders) + 0.5
    draw_map(axes[1], labels, ListedColormap(palette), title, vmin=-0.5, vmax=top)
    shares = [float((strongest.long() == unit).float().mean()) for unit in leaders]
    shares.append(max(0.0, 1 - sum(shares)))
    names = [f"neuron {unit}" for unit in leaders] + [f"{len(numbers) - len(leaders)} others"]
    if len(numbers) == len(leaders):
        shares, names, palette = shares[:-1], names[:-1], palette[:-1]
    bars = axes[2].barh(range(len(shares)), [100 * s for s in shares], color=palette)
    axes[2].bar_label(bars, [f"{100 * s:.1f} %" for s in shares], fontsize=7.5, padding=3, color=INK)
    axes[2].set_xlim(0, 125 * max(shares))
    axes[2].set_yticks(range(len(shares)), names, fontsize=8)
    axes[2].invert_yaxis()
    axes[2].set_title("share of pixels", fontsize=9, color=INK)
    axes[2].set_xticks([])
    axes[2].spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def build_up(maps: Tensor, rest: Tensor, photo: Tensor, *, layer: str = "layer", stages: int = 6) -> Figure:
    """Draw how the image adds up neuron by neuron: above, partial sums; below, single neurons with different maps.

    Args:
        maps: (units, channels, H, W) contributions that, with ``rest``, add up to the image.
        rest: (channels, H, W), the contribution of no neuron (the biases).
        photo: (C, H, W) in [0, 1].
        layer: name of the layer, for the heading.
        stages: number of partial sums; the last one has every neuron.
    """
    order = order_by_total(maps)
    counts = sorted({0, *(round(len(order) * (s / (stages - 1)) ** 1.5) for s in range(1, stages))})
    signed = brightness(maps)
    alone = diverse_units(signed, len(counts))
    height, width = photo.shape[-2:]
    figure = new_figure(
        2.05 * (len(counts) + 1),
        2 * (1.88 * height / width + 0.27) + 0.75,
        "The output of a network as a sum over neurons",
        f"above: the neurons of one layer ({layer}) added up, the strongest first; below: single strong neurons",
    )
    axes = figure.subplots(2, len(counts) + 1, squeeze=False)
    so_far, used = rest.clone(), 0
    for column, count in enumerate(counts):
        so_far, used = so_far + maps[order[used:count]].sum(0), count
        titles = {0: "no neurons, only biases", 1: "1 neuron", len(order): f"all {count} neurons"}
        draw_photo(axes[0, column], so_far, titles.get(count, f"{count} neurons"))
        if column >= len(alone):
            axes[1, column].set_axis_off()
            continue
        unit = alone[column]
        draw_signed(axes[1, column], signed[unit], limit_of(signed[unit]), f"neuron {unit} alone")
    draw_photo(axes[0, -1], photo, "the photo")
    axes[1, -1].set_axis_off()
    inset = axes[1, -1].inset_axes((0.08, 0.08, 0.16, 0.84))
    add_colorbar(figure, None, 1.0, low="negative", high="positive", end=0.97, size=9, cax=inset)
    return figure


def diverse_units(signed: Tensor, count: int) -> list[int]:
    """Select units greedily by total x (1 − largest |correlation| with the units before), the strongest first."""
    flat = signed.flatten(1)
    totals = flat.abs().sum(1)
    centred = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    units = [int(totals.argmax())]
    while len(units) < min(count, len(flat)):
        similarity = (centred @ centred[units].T).abs().amax(1)
        score = totals * (1 - similarity)
        score[units] = -1
        units.append(int(score.argmax()))
    return units
