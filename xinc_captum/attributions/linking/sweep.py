"""UnitSweep: pictures in which one unit takes one value after another, and what the network saw in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import to_hwc
from ...metrics.fidelity import Fidelity
from ...metrics.trust import Verdict
from ...store import bundle, write_tensors


@dataclass(frozen=True)
class SweepTrust:
    """A verdict on a sweep, and the clause that explains it."""

    verdict: Verdict
    because: str

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.because}"


@dataclass(frozen=True, eq=False)
class UnitSweep:
    """What :meth:`LinkedUnitVisualization.sweep` found; tensors are plain and detached.

    Attributes:
        values: what the unit was set to, (S,).
        images: as the generator drew them, (N, S, C, H, W) in [0, 1].
        representations: of every frame, looked at again, (N, S, units).
        latents: (N, S, latent_dim).
        scores: of every frame, (N, S, K).
        fidelity: how faithfully the frames show what was set.
        unit: column of the representation.
        base: the anchors' pictures, on which nothing was set, (N, C, H, W).
        base_representations: of these, (N, units).
        base_scores: (N, K).
        own: what the unit is in the anchors, (N,): a frame at this value is the base picture.
        agreement: share of rows whose base picture has the class of the input.
        settings: mode, direction and span, for the manifest.
    """

    values: Tensor
    images: Tensor
    representations: Tensor
    latents: Tensor
    scores: Tensor
    fidelity: Fidelity
    unit: int
    base: Tensor
    base_representations: Tensor
    base_scores: Tensor
    own: Tensor
    agreement: float
    settings: dict[str, Any]

    @property
    def response(self) -> Tensor:
        """The unit in every frame, as the network sees it: (N, S)."""
        return self.representations[..., self.unit]

    @property
    def trust(self) -> SweepTrust:
        """Holds, weak or fails, and because of what.

        It is a verdict of :class:`Fidelity`, and *weak* at best where half of the inputs or more change class by being
        linked alone: the frames then are no longer of them.
        """
        verdict, because = self.fidelity.verdict
        if self.agreement <= 0.5 and verdict != "fails":
            lost = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any unit is set"
            return SweepTrust("weak", f"{lost}; {because}")
        return SweepTrust(verdict, because)

    def save(self, path: str | Path) -> Path:
        """Write frames and numbers into a folder that appears whole or not at all.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        found = self.fidelity
        note = {
            "unit": self.unit,
            "trust": {"verdict": self.trust.verdict, "because": self.trust.because},
            "fidelity": {
                "rank": found.rank, "alive": found.alive, "rho": _plain(found.rho), "gain": _plain(found.gain),
                "flips": _plain(found.flips),
            },
            "agreement": self.agreement,
            "settings": self.settings,
        }  # fmt: skip
        held = {name: getattr(self, name) for name in _TENSORS} | {"ranks": found.ranks, "moved": found.moved}
        with bundle(path, note) as folder:
            write_tensors(folder / "sweep.safetensors", held, kind="sweep")
            if self.images.shape[2] in (1, 3):
                for row, frames in enumerate(self.images):
                    strip(frames).save(folder / f"row{row}.png")
        return Path(path)


_TENSORS = (
    "values", "images", "representations", "latents", "scores", "base", "base_representations", "base_scores", "own",
)  # fmt: skip


def strip(frames: Tensor) -> Image.Image:
    """Frames side by side, (S, C, H, W) in [0, 1], as a picture of bytes."""
    wide = torch.cat(list(frames.clamp(0, 1)), -1)
    return Image.fromarray(np.round(to_hwc(wide.expand(3, -1, -1)) * 255).astype(np.uint8))


def _plain(number: float) -> float | None:
    """As JSON takes it: there is no nan there."""
    return None if number != number else number
