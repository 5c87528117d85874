"""The small coordinate network whose weights a hypernetwork writes; each one is a plain module of its own."""

import math
from collections import OrderedDict
from typing import Any

from torch import nn

from .encodings import LogFrequencies
from .layers import Layers, seeded


class HypoNet(Layers):
    r"""Coordinates → frequencies → (linear → ReLU) x (layers − 1) → output.

    .. math:: y = W_L\, \mathrm{relu}(W_{L-1} \cdots \mathrm{relu}(W_1 \gamma(x) + b_1) \cdots) + b_L

    Children, in order: ``encoding``, ``linear1``, ``activation1``, …, ``output``. It draws on
    :func:`pixel_centres`, not on :func:`coordinates`.

    Args:
        in_features: dims of a coordinate: 2 of a picture, 3 of a radiance field.
        out_features: channels of a pixel, or colours and density.
        hidden: units of every hidden layer.
        layers: how many Linear layers, the output among them.
        count: frequencies of each coordinate; 0 leaves coordinates as they are.
        highest: frequency (:class:`LogFrequencies`).
        unit: of the frequencies, in radians.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: no layers.

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
        if layers < 1:
            raise ValueError(f"layers is {layers}; wanted at least 1, the output layer.")
        self.config: dict[str, Any] = {
            "in_features": in_features,
            "out_features": out_features,
            "hidden": hidden,
            "layers": layers,
            "count": count,
            "highest": highest,
            "unit": unit,
        }
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["encoding"] = LogFrequencies(in_features, count, highest, unit) if count else nn.Identity()
        width = 2 * count * in_features if count else in_features
        with seeded(seed):
            for i in range(1, layers):
                parts[f"linear{i}"] = nn.Linear(width, hidden)
                parts[f"activation{i}"] = nn.ReLU()
                width = hidden
            parts["output"] = nn.Linear(width, out_features)
        super().__init__(parts)

    def linears(self) -> OrderedDict[str, nn.Linear]:
        """The Linear layers by name, in order.

        Example:
            >>> list(HypoNet(hidden=4, layers=3, count=2).linears())
            ['linear1', 'linear2', 'output']
        """
        return OrderedDict((name, child) for name, child in self.named_children() if isinstance(child, nn.Linear))
