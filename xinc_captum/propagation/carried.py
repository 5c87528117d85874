"""A tensor on its way from a layer to the output that knows how to split itself into units and a slot."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .operations import (
    AFFINE,
    ATTRIBUTE_VIEWS,
    BILINEAR,
    EVALUATION_ONLY,
    METADATA,
    POINTWISE,
    VIEWS,
    plain_name,
)


class CarryError(ValueError):
    """An operation between the layer and the output that the rule cannot carry a contribution through."""


class Carried(Tensor):
    """value = Σ_u c_u + slot, kept while torch functions of any kind are applied.

    ``value`` is an ordinary tensor in the graph of the layer's activation, but each pointwise σ in that graph has
    the slope (σ(z) − σ(0))/z instead of σ'(z): a derivative of ``value`` therefore carries secant contributions.
    ``slot`` takes every bias, every σ(0) and everything that does not come from the layer.
    """

    value: Tensor
    slot: Tensor
    aliased: bool

    @staticmethod
    def __new__(cls: type["Carried"], value: Tensor, slot: Tensor, aliased: bool = False) -> "Carried":
        """Wrap a value and its slot."""
        self = Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=value.device)
        self.value, self.slot, self.aliased = value, slot, aliased
        return self

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Carried(shape={tuple(self.value.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise CarryError(
            _refusal(str(func), "it is reached below torch's Python functions (a custom autograd Function?)")
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, in_place = plain_name(func)
        with torch._C.DisableTorchFunctionSubclass():
            if name in METADATA:
                return func(*_values(args), **_values(kwargs))
            if not torch.is_grad_enabled() and any(c.value.requires_grad for c in _carried_in((args, kwargs))):
                raise CarryError(
                    _refusal(name, "it runs under no_grad (a custom autograd Function, or a no_grad block)")
                )
            if name in ATTRIBUTE_VIEWS or name in AFFINE:
                result = _affine(func, args, kwargs, name)
            elif name in BILINEAR:
                _one_carried(name, args, kwargs)
                result = _affine(func, args, kwargs, name)
            elif name in EVALUATION_ONLY:
                _not_training(name, args, kwargs)
                result = _affine(func, args, kwargs, name)
            elif name in POINTWISE:
                result = _pointwise(func, args, kwargs, name)
            else:
                raise CarryError(_refusal(name, "it is neither linear nor applied to each element alone"))
            written = args[0] if in_place or kwargs.get("inplace") else None
            if isinstance(written, Carried) and isinstance(result, Carried):
                if written.aliased:
                    raise CarryError(_refusal(f"in-place {name}", "it edits a view, which other tensors share"))
                written.value, written.slot = result.value, result.slot
                return written
            return result


def start(activation: Tensor) -> Carried:
    """At the layer itself the units are everything and the slot is zero."""
    return Carried(activation, torch.zeros_like(activation))


def finish(output: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slot of what arrived.

    Raises:
        CarryError: the output was not reached by operations that torch could show.
    """
    if not isinstance(output, Carried):
        raise CarryError(
            "nothing of the layer arrives at the output as a carried tensor: the output does not depend on the layer, "
            'or it is rebuilt from values (.data, .detach(), numpy). Use rule="tangent" or rule="ablation" there.'
        )
    return output.value, output.slot


def _values(tree: Any) -> Any:
    return tree_map(lambda x: x.value if isinstance(x, Carried) else x, tree, is_leaf=_is_carried)


def _slots(tree: Any) -> Any:
    return tree_map(lambda x: x.slot if isinstance(x, Carried) else x, tree, is_leaf=_is_carried)


def _is_carried(x: Any) -> bool:
    return isinstance(x, Carried)


def _carried_in(tree: Any) -> list[Carried]:
    return [x for x in tree_flatten(tree, is_leaf=_is_carried)[0] if isinstance(x, Carried)]


