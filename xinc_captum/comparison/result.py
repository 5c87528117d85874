"""Result of compare(): maps, table, captions and files."""

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

Labels = Sequence[str] | Mapping[int, str]
SMALL_SCORE = 0.1  # below, scores need three decimals
OUTPUTS = {
    "sigmoid": "The probability is the sigmoid of the model's output",
    "identity": "The model's outputs are probabilities",
    "none": "The measures use the model's output, which is no probability",
}
ARROWS = {"↓": "less is better", "↑": "more is better"}


def score_notes(rows: Sequence["Row"], columns: Sequence[Column], photos: int) -> tuple[dict[str, str], str]:
    """Return, by method, its first two measures with an arrow (:attr:`Column.better`), and an explanation of these.

    All values of a measure have the same number of decimals, three if one value is below 0.1; ``photos`` is the number
    of photos that the means are over.
    """
    two = [column for column in columns if column.better and any(not math.isnan(_mean(r, column)) for r in rows)][:2]
    notes = {}
    for row in rows:
        lines = [f"{_title(column)} {_value(row, column, rows)} {column.better}" for column in two]
        notes[row.method] = row.fault if row.left_out == photos else "\n".join(lines)
    if not two:
        return notes, ""
    meanings = [
        f"{': '.join(filter(None, [_title(column), column.meaning]))}; {ARROWS[column.better]} ({column.better})."
        for column in two
    ]
    scope = "One photo" if photos == 1 else f"Means over {photos} photos"
    exception = ", without invalid maps" if any(0 < row.left_out < photos for row in rows) else ""
    return notes, "\n".join(meanings) + f" {scope}{exception}."


def captions(
    target: int | Sequence[int], confidence: Sequence[float], labels: Labels | None, raw: bool = False
) -> list[tuple[str, str]]:
    """Return, by photo, the class and its probability (or nan), or its output if the values are ``raw``.

    ``target`` is a class, or one per photo. Of a label, the part before the first comma is used; None uses numbers.

    Raises:
        LookupError: a class has no label.

    Example:
        >>> captions([1, 0], [0.714, 0.0004], ["tench, Tinca tinca", "goldfish"])
        [('goldfish', 'p 0.71'), ('tench', 'p < 0.001')]
    """
    targets = [target] * len(confidence) if isinstance(target, int) else [*target]
    if len(targets) < len(confidence):
        targets *= len(confidence)  # a list of one class is for all photos
    return [(_class(index, labels), _format_confidence(p, raw)) for index, p in zip(targets, confidence, strict=True)]


def class_names(target: int | Sequence[int], labels: Labels) -> dict[str, str]:
    """Return the names of the target classes by number; LookupError for a class without a label."""
    return {str(index): _class(index, labels) for index in ([target] if isinstance(target, int) else target)}


def _mean(row: "Row", column: Column) -> float:
    return row.scores[column.name].value if column.name in row.scores else math.nan


def _title(column: Column) -> str:
    return column.title.removesuffix(" AUC")


def _value(row: "Row", column: Column, rows: Sequence["Row"]) -> str:
    value = _mean(row, column)
    digits = max(column.digits, 3) if any(abs(_mean(other, column)) < SMALL_SCORE for other in rows) else column.digits
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _class(index: int, labels: Labels | None) -> str:
    if labels is None:
        return f"class {index}"
    try:
        name = labels[index] if index >= 0 else ""
    except LookupError:
        name = ""
    if not name:
        raise LookupError(f"labels have no name for class {index}; give one per class, or {{{index}: 'its name'}}.")
    text = name.encode("utf-8", "replace").decode()  # names from file names may contain bytes that are not UTF-8
    return text.split(",")[0].strip()


def _format_confidence(value: float, raw: bool) -> str:
    if math.isnan(value):
        return ""
    if raw:
        return f"output {value:.3g}"
    return "p < 0.001" if value < 0.0005 else f"p {value:.{2 if value >= SMALL_SCORE else 3}f}"


COST = {"seconds": ".3f", "forwards": "d", "backwards": "d", "peak MB": ".1f"}


