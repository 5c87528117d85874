"""A transformer encoder that normalises before each step, with attention written out."""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    r"""Self-attention of several heads.

    .. math:: y = W_o\, [\mathrm{softmax}(Q_h K_h^T / \sqrt{d})\, V_h]_h + b_o

    Symbols: h a head of d numbers, head_dim or dim / heads; queries Q, keys K and values V are linear without bias. The
    softmax is written out: torch's fused kernel has no forward-mode derivative on CPUs, and does not show its
    weights.

    Args:
        dim: numbers a token.
        heads: must divide ``dim``, where ``head_dim`` is None.
        head_dim: d; None is dim / heads.

    Raises:
        ValueError: heads that do not divide dim, or a ``head_dim`` below 1.

    Example:
        >>> y, weights = Attention(24, 3)(torch.rand(2, 5, 24))
        >>> y.shape, weights.shape
        (torch.Size([2, 5, 24]), torch.Size([2, 3, 5, 5]))

    Source: Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), sec. 3.2.
    """

    def __init__(self, dim: int, heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        if heads < 1 or (head_dim is None and dim % heads):
            raise ValueError(
                f"dim {dim} is not divisible by heads {heads}; wanted heads of equal width, or give their width as "
                "head_dim."
            )
        if head_dim is not None and head_dim < 1:
            raise ValueError(f"head_dim is {head_dim}; wanted at least 1, or None for dim / heads.")
        self.heads = heads
        inner = dim if head_dim is None else heads * head_dim
        self.query, self.key, self.value = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, n, dim) to the same, and the attention weights (B, heads, from n, to n), rows of which add up to 1.

        Args:
            x: tokens.
            seen: (B, n) bool; nothing attends to a token that is not seen.
        """
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = (q / q.shape[-1] ** 0.5) @ k.mT  # fewer numbers to divide than there are scores
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
        y: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return y, weights


class Block(nn.Module):
    r"""One step of attention and one of a two-layer network, each added to what it read.

    .. math:: x \mathrel{+}= A(\mathrm{LN}(x)), \qquad x \mathrel{+}= W_2\, \mathrm{GELU}(W_1 \mathrm{LN}(x))

    Example:
        >>> Block(24, 3, 48)(torch.rand(2, 5, 24))[0].shape
        torch.Size([2, 5, 24])
    """

    def __init__(self, dim: int, heads: int, ff: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads, head_dim)
        self.norm2, self.ff = nn.LayerNorm(dim), nn.Sequential(nn.Linear(dim, ff), nn.GELU(), nn.Linear(ff, dim))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, n, dim) to the same, and the attention weights."""
        y, weights = self.attention(self.norm1(x), seen)
        x = x + y
        return x + self.ff(self.norm2(x)), weights


class Encoder(nn.Module):
    """Blocks one after another, without a norm at the end.

    Args:
        dim: numbers a token.
        depth: how many blocks.
        heads: of each.
        ff: width of the two-layer networks.
        head_dim: numbers of each head; None is dim / heads.

    Example:
        >>> y, routing = Encoder(24, 2, 3, 48).routed(torch.rand(2, 5, 24))
        >>> routing.shape
        torch.Size([2, 2, 3, 5, 5])

    Source: Xiong et al., "On Layer Normalization in the Transformer Architecture" (ICML 2020), as Chen & Wang use it.
    """

    def __init__(self, dim: int, depth: int, heads: int, ff: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, ff, head_dim) for _ in range(depth))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, n, dim) to the same.

        Args:
            x: tokens.
            seen: (B, n) bool; None means all.
        """
        for block in self.blocks:
            x, _ = block(x, seen)
        return x

    def routed(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, and all attention weights: (B, depth, heads, from n, to n), the largest tensor there is.

        Args:
            x: tokens.
            seen: (B, n) bool; None means all.
        """
        found = []
        for block in self.blocks:
            x, weights = block(x, seen)
            found.append(weights)
        return x, torch.stack(found, 1)
