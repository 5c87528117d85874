"""As_maps, Quantus adapter."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._compat import LayerAttribution
from ..hooks import modules_behind, unwrap

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
        raise TypeError(f"the method answered a {type(answer).__name__}; expected one tensor, one map for each image.")
    values, rows = answer.detach().float(), len(given)
    if values.shape == given.shape:
        maps = values.abs().sum(1)
    elif values.dim() == 4 and values.shape[:2] == (rows, 1):
        maps = values.relu()[:, 0]
    elif values.dim() == 3 and values.shape in {(rows, *size), (rows, *given.shape[2:])}:
        maps = values
    else:
        raise ValueError(
            f"the method answered shape {tuple(values.shape)} for inputs of shape {tuple(given.shape)}; expected maps "
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


Explainer = Callable[..., NDArray[Any]]


def quantus_explain_func(method: Any, **arguments: Any) -> Explainer:
    """A method as the ``explain_func`` of Quantus' metrics: (model, inputs, targets) -> maps, arrays all.

    Input-shaped answers are summed over channels, signs included, as Quantus does with Captum's own; coarse ones
    (N, 1, h, w) are enlarged to the inputs' size. Both come out as (N, 1, H, W).

    Args:
        method: a function from a model to an attribution, such as ``lambda model: LayerGradCam(model, model.layer4)``;
            or an attribution, which answers for the model it was made with and refuses any other, since metrics that
            randomise a model (MPRT, SmoothMPRT) hand over copies of it.
        **arguments: for ``attribute``; a ``target`` among them takes the place of Quantus' own, and with
            ``neuron_selector`` none is given.

    Raises:
        ValueError: Quantus hands another model to an attribution that was made with its own.

    Example:
        >>> from captum.attr import Saliency
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> quantus_explain_func(Saliency)(model, np.ones((5, 3, 2, 2)), np.zeros(5)).shape
        (5, 1, 2, 2)

    Source: Hedström et al., "Quantus" (JMLR 2023).
    """

    def explain(model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any], **_: Any) -> NDArray[Any]:
        like = next(model.parameters(), torch.zeros(()))
        rows = torch.as_tensor(np.asarray(inputs)).to(like)
        given = dict(arguments)
        if not {"neuron_selector", "target"} & given.keys():
            given["target"] = torch.as_tensor(np.asarray(targets)).long().to(rows.device)
        explained = _for(method, model)
        answer = explained.attribute(rows, **given).detach()
        if answer.shape == rows.shape and not isinstance(explained, LayerAttribution):
            answer = answer.sum(1, keepdim=True)
        else:
            answer = maps_of(explained, answer, rows, (rows.shape[-2], rows.shape[-1]))[:, None]
        found: NDArray[Any] = answer.float().cpu().numpy()
        return found

    return explain


def _for(method: Any, model: nn.Module) -> Any:
    """The attribution that explains this model."""
    if isinstance(method, type) or not hasattr(method, "attribute"):
        return method(model)
    own = modules_behind(method.forward_func)
    if own and not any(unwrap(model) is root for root in own):
        raise ValueError(
            f"Quantus asks about another {type(model).__name__} than the one that this {type(method).__name__} was "
            "made with, as metrics do that randomise weights; give a function from a model to a method: "
            "quantus_explain_func(lambda model: ...)."
        )
    return method
