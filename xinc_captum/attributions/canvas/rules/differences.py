"""σ(z) − σ(0) of functions, without the digits that the subtraction, or their own kernels, lose near z = 0."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Difference = Callable[[Tensor], Tensor]


def _softplus(z: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    u = z * beta
    rise = (torch.relu(u) + torch.log1p(torch.expm1(-u.abs()) / 2)) / beta
    return torch.where(u > threshold, z - math.log(2) / beta, rise)  # linear from there on, as torch computes it


def _sinc(z: Tensor) -> Tensor:
    x = torch.square(z * math.pi)
    series = -x / 6 * (1 - x / 20 * (1 - x / 42 * (1 - x / 72)))
    return torch.where(x < 0.25, series, torch.sinc(z) - 1)


def _elu(z: Tensor, alpha: float = 1.0, scale: float = 1.0, steepness: float = 1.0) -> Tensor:
    """Exponential linear units; the kernels of some versions of torch compute exp(z) − 1 for them."""
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


def difference(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Difference | None:
    """Return z ↦ σ(z) − σ(0) for a function whose own values would lose digits, or None for any other function.

    Near z = 0 the values σ(z) and σ(0) agree in most of their digits, and their difference keeps only the rest. The
    formulas here are identities, for example 1/(1 + exp(−z)) − 1/2 = tanh(z/2)/2.

    Args:
        name: of the operation, as torch calls it.
        args: its arguments after z.
        kwargs: its keyword arguments.

    Example:
        >>> rise = difference("sigmoid", (), {})
        >>> rise(torch.tensor([4e-9])) / 4e-9
        tensor([0.2500])
    """
    exact = _EXACT.get(name)
    if exact is None:
        return None
    names = _OPTIONS.get(name, ())
    options = {key: value for key, value in (*zip(names, args, strict=False), *kwargs.items()) if key in names}
    return lambda z: exact(z, **options)
