"""Pages of accentuations, of sweeps and of tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import check_verdicts, decimals_for, decimals_over, number
from ..style import heat_over, no_heat
from .images import album, masks_of
from .page import DATA_LIMIT, VerdictNote, write_page

_CARD_BYTES = 2_000  # text of one accentuation
_MASK_SHARE = 0.2  # of the bytes for images


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
    """Write an HTML page below 5 MB with an opacity slider from a photo to each accentuation, beside Grad-CAM.

    Images are exact if they fit, else compressed, else reduced in size, which the page mentions.

    Args:
        path: file to write or to replace.
        photo: (C, H, W) in [0, 1], 1 or 3 channels; or (N, C, H, W), one per image.
        images: (N, C, H, W) in [0, 1].
        masks: (N, 1, H, W) in [0, 1], where the change mattered, or None.
        cams: (N, H, W), large where important in the unchanged photo, or None.
        titles: names of the features.
        title: title of the page.
        cam_name: title of ``cams``.
        notes: one line each, such as the score before and after.
        verdicts: "holds", "weak" or "fails", and the reason, one each.
        facts: short values by name.

    Returns:
        the path.

    Raises:
        ValueError: shapes or numbers of texts that do not match, an unknown verdict, or more images than fit into 5 MB
            at 32 pixels.

    Example:
        >>> photo, images = torch.rand(3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> explore_accentuations("lion.html", photo, images, titles="ab", title="A lion")  # doctest: +SKIP
    """
    entries = {"titles": titles, "notes": notes, "verdicts": verdicts, "masks": masks, "cams": cams}
    counts = {name: len(values) for name, values in entries.items() if values is not None}
    check_verdicts(*(word for word, _ in verdicts or ()))
    photos = photo[None] if photo.dim() == 3 else photo
    fits = images.dim() == photos.dim() == 4 and images.shape[2:] == photos.shape[2:]
    fits &= cams is None or cams.shape[1:] == images.shape[2:]
    if not fits or not len(images) or len(photos) not in (1, len(images)) or set(counts.values()) != {len(images)}:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, the photo {tuple(photo.shape)}, and the lengths are {counts}; "
            "expected (N, C, H, W) of the photo's size, at least one, one photo or N, and N of each, cams (N, H, W)."
        )
    room = DATA_LIMIT - _CARD_BYTES * len(images)
    mask_addresses = [] if masks is None else masks_of(list(masks), int(_MASK_SHARE * room))
    overlays = [] if cams is None else [_overlay(photos[i % len(photos)], cam) for i, cam in enumerate(cams)]
    pictures = album([*photos, *images, *overlays], max(room - sum(map(len, mask_addresses)), 1))
    before, after = pictures.addresses[: len(photos)], pictures.addresses[len(photos) :]
    cards = [
        {
            "title": titles[i],
            "photo": before[i] if i < len(before) else None,
            "image": after[i],
            "mask": mask_addresses[i] if masks is not None else None,
            "cam": after[len(images) + i] if overlays else None,
            "no_cam": "" if cams is None else no_heat(cams[i]),
            "note": notes[i] if notes else "",
            "trust": VerdictNote(titles[i], *verdicts[i]) if verdicts else None,
        }
        for i in range(len(images))
    ]
    return write_page(
        path, "accentuations.html.j2", ["accentuations.js"], title=title, facts=facts or {},
        verdicts=[], reduced=pictures.caption, cards=cards, cam_name=cam_name,
    )  # fmt: skip


def _overlay(photo: Tensor, cam: Tensor) -> Tensor:
    """Return a heat map over a photo, (3, H, W)."""
    return torch.as_tensor(heat_over(photo.detach().cpu().float(), cam.detach().cpu().float())).permute(2, 0, 1)


_FRAME_BYTES, _STRIP_BYTES = 450, 2_000  # text of one frame, and of one strip


class Strip(NamedTuple):
    """The sweep of one unit: values set (S,), images (N, S, C, H, W) in [0, 1], values measured in them (N, S)."""

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
    """Write an HTML page below 5 MB with a filmstrip per image and unit, and the values set and measured.

    Images are exact if they fit, else compressed, else reduced in size, which the page mentions.

    Args:
        path: file to write or to replace.
        strips: sweeps by name of the unit.
        rows: names of the N images; a mapping by unit, where they differ.
        title: title of the page.
        verdicts: by unit, "holds", "weak" or "fails", and the reason.
        facts: short values by name.
        remark: sentence about all units.

    Returns:
        the path.

    Raises:
        ValueError: no strips, shapes and names that do not match, or more images than fit into 5 MB at 32 pixels.

    Example:
        >>> strip = Strip(torch.linspace(0, 1, 4), torch.rand(2, 4, 1, 8, 8), torch.rand(2, 4))
        >>> explore_sweeps("unit.html", {"unit 3": strip}, rows="ab", title="A unit")  # doctest: +SKIP
    """
    if not strips:
        raise ValueError("strips is empty; expected at least one sweep.")
    names = {name: rows[name] if isinstance(rows, Mapping) else rows for name in strips}
    for name, strip in strips.items():
        _check_strip(name, strip, names[name])
    frames = [frame for strip in strips.values() for frame in strip.images.flatten(0, 1)]
    pictures = album(frames, max(1, DATA_LIMIT - _FRAME_BYTES * len(frames) - _STRIP_BYTES * len(strips)))
    addresses, verdicts = iter(pictures.addresses), verdicts or {}
    entries = []
    for name, strip in strips.items():
        trust = VerdictNote(name, *verdicts[name]) if name in verdicts else None
        entries.append(_strip_entry(name, strip, names[name], addresses) | {"trust": trust})
    return write_page(
        path, "sweeps.html.j2", ["sweeps.js"], title=title, facts=facts or {}, verdicts=[],
        reduced=pictures.caption, remark=remark, strips=entries,
    )  # fmt: skip


def _check_strip(name: str, strip: Strip, rows: Sequence[str]) -> None:
    shape, steps = strip.images.shape, len(strip.values)
    if strip.images.dim() != 5 or shape[:2] != (len(rows), steps) or strip.measured.shape != shape[:2]:
        raise ValueError(
            f"{name}: {steps} values, images {tuple(shape)}, measured {tuple(strip.measured.shape)} and {len(rows)} "
            "names of rows; expected (S,), (N, S, C, H, W), (N, S) and N."
        )


def _strip_entry(name: str, strip: Strip, rows: Sequence[str], addresses: Iterator[str]) -> dict[str, Any]:
    both = torch.cat([strip.values.flatten(), strip.measured.flatten()]).double().cpu()
    finite = both[both.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    step = float(strip.values.max() - strip.values.min()) / max(1, len(strip.values) - 1)
    digits = decimals_over(step, max(abs(low), abs(high)))

    def at(value: float) -> float | None:
        if not math.isfinite(value):
            return None
        return round(100 * (value - low) / (high - low), 1) if high > low else 50.0

    values, entries = strip.values.tolist(), []
    for row, measured in zip(rows, strip.measured.tolist(), strict=True):
        frames = [
            {
                "image": next(addresses), "set": number(target, digits), "measured": number(value, digits),
                "set_at": at(target), "measured_at": at(value),
            }
            for target, value in zip(values, measured, strict=True)
        ]  # fmt: skip
        entries.append({"name": row, "frames": frames})
    return {"title": name, "labels": [f"set {number(value, digits)}" for value in values], "rows": entries}


Value = float | str | Sequence[float | None] | None
_CELL_BYTES = 200  # text of one cell, with its tags


class Cell(NamedTuple):
    """The text of a cell, its sort key ("" sorts last), and a small note."""

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
    """Write an HTML page with a table that can be sorted by its columns.

    Args:
        path: file to write or to replace.
        columns: titles of the measures.
        rows: by method, for each column a number, a mean with its interval (mean, low, high), a text, or None.
        title: title of the page.
        images: number of images of the means.
        figure: (C, H, W) in [0, 1], shown below.
        facts: short values by name.
        meanings: by column title, its explanation.
        remarks: by method, a small note below its name, such as an error.

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
            f"got {len(rows)} rows, of which {wrong} do not have {len(columns)} values; expected at least one row with "
            "a value for each column."
        )
    room = max(1, DATA_LIMIT - _CELL_BYTES * (1 + len(columns)) * len(rows))
    picture = None if figure is None else album([figure], room)
    return write_page(
        path, "table.html.j2", ["table.js"], title=title, facts=facts or {}, verdicts=[], images=images,
        columns=["method", *columns], meanings=meanings or {},
        figure=picture.addresses[0] if picture else None, reduced=picture.caption if picture else "",
        rows=[
            [Cell(name, name, (remarks or {}).get(name, "")), *(cell_of(value) for value in values)]
            for name, values in rows.items()
        ],
    )  # fmt: skip


def cell_of(value: Value) -> Cell:
    """Return the text and the sort key of a value.

    Example:
        >>> cell_of((0.25, 0.2, None)), cell_of(12.0), cell_of(None)
        (Cell(text='0.250', value='0.25', note='[0.200, –]'), Cell(text='12', value='12.0', note=''), Cell(text='–', \
value='', note=''))
    """
    if isinstance(value, str):
        return Cell(value, value)
    if value is None or isinstance(value, int | float):
        return Cell(_format(value), "" if value is None or math.isnan(value) else _sort_key(value))
    mean, *ends = value
    cell = cell_of(mean)
    if mean is None or all(end is None for end in ends):
        return cell
    return cell._replace(note=f"[{', '.join(_format(end) for end in ends)}]")


def _sort_key(value: float) -> str:
    """Return a number as JavaScript reads it."""
    return repr(float(value)).replace("inf", "Infinity")


def _format(value: float | None) -> str:
    """Format whole numbers without decimals, others with three decimals, or fewer where they are large."""
    if value is None or float(value).is_integer():
        return "–" if value is None else number(value, 0)
    return number(value, min(3, decimals_for(abs(value)) + 1) if math.isfinite(value) else 0)
