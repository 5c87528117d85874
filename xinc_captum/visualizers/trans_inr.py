"""Figures of generated networks: contributions of tokens, patches and neurons, and reconstructions."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .layout import GRID_GAP, MARGIN, PAGE, Sheet
from .style import QUIET, bare, draw_photo, draw_signed, limit_of

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

    Raises:
        ValueError: shapes that do not match, or no column.

    Example:
        >>> masks = torch.eye(4).reshape(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
        >>> len(patch_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), masks, top=3).axes)
        14
    """
    patches = len(masks)
    if parts.dim() != 5 or parts.shape[1] != patches + 1 or len(images) != len(parts) or masks.dim() != 3:
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, images {tuple(images.shape)} and masks {tuple(masks.shape)}; "
            "expected (images, patches + 1, C, H, W), one image each, and (patches, H, W)."
        )
    _check_top(top)
    parts, few = parts.detach().double(), min(top, patches)
    rest_count = patches - few
    order = parts[:, :-1].abs().sum((2, 3, 4)).argsort(dim=1, descending=True)
    titles = ["input", "output", *[""] * few, *([f"{rest_count} others"] if rest_count else []), rest]
    limit = limit_of(torch.stack([maps[i[:few]] for maps, i in zip(parts.sum(2), order, strict=True)]))
    sheet = Sheet()
    line = sheet.heading(
        "What each patch of the picture contributes",
        f"each row's strongest patches, outlined; red adds light, blue removes it, full colour is {limit:.2g} of white",
    )
    grid, bottom = sheet.grid(titles, len(images), line, parts.shape)
    for b, (image, cells) in enumerate(zip(images, grid, strict=True)):
        draw_photo(cells[0], image)
        draw_photo(cells[1], parts[b].sum(0))
        for axes, i in zip(cells[2:], order[b, :few].tolist(), strict=False):
            draw_signed(axes, parts[b, i].sum(0), limit)
            _outline(axes, masks[i])
            _outline(cells[0], masks[i])
        if rest_count:
            draw_signed(cells[-2], parts[b, order[b, few:]].sum((0, 1)), limit)
        draw_photo(cells[-1], parts[b, -1])
        for axes in cells:
            bare(axes)
    return sheet.finish(bottom)


