"""Counterfactual rows: a picture, what the link makes of it, the picture flipped to another class, what changed."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .classes import percent
from .figure import INK, QUIET, array, bare, draw_photo, draw_signed, limit_of
from .sheet import MARGIN, PAGE, Sheet
from .words import clipped, number

GAP = 0.08  # inches between pictures
LABEL, CURVE = 1.15, 2.25  # inches of the words at the left, and of the curves at the right
WIDEST, TALLEST = 1.3, 1.6  # of a picture
FROM, TO = "#1f5fa8", "#c4561a"
EDGE = "#d8d8de"


def counterfactual_rows(
    originals: Tensor,
    linked: Tensor,
    flipped: Tensor,
    *,
    chances: Tensor,
    origins: Sequence[str],
    targets: Sequence[str],
    reached: Tensor,
    path: Tensor | None = None,
    path_chances: Tensor | None = None,
    flips: Tensor | None = None,
    notes: Sequence[str] | None = None,
    title: str = "What would have to change for another answer",
) -> Figure:
    """One row a picture: original, through the link, flipped, what changed, and both classes' chances on the way.

    Under each picture stand the network's probabilities of the class it had and of the class wanted. Rows which were
    not flipped say so. What changed is flipped minus linked: what the link loses is not part of it.

    Args:
        originals: (N, C, H, W) in [0, 1].
        linked: (N, C, H, W), drawn from the originals' representation.
        flipped: (N, C, H, W), at the flip point, or at the end where it was not reached.
        chances: (N, 3, 2), probabilities of origin and target for original, linked and flipped.
        origins: the class each picture had.
        targets: the class each was to become.
        reached: (N,) bool.
        path: (P,), how far along the way, from 0; None: no curves.
        path_chances: (N, P, 2), probabilities of origin and target on the way.
        flips: (N,), where on the way the answer turns into the target; not a number where it never does.
        notes: a line under each row's words, for example how far the representation moved.
        title: above everything.

    Raises:
        ValueError: shapes that do not fit, another number of words than pictures, or a path without its chances.

    Example:
        >>> picture, chances = torch.rand(3, 2, 1, 8, 8), torch.rand(2, 3, 2)
        >>> figure = counterfactual_rows(*picture, chances=chances, origins=["3", "5"], targets=["8", "6"],
        ...     reached=torch.tensor([True, False]))
        >>> figure.savefig("counterfactuals.png")  # doctest: +SKIP
    """
    pictures = {"linked": linked, "flipped": flipped}
    words = {"origins": origins, "targets": targets, "reached": reached, "notes": notes, "flips": flips}
    _check(originals, pictures, chances, path, path_chances, words)
    curve = CURVE if path is not None else 0.0
    cell = min(WIDEST if curve else 1.4 * WIDEST, (PAGE - 2 * MARGIN - LABEL - curve - (4 + bool(curve)) * GAP) / 4)
    shape = originals.shape[-2] / originals.shape[-1]
    tall = min(cell * shape, TALLEST)
    shown = tall / shape
    change = (flipped.float() - linked.float()).mean(1)
    limit = limit_of(change[reached.bool()] if reached.any() else change)
    lefts = [MARGIN + LABEL + GAP + i * (cell + GAP) for i in range(4)]
    last = lefts[-1] + cell + 3 * GAP
    done = int(reached.sum())
    sheet = Sheet()
    top = sheet.heading(title, f"{done} of {len(reached)} flipped; under each picture, what the network answers to it")
    for left, head in zip(lefts, ("the picture", "through the link", "flipped", "what changed"), strict=True):
        sheet.line(left + cell / 2, top, head, size=8.5, align="center")
    if curve:
        sheet.line((last + PAGE - MARGIN) / 2, top, "on the way", size=8.5, align="center")
    top += 0.2
    for row, (origin, target) in enumerate(zip(origins, targets, strict=True)):
        line = sheet.paragraph(MARGIN, top, origin, LABEL, size=10, bold=True, colour=FROM)
        line = sheet.paragraph(MARGIN, line, f"→ {target}", LABEL, size=10, bold=True, colour=TO)
        if not reached[row]:
            line = sheet.paragraph(MARGIN, line, "✗ not reached", LABEL, size=8.5, colour="#a8201a", bold=True)
        if notes is not None:
            line = sheet.paragraph(MARGIN, line, notes[row], LABEL, size=7.5, colour=QUIET)
        for k, picture in enumerate((originals[row], linked[row], flipped[row])):
            axes = sheet.axes(lefts[k] + (cell - shown) / 2, top, shown, tall)
            draw_photo(axes, picture)
            _edge(axes, TO if k == 2 and reached[row] else EDGE)
            here = top + tall + 0.03
            for name, chance, colour in zip((origin, target), chances[row, k].tolist(), (FROM, TO), strict=True):
                said = f"{clipped(name, cell - 0.45, 7.5)}: {percent(chance)}"
                here = sheet.line(lefts[k] + cell / 2, here, said, size=7.5, colour=colour, align="center")
        axes = sheet.axes(lefts[3] + (cell - shown) / 2, top, shown, tall)
        draw_signed(axes, change[row], limit)
        _edge(axes, EDGE)
        if path is not None and path_chances is not None:
            flip = float("nan") if flips is None else float(flips[row])
            _curves(sheet, last, top, PAGE - MARGIN - last, tall, path, path_chances[row], flip)
        top = max(line, top + tall + 0.32) + 0.1
    how = (
        "What changed: red is brighter in the flipped picture than in the one through the link, blue darker, one scale "
    )
    how += "for all rows."
    if curve:
        how += (
            " On the way: probability of the class it had (blue) and of the one wanted (orange); the line is the flip."
        )
    return sheet.done(sheet.paragraph(MARGIN, top, how, PAGE - 2 * MARGIN, size=8, colour=QUIET) + 0.06)


def _curves(
    sheet: Sheet, left: float, top: float, across: float, tall: float, path: Tensor, chances: Tensor, flip: float
) -> None:
    axes = sheet.axes(left, top, across, tall)
    ways, both = array(path), array(chances)
    axes.plot(ways, both[:, 0], color=FROM, linewidth=1.6)
    axes.plot(ways, both[:, 1], color=TO, linewidth=1.6)
    if flip == flip:
        axes.axvline(flip, color=INK, linewidth=1)
    axes.set_xlim(float(ways[0]), float(ways[-1]))
    axes.set_ylim(-0.03, 1.03)
    _edge(axes, EDGE)
    here = top + tall + 0.03
    sheet.line(left, here, "0", size=7.5, colour=QUIET)
    sheet.line(left + across, here, number(float(ways[-1]), 2), size=7.5, colour=QUIET, align="right")
    said = f"flips at {number(flip, 2)}" if flip == flip else "does not flip"
    sheet.line(left + across / 2, here, said, size=7.5, align="center")


def _edge(axes: Axes, colour: str) -> None:
    bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.8 if colour == EDGE else 2)
        spine.set_edgecolor(colour)


def _check(
    originals: Tensor,
    pictures: dict[str, Tensor],
    chances: Tensor,
    path: Tensor | None,
    path_chances: Tensor | None,
    words: dict[str, Sequence[str] | Tensor | None],
) -> None:
    if originals.dim() != 4 or not len(originals):
        raise ValueError(f"originals have shape {tuple(originals.shape)}; wanted (N, C, H, W).")
    count = len(originals)
    for name, given in pictures.items():
        if given.shape != originals.shape:
            raise ValueError(
                f"{name} have shape {tuple(given.shape)}; wanted the originals', {tuple(originals.shape)}."
            )
    if tuple(chances.shape) != (count, 3, 2):
        raise ValueError(f"chances have shape {tuple(chances.shape)}; wanted {(count, 3, 2)}.")
    for label, said in words.items():
        if said is not None and len(said) != count:
            raise ValueError(f"{len(said)} {label} for {count} pictures; wanted one a picture.")
    if (path is None) != (path_chances is None):
        raise ValueError("path and path_chances belong together; got one of them.")
    if path is not None and path_chances is not None and tuple(path_chances.shape) != (count, len(path), 2):
        raise ValueError(f"path_chances have shape {tuple(path_chances.shape)}; wanted {(count, len(path), 2)}.")
