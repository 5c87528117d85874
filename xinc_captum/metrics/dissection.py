"""Dissection: what units of a network stand for, and what goes when they do."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..batch import chunks
from ..hooks import ForwardFunc, LayerError, capture, find_layer, guarded, layer_name, one_tensor, patch
from ..hooks import unit_axis as axis_of
from ..indices import python_index
from .concepts import Concepts, concept_overlap


def dissect(
    forward_func: ForwardFunc,
    layer: nn.Module | str,
    inputs: Tensor,
    masks: Tensor,
    *,
    generator: torch.Generator,
    quantile: float = 0.99,
    repeats: int = 20,
    batch_size: int = 32,
    unit_axis: int | None = None,
) -> Concepts:
    """Overlap of each unit of a layer with each concept: :func:`concept_overlap` on what the layer hands on.

    Args:
        forward_func: a classifier called with pictures, or a generator's ``synthesize`` called with latents.
        layer: a module or dotted name; its output is (n, units, h, w), or has its units on another axis.
        inputs: of ``forward_func``, (n, …).
        masks: (n, concepts, H, W), of the pictures that go in (or come out, of a generator).
        generator: of the control's exchanges.
        quantile: above which a unit counts as active.
        repeats: of the control.
        batch_size: inputs at once.
        unit_axis: which axis of the layer's output holds the units; None determines it.

    Returns:
        :class:`Concepts`.

    Raises:
        LayerError: the layer is unknown, returns something else than maps, or its unit axis cannot be determined.
        ValueError: as :func:`concept_overlap`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> model, pictures = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.rand(6, 3, 8, 8, generator=g)
        >>> dissect(model, "0", pictures, pictures[:, :1] > 0.8, generator=g).iou.shape
        torch.Size([4, 1])

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020).
    """
    module = find_layer(forward_func, layer)
    seen = []
    with guarded(forward_func), torch.no_grad():
        for start, stop in chunks(len(inputs), batch_size):
            with capture(forward_func, module) as captured:
                forward_func(inputs[start:stop].clone())
            value = one_tensor(captured[module], partial(layer_name, forward_func, module), stop - start)
            if value.dim() != 4:
                raise LayerError(
                    f"layer {layer_name(forward_func, module)} returns {tuple(value.shape)}; concepts have places, so "
                    "maps (n, units, h, w) are wanted. Choose a convolution before it."
                )
            axis = axis_of(value.shape, module, forward_func, entered=tuple(inputs.shape), asked=unit_axis)
            seen.append(value.detach().movedim(axis, 1))
    return concept_overlap(torch.cat(seen), masks, generator=generator, quantile=quantile, repeats=repeats)


def ablated(
    forward_func: ForwardFunc,
    layer: nn.Module | str,
    inputs: Tensor,
    units: Sequence[int | Sequence[int]],
    score: Callable[[Tensor], Tensor],
    *,
    value: float = 0.0,
    batch_size: int = 64,
    unit_axis: int | None = None,
) -> Tensor:
    r"""By how much a score falls when units are held at a constant: what they cause, not what they go along with.

    .. math:: \delta_{u} = \mathrm{mean}_i\, \bigl(s(f(x_i)) - s(f(x_i;\, a_u := v))\bigr)

    Symbols: f the network, s the score, a the layer's output, v the constant. In a classifier, s may be the classes'
    probabilities; in a generator, the area of each part of the picture.

    Args:
        forward_func: a classifier called with pictures, or a generator's ``synthesize`` called with latents.
        layer: a module or dotted name.
        inputs: of ``forward_func``, (n, …).
        units: each entry is one unit, or several that are held together.
        score: the output of ``forward_func`` to (n, scores).
        value: what they are held at.
        batch_size: inputs at once.
        unit_axis: which axis of the layer's output holds the units; None determines it.

    Returns:
        (entries, scores), float64, on the CPU; nan scores are left out of the mean.

    Raises:
        ValueError: no inputs, no units, one out of range, or a score of another shape.
        LayerError: the layer is unknown, returns no single tensor, or its unit axis cannot be determined.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
        >>> model[0].weight.data = torch.eye(2)
        >>> ablated(model, "1", torch.tensor([[3.0, 5.0]]), [0, [0, 1]], lambda y: y)
        tensor([[3., 0.],
                [3., 5.]], dtype=torch.float64)

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020).
    """
    if not len(inputs) or not len(units):
        raise ValueError(f"got {len(inputs)} inputs and {len(units)} entries of units; wanted at least one of each.")
    groups = [[entry] if isinstance(entry, int) else list(entry) for entry in python_index(list(units))]
    module = find_layer(forward_func, layer)
    total: Tensor | None = None
    count: Tensor | None = None
    with guarded(forward_func), torch.no_grad():
        for start, stop in chunks(len(inputs), batch_size):
            rows = inputs[start:stop]
            before = _scored(score, forward_func(rows.clone()), len(rows))
            fallen = []
            entered = tuple(inputs.shape)
            for group in groups:
                axis = partial(axis_of, layer=module, forward_func=forward_func, entered=entered, asked=unit_axis)
                with patch(forward_func, module, _held(group, value, axis)):
                    after = forward_func(rows.clone())  # the model may write into its input
                fallen.append(before - _scored(score, after, len(rows)))
            change = torch.stack(fallen)
            known = ~change.isnan()
            sums, counts = change.nansum(1), known.sum(1)
            total, count = (sums, counts) if total is None or count is None else (total + sums, count + counts)
    if total is None or count is None:  # there is at least one chunk
        raise ValueError("no inputs.")
    return total / count.where(count > 0, torch.nan)


def _held(group: list[int], value: float, axis_of_shape: Callable[..., int]) -> Callable[[Tensor], Tensor]:
    def edit(activation: Tensor) -> Tensor:
        if not isinstance(activation, Tensor) or activation.dim() < 2:
            raise LayerError("the layer returns no single tensor with an axis of units; choose a module inside it.")
        axis = axis_of_shape(tuple(activation.shape))
        wide = activation.shape[axis]
        if not group or min(group) < 0 or max(group) >= wide:
            raise ValueError(f"units are {group}; wanted some of 0 to {wide - 1}.")
        changed = activation.clone()
        changed.movedim(axis, 1)[:, group] = value
        return changed

    return edit


def _scored(score: Callable[[Tensor], Tensor], output: Tensor, rows: int) -> Tensor:
    found = score(output)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != rows:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"score gave {shape} for {rows} inputs; wanted a tensor ({rows}, scores).")
    return found.double().cpu()
