"""Read result folders, and write the explorer pages of canvases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .. import store
from ..visualizers.explorer import PackedUnits, explore_canvases
from .errors import UsageError


class Bundle(NamedTuple):
    """A result folder and its manifest."""

    folder: Path
    note: Mapping[str, Any]

    def has(self, file: str) -> bool:
        """Return whether the manifest lists a file."""
        return file in self.note["outputs"]

    def file(self, name: str) -> Path:
        """Return the path of a file after a check of its sha256.

        Raises:
            UsageError: the file is missing or was changed.
        """
        path = self.folder / name
        if not self.has(name) or not path.is_file():
            raise UsageError(f"{self.folder} is damaged: {name} is missing. Make the result again.")
        if store.sha256(path) != self.note["outputs"][name]:
            raise UsageError(f"{self.folder} is damaged: {name} was changed. Make the result again.")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read a file of tensors.

        Raises:
            UsageError: as :meth:`file`, or the file is not a safetensors file.
        """
        path = self.file(name)
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error

    def json(self, name: str) -> Any:
        """Read a JSON file.

        Raises:
            UsageError: as :meth:`file`, or the file is not JSON.
        """
        path = self.file(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest of a result folder.

    Raises:
        FileNotFoundError: the folder does not exist.
        UsageError: it holds no result of this package.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; expected a result folder of an xinc command or of Comparison.save."
        )
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        known = note["format"] == store.FORMAT and isinstance(note["outputs"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f"{folder} holds no {store.MANIFEST} of xinc-captum; expected a result folder of an xinc command or of "
            "Comparison.save."
        )
    return Bundle(folder, note)


TENSORS_FILE, NAMES_FILE = "explorer.safetensors", "explorer.json"
PAGE_BYTES = 3_000_000  # approximate bytes of all layers of a video in a page


def write_explorer_files(
    folder: Path,
    name: str,
    rendered: Tensor,
    layers: Mapping[str, PackedUnits],
    unit_names: Mapping[str, Sequence[str]],
) -> None:
    """Write the small maps and the frames of a video for ``xinc explore``, which then needs no network.

    Args:
        folder: the result folder.
        name: name of the video.
        rendered: (frames, 3, H, W) in [0, 1], by the network.
        layers: name of each layer -> the packed maps of its units.
        unit_names: names of the units of the layers whose units have names.
    """
    tensors = {
        f"{layer}.{part}": tensor for layer, packed in layers.items() for part, tensor in packed._asdict().items()
    }
    tensors["drawn"] = (rendered.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    store.write_tensors(folder / TENSORS_FILE, tensors, kind="canvas-explorer")
    note = {"name": name, "names": {layer: list(names) for layer, names in unit_names.items()}}
    (folder / NAMES_FILE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def photo_page(bundle: Bundle, path: Path) -> Path:
    """Write the explorer page of a photo canvas from the maps of all layers."""
    note = bundle.note
    layers, rendered = {}, None
    for layer in note["layers"]:
        tensors = bundle.tensors(f"{layer}.safetensors")
        layers[layer] = tensors["maps"]
        if rendered is None:
            rendered = tensors["maps"].sum(0, dtype=torch.float32) + tensors["rest"].float()
    if rendered is None:
        raise UsageError(f"{bundle.folder} is damaged: its manifest has no layers. Make the result again.")
    name = Path(next(iter(note["inputs"]))).name
    return explore_canvases(
        path,
        rendered.clamp(0, 1),
        layers,
        title=f"What the neurons of a network paint: {name}",
        facts=_facts(bundle, "photo", name, f"{note['psnr_db']:.1f} dB"),
        verdicts=_verdicts(note["trust"]),
    )


def video_page(bundle: Bundle, path: Path) -> Path:
    """Write the explorer page of a video canvas from the files of :func:`write_explorer_files`.

    Raises:
        UsageError: an older version made the result, without these files.
    """
    note = bundle.note
    if not bundle.has(TENSORS_FILE):
        raise UsageError(
            f"{bundle.folder} has no tensors for the explorer; run xinc canvas again to make the result again."
        )
    tensors, names = bundle.tensors(TENSORS_FILE), bundle.json(NAMES_FILE)
    layers = {
        layer: PackedUnits(*(tensors[f"{layer}.{part}"] for part in PackedUnits._fields)) for layer in note["layers"]
    }
    name = names["name"]
    decibels = note["psnr_db"]
    return explore_canvases(
        path,
        tensors["drawn"].float() / 255,
        layers,
        title=f"What the neurons of a network paint, frame by frame: {name}",
        facts=_facts(bundle, "video", name, f"{sum(decibels) / len(decibels):.1f} dB"),
        verdicts=_verdicts(note["trust"]),
        names=names["names"],
    )


def _facts(bundle: Bundle, kind: str, name: str, likeness: str) -> dict[str, str]:
    return {
        "network": str(bundle.note["model"]["name"]),
        kind: name,
        f"likeness to the {kind} (PSNR)": likeness,
        "rule": bundle.note["rule"],
    }


def _verdicts(trust: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {layer: (entry["verdict"], entry["because"]) for layer, entry in trust.items()}
