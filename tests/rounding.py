"""Kernels whose rounding depends on the shape, which simulate other processors.

On a real machine a matrix product, a convolution or a sum may round differently when its operands have other shapes,
other strides, or run on another number of threads; the kernels of one processor show only some of these differences.
:func:`install` replaces the CPU kernels named in ``SUMS`` and ``TABLES``. Each result is computed by torch's own kernel
and then moved by up to one unit in the last place. The direction depends on the operator, on the shapes and strides of
its operands and on the place of the element, and on nothing else: equal computations stay equal bit for bit, and
computations of other shapes do not. Values with few digits, such as sums of small whole numbers, are exact on every
machine and are not moved.
"""

import zlib

import torch
from torch import Tensor

SUMS = """mm addmm bmm baddbmm addmv mv dot addbmm convolution convolution_backward _slow_conv2d_forward sum
    sum.dim_IntList mean mean.dim var.correction std.correction linalg_vector_norm norm.ScalarOpt_dim cumsum prod
    native_layer_norm native_group_norm native_batch_norm _softmax _log_softmax logsumexp _cdist_forward
    _adaptive_avg_pool2d avg_pool2d upsample_bilinear2d upsample_bicubic2d grid_sampler_2d _fft_r2c _fft_c2r _fft_c2c
    _scaled_dot_product_flash_attention_for_cpu""".split()
TABLES = """exp expm1 log log1p log2 sin cos tan tanh sigmoid erf erfinv atan atan2 gelu silu softplus elu mish
    pow.Tensor_Scalar pow.Tensor_Tensor""".split()
VECTOR = 16  # the widest vector of float32; what is left over after whole vectors takes other instructions

_library = None
_sequence = torch.zeros(0, dtype=torch.int8)


def install() -> None:
    """Replace the kernels for the rest of this process."""
    global _library
    if _library is not None:
        return
    _library = torch.library.Library("aten", "IMPL")
    for name, place in [(n, _anywhere) for n in SUMS] + [(n, _left_over) for n in TABLES]:
        kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
        _library.impl(name, _wrapped(name, kernel, place), "CPU", with_keyset=True)


def installed() -> bool:
    """Whether this process has the replaced kernels."""
    return _library is not None


def _wrapped(name, kernel, moved):
    def run(keys, *args, **kwargs):
        result = kernel.call_boxed(keys, *args, **kwargs)
        if torch.jit.is_tracing():  # it would record what is done here
            return result
        layouts = [
            (tuple(a.shape), a.stride(), a.dtype) if isinstance(a, Tensor) else None for a in (*args, *kwargs.values())
        ]
        seed = zlib.crc32(f"{name} {layouts} {torch.get_num_threads()}".encode())
        if isinstance(result, Tensor):
            return moved(result, seed)
        return tuple(moved(one, seed) if isinstance(one, Tensor) else one for one in result)

    return run


def _anywhere(result: Tensor, seed: int) -> Tensor:
    return _moved(result, seed, 0)


def _left_over(result: Tensor, seed: int) -> Tensor:
    whole = result.numel() // VECTOR * VECTOR if result.is_contiguous() else 0
    return _moved(result, seed, whole)


def _moved(result: Tensor, seed: int, first: int) -> Tensor:
    """The result with the elements from ``first`` on moved by -1, 0 or 1 unit in the last place."""
    if result.is_complex():
        return torch.view_as_complex(_moved(torch.view_as_real(result), seed, first))
    if result.dtype not in (torch.float32, torch.float64) or result.numel() <= first:
        return result
    whole = torch.int32 if result.dtype == torch.float32 else torch.int64
    bits = result.view(whole)
    digits = 6 if whole is torch.int32 else 29
    held = (bits & ((1 << digits) - 1)) == 0  # few digits, zero, infinity
    count = result.numel() - first
    step = _direction(count, seed % 61).to(whole)
    if first:
        step = torch.cat([step.new_zeros(first), step])
    bits.add_(step.view(result.shape).masked_fill(held | ~result.isfinite(), 0))
    return result


def _direction(count: int, seed: int) -> Tensor:
    """-1, 0 and 1 in an order without a short period, int8: a piece of one sequence."""
    global _sequence
    first = 7919 * seed
    if len(_sequence) < first + count:
        places = torch.arange(2 * (first + count), dtype=torch.int64)
        _sequence = ((((places * 2654435761) % 4294967296) >> 16) % 3 - 1).to(torch.int8)
    return _sequence[first : first + count]


def assert_equal_but_for_rounding(found: Tensor, expected: Tensor, terms: int) -> None:
    """Two computations of one quantity with other shapes, chunks, layouts or threads.

    A sum of n products rounds to within n eps of the sum of their magnitudes, in whatever order it is taken; two orders
    are at most 2 n eps of it apart (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1). The largest
    element stands for that sum; where terms cancel everywhere, the caller gives a larger ``terms``.

    Args:
        found: a tensor.
        expected: of the same shape and dtype.
        terms: how many products are added one after another, over all layers.
    """
    bound = 2 * terms * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=bound)
