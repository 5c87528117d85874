"""Models of Hugging Face transformers: class, preprocessing and labels from their configuration files."""

import json
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .._optional import require
from .settings import Settings, Source, interpolation_of, numbers
from .weights import ModelError

_FILES = ("preprocessor_config.json", "processor_config.json")


def hugging_face(name: str) -> Source:
    """Return the source of a model of the Hugging Face hub, or of a local folder with config.json."""
    transformers = require("transformers", purpose=f"hf:{name}", extra="hf")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"config.json of hf:{name} cannot be read ({str(error).splitlines()[0]}); expected a model of the Hugging "
            "Face hub, or a local folder with config.json. Without internet access, copy the folder of the model here "
            "and give hf:FOLDER."
        ) from error
    task = _task(config, name)
    auto = getattr(transformers, f"AutoModel{task}")
    missing: list[str] = []

    def build(pretrained: bool, classes: int | None) -> nn.Module:
        if classes is not None:
            config.num_labels = classes
        if not pretrained:
            model: nn.Module = auto.from_config(config)
            return model
        model, info = auto.from_pretrained(name, output_loading_info=True)
        missing.extend(sorted(info["missing_keys"]))
        if any("pooler" not in key for key in missing):
            raise ModelError(
                f"the weights of hf:{name} have no {', '.join(missing[:3])} of {type(model).__name__}; these layers "
                "would be random."
            )
        return model

    def settings(_model: nn.Module) -> Settings:
        return _settings(name, config, task)

    def output_fn(_model: nn.Module, output: Any) -> Callable[[Any], Tensor] | None:
        if task or not hasattr(output, "last_hidden_state"):
            return None
        if getattr(output, "pooler_output", None) is None:
            return operator.attrgetter("last_hidden_state")
        return class_token if missing else operator.attrgetter("pooler_output")

    folder = f"{name.rstrip('/')}/" if Path(name).is_dir() else f"https://huggingface.co/{name}/"
    return Source(build, settings, f"{folder}model.safetensors", tower=_image_tower, output_fn=output_fn)


def class_token(output: Any) -> Tensor:
    """Return the class token of the last layer, where the weights have no pooling layer."""
    tokens: Tensor = output.last_hidden_state
    return tokens[:, 0]


def _image_tower(model: nn.Module) -> nn.Module:
    """Return the part of a model of images and texts that takes images."""
    tower = getattr(model, "vision_model", None)
    return tower if isinstance(tower, nn.Module) else model


def _task(config: Any, name: str) -> str:
    """Return the end of the name of transformers' Auto class: of classification, segmentation, or the bare model."""
    tasks = "ForImageClassification", "ForSemanticSegmentation"
    for architecture in config.architectures or ():
        return next((task for task in tasks if architecture.endswith(task)), "")
    if all(str(label).startswith("LABEL_") for label in config.id2label.values()) and config.num_labels == 2:
        return ""  # transformers' default: no labels
    raise ModelError(
        f"config.json of hf:{name} has {config.num_labels} labels and no architectures, so it may describe a "
        f'classifier or a segmentation model; add "architectures": ["…{tasks[0]}"] or ["…{tasks[1]}"] to it.'
    )


def _settings(name: str, config: Any, task: str) -> Settings:
    inner = getattr(config, "vision_config", config)
    image_size = getattr(inner, "image_size", None)
    side = image_size if isinstance(image_size, int) else max(image_size) if image_size else 224
    channels = int(getattr(inner, "num_channels", 3))
    labels = tuple(str(config.id2label[i]) for i in sorted(config.id2label)) if task else None
    if labels and all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        labels = None
    found = _processor(name)
    if found is None:
        origin = f"the ImageNet standard, because hf:{name} has no {_FILES[0]}"
        warnings.warn(f"The preprocessing of hf:{name} is {origin}.", stacklevel=5)
        mean, std = ((0.5,), (0.5,)) if channels == 1 else (Settings.mean, Settings.std)
        return Settings(origin, (side, side), mean, std, labels=labels, classes=bool(task))
    file, given = found
    size, crop = _size(given, side)
    # pixels * factor - offset, then (… - mean) / std: folded into mean and std of images in [0, 1].
    factor = 255 * float(given.get("rescale_factor", 1 / 255)) if given.get("do_rescale", True) else 255.0
    offset = 1.0 if given.get("rescale_offset") else 0.0
    normalised = given.get("do_normalize", True)
    mean = numbers(given.get("image_mean") or Settings.mean if normalised else 0.0, channels)
    std = numbers(given.get("image_std") or Settings.std if normalised else 1.0, channels)
    return Settings(
        file,
        size,
        tuple((offset + m) / factor for m in mean),
        tuple(s / factor for s in std),
        interpolation_of(given.get("resample", 2)),
        crop,
        labels,
        bool(task),
    )


def _size(given: Mapping[str, Any], side: int) -> tuple[tuple[int, int], float]:
    """Return (height, width) and the fraction of the shorter side that is kept, of a processor's configuration."""
    size = given.get("size") or side
    size = {"shortest_edge": size} if isinstance(size, int) else size
    shorter = size.get("shortest_edge", size.get("height", side))
    if given.get("do_center_crop") and given.get("crop_size"):
        cut = given["crop_size"]
        height, width = (cut, cut) if isinstance(cut, int) else (cut["height"], cut["width"])
        return (height, width), min(1.0, height / shorter)
    height, width = size.get("height", shorter), size.get("width", shorter)
    return (height, width), float(given.get("crop_pct") or 1.0)


def _processor(name: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return name and content of the file with the preprocessing of images; None if there is none."""
    hub = require("transformers.utils", purpose=f"hf:{name}", extra="hf")
    for file in _FILES:
        path = hub.cached_file(
            name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )
        if path is not None:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return file, content.get("image_processor", content)
    return None
