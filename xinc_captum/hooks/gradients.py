"""Jacobian-vector products, the error for missing gradients, and the crop of a preprocessing by its gradients."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .layers import ForwardFunc, LayerError, modules_behind


class UnsupportedError(RuntimeError):
    """A backward pass that cannot itself be differentiated."""


class JacobianVectorProduct:
    r"""Jacobian-vector products J v for any number of v, after one forward and one backward pass.

    .. math:: J v = \partial \langle J^T w, v \rangle / \partial w

    Symbols: J the derivative of the output by the activation, w a placeholder for the gradient at the output. The model
    itself runs once, so its in-place edits, views and gradient modes work as usual. Only the recorded linear backward
    pass is repeated, vmapped over the v.

    Args:
        activation: a leaf tensor.
        output: a tensor of its graph, (rows, *output_shape).

    Raises:
        UnsupportedError: an operation whose backward pass is not differentiable or cannot be vmapped, or a custom
            autograd Function, whose backward pass may be declared differentiable without being so.
    """

    def __init__(self, activation: Tensor, output: Tensor) -> None:
        if _custom(output):
            raise UnsupportedError("a custom autograd Function")
        with torch.enable_grad():
            self._w = torch.zeros_like(output, requires_grad=True)
            try:
                (self._back,) = torch.autograd.grad(output, activation, self._w, create_graph=True)
            except RuntimeError as error:
                raise UnsupportedError(str(error)) from error
        if not self._back.requires_grad:
            raise UnsupportedError("the backward pass is not differentiable")

    def __call__(self, parts: Tensor) -> Tensor:
        """Return J v for k vectors: (k, *activation) to (k, *output)."""
        try:
            (pushed,) = torch.autograd.grad(
                self._back, self._w, parts, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise UnsupportedError(str(error)) from error
        return pushed.detach()


def _custom(output: Tensor) -> bool:
    """Return whether the output's graph contains a Python autograd Function."""
    todo: list[Any] = [output.grad_fn]
    visited = set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in visited:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        visited.add(node)
        todo += [following for following, _ in node.next_functions]
    return False


# Texts of PyTorch's errors for a graph that does not reach the tensor by which it is differentiated.
_TEXTS = ("does not require grad", "not have been used in the graph", "nference tensor", "InferenceMode")


class GradientError(LayerError):
    """No gradient reaches the images or the layer, because part of the forward pass records none."""


