"""``xinc canvas`` for a video: canvases and page."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import typer

from .. import inr
from ..attributions import FrameCanvas, NeuronCanvas
from ..metrics import optical_flow
from ..visualizers import flow_beside_change, frame_reconstructions, object_time, spread_curves, unit_film
from ..visualizers.report import Line, Section, Table, write_report
from .canvas_results import (
    BUDGET,
    LayerMagnitudes,
    LayerTracks,
    NetworkName,
    RuleName,
    VideoNetwork,
    check_memory,
    decoder_part,
    fit_network,
    judge_layer,
    load_shipped_network,
    make_network,
    measure_layer,
    measure_motion,
    measure_spread,
    methods_for,
    track_objects,
    write_explorer_files,
)
from .command import UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import FITTED, VideoInput, load_video

INPUTS = {"nerv": "the time of a frame", "hnerv": "the code of a frame from an encoder"}
PAGE_BYTES = 3_000_000  # approximate bytes of the packed units of all layers, for xinc explore


def write_video_page(
    folder: Path,
    video: VideoInput,
    network: VideoNetwork,
    layers: list[LayerMagnitudes],
    verdicts: tuple[Line, ...],
    facts: dict[str, str],
    seed: int,
) -> None:
    """Write figures and ``index.html`` into ``folder``."""
    figure = frame_reconstructions(video.frames, network.rendered, network.decibels)
    caption = "The video, the network's output and the difference. All figures below explain the output."
    sections = [
        Section("The video and the network", (save_picture(folder, "frames.png", figure, caption),)),
        Section("How reliable the canvases are", (), verdicts=verdicts),
    ]
    if video.masks is not None:
        sections.append(_objects(folder, video, [track_objects(layer, video.masks, seed) for layer in layers]))
    figure = unit_film(network.rendered, [row for layer in layers for row in layer.film])
    caption = (
        "Of each layer, the two units that contribute most, and, among the stronger half, the two whose contributions "
        "change most (in cells of eight pixels). Top: early layers. Bottom: kernels of the head, for one colour."
    )
    sections += [
        Section("Single units through time", (save_picture(folder, "units.png", figure, caption),)),
        _motion(folder, video, layers),
        _spread(folder, network, layers, seed),
    ]
    write_report(
        folder,
        title=f"Contributions of the neurons of a network, frame by frame: {video.name}",
        lead=f"A small network was trained to map {INPUTS[network.name]} to the frame. Each frame is a sum over the "
        "units of a layer, so each unit has a canvas for every frame: its positive or negative contribution to every "
        "pixel.",
        facts=facts,
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions and checksums.",
    )


def _objects(folder: Path, video: VideoInput, tracks: list[LayerTracks]) -> Section:
    """Return the figure of the layer that follows the objects best, and a table of all layers."""
    best = max(tracks, key=lambda one: one.lead)
    if video.masks is None:
        raise ValueError("the video has no masks, so there are no objects to track; give masks.")
    figure = object_time(
        video.frames,
        video.masks,
        best.track.matched,
        best.track.shuffled,
        best.layer.magnitudes,
        names=video.objects,
        elsewhere=best.elsewhere,
        layer=best.layer.name,
        units=5,  # further units hardly follow it
    )
    caption = (
        "The layer that follows the objects best. For each object, the joint contribution of the units that follow it "
        "best: if they follow it, the bright area moves inside the outline. The heat maps show units by time: top, "
        "inside the object's mask; bottom (control), inside its masks of all other times."
    )
    head = ("layer", *[f"{name}: {what}" for name in video.objects for what in ("best unit", "elsewhere")])
    lines = tuple(
        (one.layer.name, *[f"{v:+.2f}" for pair in zip(one.best, one.chance, strict=True) for v in pair])
        for one in tracks
    )
    note = (
        "How well the best unit of each layer follows the object: its contribution per area relative to the mean, "
        "inside the object's masks minus inside its masks of other times; 0: not at all. Elsewhere: the same for the "
        "best unit along the same path at other positions, median of 20."
    )
    pictures = (save_picture(folder, "objects.png", figure, caption),)
    return Section("Units that follow objects", pictures, Table(head, lines, note))


def _motion(folder: Path, video: VideoInput, layers: list[LayerMagnitudes]) -> Section:
    title = "Motion and change of contributions"
    if len(video.frames) < 3:
        return Section(title, (), Table(("left out",), (("two frames",),), "The control needs at least three frames."))
    if video.flow is None and importlib.util.find_spec("skimage") is None:
        note = "Optical flow needs scikit-image. Run: pip install 'xinc-captum[analysis]'"
        return Section(title, (), Table(("left out",), (("no scikit-image",),), note))
    speed = (optical_flow(video.frames) if video.flow is None else video.flow).norm(dim=1)
    motions = [measure_motion(layer, video, speed) for layer in layers]
    best = max(motions, key=lambda one: one.lead if one.lead == one.lead else -1.0)
    figure = flow_beside_change(
        video.frames,
        speed,
        best.change,
        best.agreement.table[0],
        controls={
            "frame difference instead": float(best.difference.matched),
            "a still video": float(best.still.matched),
        },
        layer=best.layer,
    )
    source = (
        "estimated from the frames (TV-L1, which misses objects that move more than a few pixels per frame)"
        if video.flow is None
        else "known exactly"
    )
    caption = (
        f"The layer with the highest agreement. The flow is {source}. If the difference of frames agrees as well as "
        "the flow, the contributions only change where the image changes."
    )
    picture = save_picture(folder, "motion.png", figure, caption)
    head = ("layer", "same frames", "other frames", "frame difference instead")
    lines = []
    for one in motions:
        values = (one.agreement.matched, one.agreement.shuffled, one.difference.matched)
        lines.append((one.layer, *[f"{float(value):+.2f}" for value in values]))
    table = Table(head, tuple(lines), "Rank correlation of speed and change over pixels, mean over frames.")
    return Section(title, (picture,), table)


def _spread(folder: Path, network: VideoNetwork, layers: list[LayerMagnitudes], seed: int) -> Section:
    middle = len(network.rendered) // 2
    spreads = {layer.name: measure_spread(layer, middle, seed) for layer in layers}
    figure = spread_curves(spreads, network.rendered[middle])
    local = _by_chance({name: one.places for name, one in spreads.items()})
    few = _by_chance({name: one.few for name, one in spreads.items()})
    caption = (
        f"At frame {middle}. Left: a solid curve that falls more steeply than its dashed control means that units are "
        f"local{local}. Right: a curve above its control means that few units make up each pixel{few}."
    )
    return Section("How far units spread", (save_picture(folder, "spread.png", figure, caption),))


def _by_chance(more: dict[str, bool]) -> str:
    """Return a remark on the layers whose curve is not better than its control."""
    names = [name for name, yes in more.items() if not yes]
    layers = "in every layer" if len(names) == len(more) > 1 else ", ".join(names)
    return f"; not more than the control here: {layers}" if names else ""


@record_settings("video", "source")
def video_canvas(
    source: str,
    out: Path,
    model_name: NetworkName | None,
    layers: list[str] | None,
    rule: RuleName,
    longer_side: int | None,
    steps: int | None,
    frames: int,
    masks: Path | None,
    seed: int,
    device: str,
) -> None:
    """Fit a network to a video and write its canvases.

    The fit writes a checkpoint next to ``out``, from which a killed run resumes; it is deleted at the end.
    """
    shipped = source == FITTED and not Path(source).exists()
    if shipped and (model_name or steps):
        raise UsageError(f"{FITTED} is fitted already; --model and --steps do not apply to it. Leave them out.")
    video = load_video(source, frames, longer_side, masks)
    torch_device = find_device(device)
    height, width = video.frames.shape[2:]
    text = f"{video.name}, {len(video.frames)} frames of {width} x {height} pixels"
    checkpoint = out.resolve().with_name(f"{out.resolve().name}.fit.pt")
    if shipped:
        network = load_shipped_network(video, torch_device)
        methods = methods_for(network.model, layers, rule.value)
    else:
        kind = model_name or NetworkName.nerv
        model = make_network(kind, (height, width), seed)
        methods = methods_for(model, layers, rule.value)  # a wrong name fails before the fit
        resumed = ", resuming an earlier run" if checkpoint.is_file() else ""
        typer.echo(f"fitting {kind} to {text}, on {torch_device}{resumed} …")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        network = fit_network(model, kind, video, steps or 1500, seed, torch_device, checkpoint)
    typer.echo(f"{text}: {network.psnr:.1f} dB; computing {len(methods)} layers …")
    note: dict[str, Any] = {
        "seed": seed,
        "model": {"name": network.name, **network.model.config},
        "steps": network.steps,
        "rule": rule.value,
        "layers": list(methods),
        "psnr_db": [round(decibels, 2) for decibels in network.decibels],
        "inputs": video.origin,
    }
    with result_folder(out, note, "fit_seconds") as folder:
        inr.save(network.model, folder / "network.safetensors", size=(len(video.frames), height, width))
        canvases = {layer: _canvas(method, network, (height, width)) for layer, method in methods.items()}
        tangents = methods_for(network.model, list(methods), "tangent")
        verdicts = {
            layer: judge_layer(canvas, partial(_canvas, tangents[layer], network, (height, width)))
            for layer, canvas in canvases.items()
        }
        note["trust"] = {layer: verdict.numbers() for layer, verdict in verdicts.items()}
        for layer, verdict in verdicts.items():
            typer.echo(f"  {layer} {verdict.trust}")
        last = list(canvases.values())[-1]
        if importlib.util.find_spec("zarr") is None:
            canvas_file = "not saved: zarr is missing (pip install 'xinc-captum[store]')"
        else:
            last.save(folder / "canvas.zarr", dtype="float16")
            canvas_file = f"canvas.zarr, {last.layer}; open_canvas() reads it"
        facts = {
            "video": video.name,
            "frames": f"{len(video.frames)} of {width} x {height}",
            "network": f"{network.name}, {sum(p.numel() for p in network.model.parameters()):,} parameters",
            "fit": f"{network.steps} steps" if network.steps else "shipped with the package",
            "quality": f"{network.psnr:.1f} dB",
            "rule": rule.value,
            "saved canvas": canvas_file,
        }
        magnitudes = [measure_layer(canvas, PAGE_BYTES // len(canvases)) for canvas in canvases.values()]
        write_explorer_files(folder, video.name, network.rendered, magnitudes)
        lines = tuple(verdict.line for verdict in verdicts.values())
        write_video_page(folder, video, network, magnitudes, lines, facts, seed)
    checkpoint.unlink(missing_ok=True)


def _canvas(method: NeuronCanvas, network: VideoNetwork, size: tuple[int, int]) -> FrameCanvas:
    canvas = method.canvas(network.rows, size, memory_budget=BUDGET)
    if not isinstance(canvas, FrameCanvas):
        raise TypeError(f"{type(decoder_part(network.model)).__name__} has no frames of {size}.")
    check_memory(canvas)
    return canvas
