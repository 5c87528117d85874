"""Find the modules behind a function, layers by their dotted names, and the axis of the units in their activations."""

import contextlib
import difflib
import dis
import functools
import inspect
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Names = frozenset[str]

MOST = 1000  # entries of a list or dict that are searched
CACHE = type(functools.lru_cache(len))
_REFERENCES = (nn.Module, functools.partial, weakref.ReferenceType, CACHE)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_LIBRARIES = frozenset({"torch", "torchvision", "numpy", "captum", "builtins", "PIL", "matplotlib"})
# Functions of these packages hold no models of the user; objects of their classes may.
_FUNCTIONS = sys.stdlib_module_names | {
    "scipy",
    "sklearn",
    "skimage",
    "cv2",
    "pandas",
    "einops",
    "timm",
    "transformers",
}
_PLAIN = frozenset({int, float, bool, str, type(None), Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device})
_OF_ANY_MODULE = frozenset(nn.Module().__dict__)


def may_hold_models(value: Any) -> bool:
    """Return whether a value can lead to modules: modules, containers, and the user's functions, objects and classes.

    Functions of libraries hold no models of the user.
    """
    if isinstance(value, (*_REFERENCES, *_CONTAINERS)):
        return True
    if inspect.ismethod(value):
        return may_hold_models(value.__self__) or may_hold_models(value.__func__)
    routine = inspect.isroutine(value)
    if routine and may_hold_models(getattr(value, "__wrapped__", None)):
        return True
    if inspect.ismodule(value):
        return not _of_library(value.__name__, True)
    kind = value if routine or inspect.isclass(value) else type(value)
    module = getattr(kind, "__module__", None)
    return not _of_library(module if isinstance(module, str) else "", routine)


@functools.lru_cache(maxsize=4096)
def _of_library(module: str, function: bool) -> bool:
    package = module.partition(".")[0]
    return package in _LIBRARIES or (function and package in _FUNCTIONS)


def is_indirect(value: Any) -> int:
    """Return 1 for an object or a container, which adds one to the distance of the modules behind it; else 0."""
    return int(not isinstance(value, _REFERENCES) and not inspect.isroutine(value))


def items_of(value: Any) -> list[Any] | None:
    """Return the first 1000 entries of a container; None for everything else."""
    if not isinstance(value, _CONTAINERS):
        return None
    return list(itertools.islice(value.values() if isinstance(value, Mapping) else value, MOST))


def attributes_of(thing: Any) -> Mapping[str, Any]:
    """Return the attributes of an object, from its ``__dict__`` or its slots; for a class, those of its bases too."""
    if inspect.isclass(thing):
        return {name: value for kind in reversed(thing.__mro__) for name, value in vars(kind).items()}
    attributes: dict[str, Any] = getattr(thing, "__dict__", {})
    slots = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return attributes | {name: getattr(thing, name) for name in names if hasattr(thing, name)} if names else attributes


