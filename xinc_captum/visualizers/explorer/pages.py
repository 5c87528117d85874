"""Pages of canvases, of accentuations, of sweeps and of tables: one self-contained HTML file each."""

import base64
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from markupsafe import Markup
from torch import Tensor

from ...store import replace_file
from ..layout import check_verdicts, decimals_for, decimals_over, finite_range, heat_over, no_heat, number
from ..report import render
from ..style import VERDICTS
from .images import album, masks_of
from .pack import MAX_UNITS, PackedUnits, delta, pack_units

PAGE_LIMIT = 5_000_000  # bytes of a page, so that it can be sent by e-mail
DATA_LIMIT = 4_800_000  # bytes of its data and images; the rest is for text, style and scripts


class VerdictNote(NamedTuple):
    """A verdict on a page: what it is about, "holds", "weak" or "fails", and the reason."""

    name: str
    verdict: str
    because: str

    @property
    def mark(self) -> str:
        """The mark of the verdict."""
        return VERDICTS[self.verdict][0]


def write_page(
    path: str | Path,
    template: str,
    scripts: Sequence[str],
    *,
    title: str,
    facts: Mapping[str, str] | None,
    verdicts: Sequence[VerdictNote] = (),
    reduced: str = "",
    **content: Any,
) -> Path:
    """Render a template, write the page to ``path`` atomically, and return the path."""
    check_verdicts(*(note.verdict for note in verdicts))
    folder = resources.files(__package__)
    data = render(
        "explorer",
        template,
        title=title,
        facts=dict(facts or {}),
        verdicts=verdicts,
        reduced=reduced,
        style=Markup((folder / "explorer.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((folder / name).read_text(encoding="utf-8") for name in scripts)),
        **content,
    )
    if len(data) > PAGE_LIMIT:
        raise ValueError(
            f"{title}: the page would have {len(data) / 1e6:.1f} MB; expected at most {PAGE_LIMIT / 1e6:g} MB. Write "
            "several pages with a part of the data each."
        )
    path = Path(path)
    with replace_file(path) as part:
        part.write_bytes(data)
    return path


def explore_canvases(
    path: str | Path,
    picture: Tensor,
    layers: Mapping[str, Tensor | PackedUnits],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    verdicts: Mapping[str, tuple[str, str]] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write a self-contained HTML page: hover over a pixel to see its neurons, click a neuron to see its canvas.

    Shares are quantised to 1/65,535, maps to 255 levels of their own maximum; of many units, maps are reduced in size.
    Packed layers are written as they are.

    Args:
        path: file to write or to replace.
        picture: (C, H, W), or (frames, C, H, W), in [0, 1], 1 or 3 channels.
        layers: by name, canvases (units, C, H, W) or (frames, units, C, H, W), or the output of :func:`pack_units`.
        title: title of the page.
        facts: short values by name.
        verdicts: by layer, "holds", "weak" or "fails", and the reason.
        names: by layer, names of its units; None uses "neuron 0" and so on.

    Example:
        >>> maps = torch.randn(5, 3, 8, 12)
        >>> explore_canvases("cat.html", torch.rand(3, 8, 12), {"h1": maps}, title="A cat")  # doctest: +SKIP
    """
    frames = picture[None] if picture.dim() == 3 else picture
    if not layers:
        raise ValueError("layers is empty; expected the canvases of at least one layer.")
    verdicts, names = verdicts or {}, names or {}
    blobs = {name: blob(units) for name, units in layers.items() if isinstance(units, PackedUnits)}
    space = DATA_LIMIT - sum(map(len, blobs.values())) - sum(len("".join(labels)) for labels in names.values())
    # The least number of bytes lets a page without space for images be reported as too large as a whole.
    images = album(list(frames), min(1_500_000, max(300_000, space)), longest=640)
    room = (space - sum(map(len, images.addresses))) * 3 // 4 // max(1, len(layers) - len(blobs))
    packed = {
        name: maps if isinstance(maps, PackedUnits) else pack_units(maps, room=max(room, 1 << 14))
        for name, maps in layers.items()
    }
    entries = []
    for name, units in packed.items():
        count, steps = units.amounts.shape
        if steps != len(frames):
            raise ValueError(f"{name} has canvases of {steps} frames for {len(frames)} images; expected equal numbers.")
        if name in names and len(names[name]) != count:
            raise ValueError(f"{name} has {count} units and {len(names[name])} names; expected one name per unit.")
        if (last := int(units.top.to(torch.int32).max())) >= min(count, MAX_UNITS):
            raise ValueError(f"{name} refers to unit {last} and has {count} units; expected numbers below {count}.")
        entries.append(
            {
                "layer": name, "units": count, "frames": steps, "grid": list(units.top.shape[1:3]),
                "k": units.top.shape[3], "small": list(units.maps.shape[2:]), "near": units.near.shape[1],
                "spread": [round(float(part), 4) for part in units.spread],
                "names": list(names[name]) if name in names else None,
            }
        )  # fmt: skip
    data = {"size": list(images.size), "frames": images.addresses, "layers": entries}
    return write_page(
        path,
        "canvases.html.j2",
        ("units.js", "drawing.js", "cluster_map.js", "panels.js", "canvases.js"),
        title=title,
        facts=facts,
        verdicts=[VerdictNote(name, *verdicts[name]) for name in packed if name in verdicts],
        reduced=images.caption,
        data=data,
        blobs={name: blobs.get(name) or blob(units) for name, units in packed.items()},
        film=len(frames) > 1,
    )


def blob(packed: PackedUnits) -> str:
    """Return the numbers of a layer, in the order that units.js expects, deflated and in base64.

    Numbers are little-endian: float32, then uint16, then the differences of the maps.
    """
    floats = (packed.amounts, packed.extremes, packed.scale, packed.places)
    parts = [numbers.numpy().astype("<f4").tobytes() for numbers in floats]
    parts += [numbers.numpy().astype("<u2").tobytes() for numbers in (packed.top, packed.shares, packed.near)]
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)  # raw, for DecompressionStream("deflate-raw")
    content = compressor.compress(b"".join([*parts, delta(packed.maps)])) + compressor.flush()
    return base64.b64encode(content).decode("ascii")


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
    """Write an HTML page with an opacity slider from a photo to each accentuation, beside Grad-CAM.

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
    room = DATA_LIMIT - 2_000 * len(images)  # bytes of text
    mask_addresses = [] if masks is None else masks_of(list(masks), int(0.2 * room))
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
        path, "accentuations.html.j2", ["accentuations.js"], title=title, facts=facts, reduced=pictures.caption,
        cards=cards, cam_name=cam_name,
    )  # fmt: skip


def _overlay(photo: Tensor, cam: Tensor) -> Tensor:
    """Return a heat map over a photo, (3, H, W)."""
    return torch.as_tensor(heat_over(photo.detach().cpu().float(), cam.detach().cpu().float())).permute(2, 0, 1)


class Strip(NamedTuple):
    """The sweep of one unit: values set (S,), images (N, S, C, H, W) in [0, 1], values measured in these (N, S)."""

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
    """Write an HTML page with a filmstrip per image and unit, and the values set and measured.

    Args:
        path: file to write or to replace.
        strips: sweeps by name of the unit.
        rows: names of the N images; a mapping by unit, where they differ.
        title: title of the page.
        verdicts: by unit, "holds", "weak" or "fails", and the reason.
        facts: short values by name.
        remark: sentence about all units.

    Example:
        >>> strip = Strip(torch.linspace(0, 1, 4), torch.rand(2, 4, 1, 8, 8), torch.rand(2, 4))
        >>> explore_sweeps("unit.html", {"unit 3": strip}, rows="ab", title="A unit")  # doctest: +SKIP
    """
    if not strips:
        raise ValueError("strips is empty; expected at least one sweep.")
    names = {name: rows[name] if isinstance(rows, Mapping) else rows for name in strips}
    for name, strip in strips.items():
        shape, sizes = strip.images.shape, (len(names[name]), len(strip.values))
        if strip.images.dim() != 5 or shape[:2] != sizes or strip.measured.shape != sizes:
            raise ValueError(
                f"{name}: {sizes[1]} values, images {tuple(shape)}, measured {tuple(strip.measured.shape)} and "
                f"{sizes[0]} names of rows; expected (S,), (N, S, C, H, W), (N, S) and N."
            )
    frames = [frame for strip in strips.values() for frame in strip.images.flatten(0, 1)]
    pictures = album(frames, max(1, DATA_LIMIT - 450 * len(frames) - 2_000 * len(strips)))  # bytes of text
    addresses, verdicts = iter(pictures.addresses), verdicts or {}
    entries = []
    for name, strip in strips.items():
        trust = VerdictNote(name, *verdicts[name]) if name in verdicts else None
        entries.append(_strip_entry(name, strip, names[name], addresses) | {"trust": trust})
    return write_page(
        path, "sweeps.html.j2", ["sweeps.js"], title=title, facts=facts,
        reduced=pictures.caption, remark=remark, strips=entries,
    )  # fmt: skip


def _strip_entry(name: str, strip: Strip, rows: Sequence[str], addresses: Iterator[str]) -> dict[str, Any]:
    low, high = finite_range(torch.cat([strip.values.flatten(), strip.measured.flatten()]).double().cpu())
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
    room = max(1, DATA_LIMIT - 200 * (1 + len(columns)) * len(rows))  # bytes of text, with its tags
    picture = None if figure is None else album([figure], room)
    return write_page(
        path, "table.html.j2", ["table.js"], title=title, facts=facts, images=images,
        columns=["method", *columns], meanings=meanings or {},
        figure=picture.addresses[0] if picture else None, reduced=picture.caption if picture else "",
        rows=[
            [Cell(name, name, (remarks or {}).get(name, "")), *(cell_of(value) for value in values)]
            for name, values in rows.items()
        ],
    )  # fmt: skip


def cell_of(value: Value) -> Cell:
    """Return the text of a value, the ends of its interval as the note, and its sort key as JavaScript reads it."""
    if isinstance(value, str):
        return Cell(value, value)
    if value is None or isinstance(value, int | float):
        key = "" if value is None or math.isnan(value) else repr(float(value)).replace("inf", "Infinity")
        return Cell(_format(value), key)
    mean, *ends = value
    cell = cell_of(mean)
    if mean is None or all(end is None for end in ends):
        return cell
    return cell._replace(note=f"[{', '.join(_format(end) for end in ends)}]")


def _format(value: float | None) -> str:
    """Format whole numbers without decimals, others with three decimals, or fewer where they are large."""
    if value is None or not math.isfinite(value):
        return "–"
    return number(value, 0 if float(value).is_integer() else min(3, decimals_for(abs(value)) + 1))
