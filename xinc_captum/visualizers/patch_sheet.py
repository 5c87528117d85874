"""From a patch of a picture to the pixels that its network draws: over all ways at once, and token by token."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .figure import bare, draw_photo, draw_signed, limit_of
from .sheet import Sheet

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
            "wanted (pictures, patches + 1, C, H, W), one image each, and (patches, H, W)."
        )
    if top < 1:
        raise ValueError(f"top is {top}; wanted at least 1 column.")
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
    return sheet.done(bottom)


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
            f"are {len(names or ())} names; wanted (patches, tokens, C, H, W), (C, H, W), a mask for each patch, and "
            "one name a token."
        )
    if top < 1:
        raise ValueError(f"top is {top}; wanted at least 1 column.")
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
    return sheet.done(bottom)


def _outlined(axes: Axes, mask: Tensor) -> None:
    """The box around a mask, at the edges of its pixels."""
    rows, columns = (mask.ne(0).any(dim).nonzero()[:, 0] for dim in (1, 0))
    y, x = float(rows.min()) - 0.5, float(columns.min()) - 0.5
    size = len(columns), len(rows)
    axes.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=OUTLINE, linewidth=1.4, clip_on=False))
