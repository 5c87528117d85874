"""Split what a layer returns into the float tensors that can be explained and everything else, which stays as it is."""

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from .models import LayerError

Tensors = tuple[Tensor, ...]


def floats_of(value: Any, module: nn.Module, name: Callable[[], str]) -> tuple[Tensors, Callable[[Tensors], Any]]:
    """Return the float tensors of a layer's output, and the function that puts replacements in their places.

    The output is a tensor, or a tuple, list, dict or dataclass that holds float tensors directly. Everything else in
    it (None, integer or boolean masks, nested states) is passed on unchanged.

    Args:
        value: the output.
        module: the layer.
        name: returns the layer's name, for messages.

    Raises:
        LayerError: no float tensor is found at the top level, or the layer is an LSTM.

    Example:
        >>> found, rebuild = floats_of((torch.ones(2), None), torch.nn.Identity(), lambda: "'0'")
        >>> len(found), rebuild((torch.zeros(2),))
        (1, (tensor([0., 0.]), None))
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return (value,), lambda new: new[0]
        raise _refused(value, name())
    items = _items(value)
    places = [key for key, item in items.items() if isinstance(item, Tensor) and item.is_floating_point()]
    if not places:
        raise _refused(value, name())
    if isinstance(module, nn.LSTM):  # its states repeat values of its output: one without the other is half the layer
        raise LayerError(
            f"layer {name()} is an LSTM, which returns its last states next to its output, so a contribution of the "
            "output alone would be incomplete; choose the layer that uses the output, or explain what enters the LSTM "
            "(attribute_to_layer_input=True)."
        )
    return tuple(items[key] for key in places), lambda new: _rebuilt(value, dict(zip(places, new, strict=True)))


def _items(value: Any) -> dict[Any, Any]:
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if isinstance(value, Mapping):
        return dict(value) if isinstance(value, MutableMapping) else {}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {}


def _rebuilt(value: Any, new: dict[Any, Tensor]) -> Any:
    """A container of the same kind with some items replaced; the layer's own container is not written into."""
    if isinstance(value, tuple):
        items = [new.get(i, item) for i, item in enumerate(value)]
        if hasattr(value, "_make"):  # a namedtuple takes its items one by one, other tuples take one iterable
            return value._make(items)
        return type(value)(items)
    changed = copy.copy(value)
    for key, tensor in new.items():
        if isinstance(value, list | Mapping):
            changed[key] = tensor
        else:
            object.__setattr__(changed, key, tensor)  # also where the dataclass is frozen
    return changed


def _refused(value: Any, name: str) -> LayerError:
    items = list(_items(value).values()) if not isinstance(value, Tensor) else [value]
    kinds = ", ".join(str(t.dtype) if isinstance(t, Tensor) else type(t).__name__ for t in items)
    nested = any(isinstance(item, tuple | list | Mapping) for item in items)
    seen = f"({kinds})" if items or isinstance(value, tuple) else type(value).__name__
    why = ", and tensors inside a nested container are not explained" if nested else ""
    return LayerError(
        f"layer {name} returns {seen}; wanted a floating-point tensor, or a tuple, list, dict or dataclass that holds "
        f"one directly{why}. Explain what enters the layer (attribute_to_layer_input=True), or choose a module inside "
        "it or the module that uses its output."
    )


def float_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: Callable[[], str]
) -> tuple[Tensors, Callable[[Tensors], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Return the float tensors among a layer's arguments, and the function that puts replacements in their places.

    Raises:
        LayerError: none of the arguments is a float tensor.
    """
    values = (*args, *kwargs.values())
    where = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.is_floating_point()]
    if not where:
        kinds = ", ".join(str(t.dtype) if isinstance(t, Tensor) else type(t).__name__ for t in values)
        raise LayerError(
            f"layer {name()} takes ({kinds}); wanted a floating-point tensor among its arguments. Explain what leaves "
            "the layer instead (attribute_to_layer_input=False), or choose the module before it."
        )

    def rebuild(new: Tensors) -> tuple[tuple[Any, ...], dict[str, Any]]:
        filled = list(values)
        for i, value in zip(where, new, strict=True):
            filled[i] = value
        return tuple(filled[: len(args)]), dict(zip(kwargs, filled[len(args) :], strict=True))

    return tuple(values[i] for i in where), rebuild


def one_tensor(value: Any, name: Callable[[], str], rows: int | None = None, *, at_input: bool = False) -> Tensor:
    """Return what a layer returned (or took) as one tensor with one entry for each sample.

    Args:
        value: the layer's tensor, or a tuple of its float tensors, as :func:`xinc_captum.capture` has it.
        name: returns the layer's name, for messages.
        rows: how many samples went in; None does not check.
        at_input: whether the value is what entered the layer.

    Raises:
        LayerError: several tensors, or a first axis that is not the samples.
    """
    if isinstance(value, tuple):
        raise LayerError(
            f"layer {name()} {'takes' if at_input else 'returns'} {len(value)} floating-point tensors; wanted one "
            "(rows, units, ...). Choose a module inside it, or one around it, with a single tensor."
        )
    tensor: Tensor = value
    if rows is not None and (tensor.dim() == 0 or tensor.shape[0] != rows):
        raise LayerError(
            f"layer {name()} {'takes' if at_input else 'returns'} shape {tuple(tensor.shape)} for {rows} input rows; "
            "wanted rows first, one per input row. Choose a layer before rows are folded or moved, or after they are "
            "back."
        )
    return tensor
