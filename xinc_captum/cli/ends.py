"""The two ends of a link that a person names: a classifier's layer, and a generator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .. import zoo
from ..attributions.linking import Encoder, LatentLink
from ..attributions.linking.linked_unit import LinkedUnitVisualization
from ..generators import Generator, check_generator, pictures_in_unit_range
from ..hooks import find_layer
from ..metrics.probability import Probability, as_probabilities, probability_kind
from ..zoo.named import CLASSIFIERS
from .failures import UsageError
from .network import made, network_called
from .sized import Sized

GENERATORS: dict[str, Callable[[], Generator]] = {
    "mnist_generator": lambda: zoo.mnist_generator().generator,
    "dcgan_faces": zoo.dcgan_faces,
    "omniart_eyes": zoo.omniart_eyes,
}
DIGITS: dict[str, Callable[[], zoo.Classifier]] = {"mnist_convnet": zoo.mnist_convnet, "mnist_cnn": zoo.mnist_cnn}
MODELS = (*DIGITS, *CLASSIFIERS)


@dataclass(frozen=True, eq=False)
class Ends:
    """A classifier and a generator.

    Attributes:
        model_name: as it was asked for.
        generator_name: likewise.
        classifier: how it is called with pictures in [0, 1], and what its classes are called.
        layer: dotted name of the layer whose input is linked.
        generator: draws the pictures.
        shape: (C, H, W) of what it draws.
        device: where both compute.
    """

    model_name: str
    generator_name: str
    classifier: zoo.Classifier = field(repr=False)
    layer: str
    generator: Generator = field(repr=False)
    shape: tuple[int, int, int]
    device: torch.device

    @property
    def preprocess(self) -> Sized:
        """From pictures that the generator draws to what the network takes."""
        own = self.classifier.preprocess
        wanted = len(own.mean) if isinstance(own, zoo.Normalise) else None
        return Sized(own, self.classifier.size or None, wanted)

    @property
    def share_classes(self) -> bool:
        """Whether generator and classifier know as many classes, and so, it is taken, the same ones."""
        return int(getattr(self.generator, "num_classes", 0)) == len(self.classifier.labels) > 0

    def encoder(self) -> Encoder:
        """Pictures to the layer's input and the network's scores."""
        return Encoder(self.classifier.model, self.layer, preprocess=self.preprocess)

    def method(self, link: LatentLink) -> LinkedUnitVisualization:
        """What draws units through a link of these ends."""
        return LinkedUnitVisualization(
            self.classifier.model, self.layer, self.generator, link, preprocess=self.preprocess
        )

    def draw(self, latents: Tensor, batch_size: int = 64) -> Tensor:
        """Pictures (n, C, H, W) in [0, 1] of latents, on the host."""
        with torch.no_grad():
            parts = latents.to(self.device, torch.float32).split(batch_size)
            return torch.cat([pictures_in_unit_range(self.generator, part).cpu() for part in parts])

    def answers(self, pictures: Tensor) -> Tensor:
        """Probabilities (n, classes) of pictures (n, C, H, W) in [0, 1], on the host."""
        with torch.no_grad():
            return as_probabilities(self.encoder().read(pictures.to(self.device)).logits, self.probability).cpu()

    @cached_property
    def probability(self) -> Probability:
        """What the classifier's outputs are: its own setting, else decided once, on a grey picture."""
        with torch.no_grad():
            grey = torch.full((1, *self.shape), 0.5, device=self.device)
            return probability_kind(self.encoder().read(grey).logits, self.classifier.probability)

    def label(self, index: int) -> str:
        """What a class is called."""
        labels: tuple[str, ...] = self.classifier.labels
        return labels[index] if 0 <= index < len(labels) else f"class {index}"


def ends_called(model: str, generator: str, layer: str | None, device: torch.device) -> Ends:
    """Find both ends, and make sure that the one can look at what the other draws.

    Args:
        model: a classifier of the zoo, or module:function.
        generator: a generator of the zoo, or module:function.
        layer: dotted name; None takes the last linear layer.
        device: where to compute.

    Raises:
        UsageError: one of them does not exist or cannot be used.
        AssetError: a package of the zoo is missing.
        LayerError: no such layer.
    """
    drawer, shape = generator_called(generator, device)
    one = torch.full((1, *shape), 0.5)
    if model in DIGITS:
        found = DIGITS[model]()
        found.model.to(device)
    else:
        found = network_called(model, one[0], device, generator).classifier
    if layer is None:
        layer = _head(found.model)
    find_layer(found.model, layer)
    if found.probability == "none":
        raise UsageError(f"{model} is a Classifier with probability='none'; linked classes need probabilities.")
    ends = Ends(model, generator, found, layer, drawer, shape, device)
    try:
        ends.answers(one)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{model} cannot look at what {generator} draws, pictures of shape {shape} in [0, 1] "
            f"({str(error).splitlines()[0]}); give a network whose preprocess takes them."
        ) from error
    return ends


def generator_called(name: str, device: torch.device) -> tuple[Generator, tuple[int, int, int]]:
    """A generator of the zoo, or what a function of the person's returns, checked; and its pictures' shape.

    Raises:
        UsageError: there is no such generator, or it does not do what a link needs.
        AssetError: a package of the zoo is missing.
    """
    if ":" in name:
        found: Any = made(name, "--generator")
    elif name in GENERATORS:
        found = GENERATORS[name]()
    else:
        raise UsageError(
            f"generator {name!r} is not in the zoo; wanted one of {', '.join(GENERATORS)}, or a function of your own "
            "as module:function."
        )
    if isinstance(found, nn.Module):
        found.eval().to(device)
    classes = 0 if int(getattr(found, "num_classes", 0)) else None
    try:
        _, shape = check_generator(found, classes=classes)
    except (TypeError, ValueError) as error:
        raise UsageError(f"generator {name}: {error}") from error
    return found, shape


def _head(model: nn.Module) -> str:
    heads: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if not heads:
        raise UsageError("the network has no linear layer to link the input of; say which one with --layer.")
    return heads[-1]
