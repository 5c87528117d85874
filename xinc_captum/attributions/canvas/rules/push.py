"""Parts at the layer pushed to the output, by whichever way a tail allows."""

from contextlib import suppress

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ....batch import Batch
from ....hooks.forward import Forward, UnsupportedError
from .derivative import Along, Run, gradients
from .tail import Tail


class NoForwardError(RuntimeError):
    """The tail has no derivative that runs forward."""


class Push:
    """(k, rows, *activation) ↦ (k, rows, *left) by the derivative of a tail at some rows.

    The backward pass is transposed; where that is not differentiable, rows are expanded and run in forward mode; what
    has no forward mode either is left to one backward pass for every output.

    Args:
        tail: from the layer on.
        batch: the rows.
        along: which derivative.
        ran: these rows' run.
    """

    def __init__(self, tail: Tail, batch: Batch, along: Along, ran: Run) -> None:
        self._tail, self._batch, self._along, self._ran = tail, batch, along, ran
        self._expands = not ran.switches_gradients  # forward mode would walk through, backward passes do not
        self._forward: Forward | None = None
        with suppress(UnsupportedError):
            self._forward = Forward(ran.activation, ran.output)

    def __call__(self, parts: Tensor) -> Tensor:
        """Any tail."""
        try:
            return self.quick(parts)
        except NoForwardError:
            return self._backward(parts)

    def quick(self, parts: Tensor) -> Tensor:
        """Without passes for single outputs.

        Raises:
            NoForwardError: there is no other way.
        """
        if self._forward is not None:
            try:
                return self._forward(parts)
            except UnsupportedError:
                self._forward = None
        if not self._expands:
            raise NoForwardError
        try:
            return self._expanded(parts)
        except NotImplementedError as error:  # an operation without a forward-mode derivative
            self._expands = False
            raise NoForwardError from error

    def _expanded(self, parts: Tensor) -> Tensor:
        """Forward mode over copies of the rows, each with one part as its tangent."""

        def begin(activation: Tensor) -> Tensor:
            return self._along.start(forward_ad.make_dual(activation.detach(), parts.flatten(0, 1)), None)

        with torch.no_grad(), forward_ad.dual_level():
            dual, _ = self._along.finish(self._tail.edited(self._batch.repeat(len(parts)), begin))
            tangent = forward_ad.unpack_dual(dual).tangent
            tangent = torch.zeros_like(dual) if tangent is None else tangent
        return tangent.reshape(*parts.shape[:2], *tangent.shape[1:])

    def _backward(self, parts: Tensor) -> Tensor:
        output = self._ran.output
        flat = output.flatten(1) if output.dim() > 1 else output[:, None]
        answer = parts.new_empty(*parts.shape[:2], flat.shape[1])
        for o, gradient in enumerate(gradients(self._tail, self._ran.activation, flat, keep=True)):
            answer[..., o] = (parts * gradient).flatten(2).sum(2)
        return answer.reshape(*parts.shape[:2], *output.shape[1:])
