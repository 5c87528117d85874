"""Max pooling carried with its choice frozen: every output keeps the parts of the input it was taken from."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def max_pool(name: str, value: Tensor, slot: Tensor, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    """Pooled value and the slot at the same places, so that parts and slot still add up exactly.

    What is frozen is *which* input wins; a unit that would change the winner gets no credit for that, as under the
    gradient.

    Example:
        >>> value, slot = torch.tensor([[[1.0, 5.0, 2.0, 0.0]]]), torch.tensor([[[0.1, 0.2, 0.3, 0.4]]])
        >>> [t.tolist() for t in max_pool("max_pool1d", value, slot, (2,), {})]
        [[[[5.0, 2.0]]], [[[0.2..., 0.3...]]]]
    """
    kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
    pooled, indices = getattr(F, f"{name}_with_indices")(value, *args, **kwargs)
    dims = int(name[-2])
    with torch.no_grad():
        picked = slot.flatten(-dims).gather(-1, indices.flatten(-dims)).reshape(indices.shape)
    return pooled, picked
