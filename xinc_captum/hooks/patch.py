"""Replace what one layer hands on, for the length of a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .capture import hook_values
from .eager import eager
from .models import ForwardFunc, LayerError, find_layer, layer_name


@contextmanager
def patch(
    model: ForwardFunc, layer: nn.Module | str, edit: Callable[[Any], Any], *, at_input: bool = False
) -> Iterator[None]:
    """Hand on ``edit(value)`` instead of the layer's output (or input) while the block runs.

    Args:
        model: the module, or any function around it, that the block will call.
        layer: a module or dotted name.
        edit: takes the layer's tensor (or tuple of tensors) and returns its replacement.
        at_input: edit what enters the layer instead of what leaves it.

    Raises:
        LayerError: the layer is unknown, never runs, or runs more than once in one forward pass on one device.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with patch(model, "1", torch.zeros_like):
        ...     y = model(torch.ones(4, 2))
        >>> y.abs().sum()
        tensor(0.)
    """
    module = find_layer(model, layer)
    runs: dict[Any, int] = {}

    def once(_module: nn.Module, value: Any) -> Any:
        device = getattr(value[0] if isinstance(value, tuple) and value else value, "device", None)
        runs[device] = runs.get(device, 0) + 1
        if runs[device] > 1:
            raise LayerError(
                f"layer {layer_name(model, module)} runs more than once in a forward pass, so one edit cannot tell "
                "its calls apart; hook the module around it, or give each call a module of its own."
            )
        return edit(value)

    handle = hook_values(module, once, at_input)
    try:
        with eager():
            yield
    finally:
        handle.remove()
    if not runs:
        raise LayerError(
            f"layer {layer_name(model, module)} never ran in the forward pass; choose a layer that this model calls "
            "for these inputs."
        )
