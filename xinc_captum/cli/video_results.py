"""What it computed."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import inr, zoo
from ..attributions import FrameCanvas, NeuronCanvas
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
from ..visualizers import FilmRow, Spread
from ..visualizers.explorer import PackedUnits, pack_units
from .errors import UsageError
from .video_files import FITTED, Film

Networks = inr.NeRV | inr.HNeRV
_HNERV_WIDTHS = (16, 24, 20, 14)  # about as many parameters as a NeRV as it comes


class VideoModel(StrEnum):
    """Networks of videos that the command can fit."""

    nerv = "nerv"
    hnerv = "hnerv"


@dataclass(frozen=True, eq=False)
class Painter:
    """A network that draws a video, and how well.

    Attributes:
        model: on its device.
        name: of its kind.
        rows: what goes into :func:`explained`, one row a frame.
        drawn: (frames, 3, H, W), on the CPU.
        decibels: of each frame.
        steps: of the fit; 0 for a network that was fitted before.
    """

    model: Networks
    name: str
    rows: Tensor
    drawn: Tensor
    decibels: tuple[float, ...]
    steps: int

    @property
    def psnr(self) -> float:
        """Mean over frames."""
        return sum(self.decibels) / len(self.decibels)

    @property
    def config(self) -> dict[str, Any]:
        """What kind of network it is."""
        return {"name": self.name, **self.model.config}


def explained(model: Networks) -> nn.Module:
    """The part of the network that paints: an HNeRV's encoder only looks."""
    return model.decoder if isinstance(model, inr.HNeRV) else model


def network(name: VideoModel, size: tuple[int, int], seed: int) -> Networks:
    """A new network for frames of ``size``."""
    if name is VideoModel.nerv:
        return inr.NeRV(size, seed=seed)
    return inr.HNeRV(size, _HNERV_WIDTHS, encoder_width=32, seed=seed)


def methods_for(model: Networks, layers: list[str] | None, rule: str) -> dict[str, NeuronCanvas]:
    """What explains each layer: a convolution by its kernels, any other layer by its neurons.

    By default the blocks' activations, and the head's kernels.

    Raises:
        LayerError: no such layer.
    """
    part = explained(model)
    modules = dict(part.named_modules())
    names = layers or [n for n in modules if n.startswith("blocks.") and n.endswith("activation")] + ["head"]
    return {
        name: NeuronCanvas(part, name, rule=rule, unit="pair" if isinstance(modules.get(name), nn.Conv2d) else "neuron")
        for name in names
    }


def fitted_before(film: Film, where: torch.device) -> Painter:
    """The network that comes with this package."""
    loaded = zoo.carphone_nerv()
    model = loaded.model
    if not isinstance(model, inr.NeRV):
        raise TypeError(f"{FITTED} is a {type(model).__name__}; expected a NeRV.")
    model.to(where)
    rows = inr.times(loaded.size[0])[: len(film.frames)].to(where)  # its own times, however many frames are asked for
    return _painter(model, VideoModel.nerv.value, rows, film, 0)


def fit(
    model: Networks, name: VideoModel, film: Film, steps: int, seed: int, where: torch.device, checkpoint: Path
) -> Painter:
    """Fit a network; a run that was killed goes on from its checkpoint.

    Raises:
        CheckpointError: the checkpoint is of another run, or cannot be written.
    """
    model.to(where)
    done = inr.fit_video(model, film.frames, steps=steps, lr=_rate(name), seed=seed, checkpoint=checkpoint)
    if isinstance(model, inr.HNeRV):
        with torch.no_grad():
            rows = torch.cat([model.encoder(part.to(where)) for part in film.frames.split(8)])
    else:
        rows = inr.times(len(film.frames)).to(where)
    return _painter(model, name.value, rows, film, done.steps)


def _rate(name: VideoModel) -> float:
    return 1e-2 if name is VideoModel.nerv else 5e-3


def _painter(model: Networks, name: str, rows: Tensor, film: Film, steps: int) -> Painter:
    drawn = render_video(explained(model), rows).cpu()
    decibels = tuple(inr.psnr(a, b) for a, b in zip(drawn, film.frames, strict=True))
    return Painter(model, name, rows, drawn, decibels, steps)


MOST = 2 << 30  # bytes of one layer's maps
CELL = 8  # pixels
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class Layer:
    """What one layer paints.

    Attributes:
        name: of the layer.
        kind: "neurons" or "kernels".
        amounts: (frames, units, H, W), >= 0, on the CPU.
        film: some of its units through time.
        packed: all of its units, in few bytes, for the page that answers questions.
        names: of the units.
    """

    name: str
    kind: str
    amounts: Tensor
    film: tuple[FilmRow, ...]
    packed: PackedUnits
    names: tuple[str, ...]


def check_room(canvas: FrameCanvas) -> None:
    """Refuse a layer whose maps would not fit.

    Raises:
        UsageError: says how large they are.
    """
    need = 4 * canvas.frames * canvas.units * canvas.channels * canvas.pixels
    if need > MOST:
        raise UsageError(
            f"the canvases of {canvas.layer} ({canvas.units} of them over {canvas.frames} frames) take "
            f"{need / 2**30:.1f} GiB; expected at most {MOST >> 30}. Give fewer --frames, a smaller --size or another "
            "--layer."
        )


