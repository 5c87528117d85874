"""Models that normalise their images themselves."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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


Span = tuple[int, int]


def cropped_to(preprocess: Callable[[Tensor], Any], images: Tensor) -> tuple[Span, Span] | None:
    """The first and last row, and the first and last column, that a cropping ``preprocess`` uses; None without a crop.

    None, too, where the result has no gradient to the images, so that this cannot be found out. One image is run.

    Args:
        preprocess: from images in [0, 1] to a model's inputs.
        images: (N, C, H, W), for shape, dtype and device.

    Example:
        >>> cropped_to(lambda x: x[..., 4:-4, :], torch.rand(1, 3, 20, 10))
        ((4, 15), (0, 9))
    """
    drawn = torch.Generator().manual_seed(0)
    probe = (0.25 + torch.rand(images[:1].shape, generator=drawn) / 2).to(images.device, images.dtype).requires_grad_()
    seen = preprocess(probe.clone())
    if not isinstance(seen, Tensor) or seen.dim() != 4 or seen.grad_fn is None:
        return None
    weights = torch.rand(seen.shape, generator=drawn).to(seen)
    # Zeros where preprocessing with weights of its own cuts the photo off from the graph.
    (slope,) = torch.autograd.grad((seen * weights).sum(), probe, allow_unused=True, materialize_grads=True)
    used = slope[0].ne(0).any(0)
    spans = [_span(used.any(1 - axis), used.shape[axis] / seen.shape[2 + axis]) for axis in (0, 1)]
    if not any(spans):
        return None
    rows, columns = (span or (0, side - 1) for span, side in zip(spans, used.shape, strict=True))
    return rows, columns


def warn_of_crop(preprocess: Callable[[Tensor], Any] | None, images: Tensor) -> None:
    """Warn where ``preprocess`` leaves edges of the images out."""
    if preprocess is None:
        return
    try:
        crop = cropped_to(preprocess, images)
    except Exception:  # the first pass of the model raises the error that says what fails
        return
    if crop is not None:
        (top, bottom), (left, right) = crop
        height, width = images.shape[-2:]
        warnings.warn(
            f"preprocess looks at rows {top} to {bottom} and columns {left} to {right} of images of {width} x {height} "
            "pixels only. The images and masks are right; maps of what preprocess leaves (a Grad-CAM beside them) "
            "have to be placed there. Crop the images first (xinc_captum.images.centre_crop) to compare.",
            stacklevel=6,
        )


def _span(used: Tensor, scale: float) -> Span | None:
    """The first and the last place that is used, where the margins are wider than what a coarser grid skips."""
    places = used.nonzero().flatten().tolist()
    if not places:
        return None
    first, last = places[0], places[-1]
    return (first, last) if max(first, len(used) - 1 - last) > max(2.0, 1.5 * scale) else None
