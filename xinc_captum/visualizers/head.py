"""Names over narrow columns: broken where their parts begin, in smaller letters if need be, never inside a word."""

import re
from collections.abc import Sequence

from .sheet import wide

SIZES = (9.0, 8.5, 8.0, 7.5, 7.0)
LINES = 3
PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[-_/.(])(?=[^-_/.(])")


def heads(names: Sequence[str], width: float) -> tuple[float, list[list[str]]]:
    """Each name in at most three lines of at most ``width`` inches, all in one size: the largest in which most fit.

    What does not fit ends in "…".

    Example:
        >>> heads(["Integrated Gradients", "InputXGradient"], 0.8)
        (9.0, [['Integrated', 'Gradients'], ['InputX', 'Gradient']])
    """
    tried = {size: [_lines(name, width, size) for name in names] for size in SIZES}
    size = max(SIZES, key=lambda size: sum(_fits(head, width, size) for head in tried[size]))
    return size, [_cut(head, width, size) for head in tried[size]]


def shortened(text: str, width: float, size: float) -> str:
    """The text, or as much of its beginning as fits with "…" behind it.

    Example:
        >>> shortened("three-toed sloth", 0.7, 9)
        'three-to…'
    """
    if wide(text, size) <= width:
        return text
    keep = max((n for n in range(len(text)) if wide(text[:n] + "…", size) <= width), default=0)
    return text[:keep].rstrip() + "…"


def _lines(name: str, width: float, size: float) -> list[str]:
    lines = [""]
    for word in name.split():
        for i, part in enumerate([word] if wide(word, size) <= width else PARTS.split(word)):
            longer = f"{lines[-1]}{'' if i or not lines[-1] else ' '}{part}"
            if not lines[-1] or wide(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _fits(lines: list[str], width: float, size: float) -> bool:
    return len(lines) <= LINES and all(wide(line, size) <= width for line in lines)


def _cut(lines: list[str], width: float, size: float) -> list[str]:
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + "…"]
    return [shortened(line, width, size) for line in lines]
