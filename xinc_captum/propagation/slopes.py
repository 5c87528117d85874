"""How steep a function of each element is: at one point, or from zero to that point."""

from collections.abc import Callable

import torch
from torch import Tensor

Pointwise = Callable[[Tensor], Tensor]


def tangent_slope(sigma: Pointwise, z: Tensor) -> Tensor:
    """σ'(z), elementwise.

    Example:
        >>> tangent_slope(torch.square, torch.tensor([3.0, -1.0]))
        tensor([ 6., -2.])
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(sigma(leaf.clone()).sum(), leaf)
    return slope


def secant_slope(sigma: Pointwise, z: Tensor, elementwise: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """σ(z), (σ(z) − σ(0))/z with its limit σ'(0) at z = 0, and σ(0).

    Args:
        sigma: the function; it may write into what it is given.
        z: detached values.
        elementwise: σ holds tensors, so that σ(0) differs from element to element.

    Example:
        >>> [t.tolist() for t in secant_slope(torch.exp, torch.tensor([0.0]))]
        [[1.0], [1.0], [1.0]]
    """
    native, fixed = z.dtype, z
    with torch.no_grad():
        at_z = sigma(z.clone())
    if z.element_size() == 2 and not elementwise:
        fixed = z.float()  # the difference below would lose all of a half's few digits
    with torch.enable_grad():
        origin = torch.zeros_like(fixed) if elementwise else fixed.new_zeros([1] * fixed.dim())
        origin.requires_grad_()
        at_zero = sigma(origin.clone())
        (limit,) = torch.autograd.grad(at_zero.sum(), origin)
    with torch.no_grad():
        limit = torch.where(torch.isfinite(limit), limit, 0)  # sqrt: whatever stands at 0 stays there
        wide = at_z if fixed.dtype == native else sigma(fixed.clone())
        slope = torch.where(fixed == 0, limit, (wide - at_zero) / fixed).to(native)
        return at_z, slope, at_zero.detach().to(native)
