"""Torch operations by kind, and the tensor subclass that carries secant contributions and a remainder through them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from .tail import in_no_grad_block

# Jointly affine in all tensor arguments: f(z) = A z + b. Units are multiplied by A, the remainder goes through f.
AFFINE = frozenset(
    """
    add sub subtract rsub neg negative positive cat concat concatenate hstack vstack stack sum mean
    view view_as reshape reshape_as ravel flatten unflatten permute transpose movedim moveaxis swapaxes swapdims t
    squeeze unsqueeze expand expand_as contiguous clone to type float double half bfloat16 type_as getitem select
    narrow index_select gather take_along_dim chunk split tensor_split unbind roll flip repeat repeat_interleave tile
    broadcast_to atleast_2d
    pad pixel_shuffle pixel_unshuffle interpolate upsample fold unfold channel_shuffle
    masked_fill tril triu cumsum
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    T mT H mH
    """.split()
)

# Of these, operations that use only the shape, dtype or device of their second tensor.
SHAPED_LIKE = frozenset({"to", "type_as", "view_as", "reshape_as", "expand_as"})

# Affine in one argument if the others do not depend on the layer.
BILINEAR = frozenset(
    """
    linear mul multiply matmul mm bmm mv einsum addmm baddbmm addmv dot inner outer tensordot bilinear
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d true_divide div divide where
    """.split()
)

# Of these, elementwise products, which can be split between their factors.
PRODUCTS = frozenset({"mul", "multiply"})

# Constants: tensors that take only their shape from the layer, and comparisons, whose results are fixed.
CONSTANTS = frozenset(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like
    new_zeros new_ones new_full new_empty new_empty_strided new_tensor
    gt lt ge le eq ne greater less greater_equal less_equal not_equal isclose
    isnan isinf isfinite isposinf isneginf isreal signbit logical_not logical_and logical_or logical_xor
    """.split()
)

# Elementwise; further arguments must not depend on the layer.
POINTWISE = frozenset(
    """
    relu relu6 leaky_relu prelu elu selu celu gelu silu mish softplus sigmoid logsigmoid tanh hardtanh hardsigmoid
    hardswish softsign tanhshrink softshrink hardshrink threshold sin cos tan asin acos atan sinh cosh asinh atanh erf
    erfc expm1 exp log1p exp2 sinc square pow abs absolute clamp clamp_min clamp_max clip sqrt
    """.split()
)

# Identity or affine in evaluation mode, neither in training mode.
EVALUATION_ONLY = frozenset(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout batch_norm".split()
)

# Select one of their inputs. The selection of the forward pass is fixed, and selecting is linear.
FROZEN = frozenset(
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split()
)

# Properties of a tensor that do not depend on its values.
METADATA = frozenset(
    """
    size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex element_size len get_device
    shape dtype device ndim layout is_cuda is_cpu is_mps is_sparse is_quantized is_nested requires_grad is_leaf names
    itemsize nbytes is_meta is_inference _is_view storage_offset data_ptr is_xpu is_mkldnn is_xla is_vulkan grad_fn
    """.split()
)

_SPELLED = {"log_sigmoid": "logsigmoid", "_threshold": "threshold"}  # names under which torch.nn.functional dispatches

_REFLECTED = {"radd": "add", "rmul": "mul", "rmatmul": "matmul", "truediv": "div"}


