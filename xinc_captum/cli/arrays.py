"""The arrays of two results, set side by side."""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from .._extra import needed

Values = Tensor | tuple[str, ...]
SAME_BITS, SAME_TEXT = "same bits", "same text"


class Same(NamedTuple):
    """One array of two results.

    Attributes:
        name: its file, and its name there.
        same: whether it has the same dtype, shape and bits in both, or is within the tolerance.
        words: how far the two are apart.
    """

    name: str
    same: bool
    words: str


def compared(before: Path, after: Path, tolerance: float = 0.0) -> Iterator[Same]:
    """Every array of either folder: tensors of ``.safetensors``, arrays of ``.zarr``, columns of ``.csv``.

    Pictures and pages are drawn from these and are not compared.

    Args:
        before: the folder of one result.
        after: the folder of the other.
        tolerance: how far floats may be apart, as a share of the largest magnitude in their array; rounded floats
            (int8, uint8, uint16) may then be one apart. With 0, the bits have to be the same.
    """
    one, two = _arrays(before), _arrays(after)
    for name in [*one, *(name for name in two if name not in one)]:
        if name not in one or name not in two:
            yield Same(name, False, "only in the bundle" if name in one else "only in the replay")
        else:
            yield _compare(name, one[name](), two[name](), tolerance)


def _compare(name: str, a: Values, b: Values, tolerance: float) -> Same:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return Same(name, a == b, SAME_TEXT if a == b else "other text")
    if a.dtype != b.dtype or a.shape != b.shape:
        return Same(name, False, f"{a.dtype} {tuple(a.shape)} then, {b.dtype} {tuple(b.shape)} now")
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    if torch.equal(*bits):
        return Same(name, True, SAME_BITS)
    wide = torch.complex128 if a.is_complex() else torch.float64
    u, v = a.to(wide), b.to(wide)
    alike = (u == v) | (u.isnan() & v.isnan())
    if alike.all():
        return Same(name, tolerance > 0, "equal, but for signs of zeros or kinds of NaN")
    far = float(torch.where(alike, 0.0, (u - v).abs()).max())
    words = f"differs by up to {far:.3g} in {int((~alike).sum()):,} of {a.numel():,} places"
    return Same(name, tolerance > 0 and far <= _allowed(a, tolerance), words)


def _allowed(a: Tensor, tolerance: float) -> float:
    """How far an array may be from ``a``: floats by a share of the largest finite magnitude, rounded floats by one."""
    if a.is_floating_point() or a.is_complex():
        return tolerance * float(a.abs().double().nan_to_num(0.0, 0.0, 0.0).max())
    return 1.0 if a.dtype in (torch.int8, torch.uint8, torch.uint16) else 0.0


def _arrays(folder: Path) -> dict[str, Callable[[], Values]]:
    """How to read each array of a folder, in the order of their names."""
    found: dict[str, Callable[[], Values]] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            names = sorted(opened.keys())
        found |= {f"{file.relative_to(folder)}: {key}": partial(_tensor, file, key) for key in names}
    for file in sorted(folder.rglob("*.csv")):
        with file.open(newline="", encoding="utf-8") as text:
            head = next(csv.reader(text), [])
        found |= {f"{file.relative_to(folder)}: {key}": partial(_column, file, i) for i, key in enumerate(head)}
    for store in sorted(folder.rglob("*.zarr")):
        zarr = needed("zarr", purpose="reading what the bundle keeps of its canvas", extra="store")
        for key, node in sorted(zarr.open_group(store, mode="r").members(max_depth=None)):
            if isinstance(node, zarr.Array):
                found[f"{store.relative_to(folder)}: {key}"] = partial(_stored, node)
    return found


def _tensor(file: Path, key: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(key)
    return tensor


def _column(file: Path, index: int) -> Values:
    with file.open(newline="", encoding="utf-8") as text:
        cells = tuple(row[index] if index < len(row) else "" for row in list(csv.reader(text))[1:])
    try:
        return torch.tensor([float(cell) for cell in cells], dtype=torch.float64)
    except ValueError:
        return cells


def _stored(node: "np.typing.ArrayLike") -> Values:
    array = np.asarray(node)
    if array.dtype.kind in "OSUT":
        return tuple(str(one) for one in array.ravel())
    return torch.from_numpy(np.ascontiguousarray(array))
