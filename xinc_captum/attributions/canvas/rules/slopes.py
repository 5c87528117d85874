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


def secant_slope(
    sigma: Pointwise, z: Tensor, elementwise: bool = False, rise: Pointwise | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return σ(z), (σ(z) − σ(0))/z with its limit σ'(0) at z = 0, and σ(0).

    Args:
        sigma: the function; it may write into what it is given.
        z: detached values.
        elementwise: σ holds tensors, so that σ(0) differs from element to element.
        rise: z ↦ σ(z) − σ(0), where it is known more exactly than by subtraction.

    Example:
        >>> [t.tolist() for t in secant_slope(torch.exp, torch.tensor([0.0]))]
        [[1.0], [1.0], [1.0]]
    """
    native, fixed = z.dtype, z
    if z.element_size() == 2 and not elementwise:
        fixed = z.float()  # the difference below would lose all of a half's few digits
    with torch.enable_grad():
        origin = torch.zeros_like(fixed) if elementwise else fixed.new_zeros([1] * fixed.dim())
        origin.requires_grad_()
        at_zero = sigma(origin.clone())
        (limit,) = torch.autograd.grad(at_zero.sum(), origin)
    with torch.no_grad():
        at_zero, finite = at_zero.detach(), torch.isfinite(limit)  # sqrt: whatever stands at 0 stays there
        # Products of numbers next to the least normal one lose digits: step away from 0 by less than that matters.
        least = torch.finfo(fixed.dtype).tiny / torch.finfo(fixed.dtype).eps
        away = torch.addcmul(fixed, fixed.sign(), torch.where(finite, least, 0.0).to(fixed.dtype))
        wide = sigma(away.clone())
        at_z = wide if fixed.dtype == native else sigma(z.clone())
        slope = (wide - at_zero if rise is None else rise(away)).div_(away)
        slope = torch.where(fixed == 0, torch.where(finite, limit, 0), slope)
        return at_z, slope.to(native), at_zero.to(native)
