"""The layout of images and activations: crops, height and width, and the axis of the units."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import ForwardFunc, LayerError, layer_name, modules_behind

SECOND = (  # modules whose units are on axis 1
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._LPPoolNd,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.modules.rnn.RNNBase,  # a recurrent layer runs along its second axis, the steps
)
NORMS = (nn.LayerNorm, nn.RMSNorm)
LAST = (  # modules whose units are on the last axis, as those of NORMS
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
KEEPING = (nn.Identity, nn.modules.dropout._DropoutNd)  # elementwise, besides activation functions
WIDTHS = ("num_features", "num_channels", "out_channels", "out_features", "embed_dim", "in_channels", "in_features")
NEAR = 1.0  # positions by which a map may deviate from the input's height : width, because strides round


def unit_axis(
    shape: Sequence[int],
    layer: nn.Module,
    forward_func: ForwardFunc,
    *,
    entered: Sequence[int] = (),
    requested: int | None = None,
    at_input: bool = False,
    loose: bool = False,
    advice: str = "unit_axis=1 for (rows, units, ...), or unit_axis=-1 for (rows, ..., units)",
) -> int:
    """Return the axis of an activation of this shape that holds the units, from 1 to its last.

    The first of these that applies decides:

    1. ``requested``, the caller's ``unit_axis=``, negative from the end.
    2. An activation of two axes is (rows, units).
    3. The layer's class: convolutions, batch norms, pools: 1. ``Linear``, ``LayerNorm``, attention, transformer layers:
       the last. A recurrent layer runs along axis 1, its steps. A ``Sequential`` follows its last module, and an
       activation function in a ``Sequential`` follows the module before it.
    4. Four axes or more: the axis for which the other axes have the height : width of the model's input; if that does
       not decide, the modules inside the layer, and those around it.

    Three axes, (rows, tokens, units) or (rows, units, length), are decided by 1 and 3 alone. With ``loose``, which is
    for feature distances (they select no unit), the modules in and around the layer decide too.

    ``entered`` is the shape of the model's first input, empty if it is not an image; ``at_input`` tells whether the
    activation is the layer's input; ``advice`` tells in the error how the caller can choose the axis.

    Raises:
        LayerError: several axes fit, or none.
        ValueError: ``requested`` is not an axis, or is that of the samples.

    Example:
        >>> unit_axis((2, 7, 7, 96), torch.nn.LayerNorm(96), torch.nn.LayerNorm(96))
        3
    """
    last = len(shape) - 1
    if requested is not None:
        return _check_axis(requested, shape)
    if last <= 1:
        return 1
    axis = class_axis(layer, shape, at_input) or _by_neighbour(layer, shape, forward_func, at_input)
    if axis is not None:
        return last if axis < 0 else 1
    if last > 2:
        axis, why = _by_places(shape, layer, forward_func, entered)
    else:
        axis, why = (_by_parts(layer, forward_func) or None) if loose else None, "tokens and channels look alike"
    if axis is None:
        raise LayerError(
            f"layer {layer_name(forward_func, layer)} {'takes' if at_input else 'returns'} shape {tuple(shape)}, and "
            f"which axis holds the units cannot be determined: {why}. Give {advice}."
        )
    return last if axis < 0 else 1


def _check_axis(chosen: int, shape: Sequence[int]) -> int:
    axis = chosen + len(shape) if isinstance(chosen, int | np.integer) and chosen < 0 else chosen
    if isinstance(chosen, bool) or not isinstance(chosen, int | np.integer) or not 1 <= axis < len(shape):
        raise ValueError(
            f"unit_axis is {chosen!r} for a layer of shape {tuple(shape)}; expected an axis behind the rows: 1 to "
            f"{len(shape) - 1}, or -1 for the last."
        )
    return axis


def class_axis(module: nn.Module, shape: Sequence[int], at_input: bool = False) -> int | None:
    """Return 1 or -1 if the module's class determines the axis of the units, else None."""
    if type(module).forward is nn.Sequential.forward:
        children = list(module.children())
        for child in children if at_input else reversed(children):
            axis = class_axis(child, shape, at_input)
            if axis is not None or not _keeps(child):
                return axis
        return None
    if isinstance(module, NORMS) and len(module.normalized_shape) > 1:
        return None
    known = 1 if isinstance(module, SECOND) else -1 if isinstance(module, (*NORMS, *LAST)) else None
    if known is None or _is_torchs(module):
        return known
    width = _width(module)  # a subclass may move axes, as LayerNorm2d of torchvision and timm does
    second, last = shape[1] == width, shape[-1] == width
    return None if second == last else 1 if second else -1


