"""Load the classifier, generator and link that options name, and images in the shape of the generator."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn
from typer import Argument, Option

from .. import store, zoo
from ..attributions.linking import Encoder, LatentLink
from ..attributions.linking.linked_unit import LinkedUnitVisualization
from ..generators import Generator, check_generator, images_in_unit_range
from ..hooks import find_layer
from ..image_model import ImageModel
from ..images import centre_crop, read_photo
from ..metrics.statistics import Probability, as_probabilities, probability_kind
from ..models import ModelError, load_model
from ..models.load import DIGIT_CLASSIFIERS, call_function, load_without_layer
from ..zoo.classifiers import CLASSIFIERS
from .command import UsageError
from .inputs import DIGITS, ImageSet, photo_files


class Network(NamedTuple):
    """A classifier and the side of its square input (None: the size of the photo)."""

    classifier: ImageModel
    size: int | None


MODEL_HELP = (
    "torchvision:NAME, timm:NAME, hf:NAME or hf:FOLDER, open_clip:NAME, module:function that returns a network or an "
    f"ImageModel, or one of the zoo: {', '.join((*DIGIT_CLASSIFIERS, *CLASSIFIERS))}. xinc models lists names."
)
Weights = Annotated[
    str | None,
    Option(help="Weights of the model: a .safetensors file, a saved state dict, random, or DEFAULT (its source's)."),
]


def resolve_model(name: str, weights: str | None, device: torch.device, *, layer: bool = False) -> ImageModel:
    """Load a model by its name, with its default ``layer`` if that is needed; errors are UsageErrors."""
    try:
        return load_model(name, weights, device) if layer else load_without_layer(name, weights, device)[0]
    except (ModelError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name not in {"timm", "transformers", "open_clip"}:
            raise  # of the user's own module
        raise UsageError(str(error)) from error


def load_network(
    name: str, photo: Tensor, device: torch.device, generator: str | None = None, weights: str | None = None
) -> Network:
    """Return a model by its name, in eval mode, on ``device``.

    A module without labels is passed the photo (3, H, W) once, to count its outputs; ``generator`` is the name of the
    generator that made the photo, if one did.
    """
    model = resolve_model(name, weights, device)
    if model.size is None:
        model = _with_labels(name, model, photo.to(device), generator)
    return Network(model, model.size)


def _with_labels(name: str, model: ImageModel, photo: Tensor, generator: str | None) -> ImageModel:
    """Return a model without an input size, with class numbers as labels, after a run on the photo."""
    try:
        with torch.no_grad():
            output = model(photo[None])
    except RuntimeError as error:
        source = "the photo" if generator is None else f"the images of {generator}"
        other = "--size" if generator is None else "--generator"
        raise UsageError(
            f"{name} cannot be run on {source}, {tuple(photo[None].shape)} in [0, 1] ({str(error).splitlines()[0]}); "
            f"return an xinc_captum.ImageModel with size and preprocess, or give another {other}."
        ) from error
    if model.channels is None:
        typer.echo(
            f"{name} receives photos in [0, 1] without normalisation; if it needs one, return an "
            "xinc_captum.ImageModel with preprocess",
            err=True,
        )
    flat = output.dim() == 2 and not model.labels
    return replace(model, labels=tuple(f"class {i}" for i in range(output.shape[1])) if flat else model.labels)


@dataclass(frozen=True, repr=False)
class ResizeAndConvert:
    """Preprocessing that resizes images, converts between grey and colour, and applies the network's preprocessing.

    None keeps the size or the channels, or applies nothing.
    """

    then: Callable[[Tensor], Tensor] | None
    size: int | None
    channels: int | None

    def __repr__(self) -> str:
        """Text in manifests, which a replay compares."""
        return f"Sized(then={self.then!r}, size={self.size!r}, channels={self.channels!r})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return images as the network takes them; differentiable."""
        if self.channels is not None and images.shape[1] != self.channels:
            grey = images.mean(1, keepdim=True)
            images = grey.expand(-1, self.channels, -1, -1)
        if self.size is not None and tuple(images.shape[2:]) != (self.size, self.size):
            size = (self.size, self.size)
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images if self.then is None else self.then(images)


GENERATORS: dict[str, Callable[[], Generator]] = {
    "mnist_generator": lambda: zoo.mnist_generator().generator,
    "dcgan_faces": zoo.dcgan_faces,
    "omniart_eyes": zoo.omniart_eyes,
}


