"""Models of timm, torchvision and open_clip: how they are built, their preprocessing and labels."""

import contextlib
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from .._optional import require
from ..zoo.classifiers import imagenet_labels
from .huggingface import hugging_face
from .settings import Settings, Source, interpolation_of, numbers
from .weights import ModelError, State


def _check_name(name: str, known: Iterable[str], scheme: str) -> None:
    """Raise a ModelError with the closest names if a library has no model of this name."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        hint = f"Closest names: {', '.join(map(repr, near))}." if near else "list_models() lists all names."
        raise ModelError(f"{scheme} has no model {name!r}. {hint}")


def timm_model(name: str) -> Source:
    """Return the source of a model of timm; the name may have the tag of its weights, as in "resnet50.a1_in1k"."""
    timm = require("timm", purpose=f"timm:{name}", extra="timm")
    if not name.startswith(("hf_hub:", "hf-hub:")):
        _check_name(name.partition(".")[0], timm.list_models(), "timm")

    def build(pretrained: bool, classes: int | None) -> nn.Module:
        options = {} if classes is None else {"num_classes": classes}
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model

    def settings(model: Any) -> Settings:
        config = timm.data.resolve_data_config(model=model)
        labels = imagenet_labels() if model.num_classes == 1000 else None
        return Settings(
            "timm.data.resolve_data_config",
            tuple(config["input_size"][1:]),
            numbers(config["mean"]),
            numbers(config["std"]),
            interpolation_of(config["interpolation"]),
            float(config["crop_pct"]),
            labels,
            model.num_classes > 0,
        )

    def convert(state: State, model: nn.Module) -> State:
        """Rename the weights of the authors' own code as timm does when it downloads them."""
        rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        return state if rename is None else dict(rename(dict(state), model))

    entry = {} if ":" in name else timm.get_pretrained_cfg(name).to_dict()
    hub = entry.get("hf_hub_id")
    place = f"https://huggingface.co/{hub}/model.safetensors" if hub else str(entry.get("url") or name)
    return Source(build, settings, place, convert=convert)


def torchvision_model(name: str) -> Source:
    """Return the source of a classifier or segmentation model of torchvision."""
    from torchvision import models  # type: ignore[import-untyped]  # takes two seconds, so not above

    _check_name(name, models.list_models(), "torchvision")
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    if not hasattr(preset, "mean") or not hasattr(preset, "resize_size"):
        raise ModelError(
            f"torchvision:{name} is no model of one image to one tensor (its preprocessing is "
            f"{type(preset).__name__}); expected a classifier or a semantic segmentation model. Give a function as "
            "module:function that returns a torch.nn.Module around it."
        )
    parameters = inspect.signature(models.get_model_builder(name)).parameters

    def build(pretrained: bool, classes: int | None) -> nn.Module:
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if "weights_backbone" in parameters:
            options["weights_backbone"] = None
        if name in {"googlenet", "inception_v3"} and not pretrained:  # as their weights expect
            options |= {"transform_input": True, "init_weights": True}
        model: nn.Module = models.get_model(name, weights=weights if pretrained else None, **options)
        return model

    def settings(_model: nn.Module) -> Settings:
        side = getattr(preset, "crop_size", preset.resize_size)[0]
        return Settings(
            f"{weights}",
            (side, side),
            numbers(preset.mean),
            numbers(preset.std),
            interpolation_of(preset.interpolation.value),
            min(1.0, side / preset.resize_size[0]),
            tuple(weights.meta["categories"]),
        )

    return Source(build, settings, weights.url)


def open_clip_model(name: str, tag: str | None = None) -> Source:
    """Return the source of the image tower of a model of open_clip; ``tag`` names weights of open_clip."""
    open_clip = require("open_clip", purpose=f"open_clip:{name}", extra="clip")
    _check_name(name, open_clip.list_models(), "open_clip")
    tags = open_clip.list_pretrained_tags_by_model(name)

    def build(pretrained: bool, _classes: int | None) -> nn.Module:
        if pretrained and tag not in tags:
            raise ModelError(
                f"open_clip has no default weights for {name}; give weights= one of {', '.join(tags) or '(none)'}, the "
                "path of a file, or 'random'."
            )
        model: nn.Module = open_clip.create_model(name, pretrained=tag if pretrained else None)
        return model

    def settings(model: nn.Module) -> Settings:
        config = open_clip.get_model_preprocess_cfg(model)
        size = config["size"]
        return Settings(
            "open_clip.get_model_preprocess_cfg",
            (size, size) if isinstance(size, int) else tuple(size),
            numbers(config["mean"]),
            numbers(config["std"]),
            interpolation_of(config["interpolation"]),
            classes=False,
        )

    def tower(model: Any) -> nn.Module:
        visual: nn.Module = model.visual
        return visual

    return Source(build, settings, f"weights={tag!r} of open_clip", tower=tower)


SOURCES: dict[str, Callable[[str], Source]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
    "hf": hugging_face,
    "open_clip": open_clip_model,
}


def library_models() -> list[str]:
    """Return the names of all models of torchvision, timm and open_clip, as far as these are installed."""
    names = []
    for scheme, module in (("torchvision", "torchvision.models"), ("timm", "timm"), ("open_clip", "open_clip")):
        with contextlib.suppress(ModuleNotFoundError):
            names += [f"{scheme}:{name}" for name in importlib.import_module(module).list_models()]
    return names
