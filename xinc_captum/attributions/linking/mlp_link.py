"""A two-layer network from r to w: what a link would gain by giving up the closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .link_checks import checked_pairs
from .moments import wide


class MLPLink(nn.Module):
    r"""The ceiling beside a link.

    .. math:: \hat w = \bar w + s_w \odot \big(W_2\, \mathrm{GELU}(W_1 (r - \bar r) / s_r + b_1) + b_2\big)

    Args:
        hidden: width of the one hidden layer.
        seed: of the first weights and the order of the rows; the global random state is not touched.

    Example:
        >>> r = torch.rand(300, 4)
        >>> link = MLPLink(hidden=32).fit(r, (3 * r).sin(), epochs=100)
        >>> bool((link(r) - (3 * r).sin()).square().mean() < 0.05)
        True
    """

    scales: Tensor

    def __init__(self, hidden: int = 256, *, seed: int = 0) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden is {hidden}; wanted at least 1.")
        self.hidden, self.seed = hidden, seed
        self.first: nn.Linear | None = None
        self.second: nn.Linear | None = None

    def fit(self, r: Tensor, w: Tensor, *, epochs: int = 30, batch_size: int = 128, lr: float = 3e-3) -> MLPLink:
        """Train from the start on pairs, (n, units) and (n, latent_dim), with Adam and a learning rate that falls to 0.

        Raises:
            ValueError: as :meth:`LatentLink.fit`.
        """
        r, w = (wide(side) for side in checked_pairs(r, w))
        generator = torch.Generator().manual_seed(self.seed)
        self.r_mean, self.r_sd = r.mean(0), _spread(r)  # in float64: a mean may be large beside its deviation
        self.w_mean, self.w_sd = w.mean(0), _spread(w)
        wanted = ((w - self.w_mean) / self.w_sd).float()
        self.first = _layer(r.shape[1], self.hidden, generator).to(r.device)
        self.second = _layer(self.hidden, w.shape[1], generator).to(r.device)
        weights = [*self.first.parameters(), *self.second.parameters()]
        steps = epochs * math.ceil(len(r) / batch_size)
        with torch.enable_grad():
            optimizer = torch.optim.Adam(weights, lr)
            fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
            for _ in range(epochs):
                for rows in torch.randperm(len(r), generator=generator).to(r.device).split(batch_size):
                    loss = (self._standardised(r[rows]) - wanted[rows]).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    fall.step()
        self.requires_grad_(False)
        return self

    def forward(self, r: Tensor) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim), float32."""
        standardised = self._standardised(r)
        return (self.w_mean + self.w_sd * standardised).float()

    def _standardised(self, r: Tensor) -> Tensor:
        if self.first is None or self.second is None:
            raise ValueError("the network has seen no pairs; call fit(r, w).")
        hidden = nn.functional.gelu(self.first(((r.to(self.r_mean) - self.r_mean) / self.r_sd).float()))
        answer: Tensor = self.second(hidden)
        return answer


def _spread(rows: Tensor) -> Tensor:
    """The standard deviation of each column; 1 where all values are equal, whatever rounding makes of it."""
    return torch.where((rows == rows[0]).all(0), 1.0, rows.std(0))


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs))
        layer.bias.zero_()
    return layer
