"""``xinc canvas`` of a video: fit a network to it, or take the one that ships, and show what its units paint."""

import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import typer

from .. import inr, store
from ..attributions import FrameCanvas, NeuronCanvas
from .canvas import BUDGET, RuleName
from .device import device_called
from .explore_canvases import ROOM, keep
from .failures import UsageError
from .film import FITTED, Film, film_called
from .recorded import recorded
from .verdicts import judged
from .video_network import Painter, VideoModel, explained, fit, fitted_before, methods_for, network
from .video_page import write_video_page
from .video_story import check_room, layer_of


@recorded("video", "source")
def video_command(
    source: str,
    out: Path,
    model_name: VideoModel | None,
    layers: list[str] | None,
    rule: RuleName,
    longer_side: int | None,
    steps: int | None,
    frames: int,
    masks: Path | None,
    seed: int,
    device: str,
) -> None:
    """Everything that ``xinc canvas`` does with a video; the folder appears whole or not at all.

    The fit keeps a checkpoint beside ``out``, which goes when all is done: what was killed goes on there.
    """
    started = time.perf_counter()
    store.check_folder(out)
    shipped = source == FITTED and not Path(source).exists()
    if shipped and (model_name or steps):
        raise UsageError(f"{FITTED} is fitted already; --model and --steps cannot change it. Leave them out.")
    film = film_called(source, frames, longer_side, masks)
    where = device_called(device)
    height, width = film.frames.shape[2:]
    said = f"{film.name}, {len(film.frames)} frames of {width} x {height} pixels"
    checkpoint = out.resolve().with_name(f"{out.resolve().name}.fit.pt")
    if shipped:
        painter = fitted_before(film, where)
        methods = methods_for(painter.model, layers, rule.value)
    else:
        kind = model_name or VideoModel.nerv
        model = network(kind, (height, width), seed)
        methods = methods_for(model, layers, rule.value)  # names fail before the fit
        going_on = ", going on where an earlier run stopped" if checkpoint.is_file() else ""
        typer.echo(f"fitting {kind} to {said}, on {where}{going_on} …")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        painter = fit(model, kind, film, steps or 1500, seed, where, checkpoint)
    fit_seconds = time.perf_counter() - started
    typer.echo(f"{said}: {painter.psnr:.1f} dB; drawing {len(methods)} layers …")
    note: dict[str, Any] = {
        "seed": seed,
        "model": painter.config,
        "steps": painter.steps,
        "rule": rule.value,
        "layers": list(methods),
        "psnr_db": [round(decibels, 2) for decibels in painter.decibels],
        "inputs": film.origin,
    }
    with store.bundle(out, note) as folder:
        inr.save(painter.model, folder / "network.safetensors", size=(len(film.frames), height, width))
        canvases = {layer: _canvas(method, painter, (height, width)) for layer, method in methods.items()}
        tangents = methods_for(painter.model, list(methods), "tangent")
        verdicts = {
            layer: judged(canvas, partial(_canvas, tangents[layer], painter, (height, width)))
            for layer, canvas in canvases.items()
        }
        note["trust"] = {layer: verdict.numbers() for layer, verdict in verdicts.items()}
        for layer, verdict in verdicts.items():
            typer.echo(f"  {layer} {verdict.trust}")
        kept = _kept(folder, list(canvases.values())[-1])
        stories = [layer_of(canvas, ROOM // len(canvases)) for canvas in canvases.values()]
        keep(folder, film.name, painter.drawn, stories)
        lines = tuple(verdict.line for verdict in verdicts.values())
        write_video_page(folder, film, painter, stories, lines, _facts(film, painter, rule, kept), seed)
        times = {"fit_seconds": round(fit_seconds, 1), "all_seconds": round(time.perf_counter() - started, 1)}
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def _canvas(method: NeuronCanvas, painter: Painter, size: tuple[int, int]) -> FrameCanvas:
    canvas = method.canvas(painter.rows, size, memory_budget=BUDGET)
    if not isinstance(canvas, FrameCanvas):
        raise TypeError(f"{type(explained(painter.model)).__name__} draws no frames of {size}.")
    check_room(canvas)
    return canvas


def _kept(folder: Path, canvas: FrameCanvas) -> str:
    """Keep the last layer's canvas to be opened again; answers what to say of it."""
    if importlib.util.find_spec("zarr") is None:
        return "not kept: zarr is missing (pip install 'xinc-captum[store]')"
    canvas.save(folder / "canvas.zarr", dtype="float16")
    return f"canvas.zarr, {canvas.layer}; open_canvas() reads it"


def _facts(film: Film, painter: Painter, rule: RuleName, kept: str) -> dict[str, str]:
    height, width = film.frames.shape[2:]
    parameters = sum(p.numel() for p in painter.model.parameters())
    return {
        "video": film.name,
        "frames": f"{len(film.frames)} of {width} x {height}",
        "network": f"{painter.name}, {parameters:,} parameters",
        "fit": f"{painter.steps} steps" if painter.steps else "before, comes with the package",
        "quality": f"{painter.psnr:.1f} dB",
        "rule": rule.value,
        "canvas kept": kept,
    }
