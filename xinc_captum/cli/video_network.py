"""The network that paints a video: fitted now, taken up where a killed fit stopped, or fitted already."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import inr, zoo
from ..attributions import NeuronCanvas
from ..inr.fit_video import render_video
from .film import FITTED, Film

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
        raise TypeError(f"{FITTED} is a {type(model).__name__}; wanted a NeRV.")
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