def _affine(func: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
    args, kwargs = _out_of_place(func, args, kwargs)
    value = func(*_values(args), **_values(kwargs))
    with torch.no_grad():
        slot = func(*_slots(args), **_slots(kwargs))
    aliased = name in VIEWS
    if aliased:
        for source in _carried_in((args, kwargs)):
            source.aliased = True
    leaves, spec = tree_flatten(value)
    pairs: Iterable[tuple[Any, Any]] = zip(leaves, tree_flatten(slot)[0], strict=True)
    return tree_unflatten([Carried(v, s, aliased) if isinstance(v, Tensor) else v for v, s in pairs], spec)


def _out_of_place(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """In-place functions then work on copies; the caller writes the result back itself."""
    if not (plain_name(func)[1] or kwargs.get("inplace")):
        return args, kwargs
    first = args[0]
    copied = Carried(first.value.clone(), first.slot.clone()) if isinstance(first, Carried) else first.clone()
    return (copied, *args[1:]), kwargs


def _pointwise(func: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Carried:
    """Value σ(z), slope (σ(z) − σ(0))/z, slot carried by the slope plus σ(0)."""
    carried = _carried_in((args, kwargs))
    if len(carried) != 1 or not isinstance(args[0], Carried):
        raise CarryError(_refusal(name, "more than its first argument depends on the layer"))
    args, kwargs = _out_of_place(func, args, kwargs)
    z, slot = carried[0].value, carried[0].slot

    def sigma(x: Tensor) -> Tensor:
        y: Tensor = func(x.clone() if x.requires_grad else x, *args[1:], **kwargs)
        return y

    fixed = z.detach()
    with torch.no_grad():
        at_z = sigma(fixed.clone())
    with torch.enable_grad():
        origin = (
            torch.zeros_like(fixed, requires_grad=True)
            if _has_tensors(args[1:], kwargs)
            else fixed.new_zeros([1] * fixed.dim()).requires_grad_()
        )
        at_zero = sigma(origin)
        (limit,) = torch.autograd.grad(at_zero.sum(), origin)
    with torch.no_grad():
        slope = torch.where(fixed == 0, limit, (at_z - at_zero) / fixed)
        new_slot = slope * slot + at_zero
    # The added term is zero in value and has the secant's slope, for backward and forward differentiation alike.
    return Carried(at_z + (z - fixed) * slope, new_slot)


def _has_tensors(*trees: Any) -> bool:
    return any(isinstance(x, Tensor) for x in tree_flatten(trees)[0])


def _one_carried(name: str, args: Any, kwargs: Any) -> None:
    if name == "where":
        return _plain_condition(args, kwargs)
    if name in {"div", "divide", "true_divide"}:
        if _carried_in(args[1:]) or _carried_in(kwargs):
            raise CarryError(_refusal(name, "the divisor depends on the layer"))
        return None
    weighted = name == "linear" or name.startswith("conv")
    if weighted and _carried_in((args[1:], kwargs)):
        raise CarryError(_refusal(name, "its weight or bias depends on the layer"))
    factors = (args[1:], kwargs) if name in {"addmm", "baddbmm", "addmv"} else (args, kwargs)
    if len(_carried_in(factors)) > 1:
        raise CarryError(_refusal(name, "both factors depend on the layer, and a product has no shares"))
    return None


def _plain_condition(args: Any, kwargs: Any) -> None:
    if _carried_in((args[:1], kwargs.get("condition"))):
        raise CarryError(_refusal("where", "its condition depends on the layer"))


def _not_training(name: str, args: Any, kwargs: Any) -> None:
    position = {"batch_norm": 5}.get(name, 2)
    training = kwargs.get("training", args[position] if len(args) > position else name != "batch_norm")
    if training:
        raise CarryError(_refusal(name, "it is in training mode; call model.eval() first"))


def _refusal(name: str, why: str) -> str:
    return (
        f"rule 'secant' cannot carry contributions through {name!r}: {why}. "
        'Use rule="tangent" or rule="ablation", which work for any operation, or choose a layer after it.'
    )
