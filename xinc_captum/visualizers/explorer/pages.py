"""Accentuations, sweeps, tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import check_verdicts, decimals_for, decimals_over, number
from ..style import heat_over, no_heat
from .images import album, masks_of
from .page import ROOM, Said, write_page

_CARD = 2_000  # bytes of the words of one accentuation
_MASKS = 0.2  # of the room for pictures


def explore_accentuations(
    path: str | Path,
    photo: Tensor,
    images: Tensor,
    masks: Tensor | None = None,
    cams: Tensor | None = None,
    *,
    titles: Sequence[str],
    title: str,
    cam_name: str = "Grad-CAM: where",
    notes: Sequence[str] | None = None,
    verdicts: Sequence[tuple[str, str]] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file with an opacity slider from a photo to each accentuation of it, beside Grad-CAM, below 5 MB.

    Pictures are kept as they are where they fit, else compressed, else made smaller; the page says so.

    Args:
        path: of the file to make or to replace.
        photo: (C, H, W) in [0, 1], 1 or 3 channels; or (N, C, H, W), one for each image.
        images: (N, C, H, W) in [0, 1].
        masks: (N, 1, H, W) in [0, 1], where the change mattered, or None.
        cams: (N, H, W), large where important before any change, or None for no such pictures.
        titles: of the features.
        title: what the page is about.
        cam_name: what stands above ``cams``.
        notes: a line each, such as the score before and after.
        verdicts: "holds", "weak" or "fails" each, and because of what.
        facts: short labelled values.

    Returns:
        the path.

    Raises:
        ValueError: shapes or numbers of words that do not fit, a verdict that is not known, or more pictures than fit
            into 5 MB at 32 pixels.

    Example:
        >>> photo, images = torch.rand(3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> explore_accentuations("lion.html", photo, images, titles="ab", title="A lion")  # doctest: +SKIP
    """
    counts = {
        name: len(given)
        for name, given in {
            "titles": titles, "notes": notes, "verdicts": verdicts, "masks": masks, "cams": cams
        }.items()
        if given is not None
    }  # fmt: skip
    check_verdicts(*(word for word, _ in verdicts or ()))
    photos = photo[None] if photo.dim() == 3 else photo
    fits = images.dim() == photos.dim() == 4 and images.shape[2:] == photos.shape[2:]
    fits &= cams is None or cams.shape[1:] == images.shape[2:]
    if not fits or not len(images) or len(photos) not in (1, len(images)) or set(counts.values()) != {len(images)}:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, the photo {tuple(photo.shape)}, and {counts}; expected "
            "(N, C, H, W) of the photo's size, at least one, one photo or N, and N of each, cams (N, H, W)."
        )
    room = ROOM - _CARD * len(images)
    seen = None if masks is None else masks_of(list(masks), int(_MASKS * room))
    left = room - sum(map(len, seen or ()))
    warm = [] if cams is None else [_warm(photos[i % len(photos)], cam) for i, cam in enumerate(cams)]
    held = album([*photos, *images, *warm], max(left, 1))
    before, after = held.addresses[: len(photos)], held.addresses[len(photos) :]
    shown = [
        {
            "title": titles[i],
            "photo": before[i] if i < len(before) else None,
            "image": after[i],
            "mask": seen[i] if seen else None,
            "cam": after[len(images) + i] if warm else None,
            "no_cam": "" if cams is None else no_heat(cams[i]),
            "note": notes[i] if notes else "",
            "said": Said(titles[i], *verdicts[i]) if verdicts else None,
        }
        for i in range(len(images))
    ]
    return write_page(
        path, "accentuations.html.j2", ["accentuations.js"], title=title, facts=facts or {},
        verdicts=[], reduced=held.said, shown=shown, cam_name=cam_name,
    )  # fmt: skip


def _warm(photo: Tensor, cam: Tensor) -> Tensor:
    return torch.as_tensor(heat_over(photo.detach().cpu().float(), cam.detach().cpu().float())).permute(2, 0, 1)


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
        raise ValueError("there are no strips; expected at least one.")
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
            "names of rows; expected (S,), (N, S, C, H, W), (N, S) and N."
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
            f"{len(rows)} rows, of which {wrong} are not as long as the {len(columns)} columns; expected at least one "
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