def route_sheet(
    parts: Tensor, image: Tensor, masks: Tensor, *, names: Sequence[str] | None = None, top: int = 5
) -> Figure:
    """Draw one row per patch: the patch, its contribution, and the contribution split by the tokens that carry it.

    Args:
        parts: (patches, tokens, C, H, W), the output of ``TokenContribution.composed`` for one image.
        image: (C, H, W) in [0, 1].
        masks: (patches, H, W), position of each patch.
        names: names of the tokens; None numbers them.
        top: number of tokens with their own column, the same in every row; all others share one.

    Raises:
        ValueError: shapes or names that do not match, or no column.

    Example:
        >>> masks = torch.ones(2, 8, 8)
        >>> len(route_sheet(torch.randn(2, 7, 1, 8, 8), torch.rand(1, 8, 8), masks, top=3).axes)
        12
    """
    if parts.dim() != 5 or len(masks) != len(parts) or image.dim() != 3 or len(names or parts[0]) != parts.shape[1]:
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, image {tuple(image.shape)}, masks {tuple(masks.shape)} and there "
            f"are {len(names or ())} names; expected (patches, tokens, C, H, W), (C, H, W), a mask for each patch, and "
            "one name per token."
        )
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
    line = sheet.heading(
        "How a patch reaches the output",
        f"the maps from the third column on add up to the second; full colour is {limit:.2g} of white",
    )
    grid, bottom = sheet.grid(titles, len(masks), line, maps.shape)
    for b, (mask, cells) in enumerate(zip(masks, grid, strict=True)):
        draw_photo(cells[0], image)
        for axes, column in zip(cells[1:], columns, strict=True):
            draw_signed(axes, column[b], limit)
        for axes in cells:
            _outline(axes, mask)
            bare(axes)
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
    the baseline) is drawn as an image. Red adds light, blue removes it.

    Args:
        parts: (images, tokens + 1, C, H, W), the rest last: the output of ``TokenContribution.attribute`` without a
            target. Channels are added up in the coloured maps.
        images: (images, C, H', W') in [0, 1].
        names: names of the tokens; None numbers them.
        tokens: numbers of the tokens with their own column; None selects the largest contributions over all images.
        top: number of tokens, where ``tokens`` is None.
        what: kind of the parts, for the heading.
        rest: title of the last column.

    Raises:
        ValueError: shapes or names that do not match, tokens out of range, or no column.

    Example:
        >>> figure = token_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), top=3)
        >>> len(figure.axes)
        14
    """
    count = parts.shape[1] - 1 if parts.dim() == 5 else 0
    if count < 1 or images.dim() != 4 or len(images) != len(parts) or (names is not None and len(names) != count):
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, images {tuple(images.shape)} and there are {len(names or ())} "
            "names; expected (images, tokens + 1, C, H, W), as attribute() returns without a target, one image each, "
            "and one name per token."
        )
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
    titles = ["input", "output", *(name for name, _ in maps), rest]
    limit = max(limit_of(values) for _, values in maps)
    sheet = Sheet()
    line = sheet.heading(
        f"What each {what} contributes",
        f"the contributions of a row and the last column add up to the output; full colour is {limit:.2g} of white",
    )
    grid, bottom = sheet.grid(titles, len(images), line, parts.shape)
    for b, (image, cells) in enumerate(zip(images, grid, strict=True)):
        draw_photo(cells[0], image)
        draw_photo(cells[1], parts[b].sum(0))
        for axes, (_, values) in zip(cells[2:], maps, strict=False):
            draw_signed(axes, values[b], limit)
        draw_photo(cells[-1], parts[b, -1])
        for axes in cells:
            bare(axes)
    return sheet.finish(bottom)


def neurons_across(canvases: Tensor, images: Tensor, neurons: Sequence[int] | None = None, *, top: int = 5) -> Figure:
    """Draw one row per neuron and one column per image: similarity of a neuron's contributions across networks.

    Args:
        canvases: (images, neurons, C, H, W), as ``neuron_canvases`` of a TransINR returns.
        images: (images, C, H', W') in [0, 1].
        neurons: numbers of the neurons; None selects the largest contributions over all images.
        top: number of neurons, where ``neurons`` is None.

    Raises:
        ValueError: shapes that do not match, or neurons out of range.

    Example:
        >>> figure = neurons_across(torch.randn(4, 8, 1, 6, 6), torch.rand(4, 1, 6, 6), [0, 3])
        >>> len(figure.axes)
        12
    """
    if canvases.dim() != 5 or images.dim() != 4 or len(images) != len(canvases):
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)} and images {tuple(images.shape)}; expected (images, neurons, "
            "C, H, W) and one image each."
        )
    magnitudes = canvases.detach().abs().sum((0, 2, 3, 4))
    rows = magnitudes.argsort(descending=True)[:top].tolist() if neurons is None else list(neurons)
    if not rows or not all(0 <= i < canvases.shape[1] for i in rows):
        raise ValueError(f"neurons are {rows}; expected one or more of 0 to {canvases.shape[1] - 1}.")
    maps = canvases.detach().sum(2)
    count = len(images)
    sheet, side = Sheet(), min(1.2, (PAGE - 2 * MARGIN - NEURON_LABEL) / count)
    line = sheet.heading(
        "The same neuron in every picture's network",
        "red adds light, blue removes it; each row has its own scale",
    )
    height = (side - GRID_GAP) * maps.shape[-2] / maps.shape[-1]
    for neuron in [None, *rows]:
        label = "the picture" if neuron is None else f"neuron {neuron}"
        middle = line + height / 2 - 0.07
        sheet.line(MARGIN + NEURON_LABEL - 0.08, middle, label, size=8, colour=QUIET, align="right")
        limit = 1.0 if neuron is None else limit_of(maps[:, neuron])
        for b in range(count):
            axes = sheet.axes(MARGIN + NEURON_LABEL + b * side, line, side - GRID_GAP, height)
            if neuron is None:
                draw_photo(axes, images[b])
            else:
                draw_signed(axes, maps[b, neuron], limit)
            bare(axes)
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

    Raises:
        ValueError: another number of outputs or decibels than of images.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> len(network_sheet(x, {"as drawn": (0.9 * x, [20.0, 21.0, 19.5])}).axes)
        6
    """
    for name, (outputs, decibels) in rows.items():
        if len(outputs) != len(images) or len(decibels) != len(images):
            raise ValueError(
                f"{name!r} has {len(outputs)} outputs and {len(decibels)} decibels for {len(images)} images; expected "
                "one of each per image."
            )
    sheet = Sheet()
    line = sheet.heading(
        title, "below each output: PSNR in dB; 20 dB is an error of a tenth of white, 26 dB of a twentieth"
    )
    cell = min((PAGE - 2 * MARGIN - NETWORK_LABEL) / len(images), 1.3)
    for name, (outputs, decibels) in {"the picture": (images, ()), **rows}.items():
        height = (cell - NETWORK_GAP) * outputs.shape[-2] / outputs.shape[-1]
        sheet.paragraph(MARGIN, line + height / 2 - 0.1, name, NETWORK_LABEL - 0.1, bold=True)
        for b, image in enumerate(outputs):
            axes = sheet.axes(MARGIN + NETWORK_LABEL + b * cell, line, cell - NETWORK_GAP, height)
            draw_photo(axes, image)
            bare(axes)
        line += height + 0.02
        for b, dB in enumerate(decibels):
            middle = MARGIN + NETWORK_LABEL + (b + 0.5) * cell - NETWORK_GAP / 2
            sheet.line(middle, line, f"{dB:.1f}", size=8, colour=QUIET, align="center")
        line += 0.23 if decibels else 0.03
    return sheet.finish(line + 0.05)