def plain_name(func: object) -> tuple[str, bool]:
    """Return the name of a torch function without dunders and in-place marks, and whether it works in place."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "attribute")), False
    if name.startswith("__"):
        bare = name.strip("_")
        if bare.startswith("i") and bare[1:] in {"add", "sub", "mul", "truediv", "pow", "matmul"}:
            return _REFLECTED.get(bare[1:], bare[1:]), True
        return _REFLECTED.get(bare, bare), False
    return (name.rstrip("_"), True) if name.endswith("_") else (_SPELLED.get(name, name), False)


Elementwise = Callable[[Tensor], Tensor]


def _softplus(z: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    u = z * beta
    rise = (torch.relu(u) + torch.log1p(torch.expm1(-u.abs()) / 2)) / beta
    return torch.where(u > threshold, z - math.log(2) / beta, rise)  # linear above the threshold, as in torch


def _sinc(z: Tensor) -> Tensor:
    x = torch.square(z * math.pi)
    series = -x / 6 * (1 - x / 20 * (1 - x / 42 * (1 - x / 72)))
    return torch.where(x < 0.25, series, torch.sinc(z) - 1)


def _elu(z: Tensor, alpha: float = 1.0, scale: float = 1.0, steepness: float = 1.0) -> Tensor:
    """Exponential linear units by expm1; some versions of torch compute exp(z) − 1, which loses digits."""
    return torch.where(z > 0, z * scale, torch.expm1(z.clamp(max=0) * steepness) * (alpha * scale))


_SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}  # Klambauer et al. 2017

_EXACT: Mapping[str, Callable[..., Tensor]] = {
    "sigmoid": lambda z: torch.tanh(z / 2).div_(2),
    "logsigmoid": lambda z: -_softplus(-z, threshold=math.inf),
    "softplus": _softplus,
    "hardsigmoid": lambda z: (z / 6).clamp(-0.5, 0.5),
    "exp": torch.expm1,
    "exp2": lambda z: torch.expm1(z * math.log(2)),
    "cos": lambda z: -2 * torch.sin(z / 2).square(),
    "cosh": lambda z: 2 * torch.sinh(z / 2).square(),
    "acos": lambda z: -torch.asin(z),
    "erfc": lambda z: -torch.erf(z),
    "sinc": _sinc,
    "elu": _elu,
    "selu": lambda z: _elu(z, **_SELU),
    "celu": lambda z, alpha=1.0: _elu(z, alpha, 1.0, 1 / alpha),
}
_OPTIONS = {"softplus": ("beta", "threshold"), "elu": ("alpha",), "celu": ("alpha",)}


def difference(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Elementwise | None:
    """Return z ↦ σ(z) − σ(0) for a function whose subtraction loses digits, or None for any other function.

    Near z = 0 the values σ(z) and σ(0) agree in most digits, so their difference is inexact. The formulas of ``_EXACT``
    are identities, for example 1/(1 + exp(−z)) − 1/2 = tanh(z/2)/2.
    """
    exact = _EXACT.get(name)
    if exact is None:
        return None
    names = _OPTIONS.get(name, ())
    options = {key: value for key, value in (*zip(names, args, strict=False), *kwargs.items()) if key in names}
    return lambda z: exact(z, **options)


def max_pool(name: str, value: Tensor, remainder: Tensor, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """Return the pooled value and the remainder at the selected positions, so that the sum stays exact."""
    kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
    pooled, indices = getattr(F, f"{name}_with_indices")(value, *args, **kwargs)
    dims = int(name[-2])
    with torch.no_grad():
        picked = remainder.flatten(-dims).gather(-1, indices.flatten(-dims)).reshape(indices.shape)
    return pooled, picked


def product(values: Sequence[Tensor], remainders: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return z_a z_b with half of its derivative through each factor, and its remainder, split in the same way."""
    (a, b), (remainder_a, remainder_b) = values, remainders
    value = (a * b.detach() + a.detach() * b) / 2
    with torch.no_grad():
        return value, (remainder_a * b + a * remainder_b) / 2


