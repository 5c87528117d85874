"""Grad-CAM as two other libraries make it, each alone with the model and cleared away before it answers."""

from typing import Any

import torch
from torch import Tensor, nn

from .._optional import require
from ..attributions.token_grid import lay_out_for
from ..hooks import ForwardFunc, find_layer, image_size, modules_behind
from .methods import Explain, LayerAxis, Preprocess, after, refuse_last


def pytorch_grad_cam(
    model: ForwardFunc,
    layer: nn.Module | str,
    preprocess: Preprocess | None = None,
    *,
    unit_axis: int | None = None,
) -> Explain:
    """Jacob Gildenblat's GradCAM (package ``grad-cam``, extra ``peers``): finished maps in [0, 1], (N, H, W).

    It differentiates towards every parameter and leaves ``.grad``, hooks and evaluation mode behind; here these are put
    back. A frozen model, which it refuses, is thawed meanwhile.

    Args:
        model: the classifier, or any function around it.
        layer: a convolutional module or its dotted name.
        preprocess: what turns images in [0, 1] into the model's inputs.
        unit_axis: which axis of the layer's activation holds the channels; None determines it.

    Raises:
        LayerError: the layer is not in the model.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/jacobgil/pytorch-grad-cam.
    """
    place = find_layer(model, layer)
    axis = LayerAxis(model, place, preprocess, unit_axis)
    seen = _Module(after(axis.preprocess, model))
    cams = require("pytorch_grad_cam", purpose="the method 'grad-cam'", extra="peers")
    targets = require("pytorch_grad_cam.utils.model_targets", purpose="the method 'grad-cam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        frozen = [p for p in seen.parameters() if p.is_leaf and p.is_floating_point() and not p.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            expected = [targets.ClassifierOutputTarget(int(one)) for one in _one_each(target, images)]

            def channels_second(value: Tensor) -> Tensor:
                return value.movedim(axis.of(tuple(value.shape)), 1)

            with (
                axis.watching(images),
                cams.GradCAM(model=seen, target_layers=[place], reshape_transform=channels_second) as cam,
            ):
                return torch.from_numpy(cam(input_tensor=images, targets=expected))
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    return explain


def torchcam_grad_cam(
    model: ForwardFunc,
    layer: nn.Module | str,
    preprocess: Preprocess | None = None,
    *,
    unit_axis: int | None = None,
) -> Explain:
    """François-Guillaume Fernandez's GradCAM (package ``torchcam``, extra ``peers``): in [0, 1], (N, 1, h, w).

    Args:
        model: the classifier, or any function around it.
        layer: a convolutional module or its dotted name.
        preprocess: what turns images in [0, 1] into the model's inputs.
        unit_axis: which axis of the layer's activation holds the channels; None determines it.

    Raises:
        LayerError: the layer is not in the model.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/frgfm/torch-cam.
    """
    place = find_layer(model, layer)
    axis = LayerAxis(model, place, preprocess, unit_axis)
    seen = _Module(after(axis.preprocess, model))
    cams = require("torchcam.methods", purpose="the method 'torchcam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        with axis.watching(images), cams.GradCAM(seen, target_layer=place) as cam:
            answer = seen(images.requires_grad_(True))
            refuse_last(axis.seen, "torchcam")
            (maps,) = cam([int(one) for one in _one_each(target, images)], answer)
        coarse: Tensor = maps.detach()[:, None]
        return coarse

    return explain


def is_cam(method: Any) -> bool:
    """Whether it is an object of pytorch-grad-cam, such as ``GradCAM(model, [model.layer4])``."""
    return hasattr(method, "target_layers") and hasattr(method, "activations_and_grads")


def own_cam(cam: Any, model: ForwardFunc, preprocess: Preprocess | None = None) -> Explain:
    """An object of pytorch-grad-cam that somebody made, any of its methods: (N, 1, h, w).

    Args:
        cam: the object; its hooks stay where they are.
        model: the classifier; if the object was made with it, it gets preprocessed inputs.
        preprocess: what turns images in [0, 1] into the model's inputs.

    Source: github.com/jacobgil/pytorch-grad-cam.
    """
    targets = require("pytorch_grad_cam.utils.model_targets", purpose="a CAM of pytorch-grad-cam", extra="peers")
    early = preprocess if cam.model is model else None

    def explain(images: Tensor, target: Any) -> Tensor:
        expected = [targets.ClassifierOutputTarget(int(one)) for one in _one_each(target, images)]
        given = early(images) if early else images
        with lay_out_for(image_size(given.shape)):  # for reshape_transform=xinc_captum.layer_to_grid
            found = cam(input_tensor=given, targets=expected)
        return torch.from_numpy(found)[:, None]

    return explain


class _Module(nn.Module):
    """A function as a module, because both libraries want one."""

    def __init__(self, function: ForwardFunc) -> None:
        super().__init__()
        self.roots = nn.ModuleList(modules_behind(function))
        object.__setattr__(self, "function", function)

    def forward(self, images: Tensor) -> Any:
        function: ForwardFunc = self.__dict__["function"]
        return function(images)


def _one_each(target: Any, images: Tensor) -> list[int]:
    return torch.as_tensor(target).flatten().expand(len(images)).tolist()
