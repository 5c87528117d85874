"""Jacobian-vector products by double backward, and the error for missing gradients."""

from collections.abc import Iterator
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