def cumulative_product(z: Tensor, remainder: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    r"""Return the cumulative product along ``dim`` with an equal part of its derivative through each factor.

    .. math:: p_i = \prod_{j \le i} z_j, \qquad
              C_{u,i} = \frac{1}{i} \sum_{j \le i} c_{u,j} \prod_{k \le i,\, k \ne j} z_k

    Symbols: c_{u,j} the contribution of unit u to z_j, C_{u,i} that to p_i; i counts from 1. The remainder is split in
    the same way, so that C_{u,i} and the remainder sum to p_i. Factors may be zero.
    """
    products = z.cumprod(dim)
    counts = [1] * z.dim()
    counts[dim] = z.shape[dim]
    share = 1 / torch.arange(1, z.shape[dim] + 1, dtype=z.dtype, device=z.device).reshape(counts)
    value = products.detach() + (products - products.detach()) * share
    with torch.no_grad():
        remainders: list[Tensor] = []
        before = torch.ones_like(z.detach().select(dim, 0))
        rise = torch.zeros_like(before)
        for factor, factor_remainder in zip(z.detach().unbind(dim), remainder.unbind(dim), strict=True):
            rise, before = rise * factor + before * factor_remainder, before * factor
            remainders.append(rise)
        return value, torch.stack(remainders, dim) * share


def tangent_slope(sigma: Elementwise, z: Tensor) -> Tensor:
    """Return σ'(z), elementwise."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(sigma(leaf.clone()).sum(), leaf)
    return slope


def secant_slope(
    sigma: Elementwise, z: Tensor, elementwise: bool = False, rise: Elementwise | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return σ(z), (σ(z) − σ(0))/z with its limit σ'(0) at z = 0, and σ(0), for detached values z.

    ``sigma`` may modify its argument. With ``elementwise`` it has tensor parameters, so that σ(0) differs between
    elements. ``rise`` is z ↦ σ(z) − σ(0), if a formula is more exact than the subtraction.
    """
    native, fixed = z.dtype, z
    if z.element_size() == 2 and not elementwise:
        fixed = z.float()  # half precision has too few digits for the difference below
    with torch.enable_grad():
        origin = torch.zeros_like(fixed) if elementwise else fixed.new_zeros([1] * fixed.dim())
        origin.requires_grad_()
        at_zero = sigma(origin.clone())
        (limit,) = torch.autograd.grad(at_zero.sum(), origin)
    with torch.no_grad():
        at_zero, finite = at_zero.detach(), torch.isfinite(limit)  # not finite for sqrt, whose value at 0 is 0
        # Products of numbers near the smallest normal one lose digits: move z away from 0 by a negligible step.
        least = torch.finfo(fixed.dtype).tiny / torch.finfo(fixed.dtype).eps
        away = torch.addcmul(fixed, fixed.sign(), torch.where(finite, least, 0.0).to(fixed.dtype))
        wide = sigma(away.clone())
        at_z = wide if fixed.dtype == native else sigma(z.clone())
        slope = (wide - at_zero if rise is None else rise(away)).div_(away)
        slope = torch.where(fixed == 0, torch.where(finite, limit, 0), slope)
        return at_z, slope.to(native), at_zero.to(native)


_ADVICE = ' (Secant(products="halves") splits it equally between its factors)'


class CarryError(ValueError):
    """The secant rule cannot propagate contributions through an operation between the layer and the output."""


def _error(name: str, why: str) -> CarryError:
    return CarryError(
        f"rule 'secant' cannot carry contributions through {name!r}: {why}. "
        'Use rule="tangent" or rule="ablation", which work for any operation, or choose a layer after it.'
    )


class SecantTensor(Tensor):
    """Tensor with ``value`` = Σ_u c_u + ``bias_remainder``; torch functions preserve this sum.

    ``value`` is an ordinary tensor in the graph of the layer's activation, but each pointwise σ in that graph has the
    slope (σ(z) − σ(0))/z instead of σ'(z). A derivative of ``value`` therefore yields secant contributions.
    ``bias_remainder`` is the sum of every bias, every σ(0) and everything that does not come from the layer. Results of
    ``detach``, comparisons and ``no_grad`` blocks are plain constants, and so are tensors made in the shape, dtype or
    device of another. With ``halves`` a product is split equally between its factors; otherwise it raises CarryError.
    """

    value: Tensor
    bias_remainder: Tensor
    aliased: bool
    halves: bool

    @staticmethod
    def __new__(cls: type["SecantTensor"], value: Tensor, remainder: Tensor, *, halves: bool = False) -> "SecantTensor":
        """Wrap a value and its remainder."""
        self = Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device=value.device)
        self.value, self.bias_remainder, self.aliased, self.halves = value, remainder, False, halves
        return self

    def copy(self) -> "SecantTensor":
        """Return a copy in new memory."""
        return SecantTensor(self.value.clone(), self.bias_remainder.clone(), halves=self.halves)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SecantTensor(shape={tuple(self.value.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise _error(str(func), "it is called below torch's Python functions (in a custom autograd Function?)")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, in_place = plain_name(func)
        args, kwargs = input_first(args, kwargs or {})
        in_place = in_place or bool(kwargs.get("inplace")) or (name in POINTWISE and any(a is True for a in args[1:2]))
        with torch._C.DisableTorchFunctionSubclass():
            if name in METADATA or (name in SHAPED_LIKE and not isinstance(args[0], SecantTensor)):
                return func(*_values(args), **_values(kwargs))
            if name == "detach" and not in_place:
                return args[0].value.detach().clone()
            alone = not in_place and kwargs.get("out") is None
            if alone and (name in CONSTANTS or (in_no_grad_block() and not torch.is_grad_enabled())):
                # In new memory, so that edits of the constant do not change the original value.
                constant = func(*_values(args), **_values(kwargs))
                return tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, constant)
            sources = _secant_tensors((args, kwargs))
            if not torch.is_grad_enabled() and any(one.value.requires_grad for one in sources):
                raise _error(
                    name, "it runs under no_grad in a custom autograd Function, in inference_mode, or in place"
                )
            if kwargs.get("out") is not None or (in_place and not isinstance(args[0], SecantTensor)):
                raise _error(f"in-place {name}", "it writes into a tensor that does not come from the layer")
            if in_place and args[0].aliased:
                raise _error(f"in-place {name}", "it edits a view, which shares memory with other tensors")
            # In-place functions run on a copy; the result is then written back into the caller's tensor.
            operands = (args[0].copy(), *args[1:]) if in_place else args
            result = _apply_operation(func, name, operands, kwargs)
            halves = any(one.halves for one in sources)
            for one in _secant_tensors(result):
                one.halves = halves
            if not in_place:
                _mark_aliases(result, sources)
                return result
            args[0].value, args[0].bias_remainder = result.value, result.bias_remainder
            return args[0]


def start(activation: Tensor, remainder: Tensor | None = None, *, halves: bool = False) -> SecantTensor:
    """Return the activation as a SecantTensor with the given remainder (None is zero)."""
    initial = torch.zeros_like(activation) if remainder is None else remainder.expand_as(activation).clone()
    return SecantTensor(activation, initial, halves=halves)


def finish(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value and the remainder of the output; raise a CarryError if it does not come from the layer."""
    if not isinstance(output, SecantTensor):
        raise CarryError(
            "the output has no secant contributions: it does not depend on the layer, or it is rebuilt from values "
            '(.data, .detach(), no_grad, numpy). Use rule="tangent" or rule="ablation", or choose another layer.'
        )
    return output.value, output.bias_remainder


def _values(tree: Any) -> Any:
    return tree_map(lambda x: x.value if isinstance(x, SecantTensor) else x, tree)


def _remainders(tree: Any) -> Any:
    return tree_map(lambda x: x.bias_remainder if isinstance(x, SecantTensor) else x, tree)


def _secant_tensors(tree: Any) -> list[SecantTensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, SecantTensor)]


def has_tensors(*trees: Any) -> bool:
    """Return whether a tensor is among the arguments of an operation."""
    return any(isinstance(x, Tensor) for x in tree_flatten(trees)[0])


def input_first(args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the arguments of ``f(input=x)`` as those of ``f(x)``."""
    if args or "input" not in kwargs:
        return args, kwargs
    return (kwargs["input"],), {name: value for name, value in kwargs.items() if name != "input"}


def _apply_operation(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if name in PRODUCTS:
        factors = _secant_tensors((args, kwargs))
        if len(factors) == 2 and any(one.halves for one in factors):
            return SecantTensor(*product([one.value for one in factors], [one.bias_remainder for one in factors]))
    if name == "cumprod":
        return _cumulative(args, kwargs)
    if name in BILINEAR:
        _check_bilinear(name, args, kwargs)
    if name in EVALUATION_ONLY:
        _check_evaluation(name, args, kwargs)
    if name in AFFINE or name in BILINEAR or name in EVALUATION_ONLY:
        return _affine(func, args, kwargs, name)
    if name in POINTWISE:
        return _pointwise(func, args, kwargs, name)
    if name in FROZEN and not (kwargs.get("return_indices") or any(a is True for a in args[1:])):
        return SecantTensor(*max_pool(name, args[0].value, args[0].bias_remainder, args[1:], kwargs))
    raise _error(name, "it is neither linear nor applied to each element alone")


def _mark_aliases(result: Any, sources: list[SecantTensor]) -> None:
    """Mark tensors that share memory: an in-place edit of one would have to change the other."""
    for one in _secant_tensors(result):
        for source in sources:
            if one.value.untyped_storage().data_ptr() == source.value.untyped_storage().data_ptr():
                one.aliased = source.aliased = True


def _affine(func: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
    value = func(*_values(args), **_values(kwargs))
    with torch.no_grad():
        remainder = func(*_remainders(args), **_remainders(kwargs))
    leaves, spec = tree_flatten(value)
    if any(isinstance(leaf, Tensor) and not leaf.is_floating_point() for leaf in leaves):
        is_complex = any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves)
        raise _error(name, "its result is complex" if is_complex else "its result has no floating-point numbers")
    pairs: Iterable[tuple[Any, Any]] = zip(leaves, tree_flatten(remainder)[0], strict=True)
    return tree_unflatten([SecantTensor(v, s) if isinstance(v, Tensor) else v for v, s in pairs], spec)


def _cumulative(args: Any, kwargs: Any) -> SecantTensor:
    factors: SecantTensor = args[0]
    if not factors.halves:
        why = "its factors depend on the layer, and a product has no unique contributions"
        raise _error("cumprod", why + _ADVICE)
    dim = kwargs["dim"] if "dim" in kwargs else args[1]
    dtype = kwargs.get("dtype")
    z, remainder = (t if dtype is None else t.to(dtype) for t in (factors.value, factors.bias_remainder))
    return SecantTensor(*cumulative_product(z, remainder, dim))


def _pointwise(func: Callable[..., Tensor], args: Any, kwargs: Any, name: str) -> SecantTensor:
    """Return σ(z) with the slope (σ(z) − σ(0))/z; the remainder is multiplied by the slope, plus σ(0)."""
    if len(_secant_tensors((args, kwargs))) != 1 or not isinstance(args[0], SecantTensor):
        raise _error(name, "more than its first argument depends on the layer")
    if name == "pow" and not (len(args) > 1 and isinstance(args[1], int | float) and args[1] > 0):
        raise _error(name, "only fixed positive exponents are finite at zero")
    z, remainder = args[0].value, args[0].bias_remainder

    def sigma(x: Tensor) -> Tensor:
        return func(x.clone() if x.requires_grad else x, *args[1:], **kwargs)

    rise = difference(name, args[1:], kwargs)
    at_z, slope, at_zero = secant_slope(sigma, z.detach(), has_tensors(args[1:], kwargs), rise)
    with torch.no_grad():
        new_remainder = slope * remainder + at_zero
    # The added term is zero and has the secant's slope, in backward and forward differentiation.
    return SecantTensor(at_z + (z - z.detach()) * slope, new_remainder)


def _check_bilinear(name: str, args: Any, kwargs: Any) -> None:
    after_first = _secant_tensors((args[1:], kwargs))
    if name == "where":
        if _secant_tensors((args[:1], kwargs.get("condition"))):
            raise _error(name, "its condition depends on the layer")
    elif name in {"div", "divide", "true_divide"}:
        if after_first:
            raise _error(name, "the divisor depends on the layer")
        if kwargs.get("rounding_mode") is not None:
            raise _error(name, "it rounds")
    elif name == "linear" or name.startswith("conv"):
        if after_first:
            raise _error(name, "its weight or bias depends on the layer")
    else:
        is_sum = name in {"addmm", "baddbmm", "addmv"}  # of the first argument and a product of the others
        if len(after_first if is_sum else _secant_tensors((args, kwargs))) > 1:
            why = "both factors depend on the layer, and a product has no unique contributions"
            raise _error(name, why + _ADVICE * (name in PRODUCTS))


def _check_evaluation(name: str, args: Any, kwargs: Any) -> None:
    if _secant_tensors((args[1:], kwargs)):
        raise _error(name, "more than its first argument depends on the layer")
    position = 5 if name == "batch_norm" else 2
    training = kwargs.get("training", args[position] if len(args) > position else name != "batch_norm")
    if training:
        raise _error(name, "it is in training mode; call model.eval() first")
