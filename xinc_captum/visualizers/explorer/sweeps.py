"""A page of filmstrips: a unit set to one value after another, and what was measured in each frame."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..words import decimals_over, number
from .embedded import pictures
from .page import Said, write_page

MOST = 3_500_000  # bytes of pictures without loss


class Strip(NamedTuple):
    """One unit's sweep: values set (S,), frames (N, S, C, H, W) in [0, 1], what was measured in them (N, S)."""

    values: Tensor
    images: Tensor
    measured: Tensor


def explore_sweeps(
    path: str | Path,
    strips: Mapping[str, Strip],
    *,
    rows: Sequence[str],
    title: str,
    verdicts: Mapping[str, tuple[str, str]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file with a filmstrip for each picture and unit, the value set and the value measured below.

    Args:
        path: of the file to make or to replace.
        strips: by what the unit is called, tensors of its sweep.
        rows: what the N pictures are called.
        title: what the page is about.
        verdicts: by unit, "holds", "weak" or "fails", and because of what.
        facts: short labelled values.

    Returns:
        the path.

    Raises:
        ValueError: no strips, or shapes and names that do not fit.

    Example:
        >>> strip = Strip(torch.linspace(0, 1, 4), torch.rand(2, 4, 1, 8, 8), torch.rand(2, 4))
        >>> explore_sweeps("unit.html", {"unit 3": strip}, rows="ab", title="A unit")  # doctest: +SKIP
    """
    if not strips:
        raise ValueError("there are no strips; wanted at least one.")
    told = verdicts or {}
    most = MOST // sum(len(strip.images) for strip in strips.values())
    return write_page(
        path, "sweeps.html.j2", ["sweeps.js"], title=title, facts=facts or {},
        verdicts=[Said(name, *told[name]) for name in strips if name in told],
        strips=[_told(name, strip, rows, most) for name, strip in strips.items()],
    )  # fmt: skip


def _told(name: str, strip: Strip, rows: Sequence[str], most: int) -> dict[str, Any]:
    shape, steps = strip.images.shape, len(strip.values)
    if strip.images.dim() != 5 or shape[:2] != (len(rows), steps) or strip.measured.shape != shape[:2]:
        raise ValueError(
            f"{name}: {steps} values, images {tuple(shape)}, measured {tuple(strip.measured.shape)} and {len(rows)} "
            "names of rows; wanted (S,), (N, S, C, H, W), (N, S) and N."
        )
    both = torch.cat([strip.values.flatten(), strip.measured.flatten()]).double().cpu()
    finite = both[both.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    digits = decimals_over(float(strip.values.max() - strip.values.min()) / max(1, steps - 1), max(abs(low), abs(high)))

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 1) if high > low and value == value else 50.0

    values, told = strip.values.tolist(), []
    for row, frames, measured in zip(rows, strip.images, strip.measured.tolist(), strict=True):
        shown = [
            {
                "image": image, "set": number(value, digits), "measured": number(found, digits),
                "set_at": at(value), "measured_at": at(found),
            }
            for image, value, found in zip(pictures(frames, most=most), values, measured, strict=True)
        ]  # fmt: skip
        told.append({"name": row, "frames": shown})
    return {"title": name, "labels": [f"set {number(value, digits)}" for value in values], "rows": told}
