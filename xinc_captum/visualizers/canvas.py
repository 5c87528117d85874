"""Canvas grids, build-up, films."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .layout import MARGIN, Sheet
from .style import INK, QUIET, SIGNED, array, bare, draw_photo, draw_signed, heading, limit_of, new_figure, signed_bar


def brightness(maps: Tensor) -> Tensor:
    """Mean over channels, the change of brightness: (units, channels, H, W) to (units, H, W)."""
    return maps.mean(1) if maps.dim() == 4 else maps


def order_by_total(maps: Tensor) -> Tensor:
    """Unit numbers from the largest Σ|c| to the smallest."""
    return maps.abs().flatten(1).sum(1).argsort(descending=True)


def canvas_grid(maps: Tensor, photo: Tensor, *, layer: str = "layer", shown: int = 23) -> Figure:
    """The strongest neurons of a layer beside the photo, one signed map each, every map on its own scale.

    Args:
        maps: (units, channels, H, W) or (units, H, W) contributions.
        photo: (C, H, W) in [0, 1].
        layer: its name, for the heading.
        shown: at most so many neurons.

    Example:
        >>> figure = canvas_grid(torch.randn(6, 3, 8, 12), torch.rand(3, 8, 12))
        >>> figure.savefig("canvases.png")  # doctest: +SKIP
    """
    signed = brightness(maps)
    order = order_by_total(maps)[:shown].tolist()
    totals = maps.abs().flatten(1).sum(1)
    columns = min(6, len(order) + 1)
    rows = math.ceil((len(order) + 1) / columns)
    height, width = photo.shape[-2:]
    cell = 2.0
    figure = new_figure(columns * cell + 0.9, rows * (0.93 * cell * height / width + 0.36) + 0.75)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    draw_photo(axes[0], photo)
    bare(axes[0], "the picture")
    for axis, unit in zip(axes[1:], order, strict=False):
        draw_signed(axis, signed[unit], limit_of(signed[unit]))
        bare(axis, f"neuron {unit}", note=f"{100 * totals[unit] / totals.sum():.1f} %")
    for axis in axes[len(order) + 1 :]:
        axis.set_axis_off()
    signed_bar(figure, list(axes), 1.0, low="darkens", high="brightens", shrink=0.6, aspect=30)
    heading(
        figure,
        f"What each neuron of {layer} paints",
        f"the {len(order)} strongest of {len(maps)} neurons, strongest first, each on its own scale; "
        "%: the neuron's share of all that the layer adds and takes away",
    )
    return figure


def neuron_over_photo(one: Tensor, photo: Tensor, *, unit: int, layer: str = "layer") -> Figure:
    """One neuron: the picture, the neuron's canvas over it, and the picture minus a multiple of the neuron's part.

    Args:
        one: (channels, H, W) or (H, W), the neuron's contribution in the photo's units.
        photo: (C, H, W), what the network draws.
        unit: its number, for the heading.
        layer: its layer's name.
    """
    signed = one.mean(0) if one.dim() == 3 else one
    limit = limit_of(signed)
    height, width = photo.shape[-2:]
    figure = new_figure(10.5, 3.0 * height / width + 0.8)
    axes = figure.subplots(1, 3)
    draw_photo(axes[0], photo)
    bare(axes[0], "the picture")
    draw_photo(axes[1], photo, grey=True)
    strength = 0.9 * (signed.abs() / limit).clamp(0, 1)
    draw_signed(axes[1], signed, limit, alpha=array(strength))
    bare(axes[1], f"where neuron {unit} adds and removes light")
    times = max(1, round(0.35 / limit))  # a single neuron of many is too weak to be missed at its own strength
    draw_photo(axes[2], photo - times * (one if one.dim() == 3 else one[None]))
    bare(axes[2], "the picture minus its part" if times == 1 else f"the picture minus {times} times its part")
    signed_bar(figure, list(axes), limit, low="darkens", high="brightens", shrink=0.8, aspect=25)
    heading(figure, f"What neuron {unit} of {layer} does to the picture")
    return figure


def pixel_contributors(
    photo: Tensor, pixel: tuple[int, int], values: Tensor, indices: Tensor, maps: Tensor, *, layer: str = "layer"
) -> Figure:
    """One pixel: where it is, what its strongest neurons add to each channel, and what they paint elsewhere.

    Args:
        photo: (C, H, W) in [0, 1].
        pixel: (y, x).
        values: (k, channels) contributions to that pixel, strongest neuron first.
        indices: (k,) the neurons' numbers.
        maps: (k, H, W) or (k, channels, H, W), their canvases.
        layer: its name, for the heading.
    """
    k = min(len(values), 8)
    signed, numbers = brightness(maps)[:k], indices[:k].tolist()
    height, width = photo.shape[-2:]
    side = math.ceil(k / 2)
    figure = new_figure(12, max(2 * (1.75 * height / width + 0.3) + 0.8, 3.6))
    grid = figure.add_gridspec(2, 3 + side, width_ratios=[1, 1, 1.05, *[1] * side])
    where = figure.add_subplot(grid[:, :2])
    draw_photo(where, photo)
    _ring(where, pixel, 12)
    bare(where, "the circled pixel …")
    rest = photo[:, pixel[0], pixel[1]] - values[:k].sum(0)
    _channel_bars(figure.add_subplot(grid[:, 2]), values[:k], [f"neuron {n}" for n in numbers], rest)
    for i, number in enumerate(numbers):
        axis = figure.add_subplot(grid[i // side, 3 + i % side])
        draw_signed(axis, signed[i], limit_of(signed[i]))
        _ring(axis, pixel, 5)
        bare(axis, f"neuron {number}")
    heading(
        figure,
        f"Who paints this pixel? ({layer})",
        "middle: red, green and blue light that each neuron adds to the pixel; right: what the same neurons do "
        "everywhere (red brightens, blue darkens)",
    )
    return figure


def _ring(axes: Axes, pixel: tuple[int, int], size: float) -> None:
    y, x = pixel
    for colour, thick in (("black", size / 3.5), ("white", size / 8)):
        axes.plot([x], [y], marker="o", markersize=size, fillstyle="none", color=colour, markeredgewidth=thick)


def _channel_bars(axes: Axes, values: Tensor, names: list[str], rest: Tensor) -> None:
    """One group of bars a neuron, one bar a channel: red, green and blue light, or grey for other channels."""
    amounts = array(values)
    channels = amounts.shape[1]
    colours = ["#d62728", "#2ca02c", "#1f77b4"] if channels == 3 else ["#777777"] * channels
    thick = 0.8 / channels
    for c in range(channels):
        places = [i + (c - (channels - 1) / 2) * thick for i in range(len(names))]
        axes.barh(places, amounts[:, c], height=thick, color=colours[c])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_title("… is changed most by", fontsize=9, color=INK)
    others = "  ".join(f"{amount:+.2f}" for amount in array(rest))
    axes.set_xlabel(f"takes light away  |  adds light\nall other neurons and biases: {others}", fontsize=7.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def dominant_units(photo: Tensor, strongest: Tensor, *, layer: str = "layer", named: int = 8) -> Figure:
    """Which neuron contributes most to each pixel, the most frequent ones in colours of their own.

    Args:
        photo: (C, H, W) in [0, 1].
        strongest: (H, W) unit numbers, for example ``canvas.top_units(1).indices[0]``.
        layer: its name, for the heading.
        named: how many neurons get a colour; the rest is grey.
    """
    numbers, counts = strongest.long().unique(return_counts=True)
    order = counts.argsort(descending=True)
    leaders = numbers[order][:named].tolist()
    labels = torch.full(strongest.shape, len(leaders))
    for rank, unit in enumerate(leaders):
        labels[strongest.long() == unit] = rank
    colours = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd"]
    colours = [colours[i % len(colours)] for i in range(len(leaders))] + ["#dddddd"]
    height, width = photo.shape[-2:]
    figure = new_figure(11.5, 4.2 * height / width + 0.75)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 0.42])
    draw_photo(axes[0], photo)
    bare(axes[0], "the picture")
    axes[1].imshow(
        array(labels), cmap=ListedColormap(colours), vmin=-0.5, vmax=len(leaders) + 0.5, interpolation="nearest"
    )
    bare(axes[1], "each pixel in the colour of its strongest neuron")
    shares = [float((strongest.long() == unit).float().mean()) for unit in leaders]
    shares.append(max(0.0, 1 - sum(shares)))
    names = [f"neuron {unit}" for unit in leaders] + [f"{len(numbers) - len(leaders)} others"]
    if len(numbers) == len(leaders):
        shares, names, colours = shares[:-1], names[:-1], colours[:-1]
    bars = axes[2].barh(range(len(shares)), [100 * s for s in shares], color=colours)
    axes[2].bar_label(bars, [f"{100 * s:.1f} %" for s in shares], fontsize=7.5, padding=3, color=INK)
    axes[2].set_xlim(0, 125 * max(shares))
    axes[2].set_yticks(range(len(shares)), names, fontsize=8)
    axes[2].invert_yaxis()
    axes[2].set_title("strongest at so many pixels", fontsize=9, color=INK)
    axes[2].set_xticks([])
    axes[2].spines[["top", "right", "bottom"]].set_visible(False)
    heading(figure, f"Which neuron of {layer} contributes most, pixel by pixel")
    return figure


def build_up(maps: Tensor, rest: Tensor, photo: Tensor, *, layer: str = "layer", stages: int = 6) -> Figure:
    """The picture growing neuron by neuron: above, the sum so far; below, unlike neurons one by one.

    Args:
        maps: (units, channels, H, W) contributions that, with ``rest``, add up to the picture.
        rest: (channels, H, W) what belongs to no neuron (the biases).
        photo: (C, H, W), the photograph itself.
        layer: its name, for the heading.
        stages: how many sums are shown, the last with every neuron.
    """
    order = order_by_total(maps)
    counts = sorted({0, *(round(len(order) * (s / (stages - 1)) ** 1.5) for s in range(1, stages))})
    signed = brightness(maps)
    alone = unlike(signed, len(counts))
    height, width = photo.shape[-2:]
    figure = new_figure(2.05 * (len(counts) + 1), 2 * (1.88 * height / width + 0.27) + 0.75)
    axes = figure.subplots(2, len(counts) + 1, squeeze=False)
    so_far, used = rest.clone(), 0
    for column, count in enumerate(counts):
        so_far, used = so_far + maps[order[used:count]].sum(0), count
        draw_photo(axes[0, column], so_far)
        named = {0: "no neurons, only biases", 1: "1 neuron", len(order): f"all {count} neurons"}
        bare(axes[0, column], named.get(count, f"{count} neurons"))
        if column >= len(alone):
            axes[1, column].set_axis_off()
            continue
        unit = alone[column]
        draw_signed(axes[1, column], signed[unit], limit_of(signed[unit]))
        bare(axes[1, column], f"neuron {unit} alone")
    draw_photo(axes[0, -1], photo)
    bare(axes[0, -1], "the photo")
    axes[1, -1].set_axis_off()
    inset = axes[1, -1].inset_axes((0.08, 0.08, 0.16, 0.84))
    bar = figure.colorbar(ScalarMappable(Normalize(-1, 1), SIGNED), cax=inset)
    bar.set_ticks([-0.97, 0, 0.97], labels=["takes light away", "nothing", "adds light"])
    bar.ax.tick_params(labelsize=9, colors=INK, length=0)
    bar.outline.set_visible(False)
    heading(
        figure,
        "A network paints a photo, neuron by neuron",
        f"above: the neurons of one layer ({layer}) added up, the strongest first; below: single strong neurons",
    )
    return figure


def unlike(signed: Tensor, count: int) -> list[int]:
    """``count`` strong units whose maps resemble each other least, the strongest first.

    Greedy: the next unit has the largest total x (1 − its largest |correlation| with those taken).
    """
    flat = signed.flatten(1)
    totals = flat.abs().sum(1)
    centred = torch.nn.functional.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    taken = [int(totals.argmax())]
    while len(taken) < min(count, len(flat)):
        likeness = (centred @ centred[taken].T).abs().amax(1)
        score = totals * (1 - likeness)
        score[taken] = -1
        taken.append(int(score.argmax()))
    return taken


FILM_PAGE = 11.0  # inches
FILM_LABEL = 1.5  # inches left of the frames


class FilmRow(NamedTuple):
    """One unit through time.

    Attributes:
        layer: heads the rows of the same layer.
        unit: its name.
        note: why it is shown.
        maps: (frames, H, W), signed: what it adds to and takes away from the brightness.
    """

    layer: str
    unit: str
    note: str
    maps: Tensor


def unit_film(frames: Tensor, rows: Sequence[FilmRow], *, columns: int = 8) -> Figure:
    """The frames, and under them the canvases of units, each on one scale for all of its frames.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        rows: units in the order to show them, those of a layer together.
        columns: at most so many frames; of more, evenly spaced ones.

    Raises:
        ValueError: no rows, or maps of another size than the frames.

    Example:
        >>> row = FilmRow("blocks.0", "unit 3", "strongest", torch.randn(4, 8, 12))
        >>> unit_film(torch.rand(4, 3, 8, 12), [row]).savefig("film.png")  # doctest: +SKIP
    """
    expected = (len(frames), *frames.shape[2:])
    wrong = [tuple(row.maps.shape) for row in rows if tuple(row.maps.shape) != expected]
    if wrong or not rows:
        raise ValueError(
            f"got {len(rows)} rows with maps of shapes {wrong[:3]}; expected at least one, all {expected}."
        )
    kept = torch.linspace(0, len(frames) - 1, min(len(frames), columns)).round().long().tolist()
    cell = (FILM_PAGE - 2 * MARGIN - FILM_LABEL) / len(kept)
    tall = (cell - 0.04) * frames.shape[-2] / frames.shape[-1]
    sheet = Sheet(FILM_PAGE)
    top = sheet.heading(
        "What single units paint, frame by frame",
        "red: the unit makes the place brighter; blue: darker; each row on a scale of its own, the same for all frames",
    )
    for i, t in enumerate(kept):
        sheet.line(MARGIN + FILM_LABEL + (i + 0.5) * cell, top, f"frame {t}", size=8, colour=QUIET, align="center")
    top += 0.17
    sheet.paragraph(MARGIN, top, "the clip", FILM_LABEL - 0.1, bold=True)
    for i, t in enumerate(kept):
        axes = sheet.axes(MARGIN + FILM_LABEL + i * cell + 0.02, top, cell - 0.04, tall)
        draw_photo(axes, frames[t])
        bare(axes)
    top += tall + 0.12
    for layer, group in groupby(rows, key=lambda row: row.layer):
        top = sheet.line(MARGIN, top, layer, size=10, bold=True) + 0.04
        for row in group:
            below = sheet.paragraph(MARGIN, top, row.unit, FILM_LABEL - 0.1)
            sheet.paragraph(MARGIN, below, row.note, FILM_LABEL - 0.15, size=8, colour=QUIET)
            limit = limit_of(row.maps)
            for i, t in enumerate(kept):
                axes = sheet.axes(MARGIN + FILM_LABEL + i * cell + 0.02, top, cell - 0.04, tall)
                draw_signed(axes, row.maps[t], limit)
                bare(axes)
            top += tall + 0.06
        top += 0.08
    return sheet.finish(_scale(sheet, top))


def _scale(sheet: Sheet, top: float) -> float:
    left, across = MARGIN + FILM_LABEL + 0.02, 2.2
    axes = sheet.axes(left, top, across, 0.13)
    axes.imshow(array(torch.linspace(-1, 1, 201))[None], cmap=SIGNED, aspect="auto")
    bare(axes)
    for part, said in ((0.0, "darkens"), (0.5, "nothing"), (1.0, "brightens")):
        sheet.line(left + part * across, top + 0.15, said, size=7.5, align="center")
    return top + 0.36


RECONSTRUCTION_PAGE = 11.0  # inches
RECONSTRUCTION_LABEL = 1.35  # inches left of the frames
CURVE = 0.95  # inches of the curve


def frame_reconstructions(frames: Tensor, drawn: Tensor, decibels: Sequence[float], *, columns: int = 8) -> Figure:
    """Rows of frames, of what the network draws, and of the difference; below, the decibels of every frame.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        drawn: the same shape, what the network draws.
        decibels: PSNR of each frame.
        columns: at most so many frames; of more, evenly spaced ones.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> clip = torch.rand(3, 3, 8, 12)
        >>> frame_reconstructions(clip, clip * 0.9, [20.0, 21.0, 19.5]).savefig("drawn.png")  # doctest: +SKIP
    """
    if frames.shape != drawn.shape or len(decibels) != len(frames):
        raise ValueError(
            f"frames have shape {tuple(frames.shape)}, drawn {tuple(drawn.shape)}, and there are {len(decibels)} "
            "decibels; expected one shape and one number a frame."
        )
    kept = torch.linspace(0, len(frames) - 1, min(len(frames), columns)).round().long().tolist()
    cell = (RECONSTRUCTION_PAGE - 2 * MARGIN - RECONSTRUCTION_LABEL) / len(kept)
    tall = (cell - 0.04) * frames.shape[-2] / frames.shape[-1]
    missing = (frames - drawn).mean(1)
    limit = limit_of(missing[kept])
    sheet = Sheet(RECONSTRUCTION_PAGE)
    top = sheet.heading(
        "How well the network draws the clip",
        "what is explained below is what the network draws, so it should look like the frames",
    )
    for i, t in enumerate(kept):
        sheet.line(
            MARGIN + RECONSTRUCTION_LABEL + (i + 0.5) * cell, top, f"frame {t}", size=8, colour=QUIET, align="center"
        )
    top += 0.17
    percent = 100 * limit
    for row, name in enumerate(("the clip", "as drawn", "what is missing")):
        below = sheet.paragraph(MARGIN, top, name, RECONSTRUCTION_LABEL - 0.1, bold=True)
        if row == 2:
            words = f"red: drawn too dark, blue: too bright; full colour at {percent:.1f} % of white"
            sheet.paragraph(MARGIN, below, words, RECONSTRUCTION_LABEL - 0.15, size=7.5, colour=QUIET)
        for i, t in enumerate(kept):
            axes = sheet.axes(MARGIN + RECONSTRUCTION_LABEL + i * cell + 0.02, top, cell - 0.04, tall)
            bare(axes)
            if row == 2:
                draw_signed(axes, missing[t], limit)
            else:
                draw_photo(axes, (frames, drawn)[row][t])
        top += tall + 0.06
    return sheet.finish(
        _curve(sheet, top + 0.14, torch.tensor(list(decibels)), RECONSTRUCTION_PAGE - 2 * MARGIN - RECONSTRUCTION_LABEL)
        + 0.1
    )


def _curve(sheet: Sheet, top: float, decibels: Tensor, across: float) -> float:
    below = sheet.paragraph(MARGIN, top, "decibels (PSNR)", RECONSTRUCTION_LABEL - 0.1, bold=True)
    words = f"every frame; mean {float(decibels.mean()):.1f}, worst {float(decibels.min()):.1f}"
    sheet.paragraph(MARGIN, below, words, RECONSTRUCTION_LABEL - 0.45, size=7.5, colour=QUIET)
    axes = sheet.axes(MARGIN + RECONSTRUCTION_LABEL + 0.02, top, across - 0.04, CURVE)
    axes.plot(range(len(decibels)), array(decibels), "o-", color="#1f5fa8", markersize=3, linewidth=1.2)
    low, high = float(decibels.min()), float(decibels.max())
    axes.set_ylim(low - 1 - 0.1 * (high - low), high + 1 + 0.1 * (high - low))
    axes.set_xlim(-0.5, len(decibels) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    sheet.line(
        MARGIN + RECONSTRUCTION_LABEL + across / 2, top + CURVE + 0.2, "frame", size=8, colour=QUIET, align="center"
    )
    return top + CURVE + 0.36
