"""What ``xinc accentuate`` found, and how it is kept."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import store
from ..attributions import Accentuation
from ..images import to_hwc
from ..zoo import Classifier
from .features import Asked
from .photos import Natural, Subject

MOST = 10.0  # doses; beyond, the scale is too short to measure with


@dataclass(frozen=True, eq=False)
class Feature:
    """One accentuated feature, and what is shown of it.

    Attributes:
        asked: what was accentuated.
        result: the accentuation, one row.
        where: (H, W), where it is found in the photo itself, or None.
        before: the photo's likeliest classes.
        after: those of the accentuated photo.
        way: (K, C, H, W), between the photo and the end.
        scores: one for each of them.
        reference: the score of dose 1, or None where no natural images say it.
    """

    asked: Asked
    result: Accentuation
    where: Tensor | None
    before: list[tuple[str, float]]
    after: list[tuple[str, float]]
    way: Tensor
    scores: list[float]
    reference: float | None

    @property
    def line(self) -> str:
        """Score before and after in one line."""
        before, after = self.ends
        return f"{self.asked.unit} {signed(before)} → {signed(after)}"

    @property
    def ends(self) -> tuple[float, float]:
        """The scores of the photo and of what became of it."""
        before = self.result.before
        return float("nan") if before is None else float(before[0]), float(self.result.after[0])

    @property
    def doses(self) -> list[float] | None:
        """One for each picture on the way, or None where natural images hardly respond and give no scale."""
        before, after = self.ends
        if self.reference is None or abs(after - before) > MOST * (self.reference - before):
            return None
        return [(score - before) / (self.reference - before) for score in self.scores]

    def opacity(self) -> Tensor:
        """The mask that pictures are drawn through, (1, 1, H, W) in [0, 1] on the host."""
        return self.result.opacity().cpu()

    def file(self, number: int) -> str:
        """How names of its files begin: a number, and the title in plain letters."""
        return f"{number}_{re.sub(r'[^a-z0-9]+', '_', self.asked.title.lower()).strip('_')[:40]}"

    def numbers(self) -> dict[str, Any]:
        """For the manifest."""
        before, after = self.ends
        trust = self.result.trust
        return {
            "title": self.asked.title,
            "unit": self.asked.unit,
            "before": round(before, 4),
            "after": round(after, 4),
            "steps": self.result.steps,
            "interrupted": self.result.interrupted,
            "answers": {
                when: [[name, round(chance, 4)] for name, chance in found[:3]]
                for when, found in (("before", self.before), ("after", self.after))
            },
            "verdict": trust.verdict,
            "because": trust.because,
        }


@dataclass(frozen=True, eq=False)
class Story:
    """What one page is about."""

    subject: Subject
    classifier: Classifier
    features: list[Feature]
    natural: Natural | None
    second: Classifier | None


def keep(folder: Path, story: Story) -> None:
    """Images as PNG, and everything as tensors."""
    kept = {"photo": story.subject.image.contiguous()}
    for number, feature in enumerate(story.features, 1):
        name, result = feature.file(number), feature.result
        _write(folder / f"{name}.png", result.images[0])
        _write(folder / f"{name}_through_mask.png", torch.cat([result.images[0].cpu().float(), feature.opacity()[0]]))
        found = {"image": result.images[0], "mask": result.masks[0], "scores": result.scores, "where": feature.where}
        found["distances"] = result.distances
        kept |= {f"{name}.{key}": value.cpu().contiguous() for key, value in found.items() if value is not None}
    store.write_tensors(folder / "accentuation.safetensors", kept, kind="accentuation-page")


def _write(file: Path, picture: Tensor) -> None:
    Image.fromarray(np.round(to_hwc(picture.clamp(0, 1)) * 255).astype(np.uint8)).save(file)


def signed(number: float, *, plus: bool = False) -> str:
    """A number with two decimals at most and a real minus sign.

    Example:
        >>> signed(-0.734), signed(12.4, plus=True)
        ('−0.73', '+12.4')
    """
    text = f"{number:+.3g}" if plus else f"{number:.3g}" if abs(number) >= 1 else f"{number:.2f}"
    return text.replace("-", "−")
