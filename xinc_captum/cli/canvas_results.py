"""Results of ``xinc canvas``: verdicts on layers; network, magnitudes, motion and object tracks of a video."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import inr, store, zoo
from ..attributions import Canvas, FrameCanvas, NeuronCanvas
from ..inr.fit import render_video
from ..metrics import (
    contribution_change,
    control_tracks,
    cumulative_share,
    magnitudes,
    motion_agreement,
    object_track,
    pixels_per_unit,
    pool_cells,
    shuffle_pixels,
    shuffle_units,
    units_for,
)
from ..metrics.motion import MotionAgreement, Track
from ..metrics.trust import CanvasTrust
from ..visualizers import FilmRow, Spread
from ..visualizers.explorer import PackedUnits, pack_units
from ..visualizers.report import Line
from .command import UsageError
from .inputs import FITTED, VideoInput

BUDGET = 512 << 20  # bytes of working memory besides the maps of one layer


class RuleName(StrEnum):
    """Rules that apply to every layer of these networks."""

    secant = "secant"
    tangent = "tangent"
    ablation = "ablation"


class NetworkName(StrEnum):
    """Networks to fit: ffn and siren for photos, nerv and hnerv for videos."""

    ffn = "ffn"
    siren = "siren"
    nerv = "nerv"
    hnerv = "hnerv"


@dataclass(frozen=True)
class LayerVerdict:
    """The verdict on a layer, and that on its tangent canvas if the verdict on the secant canvas is not "holds"."""

    layer: str
    trust: CanvasTrust
    tangent: CanvasTrust | None = None

    @property
    def line(self) -> Line:
        """Verdict, reason and advice for the page."""
        return Line(self.layer, self.trust.verdict, f", because {self.trust.because}.{self._advice()}")

    def _advice(self) -> str:
        """Return how the tangent rule compares at the same layer."""
        if self.tangent is None or self.tangent.agreement is None:
            return ""
        agreement = f"(ρ {self.tangent.agreement:.2f}: {self.tangent.verdict})"
        effect, but = "the effect of setting them to zero", "but the contributions do not sum to the output."
        if self.tangent.verdict == "holds" or self.tangent.agreement > (self.trust.agreement or 0):
            better = "" if self.tangent.verdict == "holds" else " better"
            return f" With --rule tangent the ranks of neurons agree{better} with {effect} {agreement}, {but}"
        no_better = f" With --rule tangent the ranks of neurons do not agree better with {effect} {agreement}."
        return f"{no_better} --rule ablation computes that effect directly."

    def numbers(self) -> dict[str, Any]:
        """Entries of the manifest."""
        agreement = self.trust.agreement
        return {
            "verdict": self.trust.verdict,
            "because": self.trust.because,
            "agreement": None if agreement is None else round(agreement, 4),
        }


def judge_layer(canvas: Canvas, by_tangent: Callable[[], Canvas]) -> LayerVerdict:
    """Return the verdict on a canvas whose network is in memory.

    If a secant canvas does not hold, ``by_tangent`` is called for the tangent canvas of the same layer.
    """
    trust = canvas.trust
    compare = canvas.slots > 0 and trust.verdict != "holds"  # only the secant has a bias remainder
    return LayerVerdict(canvas.layer, trust, by_tangent().trust if compare else None)


Networks = inr.NeRV | inr.HNeRV


@dataclass(frozen=True, eq=False)
class VideoNetwork:
    """A network that outputs a video, and its quality."""

    model: Networks  # on its device
    name: str
    rows: Tensor  # inputs of decoder_part(), one row per frame
    rendered: Tensor  # (frames, 3, H, W), its output, on the CPU
    decibels: tuple[float, ...]  # PSNR of each frame
    steps: int  # of the fit; 0 for a shipped network

    @property
    def psnr(self) -> float:
        """Mean PSNR over frames."""
        return sum(self.decibels) / len(self.decibels)


def decoder_part(model: Networks) -> nn.Module:
    """Return the part of the network that outputs frames: the decoder of an HNeRV, or a whole NeRV."""
    return model.decoder if isinstance(model, inr.HNeRV) else model


def make_network(name: NetworkName, size: tuple[int, int], seed: int) -> Networks:
    """Return a new network for frames of ``size``."""
    if name is NetworkName.nerv:
        return inr.NeRV(size, seed=seed)
    return inr.HNeRV(size, (16, 24, 20, 14), encoder_width=32, seed=seed)  # about as many parameters as that NeRV


def methods_for(model: Networks, layers: list[str] | None, rule: str) -> dict[str, NeuronCanvas]:
    """Return the method for each layer: kernels for a convolution, neurons for any other layer.

    The default layers are the activations of the blocks and the head.
    """
    part = decoder_part(model)
    modules = dict(part.named_modules())
    names = layers or [n for n in modules if n.startswith("blocks.") and n.endswith("activation")] + ["head"]
    return {
        name: NeuronCanvas(part, name, rule=rule, unit="pair" if isinstance(modules.get(name), nn.Conv2d) else "neuron")
        for name in names
    }


def load_shipped_network(video: VideoInput, where: torch.device) -> VideoNetwork:
    """Load the network that ships with this package."""
    loaded = zoo.carphone_nerv()
    model = loaded.model
    if not isinstance(model, inr.NeRV):
        raise TypeError(f"{FITTED} is a {type(model).__name__}; expected a NeRV.")
    model.to(where)
    rows = inr.times(loaded.size[0])[: len(video.frames)].to(where)  # the times of its fit, for any number of frames
    return _evaluate(model, NetworkName.nerv, rows, video, 0)


def fit_network(
    model: Networks, name: NetworkName, video: VideoInput, steps: int, seed: int, where: torch.device, checkpoint: Path
) -> VideoNetwork:
    """Fit a network, or resume a killed run from its checkpoint."""
    model.to(where)
    rate = 1e-2 if name is NetworkName.nerv else 5e-3
    done = inr.fit_video(model, video.frames, steps=steps, lr=rate, seed=seed, checkpoint=checkpoint)
    if isinstance(model, inr.HNeRV):
        with torch.no_grad():
            rows = torch.cat([model.encoder(part.to(where)) for part in video.frames.split(8)])
    else:
        rows = inr.times(len(video.frames)).to(where)
    return _evaluate(model, name, rows, video, done.steps)


def _evaluate(model: Networks, name: NetworkName, rows: Tensor, video: VideoInput, steps: int) -> VideoNetwork:
    rendered = render_video(decoder_part(model), rows).cpu()
    decibels = tuple(inr.psnr(a, b) for a, b in zip(rendered, video.frames, strict=True))
    return VideoNetwork(model, name.value, rows, rendered, decibels, steps)


MOST = 2 << 30  # bytes of one layer's maps
CELL = 8  # pixels
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class LayerMagnitudes:
    """Magnitudes of the contributions of one layer's neurons or kernels."""

    name: str
    kind: str  # "neurons" or "kernels"
    magnitudes: Tensor  # (frames, units, H, W), >= 0, on the CPU
    film: tuple[FilmRow, ...]  # some of its units over time
    packed: PackedUnits  # all of its units in few bytes, for the explorer page
    names: tuple[str, ...]  # of the units