def _is_torchs(module: nn.Module) -> bool:
    """Return whether the module's forward is that of a class of torch.nn."""
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return owner.__module__.startswith("torch.nn.")


def _width(module: nn.Module) -> int | None:
    if isinstance(module, NORMS):
        return int(module.normalized_shape[-1])
    return next((getattr(module, name) for name in WIDTHS if hasattr(module, name)), None)


def _keeps(module: nn.Module) -> bool:
    """Return whether a module is elementwise."""
    activation = type(module).__module__ == "torch.nn.modules.activation"
    return (activation and not isinstance(module, nn.MultiheadAttention)) or isinstance(module, KEEPING)


def _by_neighbour(module: nn.Module, shape: Sequence[int], forward_func: ForwardFunc, at_input: bool) -> int | None:
    """Return the axis of the module before this one in a Sequential, if this one is elementwise; else None."""
    if not at_input and not _keeps(module):
        return None
    inner = module
    for parent in parents_of(module, forward_func):
        if type(parent).forward is not nn.Sequential.forward:
            return None
        children = list(parent.children())
        before = children[: next(i for i, child in enumerate(children) if child is inner)]
        for child in reversed(before):
            axis = class_axis(child, shape, at_input=False)
            if axis is not None or not _keeps(child):
                return axis
        inner = parent
    return None


Parents = dict[nn.Module, list[nn.Module]]
_CACHE: ContextVar[dict[int, tuple[ForwardFunc, Parents]] | None] = ContextVar("parents", default=None)


@contextmanager
def parents_once() -> Iterator[None]:
    """Inside the block, :func:`parents_of` searches the modules behind a function once, not once for each layer."""
    token = _CACHE.set(_CACHE.get() or {})
    try:
        yield
    finally:
        _CACHE.reset(token)


def parents_of(module: nn.Module, forward_func: ForwardFunc) -> list[nn.Module]:
    """Return the modules around a module, from the inside out."""
    cache = _CACHE.get()
    found = {} if cache is None else cache
    if id(forward_func) not in found:
        found[id(forward_func)] = forward_func, _parents(forward_func)
    return found[id(forward_func)][1].get(module, [])


def _parents(forward_func: ForwardFunc) -> Parents:
    found: Parents = {}
    for root in modules_behind(forward_func):
        named = dict(root.named_modules())
        for name, module in named.items():
            parts = name.split(".") if name else []
            found.setdefault(module, [named[".".join(parts[:n])] for n in reversed(range(len(parts)))])
    return found


def _by_places(
    shape: Sequence[int], layer: nn.Module, forward_func: ForwardFunc, entered: Sequence[int]
) -> tuple[int | None, str]:
    """Return 1, -1 or None, by the input's height : width and the modules inside, and the reason if it is None."""
    inside, image = _kind(layer), image_size(entered) if len(entered) == len(shape) else None
    if image is None:
        axis = _by_parts(layer, forward_func)
        return (1 if axis is None else axis or None), "the modules in and around it do not decide"
    first, last = _misfit(shape[-2:], image), _misfit(shape[-3:-1], image)
    text = f"the input is {image[0]} pixels high and {image[1]} wide"
    if (first <= NEAR) != (last <= NEAR):
        fitting = 1 if first <= NEAR else -1
        widths = {_width(module) for module in layer.modules() if isinstance(module, SECOND)}
        if inside == 1 and fitting == -1 and (shape[-1] not in widths or shape[1] in widths):
            return None, f"{text}, which fits unit_axis=-1, but the modules inside the layer do not"
        return fitting, ""
    both = first <= NEAR
    if inside:
        return inside, ""
    if both and (first == 0) != (last == 0):
        return (1 if first == 0 else -1), ""
    around = None if inside == 0 else _by_parts(layer, forward_func)
    if around == 1 or (around and both):
        return around, ""
    which = "both unit_axis=1 and unit_axis=-1 leave" if both else "neither unit_axis=1 nor unit_axis=-1 leaves"
    return None, f"{text}; {which} axes with that height : width"


def image_size(entered: Sequence[int]) -> tuple[int, int] | None:
    """Return height and width of an input (rows, channels, ..., H, W); None for (rows, ..., H, W, channels)."""
    if len(entered) < 4 or (entered[-1] <= 4 < min(entered[1], entered[-2])):
        return None
    return entered[-2], entered[-1]


def _misfit(places: Sequence[int], image: tuple[int, int]) -> float:
    """Return by how many positions a map deviates from the image's height : width."""
    return abs(places[0] * image[1] - places[1] * image[0]) / sum(image)


