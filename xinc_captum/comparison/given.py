"""What compare() is given, looked at before anything slow."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..hooks import ForwardFunc, cropped_to, guarded
from ..metrics import energy_in_mask
from ..zoo import Classifier
from .methods import Preprocess


def check_photos(inputs: Tensor) -> None:
    """Floats in [0, 1], rows first.

    Raises:
        ValueError: they are not.
    """
    if inputs.dim() != 4 or not inputs.is_floating_point() or not len(inputs):
        raise ValueError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; wanted photos as floats, (N, C, H, W)."
        )
    low, high = (float(end) for end in inputs.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"inputs go from {low:.3g} to {high:.3g}; wanted photos in [0, 1]. Give what normalises them as preprocess."
        )


def checked_masks(segmentation: Any, inputs: Tensor) -> Tensor | None:
    """Masks of the photos as a tensor; those that show nothing are said in a warning.

    Args:
        segmentation: (N, H, W), a tensor or array, or None.
        inputs: (N, C, H, W).

    Raises:
        ValueError: another shape, or values out of [0, 1].
    """
    if segmentation is None:
        return None
    masks = segmentation if isinstance(segmentation, Tensor) else torch.as_tensor(np.asarray(segmentation))
    if masks.shape != (len(inputs), *inputs.shape[2:]):
        raise ValueError(
            f"segmentation has shape {tuple(masks.shape)}; wanted one mask for each photo, "
            f"{(len(inputs), *inputs.shape[2:])}."
        )
    energy_in_mask(torch.ones(masks.shape), masks.cpu())  # finds wrong values
    if empty := [i for i, mask in enumerate(masks) if not bool((mask > 0).any())]:
        warnings.warn(
            f"segmentation shows nothing in image {', '.join(map(str, empty))} of {len(masks)}: pointing game and "
            "energy in mask are means over the others.",
            stacklevel=3,
        )
    return masks


def check_preprocess(model: ForwardFunc, preprocess: Preprocess | None, inputs: Tensor) -> None:
    """Nothing is normalised twice or cropped, and preprocessing takes tensors.

    Args:
        model: the classifier.
        preprocess: what turns photos into its inputs, or None.
        inputs: (N, C, H, W).

    Raises:
        TypeError: it does not take a tensor of photos.
        ValueError: the model has its own, or whole borders of a photo do not reach it.
    """
    if preprocess is None:
        return
    if isinstance(model, Classifier):
        raise ValueError(
            f"preprocess is given, and {model.name} is a Classifier, which preprocesses itself; give its .model with "
            "preprocess, or the Classifier alone."
        )
    with guarded(model), torch.inference_mode(False), torch.enable_grad():
        try:
            crop = cropped_to(preprocess, inputs)
        except Exception as error:
            raise TypeError(
                f"preprocess failed on a tensor of photos {tuple(inputs[:1].shape)}: {type(error).__name__}: {error}. "
                "It gets float tensors (N, C, H, W) in [0, 1]; leave out what opens or converts pictures, such as "
                "ToTensor."
            ) from error
    if crop is not None:
        (top, bottom), (left, right) = crop
        height, width = inputs.shape[2:]
        raise ValueError(
            f"preprocess looks at rows {top} to {bottom} and columns {left} to {right} of photos of {width} x {height} "
            "pixels, so that maps of what it leaves would be stretched over the whole. Crop the photos "
            "first (xinc_captum.images.centre_crop), and let preprocess normalise or resize."
        )
