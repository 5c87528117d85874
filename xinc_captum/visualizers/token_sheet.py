"""Which token painted what: pictures, the parts that add up to them, and one neuron across pictures."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .figure import QUIET, bare, draw_photo, draw_signed, limit_of
from .sheet import GAP, MARGIN, PAGE, Sheet


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
            "names; wanted (pictures, tokens + 1, C, H, W), as attribute() answers without a target, one image each, "
            "and one name a token."
        )
    if top < 1:
        raise ValueError(f"top is {top}; wanted at least 1 column.")
    if tokens is not None and (not tokens or not all(0 <= i < count for i in tokens)):
        raise ValueError(f"tokens are {list(tokens)}; wanted one or more of 0 to {count - 1}.")
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
    return sheet.done(bottom)


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
            f"canvases have shape {tuple(canvases.shape)} and images {tuple(images.shape)}; wanted (pictures, neurons, "
            "C, H, W) and one image each."
        )
    amounts = canvases.detach().abs().sum((0, 2, 3, 4))
    shown = amounts.argsort(descending=True)[:top].tolist() if neurons is None else list(neurons)
    if not shown or not all(0 <= i < canvases.shape[1] for i in shown):
        raise ValueError(f"neurons are {shown}; wanted one or more of 0 to {canvases.shape[1] - 1}.")
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
    return sheet.done(line + GAP)
