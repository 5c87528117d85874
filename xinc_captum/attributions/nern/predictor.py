"""The embedding of kernel coordinates and the MLP that predicts kernels."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ...inr.mlp import Layers, dense_layers, seeded

Fusion = Literal["concat", "sum"]


class SmoothEmbedding(nn.Module):
    r"""Sine and cosine of each coordinate at each level.

    .. math:: \gamma(p)_{d, i} = (\sin(\pi b^i p_d), \cos(\pi b^i p_d)), \quad i = 0 … L - 1

    Symbols: p_d the layer, filter or channel coordinate, b the base, L the levels. A base below 1 is smooth:
    neighbouring indices get similar rows. Angles and results are float32 for any dtype of the coordinates, because the
    frequencies of the released code are float32; a float64 table differs by 1e-5.

    Args:
        base: b.
        levels: L.
        fusion: "concat" concatenates the three coordinates, (…, 3 · 2L); "sum" adds them, (…, 2L).

    Raises:
        ValueError: a base that is not positive, no levels, or an unknown fusion.

    Example:
        >>> SmoothEmbedding(0.5, 2)(torch.tensor([[0.0, 1.0, 2.0]])).shape
        torch.Size([1, 12])

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.1, and the released code.
    """

    frequencies: Tensor

    def __init__(self, base: float = 0.85, levels: int = 20, fusion: Fusion = "concat") -> None:
        super().__init__()
        if base <= 0 or levels < 1:
            raise ValueError(f"base is {base} and levels is {levels}; expected base > 0 and at least 1 level.")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {fusion!r}; expected 'concat' or 'sum'.")
        self.base, self.levels, self.fusion = base, levels, fusion
        self.register_buffer("frequencies", _powers(base, levels), persistent=False)

    @property
    def out_features(self) -> int:
        """Numbers for each kernel."""
        return 2 * self.levels * (3 if self.fusion == "concat" else 1)

    @property
    def groups(self) -> int:
        """Number of coordinates that are separate in the result: 3, or 1 for "sum"."""
        return 3 if self.fusion == "concat" else 1

    def forward(self, coordinates: Tensor) -> Tensor:
        """Map (kernels, 3) to (kernels, out_features): coordinate-major, then level, then sine and cosine."""
        angle = coordinates.float()[..., None] * self.frequencies.float() * torch.pi
        rows = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return rows.flatten(-2) if self.fusion == "concat" else rows.sum(-2)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"base={self.base}, levels={self.levels}, fusion={self.fusion!r}"


def _powers(base: float, levels: int) -> Tensor:
    """Return the powers b^0 to b^(L - 1) of the float32 base, each rounded once to float32.

    ``torch.pow`` in float32 rounds differently on different processors. One unit in the last place of 1.25^79 changes
    an angle by more than 2π, so the same file would give other weights on another machine.
    """
    single = float(np.float32(base))
    return torch.tensor([single**level for level in range(levels)], dtype=torch.float32)


class KernelPredictor(Layers):
    r"""Embedding → (linear → ReLU) x (blocks − 1) → K² numbers.

    .. math:: P(k) = W_Q\, \sigma(W_{Q-1} \cdots \sigma(W_1 \gamma(k) + b_1) \cdots) + b_Q

    Children, in order: ``linear1``, ``activation1``, …, ``output``. It has (in + 1) h + (Q − 2)(h² + h) + K² (h + 1)
    parameters.

    Args:
        in_features: numbers of an embedded coordinate.
        hidden: h, units of every hidden layer.
        blocks: Q, number of Linear layers, including the output layer.
        kernel_size: K.
        seed: of the weights; None takes torch's global generator.

    Raises:
        ValueError: fewer than 2 blocks, or sizes below 1.

    Example:
        >>> sum(p.numel() for p in KernelPredictor(60, 32).parameters())
        5417

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.1; it always has 5 blocks.
    """

    def __init__(
        self, in_features: int, hidden: int = 40, blocks: int = 5, kernel_size: int = 3, seed: int | None = None
    ) -> None:
        if blocks < 2 or min(in_features, hidden, kernel_size) < 1:
            raise ValueError(
                f"got in_features {in_features}, hidden {hidden}, blocks {blocks}, kernel_size {kernel_size}; expected "
                "at least 2 blocks (a hidden layer and the output) and sizes of at least 1."
            )
        with seeded(seed):
            modules = dense_layers(in_features, hidden, blocks, kernel_size**2)
        super().__init__(modules)
