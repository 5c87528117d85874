"""Which kernels get a gradient in a step of training."""

import torch
from torch import Tensor


def sampled_kernels(norms: Tensor, count: int, generator: torch.Generator, *, by_norm: float = 0.2) -> Tensor:
    r"""Indices of the kernels of one step.

    .. math:: P(k) = \begin{cases} \text{uniform, without replacement} & \text{with probability } 1 - q \\
        \lVert w_k \rVert / \sum \lVert w \rVert, \text{ with replacement} & \text{with probability } q \end{cases}

    The other kernels of the step are predicted without gradient, so the rebuilt network is always complete.

    Args:
        norms: (kernels,) L2 norms, on the CPU.
        count: at most so many.
        generator: a CPU generator, so that every device sees the same choice.
        by_norm: q.

    Returns:
        sorted indices, each once: drawing with replacement leaves fewer than ``count``.

    Raises:
        ValueError: a count below 1 or q outside [0, 1].

    Example:
        >>> sampled_kernels(torch.ones(10), 4, torch.Generator().manual_seed(0), by_norm=0.0).shape
        torch.Size([4])

    Source: the released code of Ashkenazi et al. (ICLR 2023), "random weighted batch": .2 and 4096.
    """
    if count < 1 or not 0 <= by_norm <= 1:
        raise ValueError(f"count is {count} and by_norm is {by_norm}; wanted at least 1 kernel and a share in [0, 1].")
    # Both are drawn every time, so that the generator is at the same place whatever the coin says.
    coin = torch.rand((), generator=generator)
    uniform = torch.randperm(len(norms), generator=generator)[:count]
    if not coin < by_norm or not norms.sum() > 0:
        return uniform.sort().values
    total = norms.double().cumsum(0)  # torch.multinomial stops at 2^24 kernels
    drawn = torch.searchsorted(total, torch.rand(count, generator=generator, dtype=torch.float64) * total[-1])
    distinct: Tensor = drawn.clamp(max=len(norms) - 1).unique()
    return distinct