def fits(places: Sequence[int], image: tuple[int, int]) -> bool:
    """Return whether a map's height : width is the image's, up to the rounding of strides."""
    return _misfit(places, image) <= NEAR


def _by_parts(layer: nn.Module, forward_func: ForwardFunc) -> int | None:
    """Return 1 or -1 by the modules inside, or by those of the nearest module around it that decides; 0 if they differ.

    Around a layer, linear modules alone decide nothing, because they may be the head: 0 if there are no others.
    """
    inside = _kind(layer)
    if inside is not None:
        return inside
    undecided = None
    for module in parents_of(layer, forward_func):
        kind = _kind(module, linear=False)
        if kind is not None:
            return kind
        if _kind(module) is not None:
            undecided = 0
    return undecided


def _kind(module: nn.Module, *, linear: bool = True) -> int | None:
    """Return 1 if the modules inside are those of a convolutional network, -1 of a transformer, 0 of both, else None.

    Linear modules alone mean -1, or nothing without ``linear``; next to convolutions they are a head, or squeeze and
    excitation.
    """
    modules = list(module.modules())
    second = any(isinstance(m, SECOND[:3]) for m in modules)
    # LayerNorm2d of torchvision and timm is a LayerNorm over axis 1.
    norms = any(isinstance(m, (*NORMS, *LAST[3:])) and "2d" not in type(m).__name__.lower() for m in modules)
    if second:
        return 0 if norms else 1
    return -1 if norms or (linear and any(isinstance(m, LAST) for m in modules)) else None


def has_places(
    shape: Sequence[int], axis: int, layer: nn.Module, forward_func: ForwardFunc, entered: Sequence[int]
) -> bool:
    """Return whether the axes of an activation besides rows and units are height and width.

    They are if they have the height : width of the model's first input, of shape ``entered``, or if convolutions made
    them. The attention weights of a transformer, (rows, heads, tokens, tokens), fit a square input too; they are
    recognised by the modules around the layer: units on axis 1, and only linear modules and layer norms.
    """
    places, image = [*shape[1:axis], *shape[axis + 1 :]], image_size(entered)
    if len(places) != 2:
        return False
    parts = _by_parts(layer, forward_func) if axis == 1 else None
    if parts == -1 and not isinstance(layer, SECOND):
        return False
    return image is None or fits(places, image) or parts == 1


def preprocesses(model: Any) -> bool:
    """Return whether a model has a network and its own ``preprocess``, as :class:`xinc_captum.ImageModel` has."""
    return callable(getattr(model, "preprocess", None)) and isinstance(getattr(model, "model", None), nn.Module)


def check_preprocess(model: Any, preprocess: Callable[..., Any] | None) -> None:
    """Raise ValueError if ``preprocess`` is given for a model that has its own: images would be normalised twice."""
    if preprocess is not None and preprocesses(model):
        name = getattr(model, "name", type(model).__name__)
        raise ValueError(
            f"preprocess is given, and {name} has its own preprocess, so images would be normalised twice. Give its "
            ".model with preprocess=, or the object alone."
        )


Span = tuple[int, int]


def crop_of(preprocess: Callable[[Tensor], Any], images: Tensor) -> tuple[Span, Span] | None:
    """Return the first and last row, and the first and last column, that a cropping ``preprocess`` uses.

    ``preprocess`` maps images in [0, 1], (N, C, H, W), to a model's inputs; one image of the shape, dtype and device of
    ``images`` is processed. The result is None without a crop, and if the output has no gradient to the images.
    """
    generator = torch.Generator().manual_seed(0)
    probe = (
        (0.25 + torch.rand(images[:1].shape, generator=generator) / 2).to(images.device, images.dtype).requires_grad_()
    )
    output = preprocess(probe.clone())
    if not isinstance(output, Tensor) or output.dim() != 4 or output.grad_fn is None:
        return None
    weights = torch.rand(output.shape, generator=generator).to(output)
    # Zeros if preprocessing has weights and detaches the image from the graph.
    (slope,) = torch.autograd.grad((output * weights).sum(), probe, allow_unused=True, materialize_grads=True)
    used = slope[0].ne(0).any(0)
    spans = [_span(used.any(1 - axis), used.shape[axis] / output.shape[2 + axis]) for axis in (0, 1)]
    if not any(spans):
        return None
    rows, columns = (span or (0, side - 1) for span, side in zip(spans, used.shape, strict=True))
    return rows, columns