def layer_of(canvas: FrameCanvas, room: int = 1 << 20) -> Layer:
    """Draw all of a layer, and choose the units to show: two that paint most, two whose paint moves about most.

    The latter are sought among the stronger half, and by means over cells: units that draw fine lines flicker.

    Args:
        canvas: of the layer.
        room: bytes, about, that its units may take when they are packed.
    """
    whole = canvas.to_tensor().cpu()
    if canvas.pairs is None:
        maps, kind = whole[:, : canvas.units], "neurons"
    else:
        maps, kind = whole[:, : canvas.pairs[0]].flatten(1, 2), "kernels"
    amounts = magnitudes(maps)
    totals = amounts.double().sum((0, 2, 3))
    share = totals / totals.sum()
    cells = pool_cells(amounts, (max(1, canvas.size[0] // CELL), max(1, canvas.size[1] // CELL)))
    moves = cells.diff(dim=0).abs().sum((0, 2, 3)) / cells.sum((0, 2, 3)).clamp_min(1e-30)
    moves[totals < totals.median()] = -1
    strongest = _first(share, canvas, [])
    moving = _first(moves, canvas, strongest)
    why = dict.fromkeys(strongest, "strongest") | dict.fromkeys(moving, "moves about most")
    rows = [
        FilmRow(
            canvas.layer, _name(canvas, unit), f"{said}; {100 * share[unit]:.1f} % of the layer", maps[:, unit].mean(1)
        )
        for unit, said in why.items()
    ]
    names = tuple(_name(canvas, unit) for unit in range(maps.shape[1]))
    return Layer(canvas.layer, kind, amounts, tuple(rows), pack_units(maps, room=room), names)


def _first(score: Tensor, canvas: FrameCanvas, besides: list[int]) -> list[int]:
    """The two units of the highest score; of kernels at most one of each input, for they look alike."""
    outs = 1 if canvas.pairs is None else canvas.pairs[1]
    found: list[int] = []
    for unit in score.argsort(descending=True, stable=True).tolist():
        if len(found) < 2 and unit // outs not in [other // outs for other in [*found, *besides]]:
            found.append(unit)
    return found


def _name(canvas: FrameCanvas, unit: int) -> str:
    if canvas.pairs is None:
        return f"neuron {unit}"
    into, out = divmod(unit, canvas.pairs[1])
    paints = canvas.layer == "head" and canvas.pairs[1] == len(COLOURS)
    return f"kernel {into} → {COLOURS[out] if paints else out}"


def spread_of(layer: Layer, frame: int, seed: int) -> Spread:
    """How far the units of a layer spread at one frame, beside shuffled units and pixels."""
    amounts = layer.amounts[frame]
    units = shuffle_units(amounts, torch.Generator().manual_seed(seed))
    pixels = shuffle_pixels(amounts, torch.Generator().manual_seed(seed))
    counts = pixels_per_unit(amounts), pixels_per_unit(units)
    return Spread(*counts, cumulative_share(amounts), cumulative_share(pixels), units_for(amounts), units_for(pixels))


@dataclass(frozen=True, eq=False)
class Motion:
    """Where one layer's contributions change, beside where the clip moves.

    Attributes:
        layer: its name.
        change: (frames - 1, H, W), all units together.
        found: change against speed.
        difference: change against the plain difference of frames.
        still: the first frame's contributions for ever, against speed: nothing may come of it.
    """

    layer: str
    change: Tensor
    found: MotionAgreement
    difference: MotionAgreement
    still: MotionAgreement

    @property
    def lead(self) -> float:
        """How much better the change goes with its own frames' speed than with other frames'."""
        return float(self.found.matched - self.found.shuffled)


def motion_of(layer: Layer, film: Film, speed: Tensor) -> Motion:
    """Compare the layer's changes with speeds (frames - 1, H, W)."""
    change = contribution_change(layer.amounts).sum(1, keepdim=True)
    still = contribution_change(layer.amounts[:1].expand_as(layer.amounts)).sum(1, keepdim=True)
    return Motion(
        layer.name,
        change[:, 0],
        motion_agreement(change, speed),
        motion_agreement(change, film.frames.diff(dim=0).abs().sum(1)),
        motion_agreement(still, speed),
    )


@dataclass(frozen=True, eq=False)
class Carried:
    """How one layer goes along with the objects.

    Attributes:
        layer: what it paints.
        track: of all objects.
        elsewhere: (repeats, objects, units), the same paths elsewhere.
    """

    layer: Layer
    track: Track
    elsewhere: Tensor

    @property
    def best(self) -> list[float]:
        """What the unit that follows each object most comes to."""
        return [float(best) for best in self.track.carried.nan_to_num(-torch.inf).amax(1)]

    @property
    def chance(self) -> list[float]:
        """What the best unit comes to along the same path elsewhere, median over places."""
        best = self.elsewhere.nan_to_num(-torch.inf).amax(2)
        return [float(middle) for middle in best.median(0).values]

    @property
    def lead(self) -> float:
        """How far the best units are ahead of chance, mean over objects."""
        return sum(b - c for b, c in zip(self.best, self.chance, strict=True)) / len(self.best)


def carried_by(layer: Layer, masks: Tensor, seed: int) -> Carried:
    """Follow the objects of masks (frames, objects, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    elsewhere = control_tracks(layer.amounts, masks, generator=generator)
    return Carried(layer, object_track(layer.amounts, masks), elsewhere)
