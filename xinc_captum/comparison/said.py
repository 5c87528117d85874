"""What the figure of a comparison says in words: two numbers a method, what they are, and what is explained."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .columns import Column

if TYPE_CHECKING:
    from .result import Row

Labels = Sequence[str] | Mapping[int, str]
TIGHT = 0.1  # below, two digits tell too little apart
ARROWS = {"↓": "less is better", "↑": "more is better"}


def scores_said(rows: Sequence["Row"], columns: Sequence[Column], photos: int) -> tuple[dict[str, str], str]:
    """By method, its first two measures that have a better side; and one line on what these are.

    Args:
        rows: of the methods that are shown.
        columns: the measures; all values of one have equally many digits, three at least where one is below 0.1.
        photos: how many the means are over.

    Example:
        >>> scores_said([], [], 2)
        ({}, '')
    """
    two = [column for column in columns if column.better and any(not math.isnan(_of(r, column)) for r in rows)][:2]
    notes = {}
    for row in rows:
        lines = [f"{_title(column)} {_value(row, column, rows)} {column.better}" for column in two]
        notes[row.method] = row.fault if row.left_out == photos else "\n".join(lines)
    if not two:
        return notes, ""
    what = [
        f"{': '.join(filter(None, [_title(column), column.meaning]))}; {ARROWS[column.better]} ({column.better})."
        for column in two
    ]
    over = "One photo" if photos == 1 else f"Means over {photos} photos"
    some = ", but for maps that say nothing" if any(0 < row.left_out < photos for row in rows) else ""
    return notes, "\n".join(what) + f" {over}{some}."


def captions(
    target: int | Sequence[int], confidence: Sequence[float], labels: Labels | None, raw: bool = False
) -> list[tuple[str, str]]:
    """By photo, the class and its probability.

    Args:
        target: a class, or one a photo.
        confidence: the probabilities, nan where there is none.
        labels: names by class, of which all before the first comma is said; None says numbers.
        raw: the values are outputs, no probabilities.

    Raises:
        LookupError: a class has no label.

    Example:
        >>> captions([1, 0], [0.714, 0.0004], ["tench, Tinca tinca", "goldfish"])
        [('goldfish', 'p 0.71'), ('tench', 'p < 0.001')]
    """
    targets = [target] * len(confidence) if isinstance(target, int) else [*target]
    if len(targets) < len(confidence):
        targets *= len(confidence)  # one in a list stands for all
    shown = _output if raw else _probability
    return [(_class(one, labels), shown(p)) for one, p in zip(targets, confidence, strict=True)]


def named(target: int | Sequence[int], labels: Labels) -> dict[str, str]:
    """The names of the classes that are explained, by number.

    Raises:
        LookupError: a class has no label.

    Example:
        >>> named([1, 0, 1], ["tench, Tinca tinca", "goldfish"])
        {'1': 'goldfish', '0': 'tench'}
    """
    return {str(one): _class(one, labels) for one in ([target] if isinstance(target, int) else target)}


def _of(row: "Row", column: Column) -> float:
    found = row.scores.get(column.name)
    return math.nan if found is None else found.value


def _title(column: Column) -> str:
    return column.title.removesuffix(" AUC")


def _value(row: "Row", column: Column, rows: Sequence["Row"]) -> str:
    value = _of(row, column)
    digits = max(column.digits, 3) if any(abs(_of(other, column)) < TIGHT for other in rows) else column.digits
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _class(one: int, labels: Labels | None) -> str:
    if labels is None:
        return f"class {one}"
    try:
        name = labels[one] if one >= 0 else ""
    except LookupError:
        name = ""
    if not name:
        raise LookupError(f"labels have no name for class {one}; give one for each class, or {{{one}: 'its name'}}.")
    shown = name.encode("utf-8", "replace").decode()  # out of file names, which may hold bytes that are no UTF-8
    return shown.split(",")[0].strip()


def _probability(value: float) -> str:
    if math.isnan(value):
        return ""
    return "p < 0.001" if value < 0.0005 else f"p {value:.{2 if value >= TIGHT else 3}f}"


def _output(value: float) -> str:
    return "" if math.isnan(value) else f"output {value:.3g}"
