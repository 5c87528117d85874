"""Token and patch sheets."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .layout import GAP, MARGIN, PAGE, Sheet
from .style import QUIET, bare, draw_photo, draw_signed, limit_of

OUTLINE = "#00a651"  # seen on black, white, red and blue


def patch_sheet(parts: Tensor, images: Tensor, masks: Tensor, *, top: int = 5, rest: str = "rest") -> Figure:
    """One row a picture: what was read, what is drawn, and what each of its strongest patches changed, and where.

    Every row has patches of its own, outlined: a map that stays within its outline is a patch that only told of itself.

    Args:
        parts: (pictures, patches + 1, C, H, W), the rest last, as ``TokenContribution`` answers at level "patch".
        images: (pictures, C, H, W) in [0, 1].
        masks: (patches, H, W), where each patch lies: ``patch_masks`` of :mod:`xinc_captum.attributions.trans_inr`.
        top: patches of each picture that have a column.
        rest: what the last column is.

    Raises:
        ValueError: shapes that do not fit one another, or no column.

    Example:
        >>> masks = torch.eye(4).reshape(4, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
        >>> len(patch_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), masks, top=3).axes)
        14
    """
    patches = len(masks)
    if parts.dim() != 5 or parts.shape[1] != patches + 1 or len(images) != len(parts) or masks.dim() != 3:
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, images {tuple(images.shape)} and masks {tuple(masks.shape)}; "
            "expected (pictures, patches + 1, C, H, W), one image each, and (patches, H, W)."
        )
    if top < 1:
        raise ValueError(f"top is {top}; expected at least 1 column.")
    parts, few = parts.detach().double(), min(top, patches)
    left = patches - few
    order = parts[:, :-1].abs().sum((2, 3, 4)).argsort(dim=1, descending=True)
    words = ["read", "drawn", *[""] * few, *([f"{left} others"] if left else []), rest]
    limit = limit_of(torch.stack([one[i[:few]] for one, i in zip(parts.sum(2), order, strict=True)]))
    sheet = Sheet()
    line = sheet.heading(
        "What a patch of the picture changed",
        f"each row's strongest patches, outlined; red adds light, blue removes it, full colour is {limit:.2g} of white",
    )
    grid, bottom = sheet.grid(words, len(images), line, parts.shape)
    for b, (image, cells) in enumerate(zip(images, grid, strict=True)):
        draw_photo(cells[0], image)
        draw_photo(cells[1], parts[b].sum(0))
        for axes, i in zip(cells[2:], order[b, :few].tolist(), strict=False):
            draw_signed(axes, parts[b, i].sum(0), limit)
            _outlined(axes, masks[i])
            _outlined(cells[0], masks[i])
        if left:
            draw_signed(cells[-2], parts[b, order[b, few:]].sum((0, 1)), limit)
        draw_photo(cells[-1], parts[b, -1])
        for axes in cells:
            bare(axes)
    return sheet.finish(bottom)


def route_sheet(
    parts: Tensor, image: Tensor, masks: Tensor, *, names: Sequence[str] | None = None, top: int = 5
) -> Figure:
    """One row a patch: the patch, all that it changed, and the same split by the token that carried it.

    Args:
        parts: (patches, tokens, C, H, W), as ``TokenContribution.composed`` answers for one picture.
        image: (C, H, W) in [0, 1].
        masks: (patches, H, W), where each of these patches lies.
        names: of the tokens; None counts them.
        top: tokens that have a column of their own, the same in every row; all others share one.

    Raises:
        ValueError: shapes or names that do not fit one another, or no column.

    Example:
        >>> masks = torch.ones(2, 8, 8)
        >>> len(route_sheet(torch.randn(2, 7, 1, 8, 8), torch.rand(1, 8, 8), masks, top=3).axes)
        12
    """
    if parts.dim() != 5 or len(masks) != len(parts) or image.dim() != 3 or len(names or parts[0]) != parts.shape[1]:
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, image {tuple(image.shape)}, masks {tuple(masks.shape)} and there "
            f"are {len(names or ())} names; expected (patches, tokens, C, H, W), (C, H, W), a mask for each patch, and "
            "one name a token."
        )
    if top < 1:
        raise ValueError(f"top is {top}; expected at least 1 column.")
    maps = parts.detach().double().sum(2)
    said = list(names) if names is not None else [f"token {i}" for i in range(maps.shape[1])]
    order = maps.abs().sum((0, 2, 3)).argsort(descending=True).tolist()
    columns = [maps.sum(1), *(maps[:, i] for i in order[:top])]
    words = ["the patch", "all it changed", *(said[i] for i in order[:top])]
    if order[top:]:
        columns.append(maps[:, order[top:]].sum(1))
        words.append(f"{len(order) - top} others")
    limit = limit_of(torch.stack(columns))
    sheet = Sheet()
    line = sheet.heading(
        "Which way a patch takes into the picture",
        f"the maps from the third column on add up to the second; full colour is {limit:.2g} of white",
    )
    grid, bottom = sheet.grid(words, len(masks), line, maps.shape)
    for b, (mask, cells) in enumerate(zip(masks, grid, strict=True)):
        draw_photo(cells[0], image)
        for axes, column in zip(cells[1:], columns, strict=True):
            draw_signed(axes, column[b], limit)
        for axes in cells:
            _outlined(axes, mask)
            bare(axes)
    return sheet.finish(bottom)


def _outlined(axes: Axes, mask: Tensor) -> None:
    """The box around a mask, at the edges of its pixels."""
    rows, columns = (mask.ne(0).any(dim).nonzero()[:, 0] for dim in (1, 0))
    y, x = float(rows.min()) - 0.5, float(columns.min()) - 0.5
    size = len(columns), len(rows)
    axes.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=OUTLINE, linewidth=1.4, clip_on=False))


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
    """One row a picture: what was read, what is drawn, and the parts that it is the sum of.

    Some tokens have a column each, the same in every row; all others share one; the rest (biases, or what the baseline
    draws) is shown as the picture that it is. Red adds light, blue removes it.

    Args:
        parts: (pictures, tokens + 1, C, H, W), the rest last: what ``TokenContribution.attribute`` answers without a
            target. Channels are added up in the coloured maps.
        images: (pictures, C, H', W') in [0, 1].
        names: of the tokens; None counts them.
        tokens: which have a column of their own, by number; None takes those with the largest parts over all pictures.
        top: how many, where ``tokens`` is None.
        what: the parts are of, for the heading.
        rest: what the last column is.

    Raises:
        ValueError: shapes or names that do not fit one another, tokens that are not there, or no column.

    Example:
        >>> figure = token_sheet(torch.randn(2, 5, 1, 8, 8), torch.rand(2, 1, 8, 8), top=3)
        >>> len(figure.axes)
        14
    """
    count = parts.shape[1] - 1 if parts.dim() == 5 else 0
    if count < 1 or images.dim() != 4 or len(images) != len(parts) or (names is not None and len(names) != count):
        raise ValueError(
            f"parts have shape {tuple(parts.shape)}, images {tuple(images.shape)} and there are {len(names or ())} "
            "names; expected (pictures, tokens + 1, C, H, W), as attribute() answers without a target, one image each, "
            "and one name a token."
        )
    if top < 1:
        raise ValueError(f"top is {top}; expected at least 1 column.")
    if tokens is not None and (not tokens or not all(0 <= i < count for i in tokens)):
        raise ValueError(f"tokens are {list(tokens)}; expected one or more of 0 to {count - 1}.")
    said = list(names) if names is not None else [f"{what} {i}" for i in range(count)]
    parts = parts.detach().double()
    largest = parts[:, :-1].abs().sum((0, 2, 3, 4)).argsort(descending=True)[:top].tolist()
    chosen = largest if tokens is None else list(tokens)
    left = [i for i in range(count) if i not in chosen]
    maps = [(said[i], parts[:, i].sum(1)) for i in chosen]
    if left:
        maps.append((f"{len(left)} others", parts[:, left].sum((1, 2))))
    words = ["read", "drawn", *(name for name, _ in maps), rest]
    limits = [limit_of(drawn) for _, drawn in maps]
    sheet = Sheet()
    line = sheet.heading(
        f"Which {what} painted what",
        f"from left to right, the parts add up to what is drawn; full colour is {max(limits):.2g} of white",
    )
    grid, bottom = sheet.grid(words, len(images), line, parts.shape)
    for b, (image, cells) in enumerate(zip(images, grid, strict=True)):
        draw_photo(cells[0], image)
        draw_photo(cells[1], parts[b].sum(0))
        for axes, (_, drawn) in zip(cells[2:], maps, strict=False):
            draw_signed(axes, drawn[b], max(limits))
        draw_photo(cells[-1], parts[b, -1])
        for axes in cells:
            bare(axes)
    return sheet.finish(bottom)


def neurons_across(canvases: Tensor, images: Tensor, neurons: Sequence[int] | None = None, *, top: int = 5) -> Figure:
    """One row a neuron, one column a picture: whether neuron i paints the same thing in every picture's network.

    Args:
        canvases: (pictures, neurons, C, H, W), as ``neuron_canvases`` of a TransINR returns.
        images: (pictures, C, H', W') in [0, 1].
        neurons: which; None takes those that paint most over all pictures.
        top: how many, where ``neurons`` is None.

    Raises:
        ValueError: shapes that do not fit, or neurons that are not there.

    Example:
        >>> figure = neurons_across(torch.randn(4, 8, 1, 6, 6), torch.rand(4, 1, 6, 6), [0, 3])
        >>> len(figure.axes)
        12
    """
    if canvases.dim() != 5 or images.dim() != 4 or len(images) != len(canvases):
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)} and images {tuple(images.shape)}; expected (pictures, "
            "neurons, "
            "C, H, W) and one image each."
        )
    amounts = canvases.detach().abs().sum((0, 2, 3, 4))
    shown = amounts.argsort(descending=True)[:top].tolist() if neurons is None else list(neurons)
    if not shown or not all(0 <= i < canvases.shape[1] for i in shown):
        raise ValueError(f"neurons are {shown}; expected one or more of 0 to {canvases.shape[1] - 1}.")
    maps = canvases.detach().sum(2)
    label, count = 0.9, len(images)
    sheet, side = Sheet(), min(1.2, (PAGE - 2 * MARGIN - 0.9) / count)
    line = sheet.heading(
        "The same neuron in every picture's network",
        "red adds light, blue removes it; each neuron's colours end at its own strongest",
    )
    high = (side - GAP) * maps.shape[-2] / maps.shape[-1]
    for row in [None, *shown]:
        word = "the picture" if row is None else f"neuron {row}"
        sheet.line(MARGIN + label - 0.08, line + high / 2 - 0.07, word, size=8, colour=QUIET, align="right")
        limit = 1.0 if row is None else limit_of(maps[:, row])
        for b in range(count):
            axes = sheet.axes(MARGIN + label + b * side, line, side - GAP, high)
            if row is None:
                draw_photo(axes, images[b])
            else:
                draw_signed(axes, maps[b, row], limit)
            bare(axes)
        line += high + GAP
    return sheet.finish(line + GAP)


WRITTEN_LABEL, WRITTEN_GAP = 1.3, 0.05  # inches left of the pictures, and between them


def network_sheet(
    images: Tensor,
    rows: Mapping[str, tuple[Tensor, Sequence[float]]],
    *,
    title: str = "Pictures and their own networks",
) -> Figure:
    """One column a picture: itself, and below it what each kind of network draws, with its decibels.

    Args:
        images: (pictures, C, H, W) in [0, 1].
        rows: by name, what is drawn, (pictures, C, H', W'), and each picture's PSNR.
        title: above everything.

    Raises:
        ValueError: another number of drawn pictures or of decibels than of images.

    Example:
        >>> x = torch.rand(3, 1, 8, 8)
        >>> len(network_sheet(x, {"as drawn": (0.9 * x, [20.0, 21.0, 19.5])}).axes)
        6
    """
    for name, (drawn, decibels) in rows.items():
        if len(drawn) != len(images) or len(decibels) != len(images):
            raise ValueError(
                f"{name!r} has {len(drawn)} pictures and {len(decibels)} decibels for {len(images)} images; "
                "expected one "
                "of each."
            )
    sheet = Sheet()
    line = sheet.heading(title, "under each its decibels (PSNR): 20 is an error of a tenth of white, 26 of a twentieth")
    cell = min((PAGE - 2 * MARGIN - WRITTEN_LABEL) / len(images), 1.3)
    for name, (drawn, decibels) in {"the picture": (images, ()), **rows}.items():
        high = (cell - WRITTEN_GAP) * drawn.shape[-2] / drawn.shape[-1]
        sheet.paragraph(MARGIN, line + high / 2 - 0.1, name, WRITTEN_LABEL - 0.1, bold=True)
        for b, picture in enumerate(drawn):
            axes = sheet.axes(MARGIN + WRITTEN_LABEL + b * cell, line, cell - WRITTEN_GAP, high)
            draw_photo(axes, picture)
            bare(axes)
        line += high + 0.02
        for b, dB in enumerate(decibels):
            middle = MARGIN + WRITTEN_LABEL + (b + 0.5) * cell - WRITTEN_GAP / 2
            sheet.line(middle, line, f"{dB:.1f}", size=8, colour=QUIET, align="center")
        line += 0.23 if decibels else 0.03
    return sheet.finish(line + 0.05)
