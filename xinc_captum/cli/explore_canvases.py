"""The explorer's page of what ``xinc canvas`` wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import store
from ..visualizers.explorer import PackedUnits, explore_canvases
from .bundle import Bundle
from .failures import UsageError
from .video_story import Layer

KEPT, NOTE = "explorer.safetensors", "explorer.json"
ROOM = 3_000_000  # bytes that all layers of a video take in a page, about


def keep(folder: Path, name: str, drawn: Tensor, layers: Sequence[Layer]) -> None:
    """Write into a video's bundle what its page shows, so that it needs no network: small maps, and who paints where.

    Args:
        folder: of the bundle.
        name: of the video.
        drawn: (frames, 3, H, W) in [0, 1], by the network.
        layers: what was found.
    """
    kept = {f"{one.name}.{part}": tensor for one in layers for part, tensor in one.packed._asdict().items()}
    kept["drawn"] = (drawn.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    store.write_tensors(folder / KEPT, kept, kind="canvas-explorer")
    note = {"name": name, "names": {one.name: list(one.names) for one in layers if one.kind != "neurons"}}
    (folder / NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")


def photo_page(bundle: Bundle, path: Path) -> Path:
    """Of a photo: every layer's maps are in the bundle."""
    note = bundle.note
    layers, drawn = {}, None
    for layer in note["layers"]:
        kept = bundle.tensors(f"{layer}.safetensors")
        layers[layer] = kept["maps"]
        if drawn is None:
            drawn = kept["maps"].sum(0, dtype=torch.float32) + kept["rest"].float()
    if drawn is None:
        raise UsageError(f"{bundle.folder} is damaged: it names no layers.")
    name = Path(next(iter(note["inputs"]))).name
    return explore_canvases(
        path,
        drawn.clamp(0, 1),
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
    if not bundle.has(KEPT):
        raise UsageError(f"{bundle.folder} does not keep what this page shows; run xinc canvas again to make it anew.")
    kept, said = bundle.tensors(KEPT), bundle.json(NOTE)
    layers = {
        layer: PackedUnits(*(kept[f"{layer}.{part}"] for part in PackedUnits._fields)) for layer in note["layers"]
    }
    name = said["name"]
    decibels = note["psnr_db"]
    return explore_canvases(
        path,
        kept["drawn"].float() / 255,
        layers,
        title=f"What the neurons of a network paint, frame by frame: {name}",
        facts=_facts(bundle, "video", name, f"{sum(decibels) / len(decibels):.1f} dB"),
        verdicts=_verdicts(note["trust"]),
        names=said["names"],
    )


def _facts(bundle: Bundle, kind: str, name: str, likeness: str) -> dict[str, str]:
    return {
        "network": str(bundle.note["model"]["name"]),
        kind: name,
        f"likeness to the {kind} (PSNR)": likeness,
        "rule": bundle.note["rule"],
    }


def _verdicts(trust: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {layer: (found["verdict"], found["because"]) for layer, found in trust.items()}
