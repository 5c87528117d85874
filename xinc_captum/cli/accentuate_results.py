"""What it computed, kept on disk."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import store
from ..attributions import Accentuation, FeatureAccentuation, NeuronFeatureAccentuation
from ..attributions.accentuation.activations import Reader
from ..comparison import as_maps, grad_cam, last_map
from ..hooks import find_layer
from ..images import to_hwc
from ..zoo import Classifier
from .errors import UsageError
from .models import Network
from .photos import InputPhoto, NaturalImages


@dataclass(frozen=True, eq=False)
class FeatureTarget:
    """One feature of a network.

    Attributes:
        network: whose.
        title: what people call it.
        index: class or unit.
        layer: of the unit, or None for a class.
    """

    network: Network = field(repr=False)
    title: str
    index: int
    layer: str | None = None

    @property
    def unit(self) -> str:
        """What its score is."""
        return "logit" if self.layer is None else "mean activation"

    def method(self) -> FeatureAccentuation | NeuronFeatureAccentuation:
        """What accentuates it."""
        classifier, size = self.network
        if self.layer is None:
            return FeatureAccentuation(classifier, size=size)
        return NeuronFeatureAccentuation(classifier, self.layer, size=size)

    def scores(self, views: Tensor, batch_size: int = 16) -> Tensor:
        """Its score for each image (N, C, h, w), as the network sees it: (N,) on the host."""
        with torch.no_grad():
            return torch.cat([self._scores(part).float().cpu() for part in views.split(batch_size)])

    def _scores(self, views: Tensor) -> Tensor:
        if self.layer is None:
            return self.network.classifier(views)[:, self.index]
        value = self._activation(self.layer, views)[:, self.index]
        return value.flatten(1).mean(1) if value.dim() > 1 else value

    def _activation(self, layer: str, views: Tensor) -> Tensor:
        reader, module = Reader(self.network.classifier), find_layer(self.network.classifier, layer)
        return reader.read(views, (), [module], whole=False)(module)

    def where(self, view: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Where it is found in one image (1, C, h, w), without a change: (H, W) on the host, or None.

        Grad-CAM at the network's last map for a class, the unit's own activation for a unit.
        """
        classifier = self.network.classifier
        if self.layer is None:
            layer = last_map(classifier, view)
            if layer is None:
                return None
            attribution = grad_cam(classifier, layer)(view, self.index)
        else:
            with torch.no_grad():
                value = self._activation(self.layer, view)
            if value.dim() != 4:
                return None
            attribution = value[:, self.index : self.index + 1]
        return as_maps(attribution, view, size)[0].cpu()


def select_features(
    network: Network, targets: Sequence[str], layers: Sequence[str], units: Sequence[int]
) -> list[FeatureTarget]:
    """The features of the options --target, or --layer and --unit.

    Raises:
        UsageError: none, both kinds, layers and units that do not pair, or no such class.
        LayerError: no such layer.
    """
    if targets and (layers or units):
        raise UsageError("--target and --layer/--unit are both given; expected one kind at a time: run it twice.")
    if targets:
        return [_class(network, text) for text in targets]
    if not layers or not units:
        raise UsageError(
            "nothing to accentuate; expected --target with a label or a class number, or --layer with --unit, each as "
            "often as you like."
        )
    if len(layers) not in {1, len(units)}:
        raise UsageError(
            f"{len(layers)} times --layer for {len(units)} times --unit; expected one layer for all units, or one each."
        )
    pairs = zip([*layers] * len(units) if len(layers) == 1 else layers, units, strict=True)
    for layer in layers:
        find_layer(network.classifier, layer)
    return [FeatureTarget(network, f"{layer}, unit {unit}", unit, layer) for layer, unit in pairs]


