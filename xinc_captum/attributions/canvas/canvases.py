"""Canvases of several layers that share one recorded forward pass."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...hooks import ForwardFunc, layer_name
from .canvas import Canvas
from .drawing import drawn_together
from .neuron_canvas import NeuronCanvas


def canvases(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module | str],
    inputs: Tensor | tuple[Tensor, ...],
    size: tuple[int, ...],
    target: Any = None,
    additional_forward_args: Any = None,
    attribute_to_layer_input: bool = False,
    perturbations_per_eval: int | None = None,
    memory_budget: int | None = None,
    show_progress: bool = False,
    **method: Any,
) -> dict[str, Canvas]:
    """One lazy canvas a layer, equal to those of ``NeuronCanvas(forward_func, layer, **method).canvas(...)``.

    They share one copy of the parameters and, under the tangent and the secant, the forward pass: rows that one of them
    ran are not run again for the others while they are the last ones that were asked for. Of a network of frames the
    layers have to lie on one chain of operations for that; ablation and the paper's rule run for each layer.

    Args:
        forward_func: as in :class:`NeuronCanvas`.
        layers: modules or dotted names.
        inputs: as in :meth:`NeuronCanvas.canvas`, like all that follow.
        size: of the picture or the frames.
        target: a Captum target.
        additional_forward_args: passed on to the model.
        attribute_to_layer_input: explain what enters the layers.
        perturbations_per_eval: units in one forward.
        memory_budget: bytes of working memory of each query.
        show_progress: a progress bar on every query.
        method: ``rule``, ``unit``, ``output_fn``, ``render`` of :class:`NeuronCanvas`.

    Returns:
        canvases by the layers' names, in the order given.

    Raises:
        ValueError: no layers, or one twice; and whatever ``NeuronCanvas`` raises.

    Example:
        >>> from xinc_captum.inr import FourierMLP, coordinates
        >>> both = canvases(FourierMLP(), ["activation1", "activation2"], coordinates((8, 12)), (8, 12))
        >>> {name: canvas.totals().shape for name, canvas in both.items()}
        {'activation1': torch.Size([104, 3]), 'activation2': torch.Size([104, 3])}

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), which analyses every layer.
    """
    methods = [NeuronCanvas(forward_func, layer, **method) for layer in layers]
    if not methods or len({id(one.layer) for one in methods}) < len(methods):
        raise ValueError(f"layers are {list(layers)!r}; wanted at least one, and each only once.")
    names = [layer_name(forward_func, one.layer).strip("'") for one in methods]
    rest = target, additional_forward_args, attribute_to_layer_input
    budget = perturbations_per_eval, memory_budget, show_progress
    return dict(zip(names, drawn_together(methods, inputs, size, *rest, *budget), strict=True))
