"""The features that a person names: classes by their label, or units of a layer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attributions import FeatureAccentuation, NeuronFeatureAccentuation
from ..attributions.accentuation.reading import Reader
from ..comparison import as_maps, grad_cam, last_map
from ..hooks import find_layer
from .failures import UsageError
from .network import Network


@dataclass(frozen=True, eq=False)
class Asked:
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

    def scores(self, views: Tensor, at_once: int = 16) -> Tensor:
        """Its score for each image (N, C, h, w), as the network sees it: (N,) on the host."""
        with torch.no_grad():
            return torch.cat([self._scores(part).float().cpu() for part in views.split(at_once)])

    def _scores(self, views: Tensor) -> Tensor:
        if self.layer is None:
            return self.network.classifier(views)[:, self.index]
        value = self._activation(self.layer, views)[:, self.index]
        return value.flatten(1).mean(1) if value.dim() > 1 else value

    def _activation(self, layer: str, views: Tensor) -> Tensor:
        reader, place = Reader(self.network.classifier), find_layer(self.network.classifier, layer)
        return reader.read(views, (), [place], whole=False)(place)

    def where(self, view: Tensor, size: tuple[int, int]) -> Tensor | None:
        """Where it is found in one image (1, C, h, w), without a change: (H, W) on the host, or None.

        Grad-CAM at the network's last map for a class, the unit's own activation for a unit.
        """
        classifier = self.network.classifier
        if self.layer is None:
            place = last_map(classifier, view)
            if place is None:
                return None
            answer = grad_cam(classifier, place)(view, self.index)
        else:
            with torch.no_grad():
                value = self._activation(self.layer, view)
            if value.dim() != 4:
                return None
            answer = value[:, self.index : self.index + 1]
        return as_maps(answer, view, size)[0].cpu()


def features_called(
    network: Network, targets: Sequence[str], layers: Sequence[str], units: Sequence[int]
) -> list[Asked]:
    """The features of the options --target, or --layer and --unit.

    Raises:
        UsageError: none, both kinds, layers and units that do not pair, or no such class.
        LayerError: no such layer.
    """
    if targets and (layers or units):
        raise UsageError("--target and --layer/--unit are both given; wanted one kind at a time: run it twice.")
    if targets:
        return [_class(network, text) for text in targets]
    if not layers or not units:
        raise UsageError(
            "nothing to accentuate; wanted --target with a label or a class number, or --layer with --unit, each as "
            "often as you like."
        )
    if len(layers) not in {1, len(units)}:
        raise UsageError(
            f"{len(layers)} times --layer for {len(units)} times --unit; wanted one layer for all units, or one each."
        )
    pairs = zip([*layers] * len(units) if len(layers) == 1 else layers, units, strict=True)
    for layer in layers:
        find_layer(network.classifier, layer)
    return [Asked(network, f"{layer}, unit {unit}", unit, layer) for layer, unit in pairs]


def _class(network: Network, text: str) -> Asked:
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
    return Asked(network, classifier.label(index), index)