def references_of(function: types.FunctionType) -> list[Any]:
    """Return a function's closure, its default arguments, and the globals that it (or a function inside it) names."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a variable without a value yet
            values.append(cell.cell_contents)
    values += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = sorted(_names_of_code(function.__code__)[0])
    return values + [function.__globals__[name] for name in names if name in function.__globals__]


def names_in(function: Any) -> Names:
    """Return the names of the attributes that a Python function uses."""
    return _names_of_code(function.__code__)[1] if inspect.isfunction(function) else frozenset()


@functools.lru_cache(maxsize=4096)
def _names_of_code(code: types.CodeType) -> tuple[Names, Names]:
    """Return the names of the globals and the attributes that code, and the functions inside it, use."""
    named: dict[str, set[str]] = {"LOAD_GLOBAL": set(), "LOAD_ATTR": set(), "LOAD_METHOD": set()}
    codes = [code]
    while codes:
        one = codes.pop()
        codes += [constant for constant in one.co_consts if isinstance(constant, types.CodeType)]
        for step in dis.get_instructions(one):
            if step.opname in named:
                named[step.opname].add(step.argval)
    return frozenset(named["LOAD_GLOBAL"]), frozenset(named["LOAD_ATTR"] | named["LOAD_METHOD"])


def hidden_in(root: nn.Module) -> list[tuple[Any, Names]]:
    """Return unregistered values below ``root`` that can lead to further modules, with the names that forward uses.

    torch's own layers hold none, except hooks and a forward function that the user sets; for speed, their other
    attributes are skipped.
    """
    hidden: list[tuple[Any, Names]] = []
    waiting, visited = [root], {id(root)}
    used, done = dict[type, Names](), set[tuple[type, int]]()
    while waiting:
        module = waiting.pop()
        for child in module._modules.values():
            if child is not None and id(child) not in visited:
                visited.add(id(child))
                waiting.append(child)
        attributes, kind = module.__dict__, type(module)
        for hooks in (attributes.get("_forward_hooks"), attributes.get("_forward_pre_hooks")):
            hidden += [(hook, frozenset()) for hook in hooks.values() if not _is_ours(hook)] if hooks else []
        if kind.__module__.startswith("torch.nn."):
            if "forward" in attributes:
                hidden.append((attributes["forward"], frozenset()))
            continue
        values = [v for name, v in attributes.items() if name not in _OF_ANY_MODULE and type(v) not in _PLAIN]
        if kind not in used:
            used[kind] = names_in(getattr(kind, "forward", None))  # a weakref.proxy has none
            kinds = [k for k in kind.__mro__ if not _of_library(k.__module__, False)]  # class attributes
            values += [v for k in kinds for v in vars(k).values() if isinstance(v, (nn.Module, list, tuple, dict))]
        for value in values:
            if (kind, id(value)) not in done:  # layers of a class often share a configuration or a function
                done.add((kind, id(value)))
                if _leads_on(value, 3):
                    hidden.append((value, used[kind]))
    return hidden


def _is_ours(hook: Any) -> bool:
    """Return whether this package registered a hook, for the duration of a call."""
    return (getattr(hook, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


def _leads_on(value: Any, levels: int) -> bool:
    """Return :func:`may_hold_models`, for a container of any of its entries, at most ``levels`` levels down."""
    if type(value) in _PLAIN:
        return False
    items = value if isinstance(value, (list, tuple)) and len(value) <= MOST else items_of(value)
    if items is None:
        return may_hold_models(value)
    return levels > 0 and any(_leads_on(item, levels - 1) for item in items)


ForwardFunc = Callable[..., Any]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and ``DataParallel`` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def modules_behind(forward_func: ForwardFunc, *, wrapped: bool = False) -> list[nn.Module]:
    """Return every root module that ``forward_func`` can reach, nearest first, without calling it.

    A module is its own root. The search follows bound methods, partials, caches, closures, default arguments and the
    globals that a function names, through lists, dicts, weak references and the attributes of objects, classes and
    Python modules that its code uses. So ``lambda x: model(x)["rgb"]`` and ``lambda x: wrapper.nets[0](x)`` find their
    models. Unregistered members of modules (modules in lists, objects, functions, hooks) are followed in the same way.
    A module inside another root that is at least as near is not listed. ``wrapped`` keeps wrappers, such as
    DataParallel.
    """
    return [module for module, _ in modules_with_distance(forward_func, wrapped)]


def modules_with_distance(forward_func: ForwardFunc, wrapped: bool = False) -> list[tuple[nn.Module, int]]:
    """Return the roots, each with the number of containers and objects on the way to it."""
    search = _Search(wrapped)
    search.start(forward_func)
    nearest: dict[int, tuple[nn.Module, int]] = {}
    for module, depth in sorted(search.roots, key=lambda pair: pair[1]):
        nearest.setdefault(id(module), (module, depth))
    roots = list(nearest.values())
    if len(roots) == 1:
        return roots
    inside = [{id(m) for m in root.modules()} - {id(root)} for root, _ in roots]
    return [
        (root, depth)
        for root, depth in roots
        if not any(id(root) in below and other <= depth for below, (_, other) in zip(inside, roots, strict=True))
    ]


class _Search:
    """Follows references from a function to modules."""

    def __init__(self, wrapped: bool) -> None:
        self.unwrap: Callable[[nn.Module], nn.Module] = (lambda module: module) if wrapped else unwrap
        self.roots: list[tuple[nn.Module, int]] = []
        self.visited: dict[int, Any] = {}  # holds what was visited, so that no id is used twice

    def start(self, forward_func: Any) -> None:
        """Follow the function itself; a callable object leads to all modules among its attributes."""
        if inspect.isroutine(forward_func) or not is_indirect(forward_func):
            self.visit(forward_func, 0)
        else:
            self._owner(forward_func, 0, frozenset())

    def visit(self, thing: Any, depth: int, names: frozenset[str] = frozenset()) -> None:
        """Follow one reference; ``names`` are the attributes that the referring code uses."""
        if id(thing) in self.visited:
            return
        self.visited[id(thing)] = thing
        items = items_of(thing)
        if isinstance(thing, nn.Module):
            root = self.unwrap(thing)
            self.roots.append((root, depth))
            for value, used in hidden_in(root):
                if is_indirect(value) and items_of(value) is None and id(value) not in self.visited:
                    self._owner(value, depth + 1, used)
                self.visit(value, depth + 1, used)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                self.visit(part, depth)
        elif isinstance(thing, CACHE):
            self.visit(thing.__wrapped__, depth)
        elif isinstance(thing, weakref.ReferenceType):
            self.visit(thing(), depth, names)
        elif inspect.ismethod(thing):
            self._owner(thing.__self__, depth, names_in(thing.__func__))
            self.visit(thing.__func__, depth)
        elif inspect.isfunction(thing):
            used = names_in(thing)
            for value in references_of(thing):
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), used)
        elif items is not None:
            for value in items:
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), names)
        else:
            self._attributes(thing, depth, names | {"__call__"})

    def _owner(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """Follow an object that is called, or whose method is: its modules, and the attributes that its code uses."""
        if isinstance(thing, nn.Module):
            self.visit(thing, depth)
            return
        self.visited[id(thing)] = thing
        if not inspect.isclass(thing) and not inspect.ismodule(thing):
            for value in list(attributes_of(thing).values()):
                if isinstance(value, nn.Module):
                    self.visit(value, depth)
        self._attributes(thing, depth, names | {"__call__"})

    def _attributes(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """Follow the attributes of an object that code with these names can reach, also through its own methods."""
        attributes, kind = attributes_of(thing), type(thing)
        waiting, done = set(names), set[str]()
        if inspect.isfunction(inspect.getattr_static(kind, "__getattr__", None)):  # may return members of other objects
            waiting |= attributes.keys()
        while waiting:
            name = waiting.pop()
            done.add(name)
            member = attributes[name] if name in attributes else inspect.getattr_static(kind, name, None)
            if name not in attributes or inspect.isclass(thing):
                for inner in ("fget", "__func__", "func"):  # properties, static and class methods, cached properties
                    member = getattr(member, inner, None) or member
                if inspect.isfunction(member) and may_hold_models(member):
                    waiting |= names_in(member) - done
            if may_hold_models(member):
                self.visit(member, depth + is_indirect(member), names)


class LayerError(ValueError):
    """A layer that is not in the model, never runs, runs twice, or cannot be explained with the given options."""


def is_scripted(module: nn.Module) -> bool:
    """Return whether a module supports no hooks, as those of ``torch.jit.script``; traced modules support some."""
    return isinstance(module, torch.jit.ScriptModule) and type(module).__name__ == "RecursiveScriptModule"


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """Return the dotted name of ``layer`` for messages, or its class if it belongs to no known model."""
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            if module is layer:
                return repr(name) if name else type(root).__name__
    return f"{type(layer).__name__} module"


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """Return the module that ``layer`` means: a module, or a dotted name as in ``named_modules()``.

    A module that is registered under several names is found under each of them. If several models behind the function
    have the name, the model that the function names directly is used.

    Raises:
        LayerError: the name is not in the model (the nearest valid names are listed), the module is not
            part of the model behind ``forward_func``, or no model is found behind it.
        TypeError: ``layer`` is neither a module nor a string.
    """
    reachable = modules_with_distance(forward_func)
    roots = [root for root, _ in reachable]
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        if roots and not any(module is layer for root in roots for module in root.modules()):
            raise LayerError(
                f"layer {type(layer).__name__} is not part of the model {_names_of(roots)}; give one of that model's "
                "own submodules, or its dotted name."
            )
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a torch.nn.Module or a dotted name, got {type(layer).__name__}.")
    if any(map(is_scripted, roots)):
        raise LayerError(
            f"layer {layer!r} cannot be read: the model is scripted (torch.jit.script), and scripted modules run no "
            "Python hooks. Give the original torch.nn.Module."
        )
    if not roots:
        raise LayerError(
            f"layer {layer!r} cannot be looked up: no torch.nn.Module is visible behind {forward_func!r}; give the "
            "layer as a module instead of a name."
        )
    plain_name = layer.removeprefix("_orig_mod.")
    named = {name: module for root in roots for name, module in root.named_modules() if name}
    for candidate in (plain_name, plain_name.removeprefix("module.")):
        owners = [
            (root, module, depth) for root, depth in reachable if (module := _submodule(root, candidate)) is not None
        ]
        nearest = [(root, module) for root, module, depth in owners if depth == owners[0][2]]
        if len({id(module) for _, module in nearest}) > 1:
            several = _names_of([root for root, _ in nearest])
            raise LayerError(
                f"layer {layer!r} is in several models behind this function ({several}); give the layer as a module "
                "instead of a name."
            )
        if nearest:
            return unwrap(nearest[0][1])
    near = difflib.get_close_matches(plain_name, named, n=5, cutoff=0.3) or list(named)[:5]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "the model has no submodules."
    raise LayerError(f"layer {layer!r} is not in the model {_names_of(roots)}; {hint}")


def _submodule(root: nn.Module, name: str) -> nn.Module | None:
    """Return the module of this name, also if it is another name of a shared module."""
    with contextlib.suppress(AttributeError):
        return root.get_submodule(name)
    return None


def _names_of(roots: list[nn.Module]) -> str:
    return " or ".join(type(root).__name__ for root in roots)


SECOND = (
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
LAST = (
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
    """Return the axis of an activation that holds the units, from 1 to its last.

    The first of these that applies decides:

    1. ``requested``, the caller's ``unit_axis=``.
    2. Two axes are (rows, units).
    3. The layer's class: convolutions, batch norms, pools: 1. ``Linear``, ``LayerNorm``, attention, transformer layers:
       the last. A recurrent layer runs along axis 1, its steps. A ``Sequential`` follows its last module, and an
       activation function in a ``Sequential`` follows the module before it.
    4. Four axes or more: the axis for which the other axes have the height : width of the model's input; if that does
       not decide, the modules inside the layer, and those around it.

    Three axes, (rows, tokens, units) or (rows, units, length), are decided by 1 and 3 alone.

    Args:
        shape: of the activation.
        layer: the module.
        forward_func: the model, in which the modules around the layer are found.
        entered: shape of the model's first input; empty if it is not an image.
        requested: the caller's choice, negative from the end.
        at_input: whether the activation is the layer's input.
        loose: whether the modules inside and around the layer decide three axes too; for distances, which name no unit.
        advice: how the caller can choose the axis, for the message.

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
    axis = _by_class(layer, shape, at_input) or _by_neighbour(layer, shape, forward_func, at_input)
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
    axis = chosen + len(shape) if isinstance(chosen, int) and chosen < 0 else chosen
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 1 <= axis < len(shape):
        raise ValueError(
            f"unit_axis is {chosen!r} for a layer of shape {tuple(shape)}; expected an axis behind the rows: 1 to "
            f"{len(shape) - 1}, or -1 for the last."
        )
    return axis


