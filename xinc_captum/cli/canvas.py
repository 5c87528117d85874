"""``xinc canvas``: command for photos and videos, and page of a photo."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from typer import Argument, Option

from .. import inr, store
from ..attributions import Canvas, NeuronCanvas
from ..attributions.canvas.canvas import Maps, Top, Totals
from ..images import read_photo
from ..visualizers import build_up, canvas_grid, dominant_units, neuron_over_photo, order_by_total, pixel_contributors
from ..visualizers.report import Section, write_report
from .canvas_results import BUDGET, LayerVerdict, NetworkName, RuleName, judge_layer
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import is_video, video_names
from .video import video_canvas


def make_network(name: NetworkName, seed: int) -> tuple[inr.FourierMLP | inr.Siren, float, int | None]:
    """Return a new network, the paper's FFN (33k parameters) or a SIREN of the same size; learning rate; batch size."""
    if name is NetworkName.ffn:
        return inr.FourierMLP(scale=5.0, seed=seed), 1e-2, None  # all pixels
    return inr.Siren(hidden=128, layers=4, first_omega=40.0, seed=seed), 2e-3, 1 << 13


def canvas_command(
    source: Annotated[
        str,
        Argument(
            metavar="PHOTO|VIDEO",
            help=f"A photo, a video, a folder of frames, or a video of the zoo: {', '.join(video_names())}.",
            show_default=False,
        ),
    ],
    out: Out,
    model: Annotated[
        NetworkName | None, Option(help="Network to fit. Default: ffn for photos, nerv for videos.")
    ] = None,
    layers: Annotated[
        list[str] | None,
        Option(
            "--layer", help="Layer to explain; repeat for several. Default: all activations, for videos also the head."
        ),
    ] = None,
    rule: Annotated[RuleName, Option(help="How a neuron's contribution is propagated to the image.")] = RuleName.secant,
    longer_side: Annotated[
        int | None,
        Option("--size", help="Shrink the longer side to this many pixels. Default: 192, for videos 96.", min=16),
    ] = None,
    steps: Annotated[int | None, Option(help="Fitting steps. Default: 1000, for videos 1500.", min=1)] = None,
    frames: Annotated[int | None, Option(help="Maximum number of frames of a video. Default: 24.")] = None,
    masks: Annotated[
        Path | None,
        Option(help="Track objects: a folder with one mask per frame, white on black, or one such folder per object."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fit a network to a photo or a video and draw each neuron's contribution to every pixel.

    The result of a video also holds small maps of all units for xinc explore, about 4 MB.
    """
    if is_video(source):
        _check_network(model, (NetworkName.nerv, NetworkName.hnerv), "a video")
        if frames is not None and frames < 2:
            raise UsageError(f"--frames is {frames}; expected at least 2. Give a single frame as a photo.")
        video_canvas(source, out, model, layers, rule, longer_side, steps, frames or 24, masks, seed, device)
        return
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"{source} is not a file; expected a photo (PNG, JPEG, TIFF, WebP …), a video (MP4, WebM …), a folder of "
            f"frames, or a video of the zoo: {', '.join(video_names())}."
        )
    if frames is not None or masks is not None:
        raise UsageError(f"--frames and --masks are for videos, and {source} is a photo; leave them out.")
    _check_network(model, (NetworkName.ffn, NetworkName.siren), "a photo")
    network = model or NetworkName.ffn
    photo_canvas(Path(source), out, network, layers, rule, longer_side or 192, steps or 1000, seed, device)


def _check_network(name: NetworkName | None, known: tuple[NetworkName, ...], what: str) -> None:
    if name is not None and name not in known:
        raise UsageError(f"--model {name} is not for {what}; expected {' or '.join(known)}.")


@record_settings("canvas")
def photo_canvas(
    photo_path: Path,
    out: Path,
    model_name: NetworkName,
    layers: list[str] | None,
    rule: RuleName,
    longer_side: int,
    steps: int,
    seed: int,
    device: str,
) -> None:
    """Fit a network to a photo and write its canvases."""
    photo = read_photo(photo_path, longer_side=longer_side)
    torch_device = find_device(device)
    network, lr, batch_size = make_network(model_name, seed)
    layers = layers or [name for name, _ in network.named_children() if name.startswith("activation")]
    # A wrong name of a layer fails here, before the fit.
    methods = {layer: NeuronCanvas(network, layer, rule=rule.value) for layer in layers}
    network.to(torch_device)
    height, width = photo.shape[-2:]
    typer.echo(f"fitting {model_name} to {photo_path.name}, {width} x {height} pixels, on {torch_device} …")
    fit = inr.fit(network, photo, steps=steps, lr=lr, batch_size=batch_size, seed=seed)
    typer.echo(f"{fit.psnr:.1f} dB after {fit.steps} steps; computing {len(layers)} layers …")

    note: dict[str, Any] = {
        "seed": seed,
        "model": {"name": model_name.value, **network.config},
        "rule": rule.value,
        "layers": layers,
        "psnr_db": round(fit.psnr, 2),
        "inputs": {photo_path.name: store.sha256(photo_path)},
    }
    with result_folder(out, note, "fit_seconds") as folder:
        inr.save(network, folder / "network.safetensors", size=fit.size)
        rendered = inr.render(network, fit.size).cpu()
        grid = inr.coordinates(fit.size, device=torch_device)
        sections, note["trust"] = [], {}
        for layer, method in methods.items():
            canvas = method.canvas(grid, fit.size, memory_budget=BUDGET)
            tangent = NeuronCanvas(network, layer, rule="tangent")
            verdict = judge_layer(canvas, partial(tangent.canvas, grid, fit.size, memory_budget=BUDGET))
            typer.echo(f"  {layer} {verdict.trust}")
            note["trust"][layer] = verdict.numbers()
            sections.append(_layer(folder, layer, canvas, photo, rendered, verdict))
        write_report(
            folder,
            title=f"What the neurons of a network paint: {photo_path.stem}",
            lead="A small network was trained to output the colour of this photo at any coordinate. Its image is a sum "
            "over neurons, so each neuron has a canvas: its positive or negative contribution to every pixel.",
            facts={
                "photo": photo_path.name,
                "pixels": f"{width} x {height}",
                "network": f"{model_name.value}, {sum(p.numel() for p in network.parameters()):,} parameters",
                "quality": f"{fit.psnr:.1f} dB",
                "rule": rule.value,
            },
            sections=sections,
            foot="Made by xinc-captum. manifest.json holds the command, versions and checksums; the .safetensors file "
            "of each layer holds its maps.",
        )


def _layer(folder: Path, layer: str, canvas: Canvas, photo: Tensor, rendered: Tensor, verdict: LayerVerdict) -> Section:
    """Compute and store the maps of one layer, and draw its five figures."""
    all_maps, totals, leaders = canvas.ask(Maps(canvas.pixels), Totals(), Top(1, canvas.units, canvas.pixels))
    all_maps = all_maps.cpu()
    maps = all_maps[: canvas.units]
    rest = all_maps[canvas.units] if canvas.slots else rendered - maps.sum(0)
    tensors = {"maps": maps.half(), "rest": rest.contiguous(), "totals": totals.cpu()}
    store.write_tensors(folder / f"{layer}.safetensors", tensors, kind="canvas")
    strongest = int(order_by_total(maps)[0])
    pixel = _most_detailed_pixel(photo)
    top = canvas.top_units(min(8, canvas.units), pixel)[1].long().cpu()
    figures = {
        "build_up": (
            build_up(maps, rest, photo, layer=layer),
            "Top: the sum of the strongest neurons, more and more of them. Bottom: the neurons that are least alike, "
            "each on its own scale.",
        ),
        "grid": (
            canvas_grid(maps, rendered, layer=layer),
            "One tile per neuron, strongest first: where it makes the image brighter (red) and darker (blue).",
        ),
        "neuron": (
            neuron_over_photo(maps[strongest], rendered, unit=strongest, layer=layer),
            f"The strongest neuron, {strongest}, over the image, and the image without its contribution.",
        ),
        "pixel": (
            pixel_contributors(rendered, pixel, maps[top][..., pixel[0], pixel[1]], top, maps[top], layer=layer),
            "One pixel and the neurons that contribute most to its red, green and blue values.",
        ),
        "dominant": (
            dominant_units(rendered, leaders.indices[0].cpu(), layer=layer),
            "The colour of each pixel shows the neuron that contributes most to it.",
        ),
    }
    pictures = tuple(save_picture(folder, f"{layer}_{name}.png", *one) for name, one in figures.items())
    return Section(f"Layer {layer}", pictures, verdicts=(verdict.line,))


def _most_detailed_pixel(photo: Tensor) -> tuple[int, int]:
    """Return the pixel of the photo's central half with the strongest edges around it."""
    grey = photo.mean(0)
    height, width = grey.shape
    edges = torch.zeros_like(grey)
    edges[:-1, :-1] = (grey[1:, :-1] - grey[:-1, :-1]).abs() + (grey[:-1, 1:] - grey[:-1, :-1]).abs()
    busy = torch.nn.functional.avg_pool2d(edges[None, None], 9, 1, 4)[0, 0]
    middle = torch.zeros_like(busy)
    rows, columns = slice(height // 4, 3 * height // 4), slice(width // 4, 3 * width // 4)
    middle[rows, columns] = busy[rows, columns]
    best = int(middle.argmax())
    return best // width, best % width
