"""Models that normalise their images themselves."""

from collections.abc import Callable
from typing import Any

from torch import nn


def preprocesses(model: Any) -> bool:
    """Whether a model holds a network and its own ``preprocess``, as :class:`xinc_captum.zoo.Classifier` does."""
    return callable(getattr(model, "preprocess", None)) and isinstance(getattr(model, "model", None), nn.Module)


def check_preprocess(model: Any, preprocess: Callable[..., Any] | None) -> None:
    """Refuse to normalise images twice.

    Raises:
        ValueError: ``preprocess`` is given beside a model that has its own.
    """
    if preprocess is not None and preprocesses(model):
        name = getattr(model, "name", type(model).__name__)
        raise ValueError(
            f"preprocess is given, and {name} preprocesses its images itself, so they would be normalised twice. Give "
            "its .model with preprocess=, or the object alone."
        )
