"""Figure of counterfactuals: an image, its reconstruction through the link, the counterfactual, and the difference."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .accentuation import percent
from .layout import MARGIN, PAGE, Sheet, check_lengths, clip_text, number
from .style import BLUE, INK, ORANGE, QUIET, array, draw_photo, draw_signed, frame, limit_of

FLIP_GAP = 0.08  # inches between images
FLIP_LABEL, FLIP_CURVE = 1.15, 2.25  # inches of the text at the left, and of the curves at the right
FLIP_WIDTH, FLIP_HEIGHT = 1.3, 1.6  # inches of an image, at most
ORIGIN_COLOUR, TARGET_COLOUR, MISSED_COLOUR = BLUE, ORANGE, "#a8201a"


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
    title: str = "What would have to change for another class",
) -> Figure:
    """Draw one row per image: original, reconstruction, counterfactual, difference, and probabilities on the path.

    Below each image stand the model's probabilities of origin and target, and of the predicted class where that is
    neither. Rows that do not reach the target are marked. Rows whose original is of the target class already are marked
    and not counted. The difference is counterfactual minus reconstruction, so it excludes what the link loses.

    Args:
        originals: (N, C, H, W) in [0, 1].
        linked: (N, C, H, W), reconstructions of the originals through the link.
        flipped: (N, C, H, W), at the flip point, or the nearest result where the target is not reached.
        chances: (N, 3, 3), probabilities of origin, target and predicted class for original, linked and flipped.
        predictions: (N, 3), predicted class names of original, linked and flipped.
        origins: class that each image leaves: its own, or the second choice where its own is the target.
        targets: class that each image is moved to.
        reached: (N,) bool.
        confidence: probability that the target had to reach; 0 where being predicted was enough.
        path: (P,), positions on the path, from 0; None draws no curves.
        path_chances: (N, P, 2), probabilities of origin and target on the path.
        flips: (N,), position at which the target is reached; nan where it is not.
        notes: line under the text of each row, for example how far the representation moved.
        title: title of the figure.

    Raises:
        ValueError: shapes that do not match, a wrong number of entries, or a path without its probabilities.

    Example:
        >>> picture, chances = torch.rand(3, 2, 1, 8, 8), torch.rand(2, 3, 3)
        >>> figure = counterfactual_rows(*picture, chances=chances, predictions=[["3", "3", "8"], ["5", "5", "2"]],
        ...     origins=["3", "5"], targets=["8", "6"], reached=torch.tensor([True, False]))
        >>> figure.savefig("counterfactuals.png")  # doctest: +SKIP
    """
    _check_counterfactuals(originals, {"linked": linked, "flipped": flipped}, chances, path, path_chances)
    check_lengths(
        len(originals), "image", predictions=predictions, origins=origins, targets=targets, reached=reached,
        notes=notes, flips=flips,
    )  # fmt: skip
    curve = FLIP_CURVE if path is not None else 0.0
    room = PAGE - 2 * MARGIN - FLIP_LABEL - curve - (4 + bool(curve)) * FLIP_GAP
    cell = min(FLIP_WIDTH if curve else 1.4 * FLIP_WIDTH, room / 4)
    shape = originals.shape[-2] / originals.shape[-1]
    height = min(cell * shape, FLIP_HEIGHT)
    width = height / shape
    change = (flipped.float() - linked.float()).mean(1)
    limit = limit_of(change[reached] if reached.any() else change)
    lefts = [MARGIN + FLIP_LABEL + FLIP_GAP + i * (cell + FLIP_GAP) for i in range(4)]
    last = lefts[-1] + cell + 3 * FLIP_GAP
    chances, reached, percentage = chances.detach().cpu(), reached.cpu().bool(), _percentage(confidence)
    already = (chances[:, 0, 1] >= chances[:, 0, 2]) & (chances[:, 0, 1] >= confidence)
    flipped_rows = reached & ~already
    done, count = int(flipped_rows.sum()), int((~already).sum())
    sheet = Sheet()
    summary = f"{done} of {count} " + (f"reach {percentage} for the target class" if percentage else "flipped")
    summary += f", {len(already) - count} of the target class already" if already.any() else ""
    top = sheet.heading(title, f"{summary}; below each picture: the network's probabilities")
    end = "flipped" if done == len(reached) and not percentage else "end of the path"
    for x, name in zip(lefts, ("the picture", "reconstruction", end, "what changed"), strict=True):
        sheet.line(x + cell / 2, top, name, size=8.5, align="center")
    if curve:
        sheet.line((last + PAGE - MARGIN) / 2, top, "on the path", size=8.5, align="center")
    top += 0.2
    for row, (origin, target) in enumerate(zip(origins, targets, strict=True)):
        predicts_target = (chances[row, :, 1] >= chances[row, :, 2]).tolist()
        if already[row]:
            lines = [(f"already {target}", 10, TARGET_COLOUR, True), ("not counted", 8.5, QUIET, False)]
        else:
            lines = [
                (target if predicts_target[0] else origin, 10, ORIGIN_COLOUR, True),
                (f"→ {target}" + (f" at {percentage}" if percentage else ""), 10, TARGET_COLOUR, True),
            ]
        if not reached[row] and not already[row]:
            reason = f"below {percentage}" if predicts_target[2] else f"predicted {predictions[row][2]}"
            lines += [("✗ not reached", 8.5, MISSED_COLOUR, True), (reason, 8.5, MISSED_COLOUR, False)]
        if notes is not None:
            lines.append((notes[row], 7.5, QUIET, False))
        line = top
        for text, size, colour, bold in lines:
            line = sheet.paragraph(MARGIN, line, text, FLIP_LABEL, size=size, colour=colour, bold=bold)
        bottom = top + height
        for k, image in enumerate((originals[row], linked[row], flipped[row])):
            axes = sheet.axes(lefts[k] + (cell - width) / 2, top, width, height)
            draw_photo(axes, image)
            if k == 2 and flipped_rows[row]:
                frame(axes, TARGET_COLOUR, 2)
            else:
                frame(axes)
            here, both = top + height + 0.03, chances[row, k, :2].tolist()
            entries = [(origin, both[0], ORIGIN_COLOUR), (target, both[1], TARGET_COLOUR)]
            if float(chances[row, k, 2]) > max(both):
                entries.append((predictions[row][k], float(chances[row, k, 2]), INK))
            for name, chance, colour in entries:
                text = f"{clip_text(name, cell - 0.45, 7.5)}: {percent(chance)}"
                here = sheet.line(lefts[k] + cell / 2, here, text, size=7.5, colour=colour, align="center")
            bottom = max(bottom, here)
        axes = sheet.axes(lefts[3] + (cell - width) / 2, top, width, height)
        draw_signed(axes, change[row], limit)
        frame(axes)
        if path is not None and path_chances is not None:
            flip = float("nan") if flips is None else float(flips[row])
            _draw_path(sheet, last, top, height, path, path_chances[row], flip, confidence)
        top = max(line, bottom) + 0.1
    how = (
        f"What changed: red is brighter in the {'flipped' if end == 'flipped' else 'last'} picture than in the "
        "reconstruction, blue darker; one scale for all rows."
    )
    if curve:
        how += " On the path: probability of the original class (blue) and of the target (orange); the vertical line "
        how += f"marks where the latter reaches {percentage} (dotted)." if percentage else "marks the flip."
    return sheet.finish(sheet.note(top, how) + 0.06)


def _draw_path(
    sheet: Sheet, x: float, top: float, height: float, path: Tensor, chances: Tensor, flip: float, confidence: float
) -> None:
    """Plot the probabilities of origin and target on the path, up to the right margin."""
    width = PAGE - MARGIN - x
    axes = sheet.axes(x, top, width, height)
    positions, both = array(path), array(chances)
    axes.plot(positions, both[:, 0], color=ORIGIN_COLOUR, linewidth=1.6)
    axes.plot(positions, both[:, 1], color=TARGET_COLOUR, linewidth=1.6)
    if flip == flip:
        axes.axvline(flip, color=INK, linewidth=1)
    if confidence:
        axes.axhline(confidence, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlim(float(positions[0]), float(positions[-1]))
    axes.set_ylim(-0.03, 1.03)
    frame(axes)
    line = top + height + 0.03
    sheet.line(x, line, "0", size=7.5, colour=QUIET)
    sheet.line(x + width, line, number(float(positions[-1]), 2), size=7.5, colour=QUIET, align="right")
    if flip == 0:
        text = "reached at the start"
    elif flip == flip:
        text = f"{f'reaches {_percentage(confidence)}' if confidence else 'flips'} at {number(flip, 2)}"
    else:
        text = f"does not reach {_percentage(confidence)}" if confidence else "does not flip"
    sheet.line(x + width / 2, line, text, size=7.5, align="center")


def _percentage(confidence: float) -> str:
    """Return the required probability as text, "" where none is required."""
    return f"{100 * confidence:g} %" if confidence else ""


def _check_counterfactuals(
    originals: Tensor,
    images: Mapping[str, Tensor],
    chances: Tensor,
    path: Tensor | None,
    path_chances: Tensor | None,
) -> None:
    if originals.dim() != 4 or not len(originals):
        raise ValueError(f"originals have shape {tuple(originals.shape)}; expected (N, C, H, W).")
    count = len(originals)
    for name, tensor in images.items():
        if tensor.shape != originals.shape:
            raise ValueError(
                f"{name} have shape {tuple(tensor.shape)}; expected the originals', {tuple(originals.shape)}."
            )
    if tuple(chances.shape) != (count, 3, 3):
        raise ValueError(f"chances have shape {tuple(chances.shape)}; expected {(count, 3, 3)}.")
    if (path is None) != (path_chances is None):
        raise ValueError("path and path_chances belong together; only one of them is given.")
    if path is not None and path_chances is not None and tuple(path_chances.shape) != (count, len(path), 2):
        raise ValueError(f"path_chances have shape {tuple(path_chances.shape)}; expected {(count, len(path), 2)}.")
