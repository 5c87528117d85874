"""Convert the output of attribution methods to maps, and to the explain function of Quantus."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._compat import LayerAttribution
from ..hooks import modules_behind, unwrap

CONSTANT, NOT_FINITE = "constant", "not finite"


def as_maps(attribution: Any, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return one map per image, of the photos' size: (N, H, W) in float32.

    Input-shaped attributions (N, C, H, W) become Σ|.| over channels; (N, 1, H, W) of a grey image is input-shaped.
    Layer-shaped ones (N, 1, h, w) are clamped at 0 and resized bilinearly (align_corners=False). Maps (N, H, W) are not
    changed.

    Args:
        attribution: output of the method, a tensor or an array.
        inputs: (N, C, H, W), inputs of the method.
        size: (H, W) of the photos, which differs from that of ``inputs`` where the preprocessing resizes.

    Raises:
        TypeError: the attribution is not a tensor.
        ValueError: it has another shape.

    Example:
        >>> as_maps(torch.tensor([[[[2.0, -1.0]]]]), torch.rand(1, 3, 2, 4), (2, 4))
        tensor([[[2.0000, 1.5000, 0.5000, 0.0000],
                 [2.0000, 1.5000, 0.5000, 0.0000]]])
    """
    if isinstance(attribution, np.ndarray):
        attribution = torch.from_numpy(attribution)
    if not isinstance(attribution, Tensor):
        raise TypeError(
            f"the method returned a {type(attribution).__name__}; expected one tensor with a map for each image."
        )
    values, count = attribution.detach().float(), len(inputs)
    if values.shape == inputs.shape:
        maps = values.abs().sum(1)
    elif values.dim() == 4 and values.shape[:2] == (count, 1):
        maps = values.relu()[:, 0]
    elif values.dim() == 3 and values.shape in {(count, *size), (count, *inputs.shape[2:])}:
        maps = values
    else:
        raise ValueError(
            f"the method returned shape {tuple(values.shape)} for inputs of shape {tuple(inputs.shape)}; expected maps "
            "(N, H, W), input-shaped (N, C, H, W) or layer-shaped (N, 1, h, w). Arrange tokens in a grid first "
            "(xinc_captum.layer_to_grid), and sum over the units of a layer: "
            "lambda images, target: method.attribute(images, target=target).sum(1, keepdim=True)."
        )
    if maps.shape[1:] != size:
        maps = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return maps


def maps_of(method: Any, attribution: Any, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return :func:`as_maps`, but clamp the map of a layer also where it is as large as a grey image.

    Args:
        method: the method that made the attribution.
        attribution: as in :func:`as_maps`.
        inputs: as in :func:`as_maps`.
        size: as in :func:`as_maps`.
    """
    same_shape = isinstance(attribution, Tensor) and attribution.shape == (len(inputs), 1, *inputs.shape[2:])
    if same_shape and isinstance(method, LayerAttribution):
        attribution = attribution.relu()[:, 0]
    return as_maps(attribution, inputs, size)


def faults(maps: Tensor) -> list[str]:
    """Return why each map ranks no pixels, "constant" or "not finite"; "" for a valid map.

    A map is constant if it varies by less than a millionth of its largest magnitude, as in
    :func:`xinc_captum.metrics.spearman`.

    Example:
        >>> faults(torch.tensor([[[1.0, 1.0]], [[1.0, 2.0]]]))
        ['constant', '']
    """
    flat = maps.detach().flatten(1)
    finite = flat.isfinite().all(1).tolist()
    constant = (flat.amax(1) - flat.amin(1) <= 1e-6 * flat.abs().amax(1)).tolist()
    return [NOT_FINITE if not ok else CONSTANT if equal else "" for ok, equal in zip(finite, constant, strict=True)]


QuantusExplain = Callable[..., NDArray[Any]]


def quantus_explain_func(method: Any, **arguments: Any) -> QuantusExplain:
    """Return a method as the ``explain_func`` of Quantus' metrics: (model, inputs, targets) -> maps, all arrays.

    Input-shaped attributions are summed over channels with their signs, as Quantus does for Captum; layer-shaped ones
    (N, 1, h, w) are resized to the inputs. The function returns (N, 1, H, W).

    Args:
        method: a function from a model to an attribution, such as ``lambda model: LayerGradCam(model, model.layer4)``;
            or an attribution, which explains only the model that it was made with. Metrics that randomise a model
            (MPRT, SmoothMPRT) pass copies of it, so they need a function.
        **arguments: keyword arguments for ``attribute``. A ``target`` replaces that of Quantus; with
            ``neuron_selector`` no target is passed.

    Raises:
        ValueError: Quantus passes another model than the one that the attribution was made with.

    Example:
        >>> from captum.attr import Saliency
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> quantus_explain_func(Saliency)(model, np.ones((5, 3, 2, 2)), np.zeros(5)).shape
        (5, 1, 2, 2)

    Source: Hedström et al., "Quantus" (JMLR 2023).
    """

    def explain(model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any], **_: Any) -> NDArray[Any]:
        reference = next(model.parameters(), torch.zeros(()))
        batch = torch.as_tensor(np.asarray(inputs)).to(reference)
        keywords = dict(arguments)
        if not {"neuron_selector", "target"} & keywords.keys():
            keywords["target"] = torch.as_tensor(np.asarray(targets)).long().to(batch.device)
        attribution = _attribution_for(method, model)
        values = attribution.attribute(batch, **keywords).detach()
        if values.shape == batch.shape and not isinstance(attribution, LayerAttribution):
            values = values.sum(1, keepdim=True)
        else:
            values = maps_of(attribution, values, batch, (batch.shape[-2], batch.shape[-1]))[:, None]
        maps: NDArray[Any] = values.float().cpu().numpy()
        return maps

    return explain


def _attribution_for(method: Any, model: nn.Module) -> Any:
    """Return the attribution that explains this model."""
    if isinstance(method, type) or not hasattr(method, "attribute"):
        return method(model)
    modules = modules_behind(method.forward_func)
    if modules and not any(unwrap(model) is root for root in modules):
        raise ValueError(
            f"Quantus passes another {type(model).__name__} than the one that this {type(method).__name__} was made "
            "with, as metrics do that randomise weights. Pass a function from a model to a method: "
            "quantus_explain_func(lambda model: ...)."
        )
    return method
