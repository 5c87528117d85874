"""Coordinate networks: FourierMLP, Siren and HypoNet."""

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import python_index
from ..hooks import exclusive
from .coordinates import FourierFeatures, LogFrequencies, NerfFrequencies

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def activation_maker(activation: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a function that makes the modules of an activation, given by name or as such a function."""
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown; expected one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[activation]


def arguments_of(values: Mapping[str, Any], *without: str) -> dict[str, Any]:
    """Return the arguments of a method, from its ``locals()`` before any other name is assigned."""
    return {name: python_index(value) for name, value in values.items() if name not in ("self", "__class__", *without)}


class Layers(nn.Sequential):
    """A Sequential whose slices are plain Sequentials, so that subclasses can have other constructors."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)


def dense_layers(
    in_features: int, hidden: int, layers: int, out_features: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> "OrderedDict[str, nn.Module]":
    """Return ``linear1``, ``activation1``, …, ``output``: ``layers`` Linear layers with activations between them."""
    if layers < 1:
        raise ValueError(f"layers is {layers}; expected at least 1, the output layer.")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, layers):
        modules[f"linear{i}"] = nn.Linear(in_features if i == 1 else hidden, hidden)
        modules[f"activation{i}"] = activation()
    modules["output"] = nn.Linear(in_features if layers == 1 else hidden, out_features)
    return modules


class seeded:  # noqa: N801 - reads as a verb in a with statement
    """Seed torch's global CPU generator for a block and restore its state; does nothing for None."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        if self._seed is not None:
            self._turn = exclusive()  # the generator belongs to all threads
            self._turn.__enter__()
            self._state = torch.get_rng_state()
            torch.default_generator.manual_seed(operator.index(self._seed))

    def __exit__(self, *_: object) -> None:
        if self._seed is not None:
            torch.set_rng_state(self._state)
            self._turn.__exit__(None, None, None)


class HypoNet(Layers):
    r"""Coordinates → frequencies → (linear → ReLU) x (layers − 1) → output.

    .. math:: y = W_L\, \mathrm{relu}(W_{L-1} \cdots \mathrm{relu}(W_1 \gamma(x) + b_1) \cdots) + b_L

    Children, in order: ``encoding``, ``linear1``, ``activation1``, …, ``output``. Its grid is :func:`pixel_centres`.
    The other arguments are those of :class:`FourierMLP`.

    Args:
        in_features: dims of a coordinate: 2 of an image, 3 of a radiance field.
        out_features: channels of a pixel, or colours and density.
        count: frequencies of each coordinate; 0 for no encoding.
        highest: highest frequency (:class:`LogFrequencies`).
        unit: of the frequencies, in radians.

    Example:
        >>> HypoNet(out_features=3, hidden=16, layers=3, count=4)(torch.rand(6, 2)).shape
        torch.Size([6, 3])

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 3.
    """

    def __init__(
        self,
        in_features: int = 2,
        out_features: int = 3,
        hidden: int = 256,
        layers: int = 5,
        count: int = 64,
        highest: float = 1024.0,
        unit: float = math.pi,
        seed: int | None = None,
    ) -> None:
        self.config = arguments_of(locals(), "seed")
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["encoding"] = LogFrequencies(in_features, count, highest, unit) if count else nn.Identity()
        width = 2 * count * in_features if count else in_features
        with seeded(seed):
            parts |= dense_layers(width, hidden, layers, out_features)
        super().__init__(parts)

    def linears(self) -> OrderedDict[str, nn.Linear]:
        """Return the Linear layers by name, in order."""
        return OrderedDict((name, child) for name, child in self.named_children() if isinstance(child, nn.Linear))


class FourierMLP(Layers):
    r"""Coordinates → encoding → (linear → activation) x (layers − 1) → output.

    .. math:: y = W_L\, \sigma(W_{L-1} \cdots \sigma(W_1 \gamma(x) + b_1) \cdots) + b_L

    Children, in order: ``encoding``, ``linear1``, ``activation1``, …, ``output``; each activation is a separate
    module, so that every layer can be captured. The defaults are the paper's FFN: 32,971 parameters.

    Args:
        in_features: dims of a coordinate (1, 2 or 3 …).
        out_features: channels of a pixel.
        hidden: units of every hidden layer.
        layers: number of Linear layers, including the output layer.
        activation: one of ``ACTIVATIONS``.
        encoding: "fourier" or "nerf".
        features: rows of the Fourier matrix (None: ``hidden``), or octaves of the NeRF encoding.
        scale: of the Fourier matrix.
        seed: for the encoding and the weights; None takes torch's global generator.

    Raises:
        ValueError: no layers, or an unknown activation or encoding.

    Example:
        >>> FourierMLP()(torch.rand(6, 2)).shape
        torch.Size([6, 3])

    Source: Padmanabhan et al. (CVPR 2024), FFN; Tancik et al. (NeurIPS 2020).
    """

    def __init__(
        self,
        in_features: int = 2,
        out_features: int = 3,
        hidden: int = 104,
        layers: int = 3,
        activation: str = "relu",
        encoding: str = "fourier",
        features: int | None = None,
        scale: float = 10.0,
        seed: int | None = None,
    ) -> None:
        self.config = arguments_of(locals(), "seed")
        activate = activation_maker(activation)
        if encoding not in ("fourier", "nerf"):
            raise ValueError(f"encoding {encoding!r} is unknown; expected 'fourier' or 'nerf'.")
        with seeded(seed):
            encode = (
                FourierFeatures(in_features, features or hidden, scale)
                if encoding == "fourier"
                else NerfFrequencies(in_features, features or 8)
            )
            modules = dense_layers(encode.out_features, hidden, layers, out_features, activate)
        super().__init__(OrderedDict(encoding=encode, **modules))


class Sine(nn.Module):
    """σ(z) = sin(ω z).

    Example:
        >>> Sine(30.0)(torch.zeros(1))
        tensor([0.])
    """

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: Tensor) -> Tensor:
        """Return sin(ω z), elementwise."""
        return torch.sin(self.omega * z)

    def extra_repr(self) -> str:
        """Return the frequency."""
        return f"omega={self.omega}"


class Siren(Layers):
    r"""A network of sines: (linear → sin(ω ·)) x (layers − 1) → output, with the initial weights of its paper.

    .. math:: W_1 \sim U(\pm 1/n), \quad W_{l>1} \sim U(\pm \sqrt{6/n}/\omega)

    Symbols: n the inputs of a layer, U a uniform distribution. Children, in order: ``linear1``, ``activation1``, …,
    ``output``. The other arguments are those of :class:`FourierMLP`, with at least two layers.

    Args:
        omega: ω of the hidden layers.
        first_omega: ω of the first layer.

    Example:
        >>> Siren(hidden=16)(torch.rand(6, 2)).shape
        torch.Size([6, 3])

    Source: Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions" (NeurIPS 2020),
    sec. 3.2 (ω = 30) and supplement sec. 1.
    """

    def __init__(
        self,
        in_features: int = 2,
        out_features: int = 3,
        hidden: int = 104,
        layers: int = 4,
        omega: float = 30.0,
        first_omega: float = 30.0,
        seed: int | None = None,
    ) -> None:
        if layers < 2:
            raise ValueError(f"layers is {layers}; expected at least 2, one of them the output layer.")
        self.config = arguments_of(locals(), "seed")
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        widths = [in_features, *[hidden] * (layers - 1), out_features]
        with seeded(seed):
            for i, (width, units) in enumerate(pairwise(widths), start=1):
                linear = nn.Linear(width, units)
                bound = 1 / width if i == 1 else (6 / width) ** 0.5 / omega
                nn.init.uniform_(linear.weight, -bound, bound)
                parts["output" if i == layers else f"linear{i}"] = linear
                if i < layers:
                    parts[f"activation{i}"] = Sine(first_omega if i == 1 else omega)
        super().__init__(parts)
