"""Photo canvas: command and page."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor

from .. import inr, store
from ..attributions import Canvas, NeuronCanvas
from ..attributions.canvas.canvas import Maps, Top, Totals
from ..images import read_photo
from ..metrics.trust import CanvasTrust
from ..visualizers import build_up, canvas_grid, dominant_units, neuron_over_photo, order_by_total, pixel_contributors
from ..visualizers.report import Line, Picture, Section, write_report
from .errors import device_called
from .recorded import recorded


@dataclass(frozen=True)
class Judged:
    """The verdict on one layer.

    Attributes:
        layer: its name.
        trust: of its canvas.
        tangent: of the tangent's canvas, where the secant's does not hold.
    """

    layer: str
    trust: CanvasTrust
    tangent: CanvasTrust | None = None

    @property
    def line(self) -> Line:
        """For the page."""
        return Line(self.layer, self.trust.verdict, f", because {self.trust.because}.{self._advice()}")

    def _advice(self) -> str:
        """What the tangent does at the same layer."""
        if self.tangent is None or self.tangent.agreement is None:
            return ""
        said = f"(ρ {self.tangent.agreement:.2f}: {self.tangent.verdict})"
        if self.tangent.verdict == "holds":
            return f" With --rule tangent it ranks as removal does {said}, but then the parts do not add up."
        if self.tangent.agreement > (self.trust.agreement or 0):
            return f" With --rule tangent it comes nearer to removal {said}, but then the parts do not add up."
        return f" --rule tangent does no better here {said}; --rule ablation is removal itself."

    def numbers(self) -> dict[str, Any]:
        """For the manifest."""
        agreement = self.trust.agreement
        return {
            "verdict": self.trust.verdict,
            "because": self.trust.because,
            "agreement": None if agreement is None else round(agreement, 4),
        }


def judged(canvas: Canvas, by_tangent: Callable[[], Canvas]) -> Judged:
    """Judge a canvas, and where it is the secant's and does not hold, the tangent's too.

    Args:
        canvas: with its network at hand.
        by_tangent: makes the tangent's canvas of the same layer.
    """
    trust = canvas.trust
    doubted = canvas.slots > 0 and trust.verdict != "holds"  # only the secant has slots
    return Judged(canvas.layer, trust, by_tangent().trust if doubted else None)


BUDGET = 512 << 20  # bytes of working memory, beside one layer's maps


class Model(StrEnum):
    """Coordinate networks that the command can fit."""

    ffn = "ffn"
    siren = "siren"


class RuleName(StrEnum):
    """Rules that answer a colour for every pixel at every layer."""

    secant = "secant"
    tangent = "tangent"
    ablation = "ablation"


class Recipe(NamedTuple):
    """A network and how it likes to be fitted."""

    model: inr.FourierMLP | inr.Siren
    lr: float
    batch_size: int | None


def recipe(model: Model, seed: int) -> Recipe:
    """The network of that name: the paper's FFN (33k parameters), or a SIREN of the same size."""
    if model is Model.ffn:
        return Recipe(inr.FourierMLP(scale=5.0, seed=seed), 1e-2, None)
    return Recipe(inr.Siren(hidden=128, layers=4, first_omega=40.0, seed=seed), 2e-3, 1 << 13)


