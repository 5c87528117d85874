"""Attribution methods, also of other libraries, and model-independent baselines as functions of images and targets.

The methods get images in [0, 1] and differentiate through ``preprocess``, so that their maps belong to the images.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from captum.attr import GuidedGradCam, IntegratedGradients, LayerGradCam
from torch import Tensor, nn

from .._optional import require
from ..attributions.token_grid import TokenLayout, lay_out_for, token_layout
from ..batch import random_generator
from ..hooks import (
    ForwardFunc,
    LayerError,
    find_layer,
    has_places,
    image_size,
    layer_name,
    modules_behind,
    patch,
    unit_axis,
)
from ..hooks.layout import refuse_windows, tensor_of

Explain = Callable[[Tensor, Any], Any]  # images and targets to an attribution
Preprocess = Callable[[Tensor], Tensor]
Layer = nn.Module | str


class LayerGrid:
    """A layer of a classifier of images in [0, 1], whose maps (N, channels, h, w) pass through the module ``grid``.

    Libraries of attribution methods hook ``grid`` instead of the layer, while ``classify`` runs the model. Maps with
    their channels on the last axis, and tokens, enter it as maps, and return to the model in their own layout.
    """

    def __init__(self, model: ForwardFunc, layer: Layer, preprocess: Preprocess | None, axis: int | None) -> None:
        self.model, self.layer, self.axis = model, find_layer(model, layer), axis
        self.grid = nn.Identity()
        self.classify = after(preprocess, self._run)

    def _run(self, inputs: Tensor) -> Any:
        with patch(self.model, self.layer, partial(self._replace, tuple(inputs.shape))):
            return self.model(inputs)

    def _replace(self, input_shape: tuple[int, ...], value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        rows = len(parts[0]) if isinstance(self.model, nn.DataParallel) else input_shape[0]
        tensor = tensor_of(value, self.layer, self.model, rows)
        new = through_grid(tensor, self.grid, self.layer, self.model, input_shape, self.axis)
        return tuple(new if part is tensor else part for part in parts)


def through_grid(
    value: Tensor,
    grid: Callable[[Tensor], Tensor],
    layer: nn.Module,
    forward_func: ForwardFunc,
    input_shape: Sequence[int],
    axis: int | None,
) -> Tensor:
    """Return an activation whose map (rows, channels, h, w) is replaced by ``grid`` of it; others pass as they are.

    ``axis`` is the caller's ``unit_axis=``. The tokens of a vision transformer are laid out by :func:`token_layout`.

    Raises:
        LayerError: the layout of tokens is unknown, the positions are no map, or the axis cannot be determined.
    """
    shape = tuple(value.shape)
    if len(shape) == 3:
        layout = "" if axis == 1 else token_layout(shape, layer, forward_func, input_shape)
        if isinstance(layout, TokenLayout):
            return layout.replace(value, grid(layout.grid(value)))
        raise LayerError(
            f"layer {layer_name(forward_func, layer)} returns shape {shape}; expected maps (rows, channels, h, w), or "
            f"tokens of a vision transformer. {layout or 'No patches of an image are known'}. Choose another layer."
        )
    if len(shape) != 4:
        return grid(value)
    if axis is None:
        refuse_windows(value, layer, forward_func, len(value))
    at = unit_axis(shape, layer, forward_func, entered=input_shape, requested=axis)
    if axis is None and not has_places(shape, at, layer, forward_func, input_shape):
        raise LayerError(
            f"layer {layer_name(forward_func, layer)} returns shape {shape}, and its positions "
            f"{' x '.join(str(side) for i, side in enumerate(shape) if i not in (0, at))} are not a map of the input. "
            "Choose another layer, or give unit_axis=1 or unit_axis=-1 where they are a map."
        )
    return grid(value.movedim(at, 1)).movedim(1, at).clone()  # the model may change it in place


def grad_cam(
    model: ForwardFunc, layer: Layer, preprocess: Preprocess | None = None, *, unit_axis: int | None = None
) -> Explain:
    """Return Captum's LayerGradCam with ReLU as a function: maps (N, 1, h, w) at the resolution of the layer.

    Layers with maps (N, h, w, channels), and tokens of vision transformers, are laid out as maps; class and register
    tokens are left out. The tokens after the last attention of a model that classifies by its class token have no
    gradient: choose the last block's first norm, as :func:`~xinc_captum.comparison.last_map` does.

    Args:
        model: the classifier, or any function around it.
        layer: a module whose output is a map or tokens, or its dotted name, usually the last one.
        preprocess: function from images in [0, 1] to the model's inputs.
        unit_axis: axis of the channels in the layer's activation; None determines it.

    Raises:
        LayerError: the layer is not in the model; when called, the layout of its activation cannot be determined.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> grad_cam(model, "0")(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 1, 6, 6])

    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017).
    """
    at = LayerGrid(model, layer, preprocess, unit_axis)

    def explain(images: Tensor, target: Any) -> Any:
        return LayerGradCam(at.classify, at.grid).attribute(images, target=target, relu_attributions=True)

    return explain


def guided_grad_cam(
    model: ForwardFunc, layer: Layer, preprocess: Preprocess | None = None, *, unit_axis: int | None = None
) -> Explain:
    """Return Captum's GuidedGradCam, Grad-CAM times guided backpropagation, as a function: (N, C, H, W).

    Captum changes the gradient of ``torch.nn.ReLU`` modules only, in-place ones included. ReLU6, GELU, SiLU and
    ``torch.relu`` keep the plain gradient; a warning names such modules. For the arguments see :func:`grad_cam`.

    Raises:
        LayerError: as :func:`grad_cam`.
        TypeError: the model has no module that can be found.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> guided_grad_cam(model, "0")(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 3, 8, 8])

    Source: Springenberg et al., "Striving for Simplicity" (2015); Selvaraju et al., "Grad-CAM" (ICCV 2017).
    """
    at = LayerGrid(model, layer, preprocess, unit_axis)
    classify = FunctionModule(at.classify, at)
    if not len(classify.roots):
        raise TypeError(
            f"model is {model!r}, in which no torch.nn.Module can be found; guided Grad-CAM needs its ReLU modules. "
            "Pass the module."
        )
    _warn_of_other_activations(classify)

    def explain(images: Tensor, target: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU|Input Tensor 0 did not already")
            return GuidedGradCam(classify, at.grid).attribute(images, target=target, interpolate_mode="bilinear")

    return explain


def _warn_of_other_activations(classify: "FunctionModule") -> None:
    rectifiers = (nn.ReLU6, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Hardswish, nn.Mish)
    kinds = sorted({type(module).__name__ for module in classify.modules() if isinstance(module, rectifiers)})
    if not kinds and any(isinstance(module, nn.ReLU) for module in classify.modules()):
        return
    what = f"{', '.join(kinds)} modules" if kinds else "no torch.nn.ReLU module"
    warnings.warn(
        f"{', '.join(type(root).__name__ for root in classify.roots)} has {what}: Captum's GuidedBackprop changes "
        "torch.nn.ReLU modules only, so this map is closer to Grad-CAM times the plain gradient.",
        stacklevel=3,
    )


def integrated_gradients(
    model: ForwardFunc,
    preprocess: Preprocess | None = None,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 32,
    batch_size: int = 32,
) -> Explain:
    """Return Captum's IntegratedGradients from a uniform image, by default black, as a function: (N, C, H, W).

    Args:
        model: the classifier, or any function around it.
        preprocess: function from images in [0, 1] to the model's inputs.
        baseline: start of the path, in [0, 1] like the images: a number, or a tensor that Captum accepts.
        steps: number of points on the path.
        batch_size: number of images per forward pass; at least that of the input is used.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> integrated_gradients(model)(torch.rand(5, 3, 2, 2), 1).shape
        torch.Size([5, 3, 2, 2])

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017).
    """
    classify = after(preprocess, model)

    def explain(images: Tensor, target: Any) -> Any:
        return IntegratedGradients(classify).attribute(
            images, baseline, target, n_steps=steps, internal_batch_size=max(batch_size, len(images))
        )

    return explain


class FunctionModule(nn.Module):
    """A function as one module with those behind it as submodules, for libraries that require a module."""

    def __init__(self, function: ForwardFunc, at: LayerGrid) -> None:
        super().__init__()
        self.roots, self.grid = nn.ModuleList(modules_behind(at.model)), at.grid
        object.__setattr__(self, "function", function)  # not a submodule, because the roots are submodules already

    def forward(self, images: Tensor) -> Any:
        """Call the function."""
        return self.__dict__["function"](images)


def after(preprocess: Preprocess | None, model: ForwardFunc) -> ForwardFunc:
    """Return the model as a differentiable function of photos, which it copies, because both may write into them."""

    def classify(images: Tensor) -> Any:
        copy = images.clone()
        return model(copy if preprocess is None else preprocess(copy))

    return classify


def pytorch_grad_cam(
    model: ForwardFunc, layer: Layer, preprocess: Preprocess | None = None, *, unit_axis: int | None = None
) -> Explain:
    """Return GradCAM of pytorch-grad-cam (package ``grad-cam``, extra ``peers``) as a function: (N, H, W) in [0, 1].

    The library computes gradients of all parameters and does not restore ``.grad``, hooks and training mode; this
    function does. It needs parameters that require gradients, so a frozen model is unfrozen during the call. For the
    arguments see :func:`grad_cam`.

    Raises:
        LayerError: the layer is not in the model.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/jacobgil/pytorch-grad-cam.
    """
    at = LayerGrid(model, layer, preprocess, unit_axis)
    classify = FunctionModule(at.classify, at)
    cams = require("pytorch_grad_cam", purpose="the method 'grad-cam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        frozen = [p for p in classify.parameters() if p.is_leaf and p.is_floating_point() and not p.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(True)
            with cams.GradCAM(model=classify, target_layers=[at.grid]) as cam:
                return torch.from_numpy(cam(input_tensor=images, targets=_class_outputs(target, images)))
        finally:
            for parameter in frozen:
                parameter.requires_grad_(False)

    return explain


def torchcam_grad_cam(
    model: ForwardFunc, layer: Layer, preprocess: Preprocess | None = None, *, unit_axis: int | None = None
) -> Explain:
    """Return GradCAM of torch-cam (package ``torchcam``, extra ``peers``) as a function: (N, 1, h, w) in [0, 1].

    For the arguments see :func:`grad_cam`.

    Raises:
        LayerError: as :func:`grad_cam`.
        ModuleNotFoundError: the package is not installed.

    Source: github.com/frgfm/torch-cam.
    """
    at = LayerGrid(model, layer, preprocess, unit_axis)
    classify = FunctionModule(at.classify, at)
    cams = require("torchcam.methods", purpose="the method 'torchcam'", extra="peers")

    def explain(images: Tensor, target: Any) -> Tensor:
        with cams.GradCAM(classify, target_layer=at.grid) as cam:
            output = classify(images.requires_grad_(True))
            (maps,) = cam(_class_indices(target, images), output)
        coarse: Tensor = maps.detach()[:, None]
        return coarse

    return explain


def is_cam(method: Any) -> bool:
    """Return whether a method is an object of pytorch-grad-cam, such as ``GradCAM(model, [model.layer4])``."""
    return hasattr(method, "target_layers") and hasattr(method, "activations_and_grads")


def cam_object(cam: Any, model: ForwardFunc, preprocess: Preprocess | None = None) -> Explain:
    """Return an object of any method of pytorch-grad-cam as a function: (N, 1, h, w); its hooks are not removed.

    An object that was made with ``model`` gets preprocessed inputs.
    """
    transform = preprocess if cam.model is model else None

    def explain(images: Tensor, target: Any) -> Tensor:
        inputs = transform(images) if transform else images
        with lay_out_for(image_size(inputs.shape)):  # for reshape_transform=xinc_captum.layer_to_grid
            maps = cam(input_tensor=inputs, targets=_class_outputs(target, images))
        return torch.from_numpy(maps)[:, None]

    return explain


def _class_indices(target: Any, images: Tensor) -> list[int]:
    """Return one class index per image."""
    return [int(index) for index in torch.as_tensor(target).flatten().expand(len(images)).tolist()]


def _class_outputs(target: Any, images: Tensor) -> list[Any]:
    """Return the class of each image as a target of pytorch-grad-cam."""
    targets = require("pytorch_grad_cam.utils.model_targets", purpose="a CAM of pytorch-grad-cam", extra="peers")
    return [targets.ClassifierOutputTarget(index) for index in _class_indices(target, images)]


SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def random_map(seed: int = 0, *, cells: int = 7) -> Explain:
    """Return random maps, a control, as a function: (N, 1, cells, cells) in [0, 1).

    The maps are as coarse as Grad-CAM, because removing single pixels at random lowers a prediction faster than the
    order of any map. Map i depends only on the seed and on i.

    Example:
        >>> random_map(seed=3)(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 1, 7, 7])
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        generator = random_generator(seed)  # on the CPU: the same map on every device
        maps = [torch.rand(1, cells, cells, generator=generator) for _ in range(len(images))]
        return torch.stack(maps).to(images)

    return explain


def centre_blob(width: float = 0.25) -> Explain:
    """Return a Gaussian at the image centre, where objects usually are, as a function: (N, H, W), with peak 1.

    ``width`` is its standard deviation, as a share of the side of the image.

    Example:
        >>> centre_blob()(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 8, 8])
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        down, across = (
            torch.exp(-(((torch.arange(n, device=images.device) + 0.5) / n - 0.5) ** 2) / (2 * width**2))
            for n in images.shape[-2:]
        )
        return (down[:, None] * across).to(images.dtype).expand(len(images), -1, -1)

    return explain


def edge_map() -> Explain:
    """Return the edges of the image, the magnitude of its Sobel gradient, as a function: (N, H, W).

    Example:
        >>> edge_map()(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 8, 8])

    Source: Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), sec. 5.
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        across = torch.tensor(SOBEL, dtype=images.dtype, device=images.device)
        grey = torch.nn.functional.pad(images.mean(1, keepdim=True), [1] * 4, mode="replicate")
        gradients = torch.nn.functional.conv2d(grey, torch.stack([across, across.T])[:, None])
        return gradients.square().sum(1).sqrt()

    return explain
