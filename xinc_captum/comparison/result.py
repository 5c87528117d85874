"""Comparison, table, captions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from .. import store
from ..metrics import Interval, mean_interval
from ..visualizers import comparison_grid
from .measures import Column
from .runner import Counts

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


COST = {"seconds": ".3f", "forwards": "d", "backwards": "d", "peak MB": ".1f"}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: its name.
        seconds: on the clock, median over rounds, all images together.
        cpu_seconds: of the process, likewise.
        counts: calls of the model, gradients that came back, and memory of one run.
        scores: by measure, the mean over the images whose map says something, and its interval (nan for
            one image).
        left_out: images whose map is constant or not finite.
        fault: what these maps are.
        error: what the method failed with, or "".
    """

    method: str
    seconds: float
    cpu_seconds: float
    counts: Counts
    scores: Mapping[str, Interval]
    left_out: int = 0
    fault: str = ""
    error: str = ""

    @classmethod
    def of(
        cls,
        method: str,
        cost: tuple[float, float],
        counts: Counts,
        scores: Mapping[str, Tensor],
        flaws: Sequence[str],
        error: str,
        seed: int,
    ) -> "Row":
        """Average one method's measures over its images."""
        found = [flaw for flaw in flaws if flaw]
        means = {name: mean_interval(values, seed=seed) for name, values in scores.items()}
        return cls(method, cost[1], cost[0], counts, means, len(found), " or ".join(sorted(set(found))), error)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several methods say about the same images. Made by :func:`xinc_captum.comparison.compare`.

    Attributes:
        photos: (N, C, H, W) in [0, 1], on the host.
        maps: by method, (N, H, W) float32 on the host; none of a method that failed.
        table: one row a method.
        scores: by method and measure, the (N,) values that the rows are means of.
        confidence: (N,), the target's probability of the whole photo; its output where ``note["probability"]`` is
            "none".
        reference: the method that the others are set beside.
        note: how it came about: seed, rounds, steps, target, baselines, network, and what the outputs were taken for.
        columns: the measures.
    """

    photos: Tensor = field(repr=False)
    maps: Mapping[str, Tensor] = field(repr=False)
    table: tuple[Row, ...]
    scores: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    confidence: Tensor = field(repr=False)
    reference: str
    note: Mapping[str, Any]
    columns: tuple[Column, ...] = field(repr=False)

    def to_markdown(self) -> str:
        """The table: cost, then each measure as mean [95 % interval], an arrow pointing to its better side."""
        return self._markdown(tuple(COST))

    def __str__(self) -> str:
        return self.to_markdown()

    def to_dict(self) -> dict[str, Any]:
        """Everything but maps and photos, as plain numbers that JSON takes; what there is none of is None."""
        return {
            "reference": self.reference,
            **self.note,
            "rows": [
                {
                    "method": row.method,
                    "seconds": _plain(row.seconds),
                    "cpu_seconds": _plain(row.cpu_seconds),
                    **_counts(row),
                    **{name: [_plain(v) for v in interval] for name, interval in row.scores.items()},
                    "left_out": row.left_out,
                    "fault": row.fault,
                    "error": row.error,
                }
                for row in self.table
            ],
            "images": [
                {
                    "output" if self._raw else "probability": _plain(float(value)),
                    "methods": {
                        name: {measure: _plain(float(values[i])) for measure, values in of_method.items()}
                        for name, of_method in self.scores.items()
                    },
                }
                for i, value in enumerate(self.confidence)
            ],
        }

    @property
    def _raw(self) -> bool:
        """Whether the measures follow the model's outputs themselves, no probabilities."""
        return self.note.get("probability") == "none"

    @property
    def baselines(self) -> tuple[str, ...]:
        """The rows whose maps know nothing of the model."""
        return tuple(self.note.get("baselines", ()))

    def figure(
        self,
        *,
        images: Sequence[int] | None = None,
        shared: bool = False,
        baselines: bool = True,
        labels: Labels | None = None,
    ) -> Figure:
        """One row an image, one column a method, its first two measures under its name, the baselines apart.

        Args:
            images: numbers of those that are shown; None shows all. The measures stay means over all.
            shared: one scale for all maps but the baselines', for methods whose values mean the same; by default each
                map has its own.
            baselines: False leaves them out.
            labels: names by class, to be said under the photos instead of numbers, up to the first comma.

        Raises:
            ValueError: no images, or nothing is left without the baselines.
            IndexError: a number that is no image's.
            LookupError: a class has no label.
        """
        rows = list(range(len(self.photos))) if images is None else [*images]
        wrong = [i for i in rows if not 0 <= i < len(self.photos)]
        if wrong:
            raise IndexError(f"image {wrong[0]} is none of the {len(self.photos)}, which are numbered from 0.")
        if not rows:
            raise ValueError("images is empty; give at least one number, or None for all.")
        shown = {name: maps[rows] for name, maps in self.maps.items() if baselines or name not in self.baselines}
        if not shown:
            raise ValueError("no map is left without the baselines; give baselines=True, or compare more methods.")
        notes, foot = scores_said([row for row in self.table if row.method in shown], self.columns, len(self.photos))
        if failed := [row.method for row in self.table if row.error]:
            foot = f"{foot}\nNot shown, because they failed: {', '.join(failed)}.".lstrip()
        under = captions(self.note["target"], self.confidence.tolist(), labels, raw=self._raw)
        under = [under[i] for i in rows]
        return comparison_grid(
            self.photos[rows], shown, notes, baselines=self.baselines, captions=under, foot=foot, shared=shared
        )

    def save(self, path: str | Path, *, labels: Labels | None = None) -> None:
        """Write figure.png, maps.safetensors, table.md, table.json and times.json, whole or not at all.

        There is no figure where every method failed. Seconds differ between equal runs, so they are in times.json
        alone; everything else is hashed in the manifest.

        Args:
            path: a folder that is new, empty, or an earlier result.
            labels: as for :meth:`figure`; the names are kept.

        Raises:
            StoreError: the folder cannot take it.
            LookupError: a class has no label.
        """
        content = self.to_dict()
        times = {row["method"]: {key: row.pop(key) for key in ("seconds", "cpu_seconds")} for row in content["rows"]}
        note = {**self.note, "reference": self.reference, "methods": [row.method for row in self.table]}
        if labels is not None:
            note["labels"] = named(self.note["target"], labels)
        with store.bundle(path, note) as folder:
            if self.maps:
                self.figure(labels=labels).savefig(folder / "figure.png")
            store.write_tensors(folder / "maps.safetensors", self.maps, kind="maps")
            (folder / "table.md").write_text(self._markdown(tuple(COST)[1:]), encoding="utf-8")
            _write(folder / "table.json", content)
            _write(folder / store.TIMES, times)

    def _markdown(self, cost: Sequence[str]) -> str:
        titles = [f"{c.title.format(reference=self.reference)} {c.better}".rstrip() for c in self.columns]
        head = ["method", *cost, *titles, "remarks"]
        lines = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
        for row in self.table:
            costs = {"seconds": row.seconds, **_counts(row)}
            cells = [_cost(costs[name], COST[name], row) for name in cost]
            cells += [_interval(row.scores.get(c.name), c.digits) for c in self.columns]
            lines.append([_text(row.method), *cells, self._remark(row)])
        if not any(line[-1] for line in lines[2:]):
            lines = [line[:-1] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _remark(self, row: Row) -> str:
        if row.error:
            return f"failed: {_text(row.error)}"
        return f"{row.left_out} of {len(self.photos)} maps left out ({row.fault})" if row.left_out else ""


def _counts(row: Row) -> dict[str, Any]:
    peak = row.counts.peak_bytes / 1e6
    return {"forwards": row.counts.forwards, "backwards": row.counts.backwards, "peak MB": peak}


def _cost(value: float, digits: str, row: Row) -> str:
    return "–" if row.error or math.isnan(value) else format(value, digits)


def _interval(found: Interval | None, digits: int) -> str:
    if found is None or math.isnan(found.value):
        return "–"
    value, low, high = (f"{end:.{digits}f}" for end in found)
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"


def _text(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _plain(value: float) -> float | None:
    """JSON knows neither nan nor infinity."""
    return value if math.isfinite(value) else None


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