def _by_class(module: nn.Module, shape: Sequence[int], at_input: bool) -> int | None:
    """Return 1 or -1 if the module's class determines the axis, else None."""
    if type(module).forward is nn.Sequential.forward:
        children = list(module.children())
        for child in children if at_input else reversed(children):
            axis = _by_class(child, shape, at_input)
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
    for parent in _parents(module, forward_func):
        if type(parent).forward is not nn.Sequential.forward:
            return None
        children = list(parent.children())
        before = children[: next(i for i, child in enumerate(children) if child is inner)]
        for child in reversed(before):
            axis = _by_class(child, shape, at_input=False)
            if axis is not None or not _keeps(child):
                return axis
        inner = parent
    return None


def _parents(module: nn.Module, forward_func: ForwardFunc) -> Iterator[nn.Module]:
    """Yield the modules around a module, from the inside out."""
    for root in modules_behind(forward_func):
        for name, candidate in root.named_modules():
            while candidate is module and name:
                name = name.rpartition(".")[0]
                yield root.get_submodule(name)
            if candidate is module:
                return


def _by_places(
    shape: Sequence[int], layer: nn.Module, forward_func: ForwardFunc, entered: Sequence[int]
) -> tuple[int | None, str]:
    """Return 1, -1 or None by the input's height and width and by the modules inside, and the reason for None."""
    inside, image = _kind(layer), image_size(entered) if len(entered) == len(shape) else None
    if image is None:
        axis = _by_parts(layer, forward_func)
        return (1 if axis is None else axis or None), "the modules in and around it do not decide"
    first, last = _misfit(shape[-2:], image), _misfit(shape[-3:-1], image)
    text = f"the input is {image[0]} pixels high and {image[1]} wide"
    if (first <= NEAR) != (last <= NEAR):
        fitting = 1 if first <= NEAR else -1
        if inside == 1 and fitting == -1:
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

    Around a layer, linear modules alone decide nothing, because they may be the head: 0 if there is nothing else.
    """
    inside = _kind(layer)
    if inside is not None:
        return inside
    undecided = None
    for module in _parents(layer, forward_func):
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
    """Return whether the axes besides rows and units are height and width.

    They are if they fit the input's height : width, or if convolutions made them. The attention weights of a
    transformer, (rows, heads, tokens, tokens), fit a square input too. They are recognised by the modules around the
    layer: units on axis 1, and only linear modules and layer norms.

    Args:
        shape: of the activation.
        axis: the axis of the units.
        layer: the module.
        forward_func: the model around it.
        entered: shape of the model's first input.
    """
    places, image = [*shape[1:axis], *shape[axis + 1 :]], image_size(entered)
    if len(places) != 2:
        return False
    parts = _by_parts(layer, forward_func) if axis == 1 else None
    if parts == -1 and not isinstance(layer, SECOND):
        return False
    return image is None or fits(places, image) or parts == 1
