"""Load a model by its name, with its preprocessing, labels and default layer."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import zoo
from ..hooks import exclusive, protect
from ..image_model import ImageModel, ResizeAndNormalise, zero_image
from ..zoo.classifiers import CLASSIFIERS
from .layers import choose_layer
from .settings import Source
from .sources import SOURCES, library_models, open_clip_model
from .weights import Mismatch, ModelError, load_weights, number_of_classes, read_weights, without_prefixes

RANDOM, DEFAULT = "random", "DEFAULT"
DIGIT_CLASSIFIERS: dict[str, Callable[[], ImageModel]] = {
    "mnist_convnet": zoo.mnist_convnet,
    "mnist_cnn": zoo.mnist_cnn,
}
_FORMS = (
    "torchvision:NAME, timm:NAME, hf:NAME or hf:FOLDER, open_clip:NAME, module:function of your own, or a classifier "
    "of the zoo"
)


def load_model(
    name: str,
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> ImageModel:
    """Return a model by its name, with the preprocessing, labels, input size and default layer that its source states.

    The result is called with images in [0, 1], (N, C, H, W), and every class of this package takes it as it is.
    :func:`describe` prints what was resolved.

    Args:
        name: "torchvision:resnet50", "timm:convnext_tiny", "hf:facebook/dinov2-small" or "hf:FOLDER" with config.json,
            "open_clip:ViT-B-32" (the image embedding), "module:function" (your function, without arguments, that
            returns a ``torch.nn.Module`` or an :class:`~xinc_captum.ImageModel`), or a classifier of
            :mod:`xinc_captum.zoo`.
        weights: None or "DEFAULT": those of the source, downloaded where needed; "random": untrained, with seed 0; or
            the path of a .safetensors file or a saved state dict. A fine-tuned model may have another number of
            classes. For open_clip also one of its tags.
        device: where the model is moved; None leaves it on the CPU.
        labels: one name for each output; None uses the source's, or "class 0", … ("feature 0", … without classes).

    Returns:
        The model in eval mode. If the network accepts one input size only, the ImageModel resizes other images to it.
        ``source`` states where each part is from.

    Raises:
        ModelError: an unknown name, weights that cannot be downloaded, read or fitted, or another number of labels.
        ModuleNotFoundError: timm, transformers or open_clip is missing; the message names the extra.

    Example:
        >>> model = load_model("torchvision:squeezenet1_1", weights="random")
        >>> model.size, model.labels[:2], model.layer
        (224, ('tench', 'goldfish'), 'classifier.2')
        >>> model(model.prepare(torch.rand(3, 300, 400))).shape
        torch.Size([1, 1000])
    """
    model, output = load_without_layer(name, weights, device, labels=labels)
    if output is None or model.layer is not None:
        return model
    layer, tokens = choose_layer(model)
    return replace(model, layer=layer, tokens=tokens)


def load_without_layer(
    name: str,
    weights: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> tuple[ImageModel, Tensor | None]:
    """Return :func:`load_model` without a default layer, and its output for a black image if it was computed."""
    scheme, colon, _ = name.partition(":")
    output: Tensor | None
    if colon and scheme in SOURCES:
        model, output = _from_library(name, weights, device, labels)
    else:
        model, output = _own_model(name, call_function(name) if colon else _from_zoo(name), weights, device)
    if labels is not None:
        model = replace(model, labels=tuple(labels))
    count = len(model.labels) if output is None else _count(output)
    if labels is not None and len(labels) != count:
        raise ModelError(
            f"labels= has {len(labels)} names, and {name} has {count} outputs; expected one name for each output, in "
            "their order."
        )
    return model, output


def _count(output: Tensor) -> int:
    """Return the number of classes or features of an output (N, classes) or (N, classes, H, W); else 0."""
    return output.shape[1] if output.dim() in {2, 4} else 0


def _from_library(
    name: str, weights: str | Path | None, device: torch.device | str | None, labels: Sequence[str] | None
) -> tuple[ImageModel, Tensor]:
    """Return a model of a library, and its output for a black image."""
    scheme, _, rest = name.partition(":")
    source = SOURCES[scheme](rest)
    if scheme == "open_clip" and weights not in {None, DEFAULT, RANDOM} and not Path(str(weights)).exists():
        source, weights = open_clip_model(rest, str(weights)), DEFAULT
    # Initial weights consume random numbers: the caller's state is kept, and "random" is the same every time.
    with torch.device("cpu"), exclusive(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if weights is None or weights == DEFAULT:
            network, text = _load_pretrained(name, source), source.place
        elif weights == RANDOM:
            network, text = source.build(False, None if labels is None else len(labels)), "random, with seed 0"
        else:
            network, text = _with_weights(name, source, weights), str(weights)
    settings = source.settings(network)
    network = source.tower(network).eval()
    network = network if device is None else network.to(device)
    preprocess = ResizeAndNormalise(settings.mean, settings.std, None, settings.interpolation)
    model = ImageModel(
        name,
        network,
        preprocess,
        max(settings.size),
        (),
        "auto" if settings.classes else "none",
        crop=settings.crop,
        source=f"weights: {text}; preprocessing: {settings.origin}",
    )
    raw = _run(model, settings.size)
    fixed = settings.size[0] != settings.size[1] or not _accepts(network, zero_image(model, max(settings.size) + 32))
    model = replace(
        model,
        preprocess=replace(preprocess, size=settings.size if fixed else None),
        output_fn=source.output_fn(network, raw),
    )
    with protect(network), torch.no_grad():
        output = model(zero_image(model))
    count = _count(output)
    kind = "class" if settings.classes else "feature"
    names = settings.labels or ()
    return replace(model, labels=names if len(names) == count else tuple(f"{kind} {i}" for i in range(count))), output


def _load_pretrained(name: str, source: Source) -> nn.Module:
    try:
        return source.build(True, None)
    except ModelError:
        raise
    except Exception as error:  # libraries raise errors of many types without a network
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the pretrained weights of {name} cannot be loaded ({reason}). The missing file is {source.place}. Give "
            "weights= the path of a .safetensors file or a saved state dict, or weights='random' for an untrained "
            "model."
        ) from error


def _with_weights(name: str, source: Source, path: str | Path) -> nn.Module:
    state, network = read_weights(path), source.build(False, None)
    state = without_prefixes(state, network.state_dict())
    if any(Mismatch.of(state, network.state_dict())):
        try:
            converted = source.convert(state, network)
        except Exception:  # written for other files; the mismatch of the file itself is reported below
            converted = state
        if not any(Mismatch.of(converted, network.state_dict())):
            state = converted
    classes = number_of_classes(state, network.state_dict())
    if classes is not None:  # fine-tuned
        network = source.build(False, classes)
    load_weights(network, state, path, name)
    return network


def _from_zoo(name: str) -> ImageModel:
    if name in DIGIT_CLASSIFIERS:
        return DIGIT_CLASSIFIERS[name]()
    try:
        return zoo.classifier(name)
    except ValueError as error:
        same = [other for other in library_models() if other.partition(":")[2] == name]
        near = same or difflib.get_close_matches(name, [*CLASSIFIERS, *DIGIT_CLASSIFIERS], cutoff=0.5)
        hint = f" Closest names: {', '.join(map(repr, near))}." if near else ""
        raise ModelError(f"model {name!r} is not known; expected {_FORMS}.{hint}") from error


def _own_model(
    name: str, loaded: Any, weights: str | Path | None, device: torch.device | str | None
) -> tuple[ImageModel, Tensor | None]:
    """Return what a function or the zoo returned as a model, and its output for a black image where it runs on one."""
    bare = isinstance(loaded, nn.Module)
    if bare:
        loaded = ImageModel(name, loaded, _identity, None, (), source=f"weights: {name}; preprocessing: none")
    if not isinstance(loaded, ImageModel):
        raise ModelError(
            f"{name} returned a {type(loaded).__name__}; expected a torch.nn.Module that takes images in [0, 1], or an "
            "xinc_captum.ImageModel."
        )
    loaded.model.eval()
    if weights == RANDOM:
        raise ModelError(f"weights='random' is given, but {name} sets its own weights; leave weights= out.")
    source = loaded.source or f"weights and preprocessing: {name}"
    if weights is not None and weights != DEFAULT:
        state = without_prefixes(read_weights(weights), loaded.model.state_dict())
        load_weights(loaded.model, state, weights, name)
        source = f"weights: {weights}; architecture and preprocessing: {name}"
    model = replace(loaded, source=source).to(device)
    try:
        with protect(model.model), torch.no_grad():
            output = model(zero_image(model))
    except Exception:  # your own network, which may need an image of another size
        return model, None
    if bare:
        model = replace(model, labels=tuple(f"class {i}" for i in range(_count(output))) if output.dim() == 2 else ())
    return model, output


def _identity(images: Tensor) -> Tensor:
    return images


def _run(model: ImageModel, size: tuple[int, int]) -> Any:
    """Return what the network itself returns for a black image; ModelError if it does not run.

    Not in :func:`protect`: models of transformers register hooks in their first pass and note it in an attribute.
    """
    image = zero_image(model, max(size))[..., : size[0], : size[1]]
    try:
        with torch.no_grad():
            return model.model(image)
    except Exception as error:
        raise ModelError(
            f"{model.name} cannot be run on an image of shape {tuple(image.shape)} ({str(error).splitlines()[0]}); "
            "expected a model of images. Give a function as module:function that returns a torch.nn.Module around it."
        ) from error


def _accepts(network: nn.Module, image: Tensor) -> bool:
    """Return whether a network runs on an image."""
    try:
        with protect(network), torch.no_grad():
            network(image)
    except Exception:  # of many types: assertions, shapes of embeddings and views
        return False
    return True


def call_function(name: str, option: str = "--model") -> Any:
    """Call the function ``module:function``, the value of ``option``, and return its result.

    The module is installed or in the current folder, as for ``python -m``.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (ModuleNotFoundError, ValueError) as error:
        names = f", or {', '.join(f'{scheme}:NAME' for scheme in SOURCES)}" if option == "--model" else ""
        raise ModelError(
            f"module {module_name!r} cannot be imported ({error}); expected module:function, where the module is "
            f"installed or is in the current folder{names}."
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, [n for n in vars(module) if callable(getattr(module, n))])
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "give the name of one of its functions."
        raise ModelError(f"module {module_name!r} has no function {function_name!r}; {hint}")
    try:
        return function()
    except Exception as error:
        error.add_note(f"Raised by the function {name} of {option}.")
        raise