@dataclass(frozen=True, eq=False)
class ClassifierAndGenerator:
    """A classifier and a generator on one device."""

    model_name: str
    generator_name: str
    classifier: ImageModel = field(repr=False)
    layer: str  # dotted name of the layer whose input is linked
    generator: Generator = field(repr=False)
    shape: tuple[int, int, int]  # (C, H, W) of the generated images
    device: torch.device
    weights: str | None = None  # of the classifier, as given

    @property
    def names(self) -> dict[str, str]:
        """Entries of the manifest from which :func:`load_link` loads the models again."""
        names = {"model": self.model_name, "generator": self.generator_name, "layer": self.layer}
        return names if self.weights is None else {**names, "weights": self.weights}

    @property
    def facts(self) -> dict[str, str]:
        """Entries of a page."""
        return {"network": self.model_name, "layer": f"input of {self.layer}", "generator": self.generator_name}

    @property
    def preprocess(self) -> ResizeAndConvert:
        """Preprocessing from generated images to the network's input."""
        classifier = self.classifier
        return ResizeAndConvert(classifier.preprocess, classifier.size or None, classifier.channels)

    @property
    def share_classes(self) -> bool:
        """Whether generator and classifier have equally many classes; they are then taken to be the same."""
        return int(getattr(self.generator, "num_classes", 0)) == len(self.classifier.labels) > 0

    def encoder(self) -> Encoder:
        """Return the encoder from images to the layer's input and the network's scores."""
        return Encoder(self.classifier.model, self.layer, preprocess=self.preprocess)

    def visualization(self, link: LatentLink) -> LinkedUnitVisualization:
        """Return the visualization of units through a link of these models."""
        return LinkedUnitVisualization(
            self.classifier.model, self.layer, self.generator, link, preprocess=self.preprocess
        )

    def generate(self, latents: Tensor, batch_size: int = 64) -> Tensor:
        """Return the images (n, C, H, W) in [0, 1] of latents, on the CPU."""
        with torch.no_grad():
            parts = latents.to(self.device, torch.float32).split(batch_size)
            return torch.cat([images_in_unit_range(self.generator, part).cpu() for part in parts])

    def predict(self, images: Tensor) -> Tensor:
        """Return the probabilities (n, classes) of images (n, C, H, W) in [0, 1], on the CPU."""
        with torch.no_grad():
            return as_probabilities(self.encoder().encode(images.to(self.device)).logits, self.probability).cpu()

    @cached_property
    def probability(self) -> Probability:
        """Kind of the classifier's outputs: its own setting, or inferred once from a grey image."""
        with torch.no_grad():
            grey = torch.full((1, *self.shape), 0.5, device=self.device)
            return probability_kind(self.encoder().encode(grey).logits, self.classifier.probability)

    def label(self, index: int) -> str:
        """Return the name of a class."""
        labels: tuple[str, ...] = self.classifier.labels
        return labels[index] if 0 <= index < len(labels) else f"class {index}"


def load_classifier_and_generator(
    model: str, generator: str, layer: str | None, device: torch.device, weights: str | None = None
) -> ClassifierAndGenerator:
    """Load both models by their names, and check that the classifier takes the images of the generator.

    Without ``layer``, the input of the last linear layer is linked.
    """
    generator_model, shape = load_generator(generator, device)
    grey = torch.full((1, *shape), 0.5)
    classifier = load_network(model, grey[0], device, generator, weights).classifier
    if layer is None:
        linear: list[str] = [
            name for name, module in classifier.model.named_modules() if isinstance(module, nn.Linear) and name
        ]
        if not linear:
            raise UsageError("the network has no linear layer; give the layer whose input is linked with --layer.")
        layer = linear[-1]
    find_layer(classifier.model, layer)
    if classifier.probability == "none":
        raise UsageError(
            f"{model} has probability='none', so its outputs are no classes; a link needs their probabilities."
        )
    models = ClassifierAndGenerator(model, generator, classifier, layer, generator_model, shape, device, weights)
    try:
        models.predict(grey)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{model} cannot be run on the images of {generator}, which have shape {shape} and values in [0, 1] "
            f"({str(error).splitlines()[0]}); give a network whose preprocess takes them."
        ) from error
    return models


def load_generator(name: str, device: torch.device) -> tuple[Generator, tuple[int, int, int]]:
    """Return a generator of the zoo or of ``module:function``, after a check, and the shape of its images."""
    if ":" in name:
        try:
            loaded: Any = call_function(name, "--generator")
        except ModelError as error:
            raise UsageError(str(error)) from error
    elif name in GENERATORS:
        loaded = GENERATORS[name]()
    else:
        raise UsageError(
            f"generator {name!r} is not in the zoo; expected one of {', '.join(GENERATORS)}, or your own function as "
            "module:function."
        )
    if isinstance(loaded, nn.Module):
        loaded.eval().to(device)
    classes = 0 if int(getattr(loaded, "num_classes", 0)) else None
    try:
        _, shape = check_generator(loaded, classes=classes)
    except (TypeError, ValueError) as error:
        raise UsageError(f"generator {name}: {error}") from error
    return loaded, shape


FILE = "link.safetensors"
LinkFolder = Annotated[Path, Argument(help="Result folder of xinc link.", show_default=False)]


