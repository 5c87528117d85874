"""From what a method answers to one map an image, and which of these maps say nothing."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._compat import LayerAttribution

CONSTANT, NOT_FINITE = "constant", "not finite"


def as_maps(answer: Any, given: Tensor, size: tuple[int, int]) -> Tensor:
    """One map an image, of the photos' size: (N, H, W) in float32.

    Input-shaped answers (N, C, H, W) become Σ|.| over channels. Layer-shaped ones (N, 1, h, w) lose what is negative
    and are enlarged bilinearly (align_corners=False). Finished maps (N, H, W) stay as they are. A grey image's
    (N, 1, H, W) is input-shaped.

    Args:
        answer: what the method answered, a tensor or an array.
        given: (N, C, H, W), the inputs that the method got.
        size: (H, W) of the photos, which differs from that of ``given`` where the preprocessing resizes.

    Raises:
        TypeError: the answer is no tensor.
        ValueError: it has another shape.

    Example:
        >>> as_maps(torch.tensor([[[[2.0, -1.0]]]]), torch.rand(1, 3, 2, 4), (2, 4))
        tensor([[[2.0000, 1.5000, 0.5000, 0.0000],
                 [2.0000, 1.5000, 0.5000, 0.0000]]])
    """
    if isinstance(answer, np.ndarray):
        answer = torch.from_numpy(answer)
    if not isinstance(answer, Tensor):
        raise TypeError(f"the method answered a {type(answer).__name__}; wanted one tensor, one map for each image.")
    values, rows = answer.detach().float(), len(given)
    if values.shape == given.shape:
        maps = values.abs().sum(1)
    elif values.dim() == 4 and values.shape[:2] == (rows, 1):
        maps = values.relu()[:, 0]
    elif values.dim() == 3 and values.shape in {(rows, *size), (rows, *given.shape[2:])}:
        maps = values
    else:
        raise ValueError(
            f"the method answered shape {tuple(values.shape)} for inputs of shape {tuple(given.shape)}; wanted maps "
            f"(N, H, W), input-shaped (N, C, H, W) or layer-shaped (N, 1, h, w). Tokens need a grid first "
            "(xinc_captum.layer_to_grid), and a layer's units a sum: "
            "lambda images, target: method.attribute(images, target=target).sum(1, keepdim=True)."
        )
    if maps.shape[1:] != size:
        maps = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return maps


def maps_of(method: Any, answer: Any, given: Tensor, size: tuple[int, int]) -> Tensor:
    """:func:`as_maps` where the method is known: a layer's map stays one where it is as large as a grey image.

    Args:
        method: whose answer it is.
        answer: as in :func:`as_maps`, like the two others.
        given: as there.
        size: as there.
    """
    alike = isinstance(answer, Tensor) and answer.shape == (len(given), 1, *given.shape[2:])
    if alike and isinstance(method, LayerAttribution):
        answer = answer.relu()[:, 0]
    return as_maps(answer, given, size)


def faults(maps: Tensor) -> list[str]:
    """What keeps each map from saying anything, "constant" or "not finite"; "" for a good one.

    A map counts as constant when it varies by less than a millionth of its largest magnitude, as in
    :func:`xinc_captum.metrics.spearman`.

    Example:
        >>> faults(torch.tensor([[[1.0, 1.0]], [[1.0, 2.0]]]))
        ['constant', '']
    """
    flat = maps.detach().flatten(1)
    finite = flat.isfinite().all(1).tolist()
    flatness = (flat.amax(1) - flat.amin(1) <= 1e-6 * flat.abs().amax(1)).tolist()
    return [NOT_FINITE if not good else CONSTANT if flat else "" for good, flat in zip(finite, flatness, strict=True)]
