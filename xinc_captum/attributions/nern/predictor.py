"""The network that writes kernels: an MLP from an embedded coordinate to K x K numbers."""

from collections import OrderedDict

from torch import nn

from ...inr.layers import Layers, seeded


class KernelPredictor(Layers):
    r"""Embedding → (linear → ReLU) x (blocks − 1) → K² numbers.

    .. math:: P(k) = W_Q\, \sigma(W_{Q-1} \cdots \sigma(W_1 \gamma(k) + b_1) \cdots) + b_Q

    Children, in order: ``linear1``, ``activation1``, …, ``output``. It has (in + 1) h + (Q − 2)(h² + h) + K² (h + 1)
    parameters.

    Args:
        in_features: numbers of an embedded coordinate.
        hidden: h, units of every hidden layer.
        blocks: Q, Linear layers, the output among them.
        kernel_size: K.
        seed: of the weights; None takes torch's global generator.

    Raises:
        ValueError: fewer than 2 blocks, or sizes below 1.

    Example:
        >>> sum(p.numel() for p in KernelPredictor(60, 32).parameters())
        5417

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.1; 5 blocks everywhere.
    """

    def __init__(
        self, in_features: int, hidden: int = 40, blocks: int = 5, kernel_size: int = 3, seed: int | None = None
    ) -> None:
        if blocks < 2 or min(in_features, hidden, kernel_size) < 1:
            raise ValueError(
                f"got in_features {in_features}, hidden {hidden}, blocks {blocks}, kernel_size {kernel_size}; wanted "
                "at least 2 blocks (a hidden layer and the output) and sizes of at least 1."
            )
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        width = in_features
        with seeded(seed):
            for i in range(1, blocks):
                parts[f"linear{i}"] = nn.Linear(width, hidden)
                parts[f"activation{i}"] = nn.ReLU()
                width = hidden
            parts["output"] = nn.Linear(width, kernel_size**2)
        super().__init__(parts)
