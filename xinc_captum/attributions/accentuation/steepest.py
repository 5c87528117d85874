"""Steepest ascent in steps of one length."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Steepest(torch.optim.Optimizer):
    r"""Moves every row along its averaged gradient, always as far.

    .. math:: m \leftarrow \beta m + g, \qquad p \leftarrow p - \eta\, m / \mathrm{rms}(m)

    Symbols: g the gradient, m its running sum, β the momentum, η ``lr``: the root mean square of a step; rms is over
    each row (first axis) of a tensor. Adam moves every parameter as far, also those whose gradient is nothing but
    chance; here they stay,
    and the change is smoother and nearer to the seed (``benchmarks/cost_to_result.py``).

    Leaves that all images share, such as the weights and biases of a network that draws them, have no rows: rms is
    over the whole tensor. ``rows`` tells the two apart.

    Args:
        params: leaves of any shape; rows first, or shared.
        lr: η.
        momentum: β in [0, 1).
        rows: the number of rows; a leaf whose first axis has another length is shared. None takes the first axis of
            every leaf for rows.

    Example:
        >>> p = torch.zeros(1, 4, requires_grad=True)
        >>> p.grad = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
        >>> Steepest([p], lr=0.5).step()
        >>> p.detach()
        tensor([[-1., 0., 0., 0.]])
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.5, *, rows: int | None = None
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; wanted 0 <= momentum < 1.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "rows": rows})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; rows whose gradient is zero stay where they are."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                m = state["m"] = p.grad.clone() if "m" not in state else state["m"].mul_(group["momentum"]).add_(p.grad)
                shared = m.dim() == 0 or group["rows"] not in (None, m.shape[0])
                by_row = m.reshape(1 if shared else m.shape[0], -1)
                size = by_row.square().mean(1).sqrt().clamp_min(torch.finfo(m.dtype).tiny)
                p.sub_(group["lr"] * (by_row / size[:, None]).reshape(m.shape))
