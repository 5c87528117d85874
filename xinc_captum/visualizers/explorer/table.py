"""A page with one table, which a reader sorts by any column."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..words import decimals_for, number
from .album import album
from .page import ROOM, write_page

Value = float | str | Sequence[float | None] | None
_CELL = 200  # bytes of one cell, with what stands around it


class Cell(NamedTuple):
    """What is read, what it is sorted by ("": last), and what stands small behind it."""

    text: str
    value: str
    note: str = ""


def explore_table(
    path: str | Path,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[Value]],
    *,
    title: str,
    images: int,
    figure: Tensor | None = None,
    facts: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
    remarks: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file with a table whose heads sort it.

    Args:
        path: of the file to make or to replace.
        columns: heads of the measures.
        rows: by method, for each column a number, a mean with its interval (mean, low, high), words, or None.
        title: what the page is about.
        images: how many pictures the means are of.
        figure: (C, H, W) in [0, 1], shown below.
        facts: short labelled values.
        meanings: what a head says, for readers who do not know it.
        remarks: by method, what stands small below its name, such as why it failed.

    Returns:
        the path.

    Raises:
        ValueError: no rows, or rows of another length than the columns.

    Example:
        >>> rows = {"Grad-CAM": [(0.3, 0.2, 0.4), 2], "random map": [None, 0]}
        >>> explore_table("table.html", ["deletion", "passes"], rows, title="Methods", images=3)  # doctest: +SKIP
    """
    wrong = [name for name, values in rows.items() if len(values) != len(columns)]
    if not rows or wrong:
        raise ValueError(
            f"{len(rows)} rows, of which {wrong} are not as long as the {len(columns)} columns; wanted at least one "
            "row with a value for each column."
        )
    held = None if figure is None else album([figure], max(1, ROOM - _CELL * (1 + len(columns)) * len(rows)))
    return write_page(
        path, "table.html.j2", ["table.js"], title=title, facts=facts or {}, verdicts=[], images=images,
        columns=["method", *columns], meanings=meanings or {},
        figure=held.addresses[0] if held else None, reduced=held.said if held else "",
        rows=[
            [Cell(name, name, (remarks or {}).get(name, "")), *(cell_of(value) for value in values)]
            for name, values in rows.items()
        ],
    )  # fmt: skip


def cell_of(value: Value) -> Cell:
    """A value as it is read and sorted.

    Example:
        >>> cell_of((0.25, 0.2, None)), cell_of(12.0), cell_of(None)
        (Cell(text='0.250', value='0.25', note='[0.200, –]'), Cell(text='12', value='12.0', note=''), Cell(text='–', \
value='', note=''))
    """
    if isinstance(value, str):
        return Cell(value, value)
    if value is None or isinstance(value, int | float):
        return Cell(_said(value), "" if value is None or math.isnan(value) else _sorted_by(value))
    mean, *ends = value
    plain = cell_of(mean)
    return (
        plain
        if mean is None or all(end is None for end in ends)
        else plain._replace(note=f"[{', '.join(_said(end) for end in ends)}]")
    )


def _sorted_by(value: float) -> str:
    """As JavaScript reads it."""
    return repr(float(value)).replace("inf", "Infinity")


def _said(value: float | None) -> str:
    """Counts as they are, all else with three decimals, or fewer where it is large."""
    if value is None or float(value).is_integer():
        return "–" if value is None else number(value, 0)
    return number(value, min(3, decimals_for(abs(value)) + 1) if math.isfinite(value) else 0)
