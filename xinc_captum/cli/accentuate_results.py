"""Results of ``xinc accentuate``: features, their images and scores, and the tensors on disk."""

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
from ..attributions.accentuation.activations import ImageModel
from ..comparison import as_maps, grad_cam, last_map
from ..hooks import find_layer
from ..images import to_hwc
from ..zoo import Classifier
from .command import UsageError
from .inputs import InputPhoto, NaturalImages
from .models import Network


@dataclass(frozen=True, eq=False)
class FeatureTarget:
    """A class or unit to accentuate."""

    network: Network = field(repr=False)
    title: str
    index: int  # of the class or unit
    layer: str | None = None  # of the unit, or None for a class

    @property
    def unit(self) -> str:
        """Name of its score."""
        return "logit" if self.layer is None else "mean activation"

    def method(self) -> FeatureAccentuation | NeuronFeatureAccentuation:
        """Return the attribution object that accentuates it."""
        classifier, size = self.network
        if self.layer is None:
            return FeatureAccentuation(classifier, size=size)
        return NeuronFeatureAccentuation(classifier, self.layer, size=size)

    def scores(self, views: Tensor, batch_size: int = 16) -> Tensor:
        """Return the score of each image (N, C, h, w) at the network's input size: (N,), on the CPU."""
        with torch.no_grad():
            return torch.cat([self._scores(part).float().cpu() for part in views.split(batch_size)])

    def _scores(self, views: Tensor) -> Tensor:
        if self.layer is None:
            return self.network.classifier(views)[:, self.index]
        value = self._activation(self.layer, views)[:, self.index]
        return value.flatten(1).mean(1) if value.dim() > 1 else value

    def _activation(self, layer: str, views: Tensor) -> Tensor:
        image_model, module = ImageModel(self.network.classifier), find_layer(self.network.classifier, layer)
        return image_model.run(views, (), [module], to_output=False)(module)

    def where(self, view: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Return a map of where it is in one image (1, C, h, w): (H, W), on the CPU, or None if there is none.

        For a class, Grad-CAM at the network's last feature map; for a unit, its activation.
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
    """Return the features of the options --target, or --layer and --unit."""
    if targets and (layers or units):
        raise UsageError("--target and --layer/--unit are both given; expected one of the two: run the command twice.")
    if targets:
        return [_class(network, text) for text in targets]
    if not layers or not units:
        raise UsageError(
            "nothing to accentuate; expected --target with a label or a class number, or --layer with --unit, each "
            "once or several times."
        )
    if len(layers) not in {1, len(units)}:
        raise UsageError(
            f"--layer is given {len(layers)} times and --unit {len(units)} times; expected one layer for all units, "
            "or one per unit."
        )
    pairs = zip([*layers] * len(units) if len(layers) == 1 else layers, units, strict=True)
    for layer in layers:
        find_layer(network.classifier, layer)
    return [FeatureTarget(network, f"{layer}, unit {unit}", unit, layer) for layer, unit in pairs]


def _class(network: Network, text: str) -> FeatureTarget:
    classifier = network.classifier
    if not classifier.labels:
        raise UsageError(
            f"the output of {classifier.name} is not (images, classes), so --target cannot select a class; give "
            "--layer and --unit."
        )
    try:
        index = classifier.find(text)
    except ValueError as error:
        raise UsageError(f"--target: {error}") from error
    return FeatureTarget(network, classifier.label(index), index)


MOST = 10.0  # doses; beyond this the scale is too short


@dataclass(frozen=True, eq=False)
class FeatureResult:
    """One accentuated feature and what the page shows of it."""

    target: FeatureTarget
    result: Accentuation  # of one image
    where: Tensor | None  # (H, W), where the feature is in the photo
    before: list[tuple[str, float]]  # the most probable classes of the photo
    after: list[tuple[str, float]]  # those of the accentuated photo
    step_images: Tensor  # (K, C, H, W), images between the photo and the end
    scores: list[float]  # of the step images
    reference: float | None  # the score of dose 1, or None without natural images

    @property
    def line(self) -> str:
        """Score before and after, as text."""
        before, after = self.endpoints
        return f"{self.target.unit} {format_number(before)} → {format_number(after)}"

    @property
    def endpoints(self) -> tuple[float, float]:
        """Scores of the photo and of the accentuated photo."""
        before = self.result.before
        return float("nan") if before is None else float(before[0]), float(self.result.after[0])

    @property
    def doses(self) -> list[float] | None:
        """Doses of the step images, or None if there are no natural images or their scores give no scale."""
        before, after = self.endpoints
        if self.reference is None or abs(after - before) > MOST * (self.reference - before):
            return None
        return [(score - before) / (self.reference - before) for score in self.scores]

    def opacity(self) -> Tensor:
        """Return the opacity mask of the accentuated photo, (1, 1, H, W) in [0, 1], on the CPU."""
        return self.result.opacity().cpu()

    def file(self, number: int) -> str:
        """Return the beginning of its file names: a number and the title in ASCII letters."""
        return f"{number}_{re.sub(r'[^a-z0-9]+', '_', self.target.title.lower()).strip('_')[:40]}"

    def numbers(self) -> dict[str, Any]:
        """Return the entries of the manifest."""
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
    """Everything that the page shows."""

    subject: InputPhoto
    classifier: Classifier
    features: list[FeatureResult]
    natural: NaturalImages | None
    second: Classifier | None


def write_images(folder: Path, results: AccentuationResults) -> None:
    """Write the images as PNG, and all arrays into one safetensors file."""
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
    """Format a number with at most two decimals and a typographic minus sign."""
    text = f"{number:+.3g}" if plus else f"{number:.3g}" if abs(number) >= 1 else f"{number:.2f}"
    return text.replace("-", "−")
