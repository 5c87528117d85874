"""Record the torch operations after a layer; tables of known operations."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ....batch import Batch
from .tail import Tail

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

ATTRIBUTE_VIEWS = frozenset({"T", "mT", "H", "mH"})

_SPELLED = {"log_sigmoid": "logsigmoid", "_threshold": "threshold"}  # names under which torch.nn.functional dispatches

_REFLECTED = {
    "radd": "add",
    "rsub": "rsub",
    "rmul": "mul",
    "rmatmul": "matmul",
    "truediv": "div",
    "rtruediv": "rtruediv",
}


def plain_name(func: object) -> tuple[str, bool]:
    """Return the name of a torch function without dunders and in-place marks, and whether it works in place.

    Example:
        >>> import torch
        >>> plain_name(torch.Tensor.add_), plain_name(torch.Tensor.__rmul__), plain_name(torch.Tensor.shape.__get__)
        (('add', True), ('mul', False), ('shape', False))
    """
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "attribute")), False
    if name.startswith("__"):
        bare = name.strip("_")
        if bare.startswith("i") and bare[1:] in {"add", "sub", "mul", "truediv", "pow", "matmul"}:
            return _REFLECTED.get(bare[1:], bare[1:]), True
        return _REFLECTED.get(bare, bare), False
    return (name.rstrip("_"), True) if name.endswith("_") else (_SPELLED.get(name, name), False)


def as_pair(value: Any) -> tuple[int, int]:
    """Return an option of a 2-D operation, an int or a sequence, as one int for each axis."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


@dataclass(frozen=True)
class Step:
    """One operation of a chain.

    Attributes:
        name: torch's name, without in-place marks.
        func: the operation.
        args: arguments after the input tensor.
        kwargs: keyword arguments.
        input: the input tensor, (rows, channels, ...).
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    input: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return the operation's result for another tensor, which is not modified."""
        y: Tensor = self.func(x.clone(), *self.args, **self.kwargs)
        return y

    def arguments(self, names: str) -> dict[str, Any]:
        """Return the recorded arguments by name; ``names`` are the names of those after the tensor, in order."""
        return dict(zip(names.split(), self.args, strict=False)) | self.kwargs

    @property
    def has_tensors(self) -> bool:
        """Whether the operation has other tensor arguments."""
        return any(isinstance(a, Tensor) for a in tree_flatten((self.args, self.kwargs))[0])


@dataclass(frozen=True)
class Trace:
    """A tail that is a chain: each operation depends on the layer only through the result of the one before.

    Attributes:
        activation: at the layer, (rows, units, ...).
        steps: the operations in order.
        output: the result of the last one, (rows, *output).
    """

    activation: Tensor
    steps: tuple[Step, ...]
    output: Tensor


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        self.current: Tensor | None = None
        self.activation: Tensor | None = None
        self.earlier: list[Tensor] = []
        self.steps: list[Step] = []
        self.chain = True
        self.marks: dict[Any, tuple[int, Tensor]] = {}

    def begin(self, position: Any, activation: Tensor) -> Tensor:
        """Start at the first layer's activation; record the position of later layers on the chain."""
        if self.current is None:
            self.activation = activation.detach()
            self.current = self.activation.clone()
            self.marks[position] = (0, self.activation)
            return self.current
        if activation is self.current:
            with torch._C.DisableTorchFunction():
                self.marks[position] = (len(self.steps), activation.detach().clone())
        return activation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "_set_grad_enabled" and self.current is not None:
            self.chain = False  # the model stops gradients, which autograd handles
        step_input, name, in_place = None, "", False
        if self.current is not None and self.chain:
            if not args and "input" in kwargs:
                args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
            tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
            touched = [t for t in tensors if any(t is known for known in (self.current, *self.earlier))]
            name, in_place = plain_name(func)
            if touched and name not in METADATA:
                is_only_input = len(touched) == 1 and touched[0] is self.current and args[0] is self.current
                self.chain = is_only_input and torch.is_grad_enabled()  # off in custom autograd Functions
                in_place = in_place or bool(kwargs.get("inplace"))
                in_place = in_place or any(a is True for a in args[1:2])
                step_input = self.current.clone() if in_place else self.current
        with torch.no_grad() if step_input is not None else nullcontext():
            result = func(*args, **kwargs)
        if step_input is not None and self.chain:
            if isinstance(result, Tensor):
                self.earlier.append(args[0])
                self.steps.append(Step(name, func, tuple(args[1:]), kwargs, step_input))
                self.current = result
            else:
                self.chain = False
        return result


def trace(tail: Tail, batch: Batch) -> Trace | None:
    """Run these rows and record the operations after the layer; return None if the tail is not a chain.

    A tail with skips, branches, in-place writes into views, gradients turned off inside or custom autograd Functions
    is not a chain.
    """
    if tail.shared_pass is not None:
        shared: Trace | None = tail.shared_pass.trace(tail, batch)
        if shared is not None:
            return shared
    return trace_layers([tail], batch).get(tail.position)


def trace_layers(tails: Sequence[Tail], batch: Batch) -> dict[Any, Trace]:
    """Record several layers of one chain in one pass; layers that are not on it are left out."""
    recorder = _Recorder()
    try:
        with torch.enable_grad(), recorder, ExitStack() as stack:
            for tail in tails:
                stack.enter_context(tail.patch_layer(batch, partial(recorder.begin, tail.position)))
            output = tails[0].output(batch)
    except RuntimeError:  # for example a model that takes gradients inside; a later pass raises the error
        return {}
    if not recorder.chain or output is not recorder.current:
        return {}
    steps, end = tuple(recorder.steps), output.detach()
    return {position: Trace(activation, steps[at:], end) for position, (at, activation) in recorder.marks.items()}
