"""Comparison: the maps, the table and the figure of several methods, kept together."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from .. import store
from ..visualizers import comparison_grid


class Scores(NamedTuple):
    """One method's measures of each image, (N,) each, nan where its map says nothing or nothing was asked."""

    deletion: Tensor
    insertion: Tensor
    agreement: Tensor
    energy: Tensor
    faults: tuple[str, ...]


class Row(NamedTuple):
    """One line of the table: means over the images whose map says something, nan where there is none.

    Attributes:
        method: its name.
        seconds: of process CPU time, median over rounds, all images together.
        wall: seconds on the clock, likewise.
        deletion: area under the deletion curve, lower is better.
        insertion: area under the insertion curve, higher is better.
        agreement: Spearman's ρ with the reference's map.
        energy: part of the map inside the mask, higher is better.
        left_out: images whose map is constant or not finite.
        fault: what these maps are.
    """

    method: str
    seconds: float
    wall: float
    deletion: float
    insertion: float
    agreement: float
    energy: float
    left_out: int
    fault: str

    @classmethod
    def of(cls, method: str, scores: Scores, seconds: float, wall: float) -> "Row":
        """Average one method's scores over its images."""
        deletion, insertion, agreement, energy = (float(values.nanmean()) for values in scores[:4])
        found = [fault for fault in scores.faults if fault]
        fault = " or ".join(sorted(set(found)))
        return cls(method, seconds, wall, deletion, insertion, agreement, energy, len(found), fault)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several methods say about the same images. Made by :func:`xinc_captum.comparison.compare`.

    Attributes:
        photos: (N, C, H, W) in [0, 1], on the host.
        maps: by method, (N, H, W) float32 on the host.
        table: one row a method.
        scores: by method, the measures of each image that the rows are means of.
        confidence: (N,), the target's probability of the whole photo.
        reference: the method that the others are correlated with, or None.
        note: how it came about: seed, rounds, steps, target.
    """

    photos: Tensor = field(repr=False)
    maps: Mapping[str, Tensor] = field(repr=False)
    table: tuple[Row, ...]
    scores: Mapping[str, Scores] = field(repr=False)
    confidence: Tensor = field(repr=False)
    reference: str | None
    note: Mapping[str, Any]

    def to_markdown(self) -> str:
        """The table, an arrow at each measure pointing to the better side."""
        return self._markdown(["seconds", "wall", "deletion", "insertion", "agreement", "energy"])

    def __str__(self) -> str:
        return self.to_markdown()

    def figure(self) -> Figure:
        """One row an image, one column a method, the two scores in its title."""
        notes = {
            row.method: row.fault
            if row.left_out == len(self.photos)
            else f"deletion {row.deletion:.2f} ↓\ninsertion {row.insertion:.2f} ↑"
            for row in self.table
        }
        return comparison_grid(self.photos, self.maps, notes)

    def save(self, path: str | Path) -> None:
        """Write figure.png, maps.safetensors, table.md, table.json and times.json, whole or not at all.

        Seconds differ between equal runs, so they are in times.json alone; everything else is hashed in the manifest.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the folder cannot take it.
        """
        measures = ["deletion", "insertion", "agreement", "energy"]
        images = [
            {"probability": _plain(p), "methods": {name: _of_image(s, i, measures) for name, s in self.scores.items()}}
            for i, p in enumerate(self.confidence.tolist())
        ]
        rows = [
            {"method": row.method, **{m: _plain(getattr(row, m)) for m in measures}, "left_out": row.left_out}
            for row in self.table
        ]
        times = {row.method: {"cpu_seconds": row.seconds, "wall_seconds": row.wall} for row in self.table}
        with store.bundle(path, {**self.note, "reference": self.reference, "methods": list(self.maps)}) as folder:
            self.figure().savefig(folder / "figure.png", dpi=150)
            save_file({name: maps.contiguous() for name, maps in self.maps.items()}, folder / "maps.safetensors")
            (folder / "table.md").write_text(self._markdown(measures), encoding="utf-8")
            _write(folder / "table.json", {"rows": rows, "images": images})
            _write(folder / store.TIMES, times)

    def _markdown(self, measures: list[str]) -> str:
        titles = {
            "seconds": ("CPU seconds", ".3f"),
            "wall": ("seconds", ".3f"),
            "deletion": ("deletion AUC ↓", ".3f"),
            "insertion": ("insertion AUC ↑", ".3f"),
            "agreement": (f"ρ with {self.reference}" if self.reference else "ρ", ".2f"),
            "energy": ("energy in mask ↑", ".2f"),
        }
        head = ["method", *(titles[m][0] for m in measures), "left out"]
        lines = [head, ["---", *["---:"] * len(measures), "---"]]
        for row in self.table:
            cells = [_cell(row, m, titles[m][1], len(self.photos)) for m in measures]
            out = f"{row.left_out} of {len(self.photos)} maps ({row.fault})" if row.left_out else ""
            lines.append([row.method.replace("|", "\\|"), *cells, out])
        if not any(row.left_out for row in self.table):
            lines = [line[:-1] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: Row, measure: str, digits: str, images: int) -> str:
    value = getattr(row, measure)
    if not math.isnan(value):
        return format(value, digits)
    return row.fault if row.left_out == images and measure in {"deletion", "insertion"} else "–"


def _plain(value: float) -> float | None:
    """JSON knows no nan."""
    return None if math.isnan(value) else value


def _of_image(scores: Scores, image: int, measures: list[str]) -> dict[str, Any]:
    return {m: _plain(float(getattr(scores, m)[image])) for m in measures} | {"fault": scores.faults[image]}


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
