"""Resolve --model, --generator, link folder."""

import difflib
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from .. import store, zoo
from ..attributions.linking import Encoder, LatentLink
from ..attributions.linking.linked_unit import LinkedUnitVisualization
from ..fingerprint import other_weights
from ..generators import Generator, check_generator, images_in_unit_range
from ..hooks import find_layer
from ..metrics.probability import Probability, as_probabilities, probability_kind
from ..zoo.classifiers import CLASSIFIERS
from .errors import UsageError


class Network(NamedTuple):
    """A classifier, and the side of the square that it looks at (None: as large as the photo)."""

    classifier: zoo.Classifier
    size: int | None


def network_called(name: str, photo: Tensor, device: torch.device, drawn_by: str | None = None) -> Network:
    """The network of that name, in eval mode, on ``device``.

    Args:
        name: of the zoo, or ``module:function``, where the function takes nothing and returns a ``torch.nn.Module``
            for images in [0, 1], or a :class:`xinc_captum.zoo.Classifier`.
        photo: (3, H, W), shown once to a module without labels, to count its answers.
        device: where it shall compute.
        drawn_by: the generator that drew the photo, where one did.

    Raises:
        UsageError: there is no such network, or it cannot be used.
        AssetError: a package of the zoo is missing.
    """
    if ":" not in name:
        try:
            found: Any = zoo.classifier(name)
        except ValueError as error:
            raise UsageError(
                f"model {name!r} is no classifier of the zoo; expected one of {', '.join(CLASSIFIERS)}, or a "
                "function of "
                "your own as module:function."
            ) from error
    else:
        found = made(name)
    if isinstance(found, zoo.Classifier):
        found.model.eval().to(device)
        return Network(found, found.size)
    if isinstance(found, nn.Module):
        return Network(_labelled(name, found.eval().to(device), photo.to(device), drawn_by), None)
    raise UsageError(
        f"{name} returned a {type(found).__name__}; expected a torch.nn.Module that takes images in [0, 1], or a "
        "xinc_captum.zoo.Classifier."
    )


def made(name: str, option: str = "--model") -> Any:
    """What the function ``module:function`` returns.

    Raises:
        UsageError: no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    module = _imported(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, [n for n in vars(module) if callable(getattr(module, n))])
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "give the name of a function in it."
        raise UsageError(f"module {module_name!r} has no function {function_name!r}; {hint}")
    try:
        return function()
    except Exception as error:
        error.add_note(f"This was the function {name} of {option}.")
        raise


def _imported(name: str) -> ModuleType:
    """A module of the current folder or an installed one, as ``python -m`` finds it."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (ModuleNotFoundError, ValueError) as error:
        raise UsageError(
            f"module {name!r} cannot be imported ({error}); expected module:function, where the module is installed or "
            "lies in the current folder."
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _labelled(name: str, model: nn.Module, photo: Tensor, drawn_by: str | None) -> zoo.Classifier:
    """A plain module as a classifier whose classes have numbers for names."""
    bare = zoo.Classifier(name, model, _as_it_is, min(photo.shape[-2:]), ())
    try:
        with torch.no_grad():
            answer = bare(photo[None])
    except RuntimeError as error:
        shown = "the photo" if drawn_by is None else f"what {drawn_by} draws"
        other = "--size" if drawn_by is None else "--generator"
        raise UsageError(
            f"{name} cannot be run on {shown}, {tuple(photo[None].shape)} in [0, 1] ({str(error).splitlines()[0]}); "
            f"return a xinc_captum.zoo.Classifier that says size and preprocess, or give another {other}."
        ) from error
    typer.echo(
        f"{name} gets photos as they are, in [0, 1]; if its normalisation is not inside it, return a "
        "xinc_captum.zoo.Classifier, which has preprocess",
        err=True,
    )
    flat = isinstance(answer, Tensor) and answer.dim() == 2
    return replace(bare, labels=tuple(f"class {i}" for i in range(answer.shape[1])) if flat else ())


def _as_it_is(images: Tensor) -> Tensor:
    return images


@dataclass(frozen=True)
class Sized:
    """Resizes, turns grey into three equal channels or colour into grey, and goes on with the network's own part.

    Args:
        then: the network's preprocessing, or None.
        size: height and width that it wants; None leaves pictures as large as they are.
        channels: that it wants; None leaves them.

    Example:
        >>> Sized(None, 8, 3)(torch.rand(2, 1, 4, 4)).shape
        torch.Size([2, 3, 8, 8])
    """

    then: Callable[[Tensor], Tensor] | None
    size: int | None
    channels: int | None

    def __call__(self, pictures: Tensor) -> Tensor:
        """As the network wants them; differentiable."""
        if self.channels is not None and pictures.shape[1] != self.channels:
            grey = pictures.mean(1, keepdim=True)
            pictures = grey.expand(-1, self.channels, -1, -1)
        if self.size is not None and tuple(pictures.shape[2:]) != (self.size, self.size):
            size = (self.size, self.size)
            pictures = torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        return pictures if self.then is None else self.then(pictures)


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
        expected = len(own.mean) if isinstance(own, zoo.Normalise) else None
        return Sized(own, self.classifier.size or None, expected)

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
            return torch.cat([images_in_unit_range(self.generator, part).cpu() for part in parts])

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
            f"generator {name!r} is not in the zoo; expected one of {', '.join(GENERATORS)}, or a function of your own "
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


FILE = "link.safetensors"
TRUNCATION = 0.7


class Linked(NamedTuple):
    """A link, its ends, the verdict on it when it was made, and how its pictures were drawn."""

    link: LatentLink
    ends: Ends
    trust: str
    truncation: float
    seed: int


def described(ends: Ends) -> dict[str, Any]:
    """What a manifest must say for :func:`linked_called` to find the ends again."""
    return {"model": ends.model_name, "generator": ends.generator_name, "layer": ends.layer}


def linked_called(folder: Path, device: torch.device) -> Linked:
    """What ``xinc link`` wrote into a folder, ready for use.

    Raises:
        FileNotFoundError: no such folder.
        UsageError: it holds no link, or one that was damaged.
        AssetError: a package of the zoo is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected one that xinc link wrote.")
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        names = note["ends"]
        model, generator, layer = names["model"], names["generator"], names["layer"]
        drawn = float(note.get("truncation", TRUNCATION)), int(note.get("seed", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} holds no link; expected a folder that xinc link wrote, with {store.MANIFEST} and {FILE}."
        ) from error
    try:
        link = LatentLink.load(folder / FILE)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"the link in {folder} cannot be used: {error}") from error
    ends = ends_called(model, generator, layer, device)
    link.to(device)
    trust, others = (
        str(note.get("trust", "unknown")),
        other_weights(link.manifest, ends.classifier.model, ends.generator),
    )
    if others:  # a function of the person's may make other weights each time; the method warns of it on the terminal
        trust = f"{trust}; but {others.rstrip('.')}"
    return Linked(link, ends, trust, *drawn)
