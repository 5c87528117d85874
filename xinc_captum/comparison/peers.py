"""Grad-CAM of two other libraries, with the model restored after each call."""

from typing import Any

import torch
from torch import Tensor, nn

from .._optional import require
from ..attributions.token_grid import lay_out_for
from ..hooks import ForwardFunc, find_layer, image_size
from .methods import Explain, FunctionModule, LayerAxis, Preprocess, after, check_axis


def pytorch_grad_cam(
    model: ForwardFunc,
    layer: nn.Module | str,
    preprocess: Preprocess | None = None,
    *,
    unit_axis: int | None = None,
) -> Explain:
    """Return GradCAM of pytorch-grad-cam (package ``grad-cam``, extra ``peers``) as a function: (N, H, W) in [0, 1].

    The library computes gradients of all parameters and does not restore ``.grad``, hooks and training mode; this
    function does. It needs parameters that require gradients, so a frozen model is unfrozen during the call.

    Args:
        model: the classifier, or any function around it.
        layer: a convolutional module or its dotted name.
        preprocess: function from images in [0, 1] to the model's inputs.
        unit_axis: axis of the channels in the layer's activation; None determines it.

    Raises:
        LayerError: the layer is not in the model.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/jacobgil/pytorch-grad-cam.
    """
    module = find_layer(model, layer)
    axis = LayerAxis(model, module, preprocess, unit_axis)
    classify = FunctionModule(after(axis.preprocess, model))
    cams = require("pytorch_grad_cam", purpose="the method 'grad-cam'", extra="peers")
    targets = require("pytorch_grad_cam.utils.model_targets", purpose="the method 'grad-cam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        frozen = [p for p in classify.parameters() if p.is_leaf and p.is_floating_point() and not p.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            outputs = [targets.ClassifierOutputTarget(index) for index in _class_indices(target, images)]

            def channels_second(value: Tensor) -> Tensor:
                return value.movedim(axis.of(tuple(value.shape)), 1)

            with (
                axis.observe(images),
                cams.GradCAM(model=classify, target_layers=[module], reshape_transform=channels_second) as cam,
            ):
                return torch.from_numpy(cam(input_tensor=images, targets=outputs))
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
    """Return GradCAM of torch-cam (package ``torchcam``, extra ``peers``) as a function: (N, 1, h, w) in [0, 1].

    Args:
        model: the classifier, or any function around it.
        layer: a convolutional module or its dotted name.
        preprocess: function from images in [0, 1] to the model's inputs.
        unit_axis: axis of the channels in the layer's activation; None determines it.

    Raises:
        LayerError: the layer is not in the model.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/frgfm/torch-cam.
    """
    module = find_layer(model, layer)
    axis = LayerAxis(model, module, preprocess, unit_axis)
    classify = FunctionModule(after(axis.preprocess, model))
    cams = require("torchcam.methods", purpose="the method 'torchcam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        with axis.observe(images), cams.GradCAM(classify, target_layer=module) as cam:
            output = classify(images.requires_grad_(True))
            check_axis(axis.last_axis, "torchcam")
            (maps,) = cam(_class_indices(target, images), output)
        coarse: Tensor = maps.detach()[:, None]
        return coarse

    return explain


def is_cam(method: Any) -> bool:
    """Return whether a method is an object of pytorch-grad-cam, such as ``GradCAM(model, [model.layer4])``."""
    return hasattr(method, "target_layers") and hasattr(method, "activations_and_grads")


def cam_object(cam: Any, model: ForwardFunc, preprocess: Preprocess | None = None) -> Explain:
    """Return an existing CAM object of pytorch-grad-cam as a function: (N, 1, h, w).

    Args:
        cam: the object, of any of its methods; its hooks are not removed.
        model: the classifier; a CAM object that was made with it gets preprocessed inputs.
        preprocess: function from images in [0, 1] to the model's inputs.

    Source: github.com/jacobgil/pytorch-grad-cam.
    """
    targets = require("pytorch_grad_cam.utils.model_targets", purpose="a CAM of pytorch-grad-cam", extra="peers")
    transform = preprocess if cam.model is model else None

    def explain(images: Tensor, target: Any) -> Tensor:
        outputs = [targets.ClassifierOutputTarget(index) for index in _class_indices(target, images)]
        inputs = transform(images) if transform else images
        with lay_out_for(image_size(inputs.shape)):  # for reshape_transform=xinc_captum.layer_to_grid
            maps = cam(input_tensor=inputs, targets=outputs)
        return torch.from_numpy(maps)[:, None]

    return explain


def _class_indices(target: Any, images: Tensor) -> list[int]:
    """Return one class index per image."""
    return [int(index) for index in torch.as_tensor(target).flatten().expand(len(images)).tolist()]
