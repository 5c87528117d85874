"""Video canvas: command and page."""

import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import typer
from matplotlib.figure import Figure

from .. import inr, store
from ..attributions import FrameCanvas, NeuronCanvas
from ..metrics import optical_flow
from ..visualizers import flow_beside_change, frame_reconstructions, object_time, spread_curves, unit_film
from ..visualizers.report import Line, Picture, Section, Table, write_report
from .canvas import BUDGET, RuleName, judged
from .errors import UsageError, device_called
from .recorded import recorded
from .results import ROOM, keep
from .video_files import FITTED, Film, film_called
from .video_results import (
    Carried,
    Layer,
    Motion,
    Painter,
    VideoModel,
    carried_by,
    check_room,
    explained,
    fit,
    fitted_before,
    layer_of,
    methods_for,
    motion_of,
    network,
    spread_of,
)

GOES_IN = {"nerv": "a frame's time", "hnerv": "what an encoder condensed a frame to"}
FOLLOWERS = 5  # units shown for each object: more would be units that do not follow it


def write_video_page(
    folder: Path,
    film: Film,
    painter: Painter,
    layers: list[Layer],
    verdicts: tuple[Line, ...],
    facts: dict[str, str],
    seed: int,
) -> None:
    """Pictures and ``index.html`` into ``folder``."""
    sections = [_drawn(folder, film, painter), Section("How far to trust the canvases", (), verdicts=verdicts)]
    if film.masks is not None:
        sections.append(_objects(folder, film, [carried_by(layer, film.masks, seed) for layer in layers]))
    sections += [_units(folder, painter, layers), _motion(folder, film, layers), _spread(folder, painter, layers, seed)]
    write_report(
        folder,
        title=f"What the neurons of a network paint, frame by frame: {film.name}",
        lead=f"A small network was trained to draw this video: {GOES_IN[painter.name]} goes in, the frame comes "
        "out. Each frame is a sum over the units of a layer, so each unit has a canvas for every frame: what it adds "
        "to, and takes away from, every pixel.",
        facts=facts,
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions and checksums.",
    )


def _drawn(folder: Path, film: Film, painter: Painter) -> Section:
    figure = frame_reconstructions(film.frames, painter.drawn, painter.decibels)
    caption = "The clip, the network's drawing of it, and the difference. All that follows explains the drawing."
    return Section("The clip and the network", (_picture(folder, "frames.png", figure, caption),))


def _units(folder: Path, painter: Painter, layers: list[Layer]) -> Section:
    figure = unit_film(painter.drawn, [row for layer in layers for row in layer.film])
    caption = (
        "Of each layer the two units that paint most, and, among the stronger half, the two whose paint moves about "
        "most (over cells of eight pixels). Above, early layers; below, what the head's kernels add to one colour."
    )
    return Section("Single units through time", (_picture(folder, "units.png", figure, caption),))


def _objects(folder: Path, film: Film, carried: list[Carried]) -> Section:
    """One picture of the layer that goes along with the objects most, and a table of all."""
    best = max(carried, key=lambda one: one.lead)
    if film.masks is None:
        raise ValueError("a film without masks has no objects to follow.")
    figure = object_time(
        film.frames,
        film.masks,
        best.track.matched,
        best.track.shuffled,
        best.layer.amounts,
        names=film.objects,
        elsewhere=best.elsewhere,
        layer=best.layer.name,
        units=FOLLOWERS,
    )
    caption = (
        "The layer that goes along with the objects most. Under each object, what its best followers paint together: "
        "where they carry it, the glow travels inside the outline. The heat maps say the same unit by time, above "
        "under the object's own mask, below (the control) under its masks of all other times."
    )
    head = ("layer", *[f"{name}: {what}" for name in film.objects for what in ("best unit", "elsewhere")])
    lines = [
        (one.layer.name, *[f"{v:+.2f}" for pair in zip(one.best, one.chance, strict=True) for v in pair])
        for one in carried
    ]
    words = (
        "How much the best unit of each layer goes along with the object: its paint there as a multiple of what the "
        "area accounts for, under the object's own masks minus under its masks of other times; 0: not at all. "
        "Elsewhere: what the best unit comes to along the same path at other places of the picture, median of 20."
    )
    pictures = (_picture(folder, "objects.png", figure, caption),)
    return Section("How objects are carried through time", pictures, Table(head, tuple(lines), words))


def _motion(folder: Path, film: Film, layers: list[Layer]) -> Section:
    title = "Where it moves, and where the paint changes"
    if len(film.frames) < 3:
        return Section(title, (), Table(("left out",), (("two frames",),), "The control wants at least three frames."))
    if film.flow is None and importlib.util.find_spec("skimage") is None:
        words = "Optical flow needs scikit-image. Run: pip install 'xinc-captum[analysis]'"
        return Section(title, (), Table(("left out",), (("no scikit-image",),), words))
    speed = (optical_flow(film.frames) if film.flow is None else film.flow).norm(dim=1)
    found = [motion_of(layer, film, speed) for layer in layers]
    best = max(found, key=lambda one: one.lead if one.lead == one.lead else -1.0)
    figure = flow_beside_change(
        film.frames,
        speed,
        best.change,
        best.found.table[0],
        controls={
            "frame difference instead": float(best.difference.matched),
            "a clip that stands still": float(best.still.matched),
        },
        layer=best.layer,
    )
    source = (
        "estimated from the frames (TV-L1, which loses objects that move more than a few pixels a frame)"
        if film.flow is None
        else "known exactly"
    )
    caption = (
        f"The layer where the two go together most. The flow is {source}. If the plain difference of frames does as "
        "well as the flow, the paint changes where the picture changes, and that is all this says."
    )
    picture = _picture(folder, "motion.png", figure, caption)
    return Section(title, (picture,), _motion_table(found))


def _motion_table(found: list[Motion]) -> Table:
    head = ("layer", "same frames", "other frames", "frame difference instead")
    lines = [
        (one.layer, *[f"{float(v):+.2f}" for v in (one.found.matched, one.found.shuffled, one.difference.matched)])
        for one in found
    ]
    return Table(head, tuple(lines), "Rank correlations over pixels of speed and change, mean over frames.")


def _spread(folder: Path, painter: Painter, layers: list[Layer], seed: int) -> Section:
    middle = len(painter.drawn) // 2
    spreads = {layer.name: spread_of(layer, middle, seed) for layer in layers}
    figure = spread_curves(spreads, painter.drawn[middle])
    left = _by_chance({name: one.places for name, one in spreads.items()})
    right = _by_chance({name: one.few for name, one in spreads.items()})
    caption = (
        f"At frame {middle}. Left: a solid curve that falls steeper than its dashed control says that units have "
        f"places of their own{left}. Right: one that rises above it, that few units make up each pixel{right}."
    )
    return Section("How far units spread", (_picture(folder, "spread.png", figure, caption),))


def _by_chance(more: dict[str, bool]) -> str:
    """What a caption adds about layers whose curve says no more than its control."""
    names = [name for name, yes in more.items() if not yes]
    said = "in every layer" if len(names) == len(more) > 1 else ", ".join(names)
    return f"; no more than by chance here: {said}" if names else ""


def _picture(folder: Path, file: str, figure: Figure, caption: str) -> Picture:
    figure.savefig(folder / file, dpi=110, metadata={"Software": None})
    return Picture(file, caption)


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
