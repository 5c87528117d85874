"""Forward derivatives without forward mode: the transpose of the backward pass, which is linear."""

import torch
from torch import Tensor


class UnsupportedError(RuntimeError):
    """The tail's backward pass cannot itself be differentiated."""


class Forward:
    r"""v ↦ J v for as many v as wanted, after one forward and one backward pass.

    .. math:: J v = \partial \langle J^T w, v \rangle / \partial w

    Symbols: J the derivative of the output by the activation, w a placeholder for what comes back from the output.
    The model itself runs once, so in-place edits, views and its own switching of gradients are as they always are;
    only the recorded linear pass is repeated, vmapped over the v, or one by one where vmap cannot.

    Args:
        activation: a leaf.
        output: in its graph, (rows, *left).

    Raises:
        UnsupportedError: an operation whose backward pass is not differentiable.
    """

    def __init__(self, activation: Tensor, output: Tensor) -> None:
        with torch.enable_grad():
            self._w = torch.zeros_like(output, requires_grad=True)
            try:
                (self._back,) = torch.autograd.grad(output, activation, self._w, create_graph=True)
            except RuntimeError as error:
                raise UnsupportedError(str(error)) from error
        if not self._back.requires_grad:
            raise UnsupportedError("the backward pass is not differentiable")
        self._vmaps = True

    def __call__(self, parts: Tensor) -> Tensor:
        """(k, *activation) → (k, *output)."""
        if self._vmaps and len(parts) > 1:
            try:
                return self._pass(parts, True)
            except RuntimeError:  # an operation that cannot be vmapped
                self._vmaps = False
        return torch.stack([self._pass(part, False) for part in parts])

    def _pass(self, parts: Tensor, several: bool) -> Tensor:
        try:
            (pushed,) = torch.autograd.grad(
                self._back, self._w, parts, retain_graph=True, is_grads_batched=several, materialize_grads=True
            )
        except RuntimeError as error:
            raise UnsupportedError(str(error)) from error
        return pushed.detach()
