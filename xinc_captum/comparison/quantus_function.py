"""Our methods, and Captum's, inside Quantus."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .._compat import LayerAttribution
from ..hooks import modules_behind, unwrap
from .maps import maps_of

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