def check_memory(canvas: FrameCanvas) -> None:
    """Raise a UsageError if the maps of a layer are larger than 2 GiB."""
    need = 4 * canvas.frames * canvas.units * canvas.channels * canvas.pixels
    if need > MOST:
        raise UsageError(
            f"the canvases of {canvas.layer} ({canvas.units} of them over {canvas.frames} frames) take "
            f"{need / 2**30:.1f} GiB; expected at most {MOST >> 30}. Give fewer --frames, a smaller --size or another "
            "--layer."
        )


def measure_layer(canvas: FrameCanvas, room: int = 1 << 20) -> LayerMagnitudes:
    """Compute the magnitudes of a layer and select the units to show; ``room`` is about the bytes of all packed units.

    The film shows the two units that contribute most and the two whose contributions change most. The latter are
    selected among the stronger half and by means over cells, because units of fine lines flicker.
    """
    contributions = canvas.to_tensor().cpu()
    if canvas.pairs is None:
        maps, kind = contributions[:, : canvas.units], "neurons"
    else:
        maps, kind = contributions[:, : canvas.pairs[0]].flatten(1, 2), "kernels"
    layer_magnitudes = magnitudes(maps)
    totals = layer_magnitudes.double().sum((0, 2, 3))
    share = totals / totals.sum()
    cells = pool_cells(layer_magnitudes, (max(1, canvas.size[0] // CELL), max(1, canvas.size[1] // CELL)))
    moves = cells.diff(dim=0).abs().sum((0, 2, 3)) / cells.sum((0, 2, 3)).clamp_min(1e-30)
    moves[totals < totals.median()] = -1
    strongest = _first(share, canvas, [])
    moving = _first(moves, canvas, strongest)
    names = tuple(_name(canvas, unit) for unit in range(maps.shape[1]))
    film = tuple(
        FilmRow(canvas.layer, names[unit], f"{reason}; {100 * share[unit]:.1f} % of the layer", maps[:, unit].mean(1))
        for units, reason in ((strongest, "strongest"), (moving, "changes most"))
        for unit in units
    )
    return LayerMagnitudes(canvas.layer, kind, layer_magnitudes, film, pack_units(maps, room=room), names)


def _first(score: Tensor, canvas: FrameCanvas, besides: list[int]) -> list[int]:
    """Return the two units with the highest score; of kernels at most one per input, because these look alike."""
    outs = 1 if canvas.pairs is None else canvas.pairs[1]
    chosen: list[int] = []
    for unit in score.argsort(descending=True, stable=True).tolist():
        if len(chosen) < 2 and unit // outs not in [other // outs for other in [*chosen, *besides]]:
            chosen.append(unit)
    return chosen


def _name(canvas: FrameCanvas, unit: int) -> str:
    if canvas.pairs is None:
        return f"neuron {unit}"
    into, out = divmod(unit, canvas.pairs[1])
    paints = canvas.layer == "head" and canvas.pairs[1] == len(COLOURS)
    return f"kernel {into} → {COLOURS[out] if paints else out}"


def measure_spread(layer: LayerMagnitudes, frame: int, seed: int) -> Spread:
    """Measure how far the units of a layer spread in one frame, with shuffled units and pixels as controls."""
    frame_magnitudes = layer.magnitudes[frame]
    units = shuffle_units(frame_magnitudes, torch.Generator().manual_seed(seed))
    pixels = shuffle_pixels(frame_magnitudes, torch.Generator().manual_seed(seed))
    return Spread(
        pixels_per_unit(frame_magnitudes),
        pixels_per_unit(units),
        cumulative_share(frame_magnitudes),
        cumulative_share(pixels),
        units_for(frame_magnitudes),
        units_for(pixels),
    )


@dataclass(frozen=True, eq=False)
class LayerMotion:
    """Agreement of the change of one layer's contributions with motion in the video."""

    layer: str
    change: Tensor  # (frames - 1, H, W), summed over units
    agreement: MotionAgreement  # of change and speed
    difference: MotionAgreement  # of change and the difference of frames
    still: MotionAgreement  # control: of constant contributions and speed, which must be nearly 0

    @property
    def lead(self) -> float:
        """Agreement with the speed of the same frames minus that with other frames."""
        return float(self.agreement.matched - self.agreement.shuffled)


def measure_motion(layer: LayerMagnitudes, video: VideoInput, speed: Tensor) -> LayerMotion:
    """Measure the agreement of a layer's change with speeds (frames - 1, H, W)."""
    change = contribution_change(layer.magnitudes).sum(1, keepdim=True)
    still = contribution_change(layer.magnitudes[:1].expand_as(layer.magnitudes)).sum(1, keepdim=True)
    return LayerMotion(
        layer.name,
        change[:, 0],
        motion_agreement(change, speed),
        motion_agreement(change, video.frames.diff(dim=0).abs().sum(1)),
        motion_agreement(still, speed),
    )


@dataclass(frozen=True, eq=False)
class LayerTracks:
    """How well the units of one layer follow the objects."""

    layer: LayerMagnitudes
    track: Track  # scores for all objects
    elsewhere: Tensor  # (repeats, objects, units), control: scores along the same paths at other positions

    @property
    def best(self) -> list[float]:
        """Score of the best unit for each object."""
        return [float(best) for best in self.track.carried.nan_to_num(-torch.inf).amax(1)]

    @property
    def chance(self) -> list[float]:
        """Score of the best unit along the same path at other positions, median."""
        best = self.elsewhere.nan_to_num(-torch.inf).amax(2)
        return [float(middle) for middle in best.median(0).values]

    @property
    def lead(self) -> float:
        """Best score minus chance, mean over objects."""
        return sum(b - c for b, c in zip(self.best, self.chance, strict=True)) / len(self.best)


def track_objects(layer: LayerMagnitudes, masks: Tensor, seed: int) -> LayerTracks:
    """Measure how well the units of a layer follow the objects of masks (frames, objects, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere = control_tracks(layer.magnitudes, masks, generator=generator)
    return LayerTracks(layer, object_track(layer.magnitudes, masks), elsewhere)


def write_explorer_files(folder: Path, name: str, rendered: Tensor, layers: Sequence[LayerMagnitudes]) -> None:
    """Write the small maps and the frames (frames, 3, H, W) of a video for ``xinc explore``, which needs no network."""
    tensors = {f"{layer.name}.{part}": tensor for layer in layers for part, tensor in layer.packed._asdict().items()}
    tensors["drawn"] = (rendered.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    store.write_tensors(folder / "explorer.safetensors", tensors, kind="canvas-explorer")
    note = {"name": name, "names": {layer.name: list(layer.names) for layer in layers if layer.kind != "neurons"}}
    (folder / "explorer.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