@contextmanager
def gradient_errors(forward_func: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Raise :class:`GradientError` in place of PyTorch's errors about missing gradients.

    Args:
        forward_func: the model, whose quantized modules the error names.
        also: further models of the same explanation.

    Example:
        >>> with gradient_errors(torch.nn.Linear(2, 2)):
        ...     torch.autograd.grad(torch.ones(()), torch.ones(2))
        Traceback (most recent call last):
        xinc_captum.hooks.gradients.GradientError: no gradient flows ...
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        missing = "derivative for" in text and "not implemented" in text
        if not missing and not any(part in text for part in _TEXTS):
            raise
        raise GradientError(no_gradient("from the score to what is explained", forward_func, *also)) from error


def leads_to(value: Tensor, source: Tensor) -> bool:
    """Return whether a gradient of ``value`` reaches ``source``, a tensor that has a ``grad_fn``.

    Example:
        >>> x = torch.ones(2, requires_grad=True) * 2
        >>> leads_to(x.sum(), x), leads_to(x.detach().requires_grad_().sum(), x)
        (True, False)
    """
    waiting, visited = [value.grad_fn], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in visited or "NotImplemented" in node.name():  # operations without a derivative
            continue
        if node is source.grad_fn:
            return True
        visited.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def no_gradient(way: str, forward_func: ForwardFunc, *also: nn.Module) -> str:
    """Return the text of a :class:`GradientError`; ``way`` names the start and the end of the missing gradient."""
    return (
        f"no gradient flows {way}: part of the forward pass records none.{_name_quantized(forward_func, *also)} Remove "
        "torch.no_grad(), torch.inference_mode(), .detach() and NumPy from the forward function (requires_grad_(False) "
        "freezes a backbone and lets gradients pass), and give the float model instead of a quantized one. Maps that "
        'need no gradients: NeuronCanvas(..., rule="ablation").'
    )


def _name_quantized(forward_func: ForwardFunc, *also: nn.Module) -> str:
    """Return a sentence with the name of the first quantized module; empty if there is none."""
    for root in (*modules_behind(forward_func), *also):
        for name, module in root.named_modules():
            if ".quantized" in type(module).__module__:
                return f" Module {name!r} is a quantized {type(module).__name__}."
    return ""


def preprocesses(model: Any) -> bool:
    """Return whether a model has a network and its own ``preprocess``, as :class:`xinc_captum.zoo.Classifier` has."""
    return callable(getattr(model, "preprocess", None)) and isinstance(getattr(model, "model", None), nn.Module)


def check_preprocess(model: Any, preprocess: Callable[..., Any] | None) -> None:
    """Raise an error if images would be normalised twice.

    Raises:
        ValueError: ``preprocess`` is given for a model that has its own.
    """
    if preprocess is not None and preprocesses(model):
        name = getattr(model, "name", type(model).__name__)
        raise ValueError(
            f"preprocess is given, and {name} has its own preprocess, so images would be normalised twice. Give its "
            ".model with preprocess=, or the object alone."
        )


Span = tuple[int, int]


def crop_of(preprocess: Callable[[Tensor], Any], images: Tensor) -> tuple[Span, Span] | None:
    """Return the first and last row, and the first and last column, that a cropping ``preprocess`` uses.

    The result is None without a crop, and if the output has no gradient to the images. One image is processed.

    Args:
        preprocess: from images in [0, 1] to a model's inputs.
        images: (N, C, H, W), for shape, dtype and device.

    Example:
        >>> crop_of(lambda x: x[..., 4:-4, :], torch.rand(1, 3, 20, 10))
        ((4, 15), (0, 9))
    """
    generator = torch.Generator().manual_seed(0)
    probe = (
        (0.25 + torch.rand(images[:1].shape, generator=generator) / 2).to(images.device, images.dtype).requires_grad_()
    )
    output = preprocess(probe.clone())
    if not isinstance(output, Tensor) or output.dim() != 4 or output.grad_fn is None:
        return None
    weights = torch.rand(output.shape, generator=generator).to(output)
    # Zeros if preprocessing has weights and detaches the image from the graph.
    (slope,) = torch.autograd.grad((output * weights).sum(), probe, allow_unused=True, materialize_grads=True)
    used = slope[0].ne(0).any(0)
    spans = [_span(used.any(1 - axis), used.shape[axis] / output.shape[2 + axis]) for axis in (0, 1)]
    if not any(spans):
        return None
    rows, columns = (span or (0, side - 1) for span, side in zip(spans, used.shape, strict=True))
    return rows, columns


def warn_of_crop(preprocess: Callable[[Tensor], Any] | None, images: Tensor) -> None:
    """Warn if ``preprocess`` crops the images."""
    if preprocess is None:
        return
    try:
        crop = crop_of(preprocess, images)
    except Exception:  # the model's first forward pass raises a clearer error
        return
    if crop is not None:
        (first_row, last_row), (first_column, last_column) = crop
        height, width = images.shape[-2:]
        warnings.warn(
            f"preprocess uses only rows {first_row} to {last_row} and columns {first_column} to {last_column} of "
            f"images of {width} x {height} pixels. The images and masks are correct; maps of the cropped input, such "
            "as those of Grad-CAM, cover this part only. Crop the images first (xinc_captum.images.centre_crop) to "
            "compare them.",
            stacklevel=6,
        )


def _span(used: Tensor, scale: float) -> Span | None:
    """Return the first and the last used position, if the margins are wider than what resampling skips."""
    places = used.nonzero().flatten().tolist()
    if not places:
        return None
    first, last = places[0], places[-1]
    return (first, last) if max(first, len(used) - 1 - last) > max(2.0, 1.5 * scale) else None
