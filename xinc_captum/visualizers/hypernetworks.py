"""Figures of networks that generate weights: contributions in TransINR, and to the kernels of NeRN."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .layout import Sheet, add_colorbar, array, check_axes, draw_photo, draw_signed, limit_of, new_figure
from .style import GRID_GAP, MARGIN, PAGE, QUIET, SIGNED

OUTLINE = "#00a651"  # visible on black, white, red and blue
NEURON_LABEL, NETWORK_LABEL = 0.9, 1.3  # inches left of the images
NETWORK_GAP = 0.05  # inches between images


def patch_sheet(parts: Tensor, images: Tensor, masks: Tensor, *, top: int = 5, rest: str = "rest") -> Figure:
    """Draw one row per image: the input, the output, and the contributions of its strongest patches.

    Each row has its own patches, which are outlined: a patch whose contribution stays within its outline changes only
    the output at its own position.

    Args:
        parts: (images, patches + 1, C, H, W), the rest last, the output of ``TokenContribution`` at level "patch".
        images: (images, C, H, W) in [0, 1].
        masks: (patches, H, W), position of each patch: ``patch_masks`` of :mod:`xinc_captum.attributions.trans_inr`.
        top: number of patches per image.
        rest: title of the last column.

    Example:
        >>> masks = torch.eye(4).reshape(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
        >>> figure = patch_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), masks, top=3)
    """
    patches = len(masks)
    check_axes(
        {"patches + 1": patches + 1}, parts=(parts, "images, patches + 1, C, H, W"), images=(images, "images, c, y, x"),
        masks=(masks, "patches, h, w"),
    )  # fmt: skip
    _check_top(top)
    parts, few = parts.detach().double(), min(top, patches)
    order = parts[:, :-1].abs().sum((2, 3, 4)).argsort(dim=1, descending=True)
    strongest = torch.stack([maps[i[:few]] for maps, i in zip(parts.sum(2), order, strict=True)])
    limit = limit_of(strongest)
    columns = [("", strongest[:, i]) for i in range(few)]
    if few < patches:
        remainder = torch.stack([maps[i[few:]].sum((0, 1)) for maps, i in zip(parts, order, strict=True)])
        columns.append((f"{patches - few} others", remainder))
    subtitle = "each row's strongest patches, outlined; red: positive, blue: negative, full colour:"
    heading = ("What each patch of the picture contributes", f"{subtitle} {limit:.2g} of white")
    figure, grid = _draw_contributions(heading, images, parts, columns, rest, limit)
    for cells, indices in zip(grid, order[:, :few].tolist(), strict=True):
        for axes, i in zip(cells[2:], indices, strict=False):
            _outline(axes, masks[i])
            _outline(cells[0], masks[i])
    return figure


def _draw_contributions(
    heading: tuple[str, str],
    images: Tensor,
    parts: Tensor,
    columns: Sequence[tuple[str, Tensor]],
    rest: str,
    limit: float,
) -> tuple[Figure, list[list[Axes]]]:
    """Draw one row per image: input, output (the sum of its parts), signed maps (images, H, W), and the last part."""
    sheet = Sheet()
    line = sheet.heading(*heading)
    titles = ["input", "output", *(name for name, _ in columns), rest]
    grid, bottom = sheet.grid(titles, len(images), line, parts.shape)
    for b, cells in enumerate(grid):
        draw_photo(cells[0], images[b])
        draw_photo(cells[1], parts[b].sum(0))
        for axes, (_, values) in zip(cells[2:], columns, strict=False):
            draw_signed(axes, values[b], limit)
        draw_photo(cells[-1], parts[b, -1])
    return sheet.finish(bottom), grid


def route_sheet(
    parts: Tensor, image: Tensor, masks: Tensor, *, names: Sequence[str] | None = None, top: int = 5
) -> Figure:
    """Draw one row per patch: the patch, its contribution, and the contribution split by token.

    Args:
        parts: (patches, tokens, C, H, W), the output of ``TokenContribution.composed`` for one image.
        image: (C, H, W) in [0, 1].
        masks: (patches, H, W), position of each patch.
        names: names of the tokens; None numbers them.
        top: number of tokens with their own column, the same in every row; all others share one.

    Example:
        >>> masks = torch.ones(2, 8, 8)
        >>> figure = route_sheet(torch.randn(2, 7, 1, 8, 8), torch.rand(1, 8, 8), masks, top=3)
    """
    check_axes(
        parts=(parts, "patches, tokens, C, H, W"), image=(image, "c, y, x"), masks=(masks, "patches, h, w"),
        names=(names, "tokens"),
    )  # fmt: skip
    _check_top(top)
    maps = parts.detach().double().sum(2)
    labels = list(names) if names is not None else [f"token {i}" for i in range(maps.shape[1])]
    order = maps.abs().sum((0, 2, 3)).argsort(descending=True).tolist()
    columns = [maps.sum(1), *(maps[:, i] for i in order[:top])]
    titles = ["the patch", "its contribution", *(labels[i] for i in order[:top])]
    if order[top:]:
        columns.append(maps[:, order[top:]].sum(1))
        titles.append(f"{len(order) - top} others")
    limit = limit_of(torch.stack(columns))
    sheet = Sheet()
    how = f"the maps from the third column on add up to the second; full colour is {limit:.2g} of white"
    line = sheet.heading("How a patch reaches the output", how)
    grid, bottom = sheet.grid(titles, len(masks), line, maps.shape)
    for b, (mask, cells) in enumerate(zip(masks, grid, strict=True)):
        draw_photo(cells[0], image)
        for axes, column in zip(cells[1:], columns, strict=True):
            draw_signed(axes, column[b], limit)
        for axes in cells:
            _outline(axes, mask)
    return sheet.finish(bottom)


def _outline(axes: Axes, mask: Tensor) -> None:
    """Draw the bounding box of a mask, at the edges of its pixels."""
    rows, columns = (mask.ne(0).any(dim).nonzero()[:, 0] for dim in (1, 0))
    y, x = float(rows.min()) - 0.5, float(columns.min()) - 0.5
    size = len(columns), len(rows)
    axes.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=OUTLINE, linewidth=1.4, clip_on=False))


def _check_top(top: int) -> None:
    if top < 1:
        raise ValueError(f"top is {top}; expected at least 1 column.")


def token_sheet(
    parts: Tensor,
    images: Tensor,
    *,
    names: Sequence[str] | None = None,
    tokens: Sequence[int] | None = None,
    top: int = 6,
    what: str = "token",
    rest: str = "rest",
) -> Figure:
    """Draw one row per image: the input, the output, and the contributions of tokens, which add up to the output.

    Some tokens have their own column, the same in every row; all others share one. The rest (biases, or the output for
    the baseline) is drawn as an image. Red is positive, blue is negative.

    Args:
        parts: (images, tokens + 1, C, H, W), the rest last: the output of ``TokenContribution.attribute`` without a
            target. Channels are added up in the coloured maps.
        images: (images, C, H', W') in [0, 1].
        names: names of the tokens; None numbers them.
        tokens: numbers of the tokens with their own column; None selects the largest contributions over all images.
        top: number of tokens, where ``tokens`` is None.
        what: kind of the parts, for the heading.
        rest: title of the last column.

    Example:
        >>> figure = token_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), top=3)
    """
    check_axes(parts=(parts, "images, tokens + 1, C, H, W"), images=(images, "images, c, h, w"))
    count = parts.shape[1] - 1
    if not count:
        raise ValueError(f"parts has shape {tuple(parts.shape)}; expected at least one token besides the rest.")
    check_axes({"tokens": count}, names=(names, "tokens"))
    _check_top(top)
    if tokens is not None and (not tokens or not all(0 <= i < count for i in tokens)):
        raise ValueError(f"tokens are {list(tokens)}; expected one or more of 0 to {count - 1}.")
    labels = list(names) if names is not None else [f"{what} {i}" for i in range(count)]
    parts = parts.detach().double()
    largest = parts[:, :-1].abs().sum((0, 2, 3, 4)).argsort(descending=True)[:top].tolist()
    columns = largest if tokens is None else list(tokens)
    remaining = [i for i in range(count) if i not in columns]
    maps = [(labels[i], parts[:, i].sum(1)) for i in columns]
    if remaining:
        maps.append((f"{len(remaining)} others", parts[:, remaining].sum((1, 2))))
    limit = max(limit_of(values) for _, values in maps)
    subtitle = "the contributions of a row and the last column add up to the output; full colour is"
    heading = (f"What each {what} contributes", f"{subtitle} {limit:.2g} of white")
    return _draw_contributions(heading, images, parts, maps, rest, limit)[0]


def neurons_across(canvases: Tensor, images: Tensor, neurons: Sequence[int] | None = None, *, top: int = 5) -> Figure:
    """Draw one row per neuron and one column per image: similarity of a neuron's contributions across networks.

    Args:
        canvases: (images, neurons, C, H, W), as ``neuron_canvases`` of a TransINR returns.
        images: (images, C, H', W') in [0, 1].
        neurons: numbers of the neurons; None selects the largest contributions over all images.
        top: number of neurons, where ``neurons`` is None.

    Example:
        >>> figure = neurons_across(torch.randn(4, 8, 1, 6, 6), torch.rand(4, 1, 6, 6), [0, 3])
    """
    check_axes(canvases=(canvases, "images, neurons, C, H, W"), images=(images, "images, c, h, w"))
    magnitudes = canvases.detach().abs().sum((0, 2, 3, 4))
    rows = magnitudes.argsort(descending=True)[:top].tolist() if neurons is None else list(neurons)
    if not rows or not all(0 <= i < canvases.shape[1] for i in rows):
        raise ValueError(f"neurons are {rows}; expected one or more of 0 to {canvases.shape[1] - 1}.")
    maps = canvases.detach().sum(2)
    sheet, side = Sheet(), min(1.2, (PAGE - 2 * MARGIN - NEURON_LABEL) / len(images))
    how = "red: positive, blue: negative; each row has its own scale"
    line = sheet.heading("The same neuron in every picture's network", how)
    height = (side - GRID_GAP) * maps.shape[-2] / maps.shape[-1]
    for neuron in [None, *rows]:
        label = "the picture" if neuron is None else f"neuron {neuron}"
        middle = line + height / 2 - 0.07
        sheet.line(MARGIN + NEURON_LABEL - 0.08, middle, label, size=8, colour=QUIET, align="right")
        limit = 1.0 if neuron is None else limit_of(maps[:, neuron])
        for b, image in enumerate(images):
            axes = sheet.axes(MARGIN + NEURON_LABEL + b * side, line, side - GRID_GAP, height)
            if neuron is None:
                draw_photo(axes, image)
            else:
                draw_signed(axes, maps[b, neuron], limit)
        line += height + GRID_GAP
    return sheet.finish(line + GRID_GAP)


def network_sheet(
    images: Tensor,
    rows: Mapping[str, tuple[Tensor, Sequence[float]]],
    *,
    title: str = "Pictures and the outputs of their networks",
) -> Figure:
    """Draw one column per image: the image, and below it the outputs of networks, with their PSNR.

    Args:
        images: (images, C, H, W) in [0, 1].
        rows: by name of the network, its outputs (images, C, H', W') and the PSNR of each.
        title: title of the figure.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> figure = network_sheet(x, {"as drawn": (0.9 * x, [20.0, 21.0, 19.5])})
    """
    for name, (outputs, decibels) in rows.items():
        check_axes(
            images=(images, "images, C, H, W"), **{f"outputs of {name}": (outputs, "images, c, y, x")},
            **{f"decibels of {name}": (decibels, "images")},
        )  # fmt: skip
    sheet = Sheet()
    how = "below each output: PSNR in dB; 20 dB is an error of a tenth of white, 26 dB of a twentieth"
    line = sheet.heading(title, how)
    cell = min((PAGE - 2 * MARGIN - NETWORK_LABEL) / len(images), 1.3)
    for name, (outputs, decibels) in {"the picture": (images, ()), **rows}.items():
        height = (cell - NETWORK_GAP) * outputs.shape[-2] / outputs.shape[-1]
        sheet.paragraph(MARGIN, line + height / 2 - 0.1, name, NETWORK_LABEL - 0.1, bold=True)
        for b, image in enumerate(outputs):
            x = MARGIN + NETWORK_LABEL + b * cell
            draw_photo(sheet.axes(x, line, cell - NETWORK_GAP, height), image)
        line += height + 0.02
        for b, dB in enumerate(decibels):
            middle = MARGIN + NETWORK_LABEL + (b + 0.5) * cell - NETWORK_GAP / 2
            sheet.line(middle, line, f"{dB:.1f}", size=8, colour=QUIET, align="center")
        line += 0.23 if decibels else 0.03
    return sheet.finish(line + 0.05)


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

    Example:
        >>> parts = torch.randn(5, 4, 3, 3, 3)
        >>> figure = kernel_sheet(parts, list("abcde"), parts.sum(0))
    """
    check_axes(
        {"names": len(names)}, parts=(parts, "names, F, C, h, w"), target=(target, "F, C, h, w"),
        generated=(generated, "F, C, h, w"),
    )  # fmt: skip
    generated = parts.sum(0) if generated is None else generated
    first = [("target kernels", target), ("generated kernels", generated), ("difference", target - generated)]
    tiles = [(name, part[:filters, :channels]) for name, part in [*first, *zip(names, parts, strict=True)]]
    rows = -(-len(tiles) // KERNEL_COLUMNS)
    size = tuple(tiles[0][1].shape[:2])
    note = "" if size == tuple(target.shape[:2]) else f", the first {size[0]} x {size[1]} kernels"
    title = f"Which neurons generate {layer or 'the kernels'}"
    how = f"one row per filter, one column per channel{note}"
    figure = new_figure(2.3 * KERNEL_COLUMNS, 0.9 + 2.3 * rows, title, how)
    limit = limit_of(torch.cat([part.detach().float().flatten().cpu() for _, part in tiles]))
    cells = figure.subplots(rows, KERNEL_COLUMNS, squeeze=False).ravel()
    for axes, (name, part) in zip(cells, tiles, strict=False):
        draw_signed(axes, mosaic(part.float()), limit, name)
    for axes in cells[len(tiles) :]:
        axes.remove()
    add_colorbar(figure, list(cells[: len(tiles)]), limit, low="negative", high="positive", shrink=0.5)
    return figure


def layer_profile_sheet(share: Tensor, layers: Sequence[str], *, units: int = 40) -> Figure:
    """Draw which target layers each neuron contributes to more, or less, than the average neuron.

    Args:
        share: (neurons, layers), rows that sum to 1, such as those of a ``LayerProfile`` without the bias.
        layers: names of the layers.
        units: number of neurons, at most; those whose profile is furthest from the average are drawn.

    Example:
        >>> figure = layer_profile_sheet(torch.rand(9, 3).softmax(1), ["a", "b", "c"])
    """
    check_axes({"layers": len(layers)}, share=(share, "neurons, layers"))
    alive = (share.sum(1) > 0).nonzero()[:, 0]
    mean = share[alive].mean(0)
    ratio = (share[alive] / mean.clamp_min(1e-12)).clamp_min(1e-3).log2()
    furthest = ratio.abs().amax(1).argsort(descending=True)[:units]
    order = furthest[ratio[furthest].argmax(1).argsort(stable=True)]
    width, height = max(9.0, 1.2 + 0.45 * len(layers)), 1.6 + 0.16 * len(order)
    how = "red: more than the average neuron; blue: less"
    figure = new_figure(width, height, "Which layers each neuron contributes to", how)
    axes = figure.subplots()
    values = array(ratio[order].clamp(-2, 2))
    axes.imshow(values, cmap=SIGNED, vmin=-2, vmax=2, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(order)), [str(int(i)) for i in alive[order]], fontsize=6)
    labels = [f"{name} ({part:.0%})" for name, part in zip(layers, array(mean), strict=True)]
    axes.set_xticks(range(len(layers)), labels, fontsize=7, rotation=30, ha="right", parse_math=False)
    axes.set_ylabel("neurons, grouped by their main layer", fontsize=8, color=QUIET)
    add_colorbar(figure, axes, 2.0, low="", high="", shrink=0.6)
    figure.axes[-1].set_yticks([-2, 0, 2], labels=["a quarter", "the average", "four times"])
    return figure
