"""Counterfactual rows: a picture, what the link makes of it, the picture flipped to another class, what changed."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .accentuation import percent
from .layout import MARGIN, PAGE, Sheet, clipped, number
from .style import (
    INK,
    QUIET,
    array,
    bare,
    draw_photo,
    draw_signed,
    limit_of,
)

GAP = 0.08  # inches between pictures
LABEL, CURVE = 1.15, 2.25  # inches of the words at the left, and of the curves at the right
WIDEST, TALLEST = 1.3, 1.6  # of a picture
FROM, TO, MISSED = "#1f5fa8", "#c4561a", "#a8201a"
EDGE = "#d8d8de"


def counterfactual_rows(
    originals: Tensor,
    linked: Tensor,
    flipped: Tensor,
    *,
    chances: Tensor,
    predictions: Sequence[Sequence[str]],
    origins: Sequence[str],
    targets: Sequence[str],
    reached: Tensor,
    confidence: float = 0.0,
    path: Tensor | None = None,
    path_chances: Tensor | None = None,
    flips: Tensor | None = None,
    notes: Sequence[str] | None = None,
    title: str = "What would have to change for another answer",
) -> Figure:
    """One row a picture: original, through the link, flipped, what changed, and both classes' chances on the way.

    Under each picture stand the network's probabilities of the class to leave and of the class expected, and of what it
    answers, where that is neither. Rows which were not reached say so; rows which were of the class expected to begin
    with say that, and are not counted. What changed is flipped minus linked: what the link loses is not part of it.

    Args:
        originals: (N, C, H, W) in [0, 1].
        linked: (N, C, H, W), drawn from the originals' representation.
        flipped: (N, C, H, W), at the flip point, or the nearest it came where it was not reached.
        chances: (N, 3, 3), probabilities of origin, target and answer for original, linked and flipped.
        predictions: (N, 3) words, what the network answers to these.
        origins: the class each picture was to leave: its own, or the second choice where its own is the target.
        targets: the class each was to become.
        reached: (N,) bool.
        confidence: the probability that the target had to reach; 0 where being the answer was enough.
        path: (P,), how far along the way, from 0; None: no curves.
        path_chances: (N, P, 2), probabilities of origin and target on the way.
        flips: (N,), where on the way the target is reached; not a number where it never is.
        notes: a line under each row's words, for example how far the representation moved.
        title: above everything.

    Raises:
        ValueError: shapes that do not fit, another number of words than pictures, or a path without its chances.

    Example:
        >>> picture, chances = torch.rand(3, 2, 1, 8, 8), torch.rand(2, 3, 3)
        >>> figure = counterfactual_rows(*picture, chances=chances, predictions=[["3", "3", "8"], ["5", "5", "2"]],
        ...     origins=["3", "5"], targets=["8", "6"], reached=torch.tensor([True, False]))
        >>> figure.savefig("counterfactuals.png")  # doctest: +SKIP
    """
    pictures = {"linked": linked, "flipped": flipped}
    given = {"predictions": predictions, "origins": origins, "targets": targets, "reached": reached, "notes": notes}
    _check(originals, pictures, chances, path, path_chances, given | {"flips": flips})
    curve = CURVE if path is not None else 0.0
    cell = min(WIDEST if curve else 1.4 * WIDEST, (PAGE - 2 * MARGIN - LABEL - curve - (4 + bool(curve)) * GAP) / 4)
    shape = originals.shape[-2] / originals.shape[-1]
    tall = min(cell * shape, TALLEST)
    shown = tall / shape
    change = (flipped.float() - linked.float()).mean(1)
    limit = limit_of(change[reached] if reached.any() else change)
    lefts = [MARGIN + LABEL + GAP + i * (cell + GAP) for i in range(4)]
    last = lefts[-1] + cell + 3 * GAP
    chances, reached, sure = chances.detach().cpu(), reached.cpu().bool(), _sure(confidence)
    already = (chances[:, 0, 1] >= chances[:, 0, 2]) & (chances[:, 0, 1] >= confidence)
    framed = reached & ~already
    done, asked = int(framed.sum()), int((~already).sum())
    sheet = Sheet()
    count = f"{done} of {asked} " + (f"reach {sure} for the class expected" if sure else "flipped")
    count += f", {len(already) - asked} of the class expected already" if already.any() else ""
    top = sheet.heading(title, f"{count}; under each picture, what the network answers to it")
    end = "flipped" if done == len(reached) and not sure else "where it ended"
    for left, head in zip(lefts, ("the picture", "through the link", end, "what changed"), strict=True):
        sheet.line(left + cell / 2, top, head, size=8.5, align="center")
    if curve:
        sheet.line((last + PAGE - MARGIN) / 2, top, "on the way", size=8.5, align="center")
    top += 0.2
    for row, (origin, target) in enumerate(zip(origins, targets, strict=True)):
        says_target = (chances[row, :, 1] >= chances[row, :, 2]).tolist()
        if already[row]:
            line = sheet.paragraph(MARGIN, top, f"already {target}", LABEL, size=10, bold=True, colour=TO)
            line = sheet.paragraph(MARGIN, line, "so not counted", LABEL, size=8.5, colour=QUIET)
        else:
            own, expected = target if says_target[0] else origin, f"→ {target}" + (f" at {sure}" if sure else "")
            line = sheet.paragraph(MARGIN, top, own, LABEL, size=10, bold=True, colour=FROM)
            line = sheet.paragraph(MARGIN, line, expected, LABEL, size=10, bold=True, colour=TO)
        if not reached[row] and not already[row]:
            why = f"below {sure}" if says_target[2] else f"answered {predictions[row][2]}"
            line = sheet.paragraph(MARGIN, line, "✗ not reached", LABEL, size=8.5, colour=MISSED, bold=True)
            line = sheet.paragraph(MARGIN, line, why, LABEL, size=8.5, colour=MISSED)
        if notes is not None:
            line = sheet.paragraph(MARGIN, line, notes[row], LABEL, size=7.5, colour=QUIET)
        bottom = top + tall
        for k, picture in enumerate((originals[row], linked[row], flipped[row])):
            axes = sheet.axes(lefts[k] + (cell - shown) / 2, top, shown, tall)
            draw_photo(axes, picture)
            _edge(axes, TO if k == 2 and framed[row] else EDGE)
            here, both = top + tall + 0.03, chances[row, k, :2].tolist()
            words = [(origin, both[0], FROM), (target, both[1], TO)]
            if float(chances[row, k, 2]) > max(both):
                words.append((predictions[row][k], float(chances[row, k, 2]), INK))
            for name, chance, colour in words:
                said = f"{clipped(name, cell - 0.45, 7.5)}: {percent(chance)}"
                here = sheet.line(lefts[k] + cell / 2, here, said, size=7.5, colour=colour, align="center")
            bottom = max(bottom, here)
        axes = sheet.axes(lefts[3] + (cell - shown) / 2, top, shown, tall)
        draw_signed(axes, change[row], limit)
        _edge(axes, EDGE)
        if path is not None and path_chances is not None:
            flip = float("nan") if flips is None else float(flips[row])
            _curves(sheet, last, top, PAGE - MARGIN - last, tall, path, path_chances[row], flip, confidence)
        top = max(line, bottom) + 0.1
    how = (
        f"What changed: red is brighter in the picture {'flipped' if end == 'flipped' else 'at the end'} than in the "
        "one through the link, blue darker, one scale for all rows."
    )
    if curve:
        how += (
            " On the way: probability of the class to leave (blue) and of the one expected (orange); the upright line "
        )
        how += f"is where the latter has the {sure} asked for (dotted)." if sure else "is the flip."
    return sheet.finish(sheet.paragraph(MARGIN, top, how, PAGE - 2 * MARGIN, size=8, colour=QUIET) + 0.06)


def _curves(
    sheet: Sheet,
    left: float,
    top: float,
    across: float,
    tall: float,
    path: Tensor,
    chances: Tensor,
    flip: float,
    confidence: float,
) -> None:
    axes = sheet.axes(left, top, across, tall)
    ways, both = array(path), array(chances)
    axes.plot(ways, both[:, 0], color=FROM, linewidth=1.6)
    axes.plot(ways, both[:, 1], color=TO, linewidth=1.6)
    if flip == flip:
        axes.axvline(flip, color=INK, linewidth=1)
    if confidence:
        axes.axhline(confidence, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlim(float(ways[0]), float(ways[-1]))
    axes.set_ylim(-0.03, 1.03)
    _edge(axes, EDGE)
    here = top + tall + 0.03
    sheet.line(left, here, "0", size=7.5, colour=QUIET)
    sheet.line(left + across, here, number(float(ways[-1]), 2), size=7.5, colour=QUIET, align="right")
    does, never = ("reaches", f"does not reach {_sure(confidence)}") if confidence else ("flips", "does not flip")
    said = f"{does} {_sure(confidence)} at {number(flip, 2)}".replace("  ", " ") if flip == flip else never
    if flip == 0:
        said = "there from the start"
    sheet.line(left + across / 2, here, said, size=7.5, align="center")


def _sure(confidence: float) -> str:
    """The probability asked for, in words; nothing where being the answer was enough."""
    return f"{100 * confidence:g} %" if confidence else ""


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
    words: Mapping[str, Sequence[object] | Tensor | None],
) -> None:
    if originals.dim() != 4 or not len(originals):
        raise ValueError(f"originals have shape {tuple(originals.shape)}; expected (N, C, H, W).")
    count = len(originals)
    for name, given in pictures.items():
        if given.shape != originals.shape:
            raise ValueError(
                f"{name} have shape {tuple(given.shape)}; expected the originals', {tuple(originals.shape)}."
            )
    if tuple(chances.shape) != (count, 3, 3):
        raise ValueError(f"chances have shape {tuple(chances.shape)}; expected {(count, 3, 3)}.")
    for label, said in words.items():
        if said is not None and len(said) != count:
            raise ValueError(f"{len(said)} {label} for {count} pictures; expected one a picture.")
    if (path is None) != (path_chances is None):
        raise ValueError("path and path_chances belong together; got one of them.")
    if path is not None and path_chances is not None and tuple(path_chances.shape) != (count, len(path), 2):
        raise ValueError(f"path_chances have shape {tuple(path_chances.shape)}; expected {(count, len(path), 2)}.")
