"""Captum's own methods as functions of (images, target).

Each sees images in [0, 1] and differentiates through ``preprocess``, so that its map belongs to the photo itself.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import GuidedBackprop, GuidedGradCam, IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn

from ..batch import Batch
from ..hooks import ForwardFunc, capture, find_layer, layer_name, modules_behind, one_tensor
from ..targets import one_score_a_row, selected
from .layer_axis import LayerAxis

Explain = Callable[[Tensor, Any], Any]
Preprocess = Callable[[Tensor], Tensor]


def grad_cam(
    model: ForwardFunc,
    layer: nn.Module | str,
    preprocess: Preprocess | None = None,
    *,
    unit_axis: int | None = None,
) -> Explain:
    """Captum's LayerGradCam with its ReLU: (N, 1, h, w), as coarse as the layer.

    Of a layer with maps (N, h, w, channels) it is the same formula along that layer's own axes.

    Args:
        model: the classifier, or any function around it.
        layer: a convolutional module or its dotted name, most often the last one.
        preprocess: what turns images in [0, 1] into the model's inputs.
        unit_axis: which axis of the layer's activation holds the channels; None determines it.

    Raises:
        LayerError: the layer is not in the model; later, which axis holds its channels cannot be determined.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> grad_cam(model, "0")(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 1, 6, 6])

    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017).
    """
    place = find_layer(model, layer)
    axis = LayerAxis(model, place, preprocess, unit_axis)
    seen = after(axis.preprocess, model)

    def explain(images: Tensor, target: Any) -> Any:
        with axis.watching(images):
            answer = LayerGradCam(seen, place).attribute(images, target=target, relu_attributions=True)
        return answer if axis.seen == 1 else _cam(seen, place, axis.seen, images, target)

    return explain


def _cam(seen: ForwardFunc, place: nn.Module, axis: int, images: Tensor, target: Any) -> Tensor:
    """Grad-CAM of a layer whose channels are on another axis than 1: (N, 1, h, w)."""
    with capture(seen, place) as captured:
        output = seen(images)
    activation = one_tensor(captured[place], lambda: layer_name(seen, place), len(images))
    score = one_score_a_row(selected(output, Batch.of(images, None, target), None))
    (slope,) = torch.autograd.grad(score.sum(), activation)
    maps, slopes = activation.detach().movedim(axis, 1), slope.movedim(axis, 1)
    return (maps * slopes.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()


def guided_grad_cam(
    model: ForwardFunc,
    layer: nn.Module | str,
    preprocess: Preprocess | None = None,
    *,
    unit_axis: int | None = None,
) -> Explain:
    """Captum's GuidedGradCam, Grad-CAM times guided backpropagation: (N, C, H, W).

    Captum guides ``torch.nn.ReLU`` modules, in-place ones too, and nothing else: through ReLU6, GELU, SiLU or
    ``torch.relu`` the plain gradient passes, which is said in a warning where such modules can be seen.

    Args:
        model: the classifier, or a function around it behind which its modules can be seen.
        layer: a convolutional module or its dotted name, most often the last one.
        preprocess: what turns images in [0, 1] into the model's inputs.
        unit_axis: as in :func:`grad_cam`.

    Raises:
        LayerError: as :func:`grad_cam`.
        TypeError: no module is visible behind the model.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> guided_grad_cam(model, "0")(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 3, 8, 8])

    Source: Springenberg et al., "Striving for Simplicity" (2015); Selvaraju et al., "Grad-CAM" (ICCV 2017).
    """
    place = find_layer(model, layer)
    axis = LayerAxis(model, place, preprocess, unit_axis)
    seen = _Whole(after(axis.preprocess, model))
    if not len(seen.roots):
        raise TypeError(
            f"no torch.nn.Module is visible behind {model!r}; guided Grad-CAM has to find its ReLUs: give the module."
        )
    _warn_of_unguided(seen)

    def explain(images: Tensor, target: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU|Input Tensor 0 did not already")
            with axis.watching(images):
                answer = GuidedGradCam(seen, place).attribute(images, target=target, interpolate_mode="bilinear")
            if axis.seen == 1:
                return answer
            guided = GuidedBackprop(seen).attribute(images, target=target)
            cam = _cam(seen, place, axis.seen, images, target)
            return guided * LayerAttribution.interpolate(cam, images.shape[2:], interpolate_mode="bilinear")

    return explain


def integrated_gradients(
    model: ForwardFunc,
    preprocess: Preprocess | None = None,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 32,
    rows_at_once: int = 32,
) -> Explain:
    """Captum's IntegratedGradients from a plain image, by default black: (N, C, H, W).

    Args:
        model: the classifier, or any function around it.
        preprocess: what turns images in [0, 1] into the model's inputs.
        baseline: where the path begins, in [0, 1] like the images: a number or a tensor that Captum takes.
        steps: points on the path.
        rows_at_once: images in one forward, at least one for each row.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> integrated_gradients(model)(torch.rand(5, 3, 2, 2), 1).shape
        torch.Size([5, 3, 2, 2])

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017).
    """
    seen = after(preprocess, model)

    def explain(images: Tensor, target: Any) -> Any:
        rows = max(rows_at_once, len(images))
        return IntegratedGradients(seen).attribute(
            images, baselines=baseline, target=target, n_steps=steps, internal_batch_size=rows
        )

    return explain


class _Whole(nn.Module):
    """A function as one module that holds those behind it, because Captum looks for ReLUs inside a module."""

    def __init__(self, function: ForwardFunc) -> None:
        super().__init__()
        self.roots = nn.ModuleList(modules_behind(function))
        object.__setattr__(self, "function", function)  # not a submodule: the roots already are

    def forward(self, images: Tensor) -> Any:
        function: ForwardFunc = self.__dict__["function"]
        return function(images)


def after(preprocess: Preprocess | None, model: ForwardFunc) -> ForwardFunc:
    """The model as a function of photos; gradients reach them through the preprocessing.

    Model and preprocessing get a copy of the photos, since they may write into their input.
    """

    def seen(images: Tensor) -> Any:
        own = images.clone()
        return model(own if preprocess is None else preprocess(own))

    return seen


def _warn_of_unguided(seen: _Whole) -> None:
    rectifiers = (nn.ReLU6, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.Mish)
    kinds = sorted({type(module).__name__ for module in seen.modules() if isinstance(module, rectifiers)})
    if kinds:
        what = f"{', '.join(kinds)} modules"
    elif not any(isinstance(module, nn.ReLU) for module in seen.modules()):
        what = "no torch.nn.ReLU module"
    else:
        return
    warnings.warn(
        f"{', '.join(type(root).__name__ for root in seen.roots)} has {what}: Captum's GuidedBackprop changes "
        "torch.nn.ReLU modules only, so this map is nearer to Grad-CAM times the plain gradient.",
        stacklevel=3,
    )
