"""Read a result folder back."""

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
from .video_results import LayerMagnitudes


class Bundle(NamedTuple):
    """A folder of results, and what its manifest says."""

    folder: Path
    note: Mapping[str, Any]

    def has(self, file: str) -> bool:
        """Whether the manifest lists it."""
        return file in self.note["outputs"]

    def file(self, name: str) -> Path:
        """A file of the bundle, with the bytes that were written.

        Raises:
            UsageError: it is missing, or was changed.
        """
        path = self.folder / name
        if not self.has(name) or not path.is_file():
            raise UsageError(f"{self.folder} is damaged: {name} is missing. Make the result again.")
        if store.sha256(path) != self.note["outputs"][name]:
            raise UsageError(f"{self.folder} is damaged: {name} is not what was written. Make the result again.")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a file of tensors holds.

        Raises:
            UsageError: as :meth:`file`, or it is no such file.
        """
        try:
            return load_file(self.file(name))
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error

    def json(self, name: str) -> Any:
        """What a JSON file holds.

        Raises:
            UsageError: as :meth:`file`, or it is no JSON.
        """
        try:
            return json.loads(self.file(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{self.folder} is damaged: {name} cannot be read ({error}).") from error


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder.

    Raises:
        FileNotFoundError: no such folder.
        UsageError: it holds no result of ours.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; expected one that an xinc command or Comparison.save wrote."
        )
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        known = note["format"] == store.FORMAT and isinstance(note["outputs"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UsageError(
            f"{folder} holds no {store.MANIFEST} of ours; expected a folder that an xinc command or Comparison.save "
            "wrote."
        )
    return Bundle(folder, note)


TENSORS_FILE, NAMES_FILE = "explorer.safetensors", "explorer.json"
PAGE_BYTES = 3_000_000  # bytes that all layers of a video take in a page, about


def write_explorer_files(folder: Path, name: str, rendered: Tensor, layers: Sequence[LayerMagnitudes]) -> None:
    """Write into a video's bundle what its page shows, so that it needs no network: small maps, and who paints where.

    Args:
        folder: of the bundle.
        name: of the video.
        rendered: (frames, 3, H, W) in [0, 1], by the network.
        layers: what was found.
    """
    tensors = {f"{one.name}.{part}": tensor for one in layers for part, tensor in one.packed._asdict().items()}
    tensors["drawn"] = (rendered.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    store.write_tensors(folder / TENSORS_FILE, tensors, kind="canvas-explorer")
    note = {"name": name, "names": {one.name: list(one.names) for one in layers if one.kind != "neurons"}}
    (folder / NAMES_FILE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def photo_page(bundle: Bundle, path: Path) -> Path:
    """Of a photo: every layer's maps are in the bundle."""
    note = bundle.note
    layers, rendered = {}, None
    for layer in note["layers"]:
        tensors = bundle.tensors(f"{layer}.safetensors")
        layers[layer] = tensors["maps"]
        if rendered is None:
            rendered = tensors["maps"].sum(0, dtype=torch.float32) + tensors["rest"].float()
    if rendered is None:
        raise UsageError(f"{bundle.folder} is damaged: it names no layers.")
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
    """Of a video: what :func:`keep` left in the bundle.

    Raises:
        UsageError: the bundle is from before there was such a page.
    """
    note = bundle.note
    if not bundle.has(TENSORS_FILE):
        raise UsageError(f"{bundle.folder} does not keep what this page shows; run xinc canvas again to make it anew.")
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
