"""A page of filmstrips: a unit set to one value after another, and what was measured in each frame."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..words import decimals_over, number
from .album import album
from .page import ROOM, Said, write_page

_FRAME = 450  # bytes of the words of one frame
_STRIP = 2_000  # and of one strip


class Strip(NamedTuple):
    """One unit's sweep: values set (S,), frames (N, S, C, H, W) in [0, 1], what was measured in them (N, S)."""

    values: Tensor
    images: Tensor
    measured: Tensor


def explore_sweeps(
    path: str | Path,
    strips: Mapping[str, Strip],
    *,
    rows: Sequence[str] | Mapping[str, Sequence[str]],
    title: str,
    verdicts: Mapping[str, tuple[str, str]] | None = None,
    facts: Mapping[str, str] | None = None,
    remark: str = "",
) -> Path:
    """Write one HTML file with a filmstrip for each picture and unit, the value set and the value measured below.

    It stays below 5 MB: pictures are kept as they are where they fit, else compressed, else made smaller; the page says
    so.

    Args:
        path: of the file to make or to replace.
        strips: by what the unit is called, tensors of its sweep.
        rows: what the N pictures are called; by unit, where these differ.
        title: what the page is about.
        verdicts: by unit, "holds", "weak" or "fails", and because of what.
        facts: short labelled values.
        remark: a sentence on all of them.

    Returns:
        the path.

    Raises:
        ValueError: no strips, shapes and names that do not fit, or more frames than fit into 5 MB at 32 pixels.

    Example:
        >>> strip = Strip(torch.linspace(0, 1, 4), torch.rand(2, 4, 1, 8, 8), torch.rand(2, 4))
        >>> explore_sweeps("unit.html", {"unit 3": strip}, rows="ab", title="A unit")  # doctest: +SKIP
    """
    if not strips:
        raise ValueError("there are no strips; wanted at least one.")
    called = {name: rows[name] if isinstance(rows, Mapping) else rows for name in strips}
    for name, strip in strips.items():
        _check(name, strip, called[name])
    frames = [frame for strip in strips.values() for frame in strip.images.flatten(0, 1)]
    held = album(frames, max(1, ROOM - _FRAME * len(frames) - _STRIP * len(strips)))
    addresses, said = iter(held.addresses), verdicts or {}
    return write_page(
        path, "sweeps.html.j2", ["sweeps.js"], title=title, facts=facts or {}, verdicts=[],
        reduced=held.said, remark=remark,
        strips=[
            _told(name, strip, called[name], addresses) | {"said": Said(name, *said[name]) if name in said else None}
            for name, strip in strips.items()
        ],
    )  # fmt: skip


def _check(name: str, strip: Strip, rows: Sequence[str]) -> None:
    shape, steps = strip.images.shape, len(strip.values)
    if strip.images.dim() != 5 or shape[:2] != (len(rows), steps) or strip.measured.shape != shape[:2]:
        raise ValueError(
            f"{name}: {steps} values, images {tuple(shape)}, measured {tuple(strip.measured.shape)} and {len(rows)} "
            "names of rows; wanted (S,), (N, S, C, H, W), (N, S) and N."
        )


def _told(name: str, strip: Strip, rows: Sequence[str], addresses: Iterator[str]) -> dict[str, Any]:
    both = torch.cat([strip.values.flatten(), strip.measured.flatten()]).double().cpu()
    finite = both[both.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    step = float(strip.values.max() - strip.values.min()) / max(1, len(strip.values) - 1)
    digits = decimals_over(step, max(abs(low), abs(high)))

    def at(value: float) -> float | None:
        if not math.isfinite(value):
            return None
        return round(100 * (value - low) / (high - low), 1) if high > low else 50.0

    values, told = strip.values.tolist(), []
    for row, measured in zip(rows, strip.measured.tolist(), strict=True):
        shown = [
            {
                "image": next(addresses), "set": number(value, digits), "measured": number(found, digits),
                "set_at": at(value), "measured_at": at(found),
            }
            for value, found in zip(values, measured, strict=True)
        ]  # fmt: skip
        told.append({"name": row, "frames": shown})
    return {"title": name, "labels": [f"set {number(value, digits)}" for value in values], "rows": told}
