"""Which torch operations a secant can be carried through, by the name torch gives them."""

# Jointly affine in all their tensor arguments: f(z) = A z + b, so units pass through A and the slot through f itself.
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

# Of these, those whose second tensor gives a shape, dtype or device and no values.
SHAPED_LIKE = frozenset({"to", "type_as", "view_as", "reshape_as", "expand_as"})

# Affine in one argument as long as the others do not depend on the layer.
BILINEAR = frozenset(
    """
    linear mul multiply matmul mm bmm mv einsum addmm baddbmm addmv dot inner outer tensordot bilinear
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d true_divide div divide where
    """.split()
)

# Of these, products element by element, which can be shared out between their factors.
PRODUCTS = frozenset({"mul", "multiply"})

# Tensors that take a shape from what comes from the layer and no values, and comparisons, which are frozen as they
# came out: constants.
CONSTANTS = frozenset(
    """
    zeros_like ones_like full_like empty_like rand_like randn_like randint_like
    new_zeros new_ones new_full new_empty new_empty_strided new_tensor
    gt lt ge le eq ne greater less greater_equal less_equal not_equal isclose
    isnan isinf isfinite isposinf isneginf isreal signbit logical_not logical_and logical_or logical_xor
    """.split()
)

# Applied to each element alone; further arguments must not depend on the layer.
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

# Picks one of its inputs; which one is frozen as the network picked it, and picking is linear.
FROZEN = frozenset(
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d".split()
)

# Questions about a tensor whose answers hold no values.
METADATA = frozenset(
    """
    size dim ndimension numel nelement stride is_contiguous is_floating_point is_complex element_size len get_device
    shape dtype device ndim layout is_cuda is_cpu is_mps is_sparse is_quantized is_nested requires_grad is_leaf names
    itemsize nbytes is_meta is_inference _is_view storage_offset data_ptr is_xpu is_mkldnn is_xla is_vulkan grad_fn
    """.split()
)

ATTRIBUTE_VIEWS = frozenset({"T", "mT", "H", "mH"})

_SPELLED = {"log_sigmoid": "logsigmoid", "_threshold": "threshold"}  # names that torch.nn.functional dispatches under

_REFLECTED = {
    "radd": "add",
    "rsub": "rsub",
    "rmul": "mul",
    "rmatmul": "matmul",
    "truediv": "div",
    "rtruediv": "rtruediv",
}


def plain_name(func: object) -> tuple[str, bool]:
    """The name of a torch function without dunders and in-place marks, and whether it works in place.

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