def _class(network: Network, text: str) -> FeatureTarget:
    classifier = network.classifier
    if not classifier.labels:
        raise UsageError(
            f"{classifier.name} does not answer (images, classes), so --target cannot choose among them; give --layer "
            "and --unit."
        )
    try:
        index = classifier.find(text)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    return FeatureTarget(network, classifier.label(index), index)


MOST = 10.0  # doses; beyond, the scale is too short to measure with


@dataclass(frozen=True, eq=False)
class FeatureResult:
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

    target: FeatureTarget
    result: Accentuation
    where: Tensor | None
    before: list[tuple[str, float]]
    after: list[tuple[str, float]]
    step_images: Tensor
    scores: list[float]
    reference: float | None

    @property
    def line(self) -> str:
        """Score before and after in one line."""
        before, after = self.endpoints
        return f"{self.target.unit} {format_number(before)} → {format_number(after)}"

    @property
    def endpoints(self) -> tuple[float, float]:
        """The scores of the photo and of what became of it."""
        before = self.result.before
        return float("nan") if before is None else float(before[0]), float(self.result.after[0])

    @property
    def doses(self) -> list[float] | None:
        """One for each picture on the way, or None where natural images hardly respond and give no scale."""
        before, after = self.endpoints
        if self.reference is None or abs(after - before) > MOST * (self.reference - before):
            return None
        return [(score - before) / (self.reference - before) for score in self.scores]

    def opacity(self) -> Tensor:
        """The mask that pictures are drawn through, (1, 1, H, W) in [0, 1] on the host."""
        return self.result.opacity().cpu()

    def file(self, number: int) -> str:
        """How names of its files begin: a number, and the title in plain letters."""
        return f"{number}_{re.sub(r'[^a-z0-9]+', '_', self.target.title.lower()).strip('_')[:40]}"

    def numbers(self) -> dict[str, Any]:
        """For the manifest."""
        before, after = self.endpoints
        trust = self.result.trust
        return {
            "title": self.target.title,
            "unit": self.target.unit,
            "before": round(before, 4),
            "after": round(after, 4),
            "steps": self.result.steps,
            "interrupted": self.result.interrupted,
            "answers": {
                when: [[name, round(chance, 4)] for name, chance in classes[:3]]
                for when, classes in (("before", self.before), ("after", self.after))
            },
            "verdict": trust.verdict,
            "because": trust.because,
        }


@dataclass(frozen=True, eq=False)
class AccentuationResults:
    """What one page is about."""

    subject: InputPhoto
    classifier: Classifier
    features: list[FeatureResult]
    natural: NaturalImages | None
    second: Classifier | None


def write_images(folder: Path, results: AccentuationResults) -> None:
    """Images as PNG, and everything as tensors."""
    tensors = {"photo": results.subject.image.contiguous()}
    for number, feature in enumerate(results.features, 1):
        name, result = feature.file(number), feature.result
        _write(folder / f"{name}.png", result.images[0])
        _write(folder / f"{name}_through_mask.png", torch.cat([result.images[0].cpu().float(), feature.opacity()[0]]))
        arrays = {"image": result.images[0], "mask": result.masks[0], "scores": result.scores, "where": feature.where}
        arrays["distances"] = result.distances
        tensors |= {f"{name}.{key}": value.cpu().contiguous() for key, value in arrays.items() if value is not None}
    store.write_tensors(folder / "accentuation.safetensors", tensors, kind="accentuation-page")


def _write(file: Path, picture: Tensor) -> None:
    Image.fromarray(np.round(to_hwc(picture.clamp(0, 1)) * 255).astype(np.uint8)).save(file)


def format_number(number: float, *, plus: bool = False) -> str:
    """A number with two decimals at most and a real minus sign.

    Example:
        >>> signed(-0.734), signed(12.4, plus=True)
        ('−0.73', '+12.4')
    """
    text = f"{number:+.3g}" if plus else f"{number:.3g}" if abs(number) >= 1 else f"{number:.2f}"
    return text.replace("-", "−")
