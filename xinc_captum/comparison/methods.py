"""Methods and baselines.

Each sees images in [0, 1] and differentiates through ``preprocess``, so that its map belongs to the photo itself.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import GuidedBackprop, GuidedGradCam, IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn

from ..batch import Batch, one_score_a_row, select_output
from ..hooks import ForwardFunc, LayerError, capture, find_layer, layer_name, modules_behind, one_tensor, unit_axis


class LayerAxis:
    """The axis of the channels at one layer, and the places of its map.

    Args:
        model: the classifier, or any function around it.
        layer: a module of it.
        preprocess: what turns images in [0, 1] into the model's inputs.
        asked: the caller's ``unit_axis=``; None determines it.
    """

    def __init__(
        self, model: ForwardFunc, layer: nn.Module, preprocess: Callable[[Tensor], Tensor] | None, asked: int | None
    ) -> None:
        self.model, self.layer, self.asked, self._preprocess = model, layer, asked, preprocess
        self._shape: tuple[int, ...] = ()
        self._entered: tuple[int, ...] = ()

    @property
    def preprocess(self) -> Callable[[Tensor], Tensor] | None:
        """The preprocessing, which also notes the shape that it leaves."""
        if self._preprocess is None:
            return None
        preprocess = self._preprocess

        def noting(images: Tensor) -> Tensor:
            entering = preprocess(images)
            self._entered = tuple(entering.shape)
            return entering

        return noting

    @contextmanager
    def watching(self, images: Tensor) -> Iterator[None]:
        """Note the shape of the layer's activation inside the block."""
        if self._preprocess is None:
            self._entered = tuple(images.shape)

        def note(_m: nn.Module, _a: Any, output: Any) -> None:
            self._shape = tuple(output.shape) if isinstance(output, Tensor) else ()

        handle = self.layer.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def of(self, shape: tuple[int, ...]) -> int:
        """The axis of an activation of this shape.

        Raises:
            LayerError: it cannot be determined.
        """
        if len(shape) != 4:  # tokens and vectors are refused where maps are made of the answer
            return 1
        return unit_axis(shape, self.layer, self.model, entered=self._entered, requested=self.asked)

    @property
    def seen(self) -> int:
        """The axis in the activation that was noted last."""
        return self.of(self._shape)


def refuse_last(axis: int, name: str) -> None:
    """For methods of other packages that read axis 1 only.

    Raises:
        LayerError: the channels are on another axis.
    """
    if axis != 1:
        raise LayerError(
            f"the method {name!r} takes the channels from axis 1, and the layer has them on axis {axis}; use "
            "'Grad-CAM', or give a layer with maps (N, channels, h, w)."
        )


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
    score = one_score_a_row(select_output(output, Batch.of(images, None, target), None))
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


SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def random_map(seed: int = 0, *, cells: int = 7) -> Explain:
    """A map that knows nothing, the line that others have to beat: (N, 1, cells, cells) in [0, 1).

    As coarse as Grad-CAM, because single noisy pixels fool a classifier faster than any map finds what it looks at.
    Row i depends on the seed and on i alone.

    Example:
        >>> random_map(seed=3)(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 1, 7, 7])
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        generator = torch.Generator().manual_seed(seed)  # drawn on the host: the same map on every device
        rows = [torch.rand(1, cells, cells, generator=generator) for _ in range(len(images))]
        return torch.stack(rows).to(images)

    return explain


def centre_blob(width: float = 0.25) -> Explain:
    """The middle of every picture, where photographers put things: (N, H, W), a Gaussian with a peak of 1.

    Args:
        width: its standard deviation, in sides of the picture.

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
    """How strong the edges of the picture are, whatever the model: (N, H, W), the magnitude of Sobel's gradient.

    Example:
        >>> edge_map()(torch.rand(5, 3, 8, 8), 1).shape
        torch.Size([5, 8, 8])

    Source: Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), sec. 5.
    """

    def explain(images: Tensor, target: Any) -> Tensor:  # noqa: ARG001
        across = torch.tensor(SOBEL, dtype=images.dtype, device=images.device)
        grey = torch.nn.functional.pad(images.mean(1, keepdim=True), [1] * 4, mode="replicate")
        slopes = torch.nn.functional.conv2d(grey, torch.stack([across, across.T])[:, None])
        return slopes.square().sum(1).sqrt()

    return explain