@dataclass
class Counts:
    """Cost of a block of code.

    Attributes:
        forwards: calls of the model; of several modules behind a function, those of the most frequent one.
        backwards: backward passes through the outputs of these calls.
        rows: samples in all these calls.
        peak_bytes: largest size of all tensors that were created in the block and alive at the same time.
    """

    forwards: int = 0
    backwards: int = 0
    rows: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        method: name of the method.
        seconds: wall time for all images, median over rounds.
        cpu_seconds: CPU time of the process for all images, median over rounds.
        counts: calls of the model, backward passes, and memory of one run.
        scores: by measure, the mean over the images with a valid map, and its interval (nan for one image).
        left_out: number of images whose map is constant or not finite.
        fault: "constant", "not finite" or both.
        error: the error that the method raised, or "".
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
        """Average the measures of one method over its images."""
        invalid = [flaw for flaw in flaws if flaw]
        means = {name: mean_interval(values, seed=seed) for name, values in scores.items()}
        return cls(method, cost[1], cost[0], counts, means, len(invalid), " or ".join(sorted(set(invalid))), error)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Maps and measures of several methods for the same images, the result of :func:`xinc_captum.comparison.compare`.

    Attributes:
        photos: (N, C, H, W) in [0, 1], on the CPU.
        maps: by method, (N, H, W) float32 on the CPU; methods that failed have none.
        table: one row per method.
        scores: by method and measure, the (N,) values behind the means of the rows.
        confidence: (N,), probability of the target for the unchanged photo; its output where ``note["probability"]``
            is "none".
        reference: name of the reference method.
        note: settings: seed, rounds, steps, target, baselines, network, type of the outputs (``"probability"``), and
            whether it was detected (``"probability_detected"``).
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
        """Return the table: cost, then each measure as mean [95 % interval], with an arrow for its better side."""
        return self._markdown(tuple(COST))

    def __str__(self) -> str:
        return self.to_markdown()

    def to_dict(self) -> dict[str, Any]:
        """Return everything except maps and photos as values for JSON; nan and infinity become None."""
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
        """Whether the measures use the outputs of the model instead of probabilities."""
        return self.note.get("probability") == "none"

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the rows whose maps do not depend on the model."""
        return tuple(self.note.get("baselines", ()))

    def figure(
        self,
        *,
        images: Sequence[int] | None = None,
        shared: bool = False,
        baselines: bool = True,
        labels: Labels | None = None,
    ) -> Figure:
        """Draw one row per image and one column per method, with its first two measures; baselines at the right.

        Args:
            images: indices of the images to draw; None draws all. The measures are means over all images.
            shared: use one scale for all maps except the baselines', for methods with equal units; by default each map
                has its own scale.
            baselines: whether to draw the baselines.
            labels: names by class for the captions, up to the first comma; None uses class numbers.

        Raises:
            ValueError: no images, or no maps without the baselines.
            LookupError: an index out of range, or a class without a label.
        """
        rows = list(range(len(self.photos))) if images is None else [*images]
        wrong = [i for i in rows if not 0 <= i < len(self.photos)]
        if wrong:
            raise IndexError(f"images contains {wrong[0]}; expected indices from 0 to {len(self.photos) - 1}.")
        if not rows:
            raise ValueError("images is empty; expected at least one index, or None for all.")
        maps = {name: values[rows] for name, values in self.maps.items() if baselines or name not in self.baselines}
        if not maps:
            raise ValueError("no map is left without the baselines; use baselines=True, or compare more methods.")
        notes, foot = score_notes([row for row in self.table if row.method in maps], self.columns, len(self.photos))
        if failed := [row.method for row in self.table if row.error]:
            foot = f"{foot}\nNot shown, because they failed: {', '.join(failed)}.".lstrip()
        if outputs := OUTPUTS.get(self.note.get("probability", "")):
            detected = " (detected)" if self.note.get("probability_detected") else ""
            foot = f"{foot}\n{outputs}{detected}.".lstrip()
        texts = captions(self.note["target"], self.confidence.tolist(), labels, raw=self._raw)
        texts = [texts[i] for i in rows]
        return comparison_grid(
            self.photos[rows], maps, notes, baselines=self.baselines, captions=texts, foot=foot, shared=shared
        )

    def save(self, path: str | Path, *, labels: Labels | None = None) -> None:
        """Write figure.png, maps.safetensors, table.md, table.json and times.json atomically.

        There is no figure if every method failed. Seconds differ between equal runs and are only in times.json; the
        manifest has hashes of all other files.

        Args:
            path: a folder that is new, empty, or an earlier result; StoreError for any other.
            labels: as for :meth:`figure`; the names are stored.
        """
        content = self.to_dict()
        times = {row["method"]: {key: row.pop(key) for key in ("seconds", "cpu_seconds")} for row in content["rows"]}
        note = {**self.note, "reference": self.reference, "methods": [row.method for row in self.table]}
        if labels is not None:
            note["labels"] = class_names(self.note["target"], labels)
        with store.bundle(path, note) as folder:
            if self.maps:
                self.figure(labels=labels).savefig(folder / "figure.png")
            store.write_tensors(folder / "maps.safetensors", self.maps, kind="maps")
            (folder / "table.md").write_text(self._markdown(tuple(COST)[1:]), encoding="utf-8")
            for name, values in (("table.json", content), (store.TIMES, times)):
                text = json.dumps(values, indent=2, ensure_ascii=False)
                (folder / name).write_text(f"{text}\n", encoding="utf-8")

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


def _interval(interval: Interval | None, digits: int) -> str:
    if interval is None or math.isnan(interval.value):
        return "–"
    value, low, high = (f"{end:.{digits}f}" for end in interval)
    return value if math.isnan(interval.low) else f"{value} [{low}, {high}]"


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(value: float) -> float | None:
    """Return None for nan and infinity, which JSON cannot represent."""
    return value if math.isfinite(value) else None
