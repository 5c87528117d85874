"""Describe a loaded model as text, and list the names of models that can be loaded."""

from dataclasses import dataclass, fields

from ..image_model import ImageModel
from ..zoo.classifiers import CLASSIFIERS
from .load import DIGIT_CLASSIFIERS
from .sources import library_models


@dataclass(frozen=True)
class ModelDescription:
    """What was resolved for a model, one field a line, each with how to override it."""

    name: str
    network: str
    source: str
    input: str
    preprocessing: str
    outputs: str
    layer: str

    def __str__(self) -> str:
        """Return one field a line."""
        return "\n".join(f"{one.name}: {getattr(self, one.name)}" for one in fields(self))


def describe(model: ImageModel) -> ModelDescription:
    """Return what was resolved for a model; its text has one field a line and states how to override each.

    Args:
        model: a model of :func:`load_model`, or any :class:`~xinc_captum.ImageModel`; TypeError for anything else.

    Example:
        >>> from xinc_captum import load_model
        >>> print(describe(load_model("mnist_convnet")))
        name: mnist_convnet
        network: Sequential, ... parameters, on cpu
        source: weights and preprocessing: mnist_convnet (override: weights=PATH of load_model)
        ...
        layer: pool3 (override: layer= of each class)
    """
    if not isinstance(model, ImageModel):
        raise TypeError(
            f"model is a {type(model).__name__}; expected an ImageModel, as load_model returns it. list_layers takes "
            "any torch.nn.Module."
        )
    parameters = list(model.model.parameters())
    device = parameters[0].device if parameters else "no device"
    count = sum(parameter.numel() for parameter in parameters)
    side = "any size" if model.size is None else f"{model.size} x {model.size}"
    channels = "" if model.channels is None else f", {model.channels} channels"
    labels = ", ".join(map(repr, model.labels[:3])) + (" …" if len(model.labels) > 3 else "")
    tokens = f", {model.tokens}" if model.tokens else ""
    replaced = "dataclasses.replace(model, {}=…)".format
    return ModelDescription(
        model.name,
        f"{type(model.model).__name__}, {count:,} parameters, on {device}",
        f"{model.source or 'not stated'} (override: weights=PATH of load_model)",
        f"{side}{channels}, values in [0, 1]; photos: model.prepare(photo), which keeps {model.crop:.3g} of the "
        f"shorter side (override: {replaced('crop')})",
        f"{model.preprocess} (override: {replaced('preprocess')})",
        f"{len(model.labels)} labels{': ' if labels else ''}{labels}, probability={model.probability!r} (override: "
        f"labels= of load_model, {replaced('probability')})",
        f"{model.layer or 'none found'}{tokens} (override: layer= of each class)",
    )


def list_models(text: str = "") -> list[str]:
    """Return the names that :func:`load_model` takes: those of the zoo and of the installed libraries.

    Hugging Face models are not listed; any name of the hub is given as "hf:NAME", and a local folder as "hf:FOLDER".

    Args:
        text: part of a name; case is ignored.

    Example:
        >>> list_models("squeezenet1_1")
        ['squeezenet1_1', 'torchvision:squeezenet1_1']
    """
    names = [*CLASSIFIERS, *DIGIT_CLASSIFIERS, *library_models()]
    return [name for name in names if text.casefold() in name.casefold()]
