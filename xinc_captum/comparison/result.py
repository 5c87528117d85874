"""Comparison: the maps, the table and the figure of several methods, kept together."""

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
from .columns import Column
from .counting import Counts
from .said import Labels, captions, named, scores_said

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