def warn_of_crop(preprocess: Callable[[Tensor], Any] | None, images: Tensor) -> None:
    """Warn if ``preprocess`` crops the images."""
    if preprocess is None:
        return
    try:
        crop = crop_of(preprocess, images)
    except Exception:  # the model's first forward pass raises a clearer error
        return
    if crop is not None:
        (first_row, last_row), (first_column, last_column) = crop
        height, width = images.shape[-2:]
        warnings.warn(
            f"preprocess uses only rows {first_row} to {last_row} and columns {first_column} to {last_column} of "
            f"images of {width} x {height} pixels. The images and masks are correct; maps of the cropped input, such "
            "as those of Grad-CAM, cover this part only. Crop the images first (xinc_captum.images.centre_crop) to "
            "compare them.",
            stacklevel=6,
        )


def _span(used: Tensor, scale: float) -> Span | None:
    """Return the first and last used position; None if the margins are as narrow as resampling by ``scale`` makes."""
    places = used.nonzero().flatten().tolist()
    if not places:
        return None
    first, last = places[0], places[-1]
    return (first, last) if max(first, len(used) - 1 - last) > max(2.0, 1.5 * scale) else None


def attends(module: nn.Module) -> bool:
    """Return whether a module contains an attention."""
    return any("attention" in type(inner).__name__.lower() for inner in module.modules())


def one_tensor(value: Any, name: Callable[[], str], rows: int | None = None, *, at_input: bool = False) -> Tensor:
    """Return a layer's output (or input, ``at_input``) as one tensor with one entry for each of ``rows`` samples.

    ``value`` is the layer's tensor, or a tuple of its float tensors, of which the only one with ``rows`` samples on its
    first axis is returned. LayerError is raised if none or several have, or if another may have them on its second axis
    (the states of a GRU repeat its output). ``name`` returns the layer's name, for messages.
    """
    verb = "takes" if at_input else "returns"
    if isinstance(value, tuple):
        fitting: list[Tensor] = [tensor for tensor in value if tensor.dim() and tensor.shape[0] == rows]
        states = [tensor for tensor in value if tensor.dim() == 3 and tensor.shape[1] == rows]
        if len(fitting) == 1 and all(tensor is fitting[0] for tensor in states):
            return fitting[0]
        shapes = ", ".join(f"{at}: {tuple(tensor.shape)}" for at, tensor in enumerate(value))
        raise LayerError(
            f"layer {name()} {verb} {len(value)} floating-point tensors; expected one (rows, units, ...), and the "
            f"choice between them is not clear ({shapes}{f', for {rows} rows' if rows else ''}). Choose the module "
            "inside it that computes the one to explain, or a module around it, with a single tensor."
        )
    tensor: Tensor = value
    if rows is not None and (tensor.dim() == 0 or tensor.shape[0] != rows):
        raise LayerError(
            f"layer {name()} {verb} shape {tuple(tensor.shape)} for {rows} input rows; "
            "expected rows first, one per input row. Choose a layer at which the first axis holds the rows."
        )
    return tensor


def tensor_of(value: Any, layer: nn.Module, forward_func: ForwardFunc, rows: int) -> Tensor:
    """Return a captured activation as one tensor with one entry for each of ``rows`` samples, or raise LayerError."""
    if isinstance(value, Tensor):
        refuse_windows(value, layer, forward_func, rows)
    return one_tensor(value, lambda: layer_name(forward_func, layer), rows)


def refuse_windows(activation: Tensor, layer: nn.Module, forward_func: ForwardFunc, rows: int) -> None:
    """Raise LayerError if the positions of a layer's activation are windows and places in a window, not a map."""
    many = activation.dim() > 2 and len(activation) > rows and len(activation) % rows == 0
    many = many and attends([layer, *parents_of(layer, forward_func)][-1])
    if not many and not (activation.dim() == 4 and in_windows(layer, forward_func)):
        return
    axis = "first axis is not the samples" if many else "positions are windows, and places in a window"
    raise LayerError(
        f"layer {layer_name(forward_func, layer)} returns shape {tuple(activation.shape)} for {rows} samples: it runs "
        f"on windows: {axis}. Choose the block around it."
    )


def in_windows(layer: nn.Module, forward_func: ForwardFunc) -> bool:
    """Return whether a layer of NesT or of torchvision's MaxViT is inside the part that runs on windows."""
    for module in parents_of(layer, forward_func):
        kind = f"{type(module).__module__}.{type(module).__name__}"
        if kind.endswith("maxvit.PartitionAttentionLayer"):
            return True
        if kind.endswith("nest.NestLevel"):
            return any(inner is layer for inner in module.get_submodule("transformer_encoder").modules())
    return False
