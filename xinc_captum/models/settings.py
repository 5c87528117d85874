"""What a source states about a model besides its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..image_model import IMAGENET_MEAN, IMAGENET_STD
from .weights import State


@dataclass(frozen=True)
class Settings:
    """Preprocessing, input size and labels of a model.

    ``size`` is (height, width), ``crop`` is the fraction of a photo's shorter side, ``labels`` is None where the source
    has none, and ``classes`` is whether the outputs are classes rather than features.
    """

    origin: str  # where these values were found, as text
    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop: float = 1.0
    labels: tuple[str, ...] | None = None
    classes: bool = True


@dataclass(frozen=True)
class Source:
    """A model of a library: how to build it, what it states about itself, and where its weights are.

    ``build(pretrained, classes)`` returns the network; ``classes`` is None for the source's own number.
    """

    build: Callable[[bool, int | None], nn.Module]
    settings: Callable[[nn.Module], Settings]
    place: str
    tower: Callable[[nn.Module], nn.Module] = lambda model: model  # the part that takes images
    convert: Callable[[State, nn.Module], State] = lambda state, _model: state  # from other formats of the weights
    output_fn: Callable[[nn.Module, Any], Callable[[Any], Tensor] | None] = lambda _model, _output: None


def interpolation_of(name: str) -> str:
    """Return the filter of torch that is nearest to one of a source, by its name or Pillow's number."""
    return "bilinear" if str(name) in {"bilinear", "2", "nearest", "0", "box", "4"} else "bicubic"


def numbers(values: Sequence[float] | float, channels: int = 3) -> tuple[float, ...]:
    """Return one float per channel."""
    return (float(values),) * channels if isinstance(values, int | float) else tuple(float(v) for v in values)
