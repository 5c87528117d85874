"""Replace what one layer hands on, for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .capture import hook_values
from .eager import eager
from .layer_value import Tensors
from .models import ForwardFunc, LayerError, find_layer, layer_name


@contextmanager
def patch(
    model: ForwardFunc, layer: nn.Module | str, edit: Callable[[Any], Any], *, at_input: bool = False
) -> Iterator[None]:
    """Hand on ``edit(value)`` instead of the layer's output (or input) while the block runs.

    Args:
        model: the module, or any function around it, that the block will call.
        layer: a module or dotted name.
        edit: takes the layer's float tensor (a tuple where there are several) and returns its replacement; everything
            else that the layer returns is passed on unchanged.
        at_input: edit what enters the layer instead of what leaves it.

    Raises:
        LayerError: the layer is unknown, scripted, without a float tensor, never runs, or runs more than once in one
            forward pass on one device.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with patch(model, "1", torch.zeros_like):
        ...     y = model(torch.ones(4, 2))
        >>> y.abs().sum()
        tensor(0.)
    """
    module = find_layer(model, layer)
    runs: dict[Any, int] = {}

    def name() -> str:
        return layer_name(model, module)

    def once(_module: nn.Module, tensors: Tensors) -> Tensors:
        device = tensors[0].device
        runs[device] = runs.get(device, 0) + 1
        if runs[device] > 1:
            raise LayerError(
                f"layer {name()} runs more than once in a forward pass, so one edit cannot tell "
                "its calls apart; hook the module around it, or give each call a module of its own."
            )
        new = edit(tensors if len(tensors) > 1 else tensors[0])
        return new if isinstance(new, tuple) else (new,)

    handle = hook_values(module, once, at_input, name)
    try:
        with eager():
            yield
    finally:
        handle.remove()
    if not runs:
        raise LayerError(
            f"layer {name()} never ran in the forward pass; choose a layer that this model calls for these inputs."
        )