class LoadedLink(NamedTuple):
    """A link, its result folder and models, its verdict from the audit, and the truncation and seed of its images."""

    folder: Path
    link: LatentLink
    models: ClassifierAndGenerator
    trust: str
    truncation: float
    seed: int

    def note(self, starts: "StartImages", seed: int) -> dict[str, Any]:
        """Return the entries of the manifest that all results of the link have."""
        link = {"folder": str(self.folder), "trust": self.trust}
        return {"seed": seed, "ends": self.models.names, "link": link, "inputs": starts.inputs}


def load_link(folder: Path, device: torch.device) -> LoadedLink:
    """Load a link and its models from a result folder of ``xinc link``."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected a result folder of xinc link.")
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        model, generator, layer = (note["ends"][key] for key in ("model", "generator", "layer"))
        weights = note["ends"].get("weights")
        truncation, seed = float(note.get("truncation", 0.7)), int(note.get("seed", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} holds no link; expected a result folder of xinc link, with {store.MANIFEST} and {FILE}."
        ) from error
    try:
        link = LatentLink.load(folder / FILE)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"the link in {folder} cannot be used: {error}") from error
    models = load_classifier_and_generator(model, generator, layer, device, weights)
    link.to(device)
    trust = str(note.get("trust", "unknown"))
    changed = store.other_weights(link.manifest, models.classifier.model, models.generator)
    if changed:  # a user's function may return other weights each time
        trust = f"{trust}; but {changed.rstrip('.')}"
    return LoadedLink(folder, link, models, trust, truncation, seed)


StartPhotos = Annotated[
    list[Path], Option("--photo", help="Image to start from; repeat for several. Default: generated images.")
]
StartCount = Annotated[int, Option(help="Number of images to generate without --photo.", min=1)]


@dataclass(frozen=True, eq=False)
class StartImages:
    """Images (N, C, H, W) in [0, 1] to start from, on the CPU, with their names, predicted classes and file hashes."""

    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    predictions: Tensor
    inputs: dict[str, str]


def load_start_images(
    models: ClassifierAndGenerator, photos: Sequence[Path], count: int, truncation: float, seed: int
) -> StartImages:
    """Load photos, cropped to the generator's shape; without photos, generate ``count`` images, class by class."""
    if not photos:
        images = generate_images(models, count, truncation, seed)
        predictions = models.predict(images).argmax(1)
        names = tuple(f"drawn: {models.label(one)}" for one in predictions.tolist())
        return StartImages(images, names, predictions, {})
    images = torch.stack([read_at_shape(path, models.shape) for path in photos])
    known = [path.name for path in photos]
    inputs = {path.name if known.count(path.name) == 1 else str(path): store.sha256(path) for path in photos}
    return StartImages(images, tuple(path.stem for path in photos), models.predict(images).argmax(1), inputs)


def generate_images(models: ClassifierAndGenerator, count: int, truncation: float, seed: int) -> Tensor:
    """Generate images, of each class in turn if the generator has classes."""
    known = int(getattr(models.generator, "num_classes", 0))
    classes = torch.arange(count) % known if known else None
    stream = torch.Generator().manual_seed(seed)
    return models.generate(models.generator.sample_latents(count, classes, truncation, generator=stream))


def read_at_shape(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read the centre of a photo, in the size and channels of the generator's images."""
    channels, height, width = shape
    photo = read_photo(path, longer_side=4 * max(height, width))
    square = centre_crop(photo, max(height, width), 1.0)
    first_row, first_column = (square.shape[1] - height) // 2, (square.shape[2] - width) // 2
    image = square[:, first_row : first_row + height, first_column : first_column + width]
    return image.mean(0, keepdim=True).expand(channels, -1, -1) if channels != 3 else image


MOST_REAL_IMAGES = 1000


def load_real_images(name: str | None, models: ClassifierAndGenerator) -> ImageSet | None:
    """Load the held-out digits of the zoo or the photos of a folder, in the size and channels of the generator.

    None loads the digits for the zoo's digit generator if they are installed, and nothing for other generators.
    """
    if name is None and models.generator_name != "mnist_generator":
        return None
    if name is None or name == DIGITS:
        if name == DIGITS and models.shape not in ((1, 28, 28), (1, 16, 16)):
            raise UsageError(
                f"--real {DIGITS} are grey, 28 x 28 or 16 x 16; the generator's images are {models.shape}. Give "
                "a folder."
            )
        try:
            digits = zoo.mnist_digits()
        except zoo.AssetError:
            if name is None:
                return None
            raise
        # The zoo's generator and classifier were not trained on every fifth of them.
        images = (digits.halve() if models.shape[-1] == 16 else digits).images[4::5]
        mixed = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        return ImageSet(images[mixed], f"{len(images)} digits held out")
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(
            f"--real {name} is not a folder; give a folder with photos, or {DIGITS}, or leave the option out."
        )
    files = photo_files(folder)[:MOST_REAL_IMAGES]
    if not files:
        raise UsageError(f"--real {name} holds no photos; give a folder that does, or leave the option out.")
    images = torch.stack([read_at_shape(path, models.shape) for path in files])
    return ImageSet(images, f"{len(files)} photos of {folder.name}")