@recorded("canvas")
def canvas_command(
    photo_path: Path,
    out: Path,
    model_name: Model,
    layers: list[str] | None,
    rule: RuleName,
    longer_side: int,
    steps: int,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc canvas`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    photo = read_photo(photo_path, longer_side=longer_side)
    where = device_called(device)
    network, lr, batch_size = recipe(model_name, seed)
    layers = layers or [name for name, _ in network.named_children() if name.startswith("activation")]
    methods = {layer: NeuronCanvas(network, layer, rule=rule.value) for layer in layers}  # names fail before the fit
    network.to(where)
    height, width = photo.shape[-2:]
    typer.echo(f"fitting {model_name} to {photo_path.name}, {width} x {height} pixels, on {where} …")
    fitted = inr.fit(network, photo, steps=steps, lr=lr, batch_size=batch_size, seed=seed)
    fit_seconds = time.perf_counter() - started
    typer.echo(f"{fitted.psnr:.1f} dB after {fitted.steps} steps; drawing {len(layers)} layers …")

    note: dict[str, Any] = {
        "seed": seed,
        "model": {"name": model_name.value, **network.config},
        "rule": rule.value,
        "layers": layers,
        "psnr_db": round(fitted.psnr, 2),
        "inputs": {photo_path.name: store.sha256(photo_path)},
    }
    with store.bundle(out, note) as folder:
        inr.save(network, folder / "network.safetensors", size=fitted.size)
        drawn = inr.render(network, fitted.size).cpu()
        grid = inr.coordinates(fitted.size, device=where)
        sections, note["trust"] = [], {}
        for layer, method in methods.items():
            canvas = method.canvas(grid, fitted.size, memory_budget=BUDGET)
            tangent = NeuronCanvas(network, layer, rule="tangent")
            verdict = judged(canvas, partial(tangent.canvas, grid, fitted.size, memory_budget=BUDGET))
            typer.echo(f"  {layer} {verdict.trust}")
            note["trust"][layer] = verdict.numbers()
            sections.append(_layer(folder, layer, canvas, photo, drawn, verdict))
        _page(folder, photo_path, model_name, network, fitted, rule, sections)
        times = {"fit_seconds": round(fit_seconds, 1), "all_seconds": round(time.perf_counter() - started, 1)}
        (folder / "times.json").write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def _layer(folder: Path, layer: str, canvas: Canvas, photo: Tensor, drawn: Tensor, verdict: Judged) -> Section:
    """Compute one layer's maps, keep them, and draw its five pictures."""
    everything, totals, leaders = canvas.ask(Maps(canvas.pixels), Totals(), Top(1, canvas.units, canvas.pixels))
    everything = everything.cpu()
    maps = everything[: canvas.units]
    rest = everything[canvas.units] if canvas.slots else drawn - maps.sum(0)
    kept = {"maps": maps.half(), "rest": rest.contiguous(), "totals": totals.cpu()}
    store.write_tensors(folder / f"{layer}.safetensors", kept, kind="canvas")
    strongest = int(order_by_total(maps)[0])
    pixel = _telling_pixel(photo)
    _, indices = canvas.top_units(min(8, canvas.units), pixel)
    top = indices.long().cpu()
    figures: list[tuple[str, Figure, str]] = [
        (
            "build_up",
            build_up(maps, rest, photo, layer=layer),
            "Above, the picture grows as the strongest neurons are added up. Below, single neurons that resemble each "
            "other least, each on its own scale.",
        ),
        (
            "grid",
            canvas_grid(maps, drawn, layer=layer),
            "One neuron a tile, strongest first: where it makes the picture brighter (red) and darker (blue).",
        ),
        (
            "neuron",
            neuron_over_photo(maps[strongest], drawn, unit=strongest, layer=layer),
            f"The strongest neuron, {strongest}, over the picture, and the picture minus its part.",
        ),
        (
            "pixel",
            pixel_contributors(drawn, pixel, maps[top][..., pixel[0], pixel[1]], top, maps[top], layer=layer),
            "One pixel, and the neurons that contribute most to its red, green and blue light.",
        ),
        (
            "dominant",
            dominant_units(drawn, leaders.indices[0].cpu(), layer=layer),
            "Every pixel in the colour of the neuron that contributes most to it.",
        ),
    ]
    pictures = []
    for name, figure, caption in figures:
        file = f"{layer}_{name}.png"
        figure.savefig(folder / file, dpi=110, metadata={"Software": None})
        pictures.append(Picture(file, caption))
    return Section(f"Layer {layer}", tuple(pictures), verdicts=(verdict.line,))


def _telling_pixel(photo: Tensor) -> tuple[int, int]:
    """A pixel in the busiest part of the photo's middle, where there is something to explain."""
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


def _page(
    folder: Path,
    photo_path: Path,
    model_name: Model,
    network: torch.nn.Module,
    fitted: inr.Fit,
    rule: RuleName,
    sections: list[Section],
) -> None:
    height, width = fitted.size
    facts: dict[str, Any] = {
        "photo": photo_path.name,
        "pixels": f"{width} x {height}",
        "network": f"{model_name.value}, {sum(p.numel() for p in network.parameters()):,} parameters",
        "quality": f"{fitted.psnr:.1f} dB",
        "rule": rule.value,
    }
    write_report(
        folder,
        title=f"What the neurons of a network paint: {photo_path.stem}",
        lead="A small network was trained to answer the colour of this photo at any coordinate. Its picture is a sum "
        "over neurons, so each neuron has a canvas: what it adds to, and takes away from, every pixel.",
        facts=facts,
        sections=sections,
        foot="Made by xinc-captum. manifest.json holds the command, versions and checksums; the maps of each layer "
        "are in its .safetensors file.",
    )
