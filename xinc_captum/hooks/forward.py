"""Forward derivatives without forward mode: the transpose of the backward pass, which is linear."""

from typing import Any

import torch
from torch import Tensor


class UnsupportedError(RuntimeError):
    """The tail's backward pass cannot itself be differentiated."""


class Forward:
    r"""v ↦ J v for as many v as wanted, after one forward and one backward pass.

    .. math:: J v = \partial \langle J^T w, v \rangle / \partial w

    Symbols: J the derivative of the output by the activation, w a placeholder for what comes back from the output.
    The model itself runs once, so in-place edits, views and its own switching of gradients are as they always are;
    only the recorded linear pass is repeated, vmapped over the v.

    Args:
        activation: a leaf.
        output: in its graph, (rows, *left).

    Raises:
        UnsupportedError: an operation whose backward pass is not differentiable or cannot be vmapped, or a custom
            autograd Function, whose backward pass may pretend to be differentiable.
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
        """(k, *activation) → (k, *output)."""
        try:
            (pushed,) = torch.autograd.grad(
                self._back, self._w, parts, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise UnsupportedError(str(error)) from error
        return pushed.detach()


def _custom(output: Tensor) -> bool:
    """Whether a Python autograd Function lies in the output's graph."""
    todo: list[Any] = [output.grad_fn]
    seen = set[Any]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
    return False
