"""LayerContribution: the contribution of each unit of a layer to one output."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .._compat import GradientAttribution, LayerAttribution
from ..batch import Batch, OutputFn, call_model, chunks, one_score_a_row, select_output, settle_arguments
from ..hooks import (
    ForwardFunc,
    GradientError,
    LayerError,
    capture,
    check_call,
    find_layer,
    layer_name,
    no_gradient,
    patch,
)
from .base import attribution_context, captum_method, differentiable, plain

Layer = nn.Module | str
Attributions = Tensor | tuple[Tensor, ...] | list[Tensor | tuple[Tensor, ...]]


class LayerContribution(LayerAttribution, GradientAttribution):  # type: ignore[misc]
    r"""Activation x gradient of one or several layers, for one output of each row.

    .. math:: c_u = a_u \, \partial y_t / \partial a_u, \qquad
        \text{complex } a_u:\; c_u = \mathrm{Re}(\bar g_u a_u)

    Symbols: a_u an element of the layer's output (or input), y_t the selected output, g_u PyTorch's gradient of y_t by
    a complex a_u, whose contribution is that of its real and its imaginary part together. For real layers, the result
    equals Captum's LayerGradientXActivation; dotted names, dict outputs, compiled models and inference mode are
    supported too.

    Args:
        forward_func: the model, or any function around it.
        layer: a module, a dotted name, or a list of these (then the result is a list).
        device_ids: unused, part of Captum's signature.
        multiply_by_inputs: False returns the gradient ∂y_t/∂a_u alone.
        output_fn: reads the tensor to explain from the model's output; None uses
            :func:`~xinc_captum.batch.output_tensor`, which reads scores of transformers and torchvision models too.
        call: which call of each layer to explain, from 0, if the model calls it several times in one forward pass.

    Raises:
        LayerError: a layer is not in the model, never runs, runs several times without ``call``, or does not lead to
            the output.
        ValueError: a missing or impossible target, an empty batch, or a complex output.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> LayerContribution(model, "1").attribute(torch.rand(5, 2), target=0).shape
        torch.Size([5, 4])

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024): their last-layer map without
    the bias term.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer],
        device_ids: list[int] | None = None,
        *,
        multiply_by_inputs: bool = True,
        output_fn: OutputFn | None = None,
        call: int | None = None,
    ) -> None:
        check_call(call)
        several = not isinstance(layer, nn.Module | str)
        layers: Sequence[Any] = layer if isinstance(layer, Sequence) and several else [layer]
        modules = [find_layer(forward_func, one) for one in layers]
        if not modules:
            raise LayerError("layer is an empty list; give at least one module or dotted name.")
        LayerAttribution.__init__(self, forward_func, modules if several else modules[0], device_ids)
        GradientAttribution.__init__(self, forward_func)
        self._layers, self._several = modules, several
        self._multiply_by_inputs = multiply_by_inputs
        self.output_fn = output_fn
        self.call = call

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether attributions are activation x gradient rather than the gradient."""
        return self._multiply_by_inputs

    def has_convergence_delta(self) -> bool:
        """True: ``attribute(..., return_convergence_delta=True)`` works."""
        return True

    @overload
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[False] = ...,
        grad_kwargs: dict[str, Any] | None = ...,
    ) -> Attributions: ...

    @overload
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        internal_batch_size: int | None = ...,
        *,
        return_convergence_delta: Literal[True],
        grad_kwargs: dict[str, Any] | None = ...,
    ) -> tuple[Attributions, Tensor | list[Tensor]]: ...

    @captum_method
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return contributions shaped like the layer's output, a tensor or tuple of tensors; for several layers a list.

        Args:
            inputs: (rows, ...) or a tuple of such.
            target: a Captum target that selects one number for each row.
            additional_forward_args: additional arguments of the model. A tensor with one entry per sample is sliced
                with the inputs; any other is passed unchanged (:func:`~xinc_captum.batch.settle_arguments` decides).
            attribute_to_layer_input: attribute to the layer's input instead of its output.
            internal_batch_size: maximum number of rows in one forward pass.
            return_convergence_delta: also return Σ_u c_u − (y_t − y_t with the layer set to zero), (rows,), per layer.
            grad_kwargs: keyword arguments for ``torch.autograd.grad``.
        """
        if return_convergence_delta and not self._multiply_by_inputs:
            raise ValueError(
                "return_convergence_delta needs multiply_by_inputs=True: gradients alone do not add up to an output."
            )
        if internal_batch_size is not None and internal_batch_size < 1:
            raise ValueError(f"internal_batch_size is {internal_batch_size}; expected at least 1.")
        call = differentiable(self.forward_func, *self._layers)
        with attribution_context(self.forward_func, *self._layers):
            batch = Batch.of(inputs, additional_forward_args, target)
            pieces = chunks(batch.rows, internal_batch_size or batch.rows)
            if len(pieces) > 1:
                batch = settle_arguments(batch, partial(call_model, call, self.output_fn))
            parts = [
                self._rows(call, batch.cut(*piece), attribute_to_layer_input, grad_kwargs or {}) for piece in pieces
            ]
            if len(pieces) > 1:
                self._check_rows(call, batch, pieces, parts, attribute_to_layer_input)
            result = parts[0] if len(parts) == 1 else tree_map(lambda *rows: torch.cat(rows), *parts)
            if not return_convergence_delta:
                return result if self._several else result[0]
            deltas = [
                self._delta(batch, layer, attributions, attribute_to_layer_input)
                for layer, attributions in zip(self._layers, result, strict=True)
            ]
        return (result, deltas) if self._several else (result[0], deltas[0])

    def _hook_options(self, at_input: bool) -> dict[str, Any]:
        """Return the options of ``capture`` and ``patch``."""
        return {"at_input": at_input, "call": self.call, "complex_values": True}

    def _rows(self, call: ForwardFunc, batch: Batch, at_input: bool, grad_kwargs: dict[str, Any]) -> list[Any]:
        with capture(self.forward_func, self._layers, **self._hook_options(at_input)) as captured:
            output = select_output(batch.through(call), batch, self.output_fn)
        score = one_score_a_row(output)
        if score.is_complex():
            raise ValueError(
                f"the output is {score.dtype}; expected real numbers, of which gradients exist. Choose with "
                "output_fn=, for example output_fn=lambda output: output.real."
            )
        values = [captured.per_device(layer) for layer in self._layers]
        groups = [tensors for replicas in values for tensors in replicas]
        flat = [tensor for tensors in groups for tensor in tensors]
        options = {"allow_unused": max(map(len, groups)) > 1, **grad_kwargs}  # a GRU's last state may be unused
        try:
            gradients = iter(torch.autograd.grad(score, flat, torch.ones_like(score), **options))
        except RuntimeError as error:
            if "does not require grad" not in str(error) and "not have been used" not in str(error):
                raise
            raise self._no_path_error() from error
        results = []
        for replicas in values:
            parts = []
            for tensors in replicas:
                slopes = [next(gradients) for _ in tensors]
                if "allow_unused" not in grad_kwargs and all(slope is None for slope in slopes):
                    raise self._no_path_error()
                parts.append(tuple(map(self._contribution, tensors, slopes)))
            device = parts[0][0].device
            joined = tuple(torch.cat([t.to(device) for t in same]) for same in zip(*parts, strict=True))
            results.append(joined if len(joined) > 1 else joined[0])
        return results

    def _check_rows(
        self, call: ForwardFunc, batch: Batch, pieces: list[tuple[int, int]], parts: list[list[Any]], at_input: bool
    ) -> None:
        """Raise where the first axis of a layer does not hold the samples, such as (steps, rows, ...)."""
        sizes = [stop - start for start, stop in pieces]
        last, other = parts[-1], sizes[-1]
        if other == sizes[0]:  # no piece has another size
            other = 2 if other == 1 else 1
            with torch.no_grad(), capture(self.forward_func, self._layers, **self._hook_options(at_input)) as captured:
                batch.cut(0, other).through(call)
            last = [captured[layer] for layer in self._layers]
        for layer, one, two in zip(self._layers, parts[0], last, strict=True):
            for a, b in zip(tree_leaves(one), tree_leaves(two), strict=True):
                first, second = tuple(a.shape), tuple(b.shape)
                if not first or not second or first[0] * other != second[0] * sizes[0] or first[1:] != second[1:]:
                    raise LayerError(
                        f"layer {layer_name(self.forward_func, layer)} has shape {first} for {sizes[0]} rows and "
                        f"{second} for {other}; expected rows first, so that the pieces of internal_batch_size can be "
                        "joined. Leave internal_batch_size out, or choose a layer with rows first."
                    )

    def _contribution(self, activation: Tensor, gradient: Tensor | None) -> Tensor:
        if gradient is None:  # one of several tensors that the output does not depend on
            gradient = torch.zeros_like(activation)
        if not self._multiply_by_inputs:
            return plain(gradient.resolve_conj())
        contribution = activation.detach() * gradient.conj()
        return plain(contribution.real if contribution.is_complex() else contribution)

    def _no_path_error(self) -> GradientError:
        names = ", ".join(layer_name(self.forward_func, layer) for layer in self._layers)
        return GradientError(
            f"the output does not depend on layer {names} (no gradient flows between them); choose a layer that "
            f"leads to the selected target. If it does, {no_gradient('back from the output', self.forward_func)}"
        )

    def _delta(self, batch: Batch, layer: nn.Module, attributions: Any, at_input: bool) -> Tensor:
        def score() -> Tensor:
            output = batch.through(self.forward_func)
            return one_score_a_row(select_output(output, batch, self.output_fn))

        with torch.no_grad():
            full = score()
            zeros = partial(tree_map, torch.zeros_like)
            with patch(self.forward_func, layer, zeros, **self._hook_options(at_input)):
                without = score()
        total = sum(t.flatten(1).sum(1) if t.dim() > 1 else t for t in tree_leaves(attributions))
        return plain(total - (full - without))
