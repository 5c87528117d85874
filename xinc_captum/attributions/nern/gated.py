"""What each neuron of a kernel predictor adds to each number that it writes, with the ReLUs held where they are."""

import torch
from torch import Tensor, nn

from .predictor import KernelPredictor


class GatedPass:
    r"""One pass of some kernels' rows through a predictor, every layer kept.

    .. math:: J_q = W_Q G_{Q-1} W_{Q-1} \cdots G_{q+1} W_{q+1}, \qquad C_q[i] = h_{q,i} J_q[:, i], \qquad
        \textstyle\sum_i C_q[i] + \beta_q = P

    Symbols: h_q the activations of layer q (0 is the embedding), G_q = diag[h_q > 0] the gates of this pass, β_q the
    output of the same network with h_q at zero, biases on, and these gates. Exact, since ReLUs are linear once their
    gates are held.

    Args:
        predictor: from rows to K² numbers.
        rows: (kernels, in_features).

    Attributes:
        predicted: P, (kernels, K²).
    """

    def __init__(self, predictor: KernelPredictor, rows: Tensor) -> None:
        self._linears = [m for m in predictor if isinstance(m, nn.Linear)]
        self._hidden = [rows]
        for linear in self._linears[:-1]:
            self._hidden.append(linear(self._hidden[-1]).relu())
        self.predicted: Tensor = self._linears[-1](self._hidden[-1])

    def hidden(self, at: int) -> Tensor:
        """h_q: (kernels, units)."""
        return self._hidden[at]

    def pulled(self, towards: Tensor, at: int) -> Tensor:
        """A gradient towards P, (…, kernels, K²), as one towards h_q: (…, kernels, units)."""
        v = towards @ self._linears[-1].weight
        for q in range(len(self._linears) - 1, at, -1):
            v = (v * self._gate(q, v)) @ self._linears[q - 1].weight
        return v

    def carried(self, change: Tensor, at: int) -> Tensor:
        """What a change of h_q, (…, kernels, units), changes in P: (…, kernels, K²)."""
        v = change
        for q in range(at + 1, len(self._linears)):
            v = (v @ self._linears[q - 1].weight.T) * self._gate(q, v)
        return v @ self._linears[-1].weight.T

    def contributions(self, at: int) -> Tensor:
        """C_q of every unit: (units, kernels, K²)."""
        taps = self.predicted.shape[-1]
        each = torch.eye(taps, dtype=self.predicted.dtype, device=self.predicted.device)
        towards = each[:, None].expand(-1, len(self.predicted), -1)
        return (self.pulled(towards, at) * self._hidden[at]).permute(2, 1, 0)

    def contribution(self, unit: int, at: int) -> Tensor:
        """C_q of one unit: (kernels, K²), without the others'."""
        alone = torch.zeros_like(self._hidden[at])
        alone[:, unit] = self._hidden[at][:, unit]
        return self.carried(alone, at)

    def bias(self, at: int) -> Tensor:
        """β_q: (kernels, K²)."""
        h = torch.zeros_like(self._hidden[at])
        for q in range(at + 1, len(self._linears)):
            h = self._linears[q - 1](h) * self._gate(q, h)
        out: Tensor = self._linears[-1](h)
        return out

    def _gate(self, layer: int, like: Tensor) -> Tensor:
        return (self._hidden[layer] > 0).to(like)
