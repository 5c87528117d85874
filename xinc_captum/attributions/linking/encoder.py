"""Images → representation and scores."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...batch import (
    Batch,
    OutputFn,
    chunks,
    select_output,
)
from ...hooks import (
    ForwardFunc,
    capture,
    check_preprocess,
    find_layer,
    layer_name,
    modules_behind,
    one_tensor,
    protect,
    unit_axis,
)

Pool = Literal["auto", "mean", "flatten", "cls"]


def pooled(activation: Tensor, pool: Pool = "auto", unit_axis: int | None = None) -> Tensor:
    """One row of units a picture, of a layer's vectors, maps or tokens.

    Args:
        activation: (n, units), maps (n, C, H, W) or (n, C, D, H, W), or tokens (n, T, C).
        pool: ``"mean"`` over places or tokens, ``"flatten"``, ``"cls"`` (the first token), or ``"auto"``: vectors as
            they are, maps by mean, tokens by the first.
        unit_axis: which axis holds the units; None is the last of three axes, (n, T, C), and axis 1 otherwise.

    Returns:
        (n, units), differentiable.

    Raises:
        ValueError: an unknown ``pool``, ``"cls"`` of what has no tokens, or no axis of units.

    Example:
        >>> from torch import ones
        >>> [tuple(pooled(ones(2, 3, 4, 4), pool).shape) for pool in ("auto", "flatten")]
        [(2, 3), (2, 48)]
    """
    if pool not in ("auto", "mean", "flatten", "cls"):
        raise ValueError(f"pool is {pool!r}; expected 'auto', 'mean', 'flatten' or 'cls'.")
    if activation.dim() < 2:
        raise ValueError(f"the layer's activation has shape {tuple(activation.shape)}; expected (n, units, …).")
    axis = (2 if activation.dim() == 3 else 1) if unit_axis is None else unit_axis % activation.dim()
    tokens = activation.dim() == 3 and axis == 2
    if pool == "cls" and not tokens:
        raise ValueError(
            f"pool='cls' takes the first of some tokens, but the layer has shape {tuple(activation.shape)}, not "
            "(n, tokens, C)."
        )
    if activation.dim() == 2 or pool == "flatten":
        return activation.flatten(1)
    if tokens:
        return activation.mean(1) if pool == "mean" else activation[:, 0]
    return activation.movedim(axis, 1).flatten(2).mean(2)


def pooling_axis(
    activation: Tensor,
    layer: nn.Module,
    forward_func: ForwardFunc,
    pool: Pool,
    *,
    entered: Sequence[int],
    asked: int | None,
    at_input: bool,
) -> int | None:
    """The axis of a layer's activation that holds the units, for :func:`pool_cells`; None where pooling needs none.

    Raises:
        LayerError: it cannot be determined.
    """
    if activation.dim() <= 2 or (pool == "flatten" and asked is None):
        return None
    return unit_axis(
        activation.shape, layer, forward_func, entered=entered, requested=asked, at_input=at_input, loose=True
    )


Preprocess = Callable[[Tensor], Tensor]
_UNSTEADY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class Encoded(NamedTuple):
    """What a classifier makes of pictures.

    Attributes:
        representations: (n, units).
        logits: (n, classes), the model's output.
    """

    representations: Tensor
    logits: Tensor


class Encoder:
    r"""Reads a representation out of a classifier that is left as it was found.

    .. math:: r = \mathrm{pool}(h_l(\mathrm{preprocess}(x)))

    Args:
        forward_func: the model, or any function around it.
        layer: a module or a dotted name.
        attribute_to_neuron_input: what *enters* the layer (the penultimate representation, where ``layer`` is the last
            linear one) instead of what leaves it.
        device_ids: devices of a DataParallel model when ``forward_func`` is not the DataParallel object itself.
        preprocess: the model's own normalisation, a differentiable function of pictures in [0, 1].
        pool: how maps and tokens become a row, see :func:`pool_cells`.
        output_fn: picks the scores out of a dict or tuple output.
        unit_axis: which axis of a layer with maps or tokens holds the units; None determines it, from the layer's
            class, the pictures' height and width, and the modules in and around the layer.

    Raises:
        LayerError: the layer is not in the model; later, it never runs, runs twice, returns several tensors or other
            rows than one a picture, or which axis holds its units cannot be determined.
        ValueError: later, pictures of another shape, or scores that are not (n, classes).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.Linear(5, 3))
        >>> encode = Encoder(model, "2")
        >>> encode(torch.rand(4, 3, 2, 2)).shape, encode.read(torch.rand(4, 3, 2, 2)).logits.shape
        (torch.Size([4, 5]), torch.Size([4, 3]))
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        *,
        attribute_to_neuron_input: bool = True,
        device_ids: list[int] | None = None,
        preprocess: Preprocess | None = None,
        pool: Pool = "auto",
        output_fn: OutputFn | None = None,
        unit_axis: int | None = None,
    ) -> None:
        check_preprocess(forward_func, preprocess)
        self.forward_func, self.layer = forward_func, find_layer(forward_func, layer)
        self.name = layer_name(forward_func, self.layer).strip("'")
        self.attribute_to_neuron_input, self.device_ids = attribute_to_neuron_input, device_ids
        self.preprocess, self.pool, self.output_fn, self.unit_axis = preprocess, pool, output_fn, unit_axis

    def __call__(self, pictures: Tensor, *, batch_size: int = 64) -> Tensor:
        """Representations of pictures, (n, units)."""
        return self.read(pictures, batch_size=batch_size).representations

    def read(self, pictures: Tensor, *, batch_size: int = 64) -> Encoded:
        """Representations and scores of pictures, (n, C, H, W) in [0, 1].

        Differentiable where the pictures want gradients and gradients are on; they then go through in one batch, and
        it is for the caller to protect the model (:func:`xinc_captum.untouched`) until the gradients are there.
        """
        if pictures.dim() != 4 or not pictures.is_floating_point() or not len(pictures):
            raise ValueError(
                f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; expected floats (n, C, H, W), n >= 1."
            )
        with self._reading(pictures) as graph:
            size = len(pictures) if graph else batch_size
            parts = [self._part(pictures[a:b], graph) for a, b in chunks(len(pictures), size)]
        return Encoded(*(torch.cat(same) if len(same) > 1 else same[0] for same in zip(*parts, strict=True)))

    def describe(self) -> dict[str, str | bool | int]:
        """What a manifest should say of it."""
        shown = self.preprocess
        text = "none" if shown is None else getattr(shown, "__qualname__", None) or repr(shown)
        axis: dict[str, int] = {} if self.unit_axis is None else {"unit_axis": self.unit_axis}
        return {
            "layer": self.name,
            "attribute_to_neuron_input": self.attribute_to_neuron_input,
            "pool": self.pool,
            "preprocess": text,
            **axis,
        }

    @contextlib.contextmanager
    def _reading(self, pictures: Tensor) -> Iterator[bool]:
        self._warn_if_training()
        graph = torch.is_grad_enabled() and pictures.requires_grad
        # Putting buffers back would spoil the graph that batch norms saved them for; whoever wants gradients protects
        # the model around the whole of it.
        protected = contextlib.nullcontext() if graph else protect(self.forward_func, self.layer)
        with protected, torch.set_grad_enabled(graph):
            yield graph

    def _part(self, pictures: Tensor, graph: bool) -> Encoded:
        device = self._device()
        shown = pictures.clone() if device is None else pictures.to(device, copy=True)  # the model may write into it
        shown = shown if self.preprocess is None else self.preprocess(shown)
        with capture(self.forward_func, self.layer, at_input=self.attribute_to_neuron_input) as captured:
            output = self.forward_func(shown)
        logits = select_output(output, Batch((shown,), rows=len(shown)), self.output_fn)
        if logits.dim() != 2:
            raise ValueError(
                f"the model's output has shape {tuple(logits.shape)}; expected scores (n, classes). Pick them with "
                "output_fn=."
            )
        at_input = self.attribute_to_neuron_input
        activation = one_tensor(captured[self.layer], lambda: repr(self.name), len(shown), at_input=at_input)
        axis = pooling_axis(
            activation,
            self.layer,
            self.forward_func,
            self.pool,
            entered=tuple(shown.shape),
            asked=self.unit_axis,
            at_input=at_input,
        )
        found = Encoded(pooled(activation, self.pool, axis), logits)
        return found if graph else Encoded(*(t.detach() for t in found))

    def _device(self) -> torch.device | None:
        return next((p.device for root in modules_behind(self.forward_func) for p in root.parameters()), None)

    def _warn_if_training(self) -> None:
        for root in modules_behind(self.forward_func):
            if any(m.training and isinstance(m, _UNSTEADY) for m in root.modules()):
                warnings.warn(
                    f"{type(root).__name__} is in training mode, so that what it makes of a picture depends on chance "
                    "or on the pictures beside it; call model.eval() first if that is not meant.",
                    stacklevel=5,
                )
