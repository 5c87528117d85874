"""The transformer that generates weights, and functions of many generated networks."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import python_index
from ...inr.mlp import HypoNet, seeded
from ...inr.training import check_at_least_one


class Attention(nn.Module):
    r"""Multi-head self-attention.

    .. math:: y = W_o\, [\mathrm{softmax}(Q_h K_h^T / \sqrt{d})\, V_h]_h + b_o

    Symbols: h a head of d numbers, head_dim or dim / heads; queries Q, keys K and values V are linear without bias. The
    softmax is explicit, because the attention weights are returned and the fused kernels of torch do not return them;
    torch's flash kernel also has no forward-mode derivative on CPUs.

    Source: Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), sec. 3.2.
    """

    def __init__(self, dim: int, heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        if heads < 1 or (head_dim is None and dim % heads):
            raise ValueError(
                f"dim {dim} is not divisible by heads {heads}; expected heads of equal width, or their width as "
                "head_dim."
            )
        if head_dim is not None and head_dim < 1:
            raise ValueError(f"head_dim is {head_dim}; expected at least 1, or None for dim / heads.")
        self.heads = heads
        inner = dim if head_dim is None else heads * head_dim
        self.query, self.key, self.value = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs (B, n, dim) and attention weights (B, heads, from n, to n), whose rows add up to 1.

        Tokens where ``mask``, (B, n) bool, is False are not attended to.
        """
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = (q / q.shape[-1] ** 0.5) @ k.mT  # q has fewer numbers than the scores
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
        weights = scores.softmax(-1)
        y: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return y, weights


class Block(nn.Module):
    r"""One block of the transformer: attention and a two-layer network, each with a residual connection.

    .. math:: x \mathrel{+}= A(\mathrm{LN}(x)), \qquad x \mathrel{+}= W_2\, \mathrm{GELU}(W_1 \mathrm{LN}(x))
    """

    def __init__(self, dim: int, heads: int, ff: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads, head_dim)
        self.norm2, self.ff = nn.LayerNorm(dim), nn.Sequential(nn.Linear(dim, ff), nn.GELU(), nn.Linear(ff, dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs (B, n, dim) and the attention weights."""
        y, weights = self.attention(self.norm1(x), mask)
        x = x + y
        return x + self.ff(self.norm2(x)), weights


class Encoder(nn.Module):
    """A sequence of blocks, without a final norm.

    Source: Xiong et al., "On Layer Normalization in the Transformer Architecture" (ICML 2020), as Chen & Wang use it.
    """

    def __init__(self, dim: int, depth: int, heads: int, ff: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, ff, head_dim) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return outputs (B, n, dim)."""
        for block in self.blocks:
            x, _ = block(x, mask)
        return x

    def forward_with_routing(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the outputs and all attention weights, (B, depth, heads, from n, to n), the largest tensor."""
        routing = []
        for block in self.blocks:
            x, weights = block(x, mask)
            routing.append(weights)
        return x, torch.stack(routing, 1)


Groups = int | Literal["vector"]
Modulations = tuple[Tensor, ...]
MAX_NUMBERS = 1 << 25  # of an intermediate result: 128 MB in single precision


class Weights(NamedTuple):
    """The networks of B images.

    Attributes:
        matrices: one (B, out, in) a layer, as in ``nn.Linear``; every row has length 1.
        biases: one (out,) a layer, shared by all images.
    """

    matrices: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


class Read(NamedTuple):
    """Modulations, one (B, rows, in) a layer, and attention weights (B, depth, heads, from, to), data tokens first."""

    modulations: Modulations
    routing: Tensor


class WeightWriter(nn.Module):
    r"""Transformer of data tokens and learned weight tokens; each weight token modulates some rows of a base matrix.

    .. math:: x_t = W_l\, \mathrm{LN}_l(z_t) + c_l, \qquad
        W_{j} = \frac{u_j}{\|u_j\|_2}, \quad u_j = B_j \odot x_{j \bmod g}

    Symbols: z_t the encoder's output for weight token t of layer l; x_t (in,) its modulation; B (out, in) the base
    matrix, j a neuron of the layer; g = min(groups, out). Biases are those of the base. So every neuron's weights have
    length 1, the length of a modulation has no effect, neurons of a group differ only by B, and neuron j corresponds to
    neuron j of every other image.

    Args:
        base: the network whose weights are modulated.
        dim: width of a token.
        depth: blocks of the encoder.
        heads: of each block.
        ff: width of the blocks' two-layer networks.
        groups: weight tokens of each layer; "vector": one token for the whole network, and a wider Linear that maps it
            to a modulation for each neuron, as in hypernetworks of a single vector.
        head_dim: numbers of each head; None is dim / heads.
        init_std: standard deviation of the initial weight tokens.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: groups that do not divide a layer's outputs, or numbers below 1.

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 3.3.
    """

    def __init__(
        self,
        base: HypoNet,
        dim: int,
        depth: int,
        heads: int,
        ff: int,
        groups: Groups,
        *,
        head_dim: int | None = None,
        init_std: float = 0.3,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(dim=dim, depth=depth, heads=heads, ff=ff)
        self.base, self.groups, self._attention_heads, self._ff = base, groups, heads, ff
        linears = base.linears()
        self.names = tuple(linears)
        self.rows = tuple(_rows(groups, name, linear.out_features) for name, linear in linears.items())
        count = 1 if groups == "vector" else sum(self.rows)
        with seeded(seed):
            self.tokens = nn.Parameter(torch.randn(count, dim) * init_std)
            self.encoder = Encoder(dim, depth, heads, ff, head_dim)
            wide = (rows if groups == "vector" else 1 for rows in self.rows)
            self.heads = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, times * linear.in_features))
                for times, linear in zip(wide, linears.values(), strict=True)
            )

    @property
    def token_names(self) -> tuple[str, ...]:
        """Layer and index of each modulation, in the order of ``TokenContribution``, such as 'linear1 · 0'."""
        pairs = zip(self.names, self.rows, strict=True)
        return tuple(f"{name} · {t}" for name, rows in pairs for t in range(rows))

    def read(self, data: Tensor, mask: Tensor | None = None) -> Read:
        """Return the modulations of data tokens (B, n, dim), and the attention weights; ``mask`` is (B, n) bool."""
        tokens, routing = self.encoder.forward_with_routing(*self._append_tokens(data, mask))
        return Read(self._apply_heads(tokens[:, data.shape[1] :]), routing)

    def modulations(self, data: Tensor, mask: Tensor | None = None) -> Modulations:
        """Return the modulations of :meth:`read`, without storing the attention weights."""
        return self._apply_heads(self.encoder(*self._append_tokens(data, mask))[:, data.shape[1] :])

    def _append_tokens(self, data: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(data), len(self.tokens))], 1)
        return torch.cat([data, self.tokens.expand(len(data), -1, -1)], 1), mask

    def _apply_heads(self, tokens: Tensor) -> Modulations:
        parts = [tokens] * len(self.rows) if self.groups == "vector" else tokens.split(self.rows, 1)
        outputs = (head(part) for head, part in zip(self.heads, parts, strict=True))
        inputs = [linear.in_features for linear in self.base.linears().values()]
        return tuple(x.reshape(len(x), -1, width) for x, width in zip(outputs, inputs, strict=True))

    def weights(self, modulations: Modulations) -> Weights:
        """Return the matrices and biases of the networks with these modulations, one (B, rows, in) a layer."""
        matrices = []
        linears = self.base.linears().values()
        for linear, x in zip(linears, modulations, strict=True):
            repeated = x.repeat(1, linear.out_features // x.shape[1], 1)  # neuron j takes row j mod g
            matrices.append(F.normalize(linear.weight * repeated, dim=-1))
        return Weights(tuple(matrices), tuple(linear.bias for linear in linears))

    def max_batch_size(self, size: tuple[int, int], limit: int | None = None, data_tokens: int = 0) -> int:
        """Return ``limit``, or how many samples one pass takes with each intermediate result below 128 MB.

        Args:
            size: (H, W) of the output of each generated network.
            limit: the caller's ``internal_batch_size``.
            data_tokens: data tokens of each sample that the transformer reads; 0 where the modulations are known.
        """
        check_at_least_one(internal_batch_size=limit)
        if limit is not None:
            return limit
        linears = self.base.linears().values()
        widest = max(linear.in_features for linear in linears)
        numbers = max(size[0] * size[1] * widest, sum(linear.weight.numel() for linear in linears))
        if data_tokens:
            tokens = data_tokens + len(self.tokens)
            numbers = max(numbers, tokens * tokens * self._attention_heads, tokens * self._ff)
        return max(1, MAX_NUMBERS // numbers)

    def layer_index(self, layer: int | str) -> int:
        """Return the index of a layer, given by index (negative ones count from the end) or name."""
        count = len(self.names)
        if isinstance(layer, str) and layer in self.names:
            return self.names.index(layer)
        layer = python_index(layer)
        if isinstance(layer, int) and -count <= layer < count:
            return layer % count
        raise ValueError(f"layer is {layer!r}; expected one of {', '.join(self.names)}, or {-count} to {count - 1}.")


def _rows(groups: Groups, name: str, outputs: int) -> int:
    """Return the number of modulations of a layer."""
    if groups == "vector":
        return outputs
    groups = python_index(groups)
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ValueError(f'groups is {groups!r}; expected a number of at least 1, or "vector".')
    rows = min(groups, outputs)
    if outputs % rows:
        good = [g for g in range(1, outputs + 1) if outputs % g == 0]
        raise ValueError(
            f"layer {name!r} has {outputs} outputs, which {rows} groups do not divide; choose groups among "
            f"{', '.join(map(str, good))}, or at least {outputs}."
        )
    return rows


def run_networks(encoded: Tensor, weights: Weights, out_bias: float = 0.0) -> Tensor:
    r"""Return the outputs of B networks, at common or separate coordinates: (B, points, out).

    .. math:: y_b = W_L^b\, \mathrm{relu}(\cdots \mathrm{relu}(W_1^b \gamma + b_1) \cdots) + b_L + out\_bias

    Args:
        encoded: γ, encoded coordinates: (points, in) or (B, points, in).
        weights: of the B networks.
        out_bias: added to the outputs; 0.5 for images in [0, 1].
    """
    hidden, last = encoded, len(weights.matrices) - 1
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        hidden = hidden @ matrix.mT + bias
        hidden = hidden.relu() if i < last else hidden + out_bias
    return hidden


def as_module(base: HypoNet, weights: Weights, index: int, out_bias: float = 0.0) -> HypoNet:
    """Return network ``index`` of ``weights`` as an ordinary module that shares no memory with others or ``base``.

    The base has the same architecture; ``out_bias`` is added to the last bias.

    Example:
        >>> from xinc_captum.inr import HypoNet
        >>> base = HypoNet(hidden=4, layers=2, count=2)
        >>> matrices = tuple(p.weight[None] for p in base.linears().values())
        >>> net = as_module(base, Weights(matrices, tuple(p.bias for p in base.linears().values())), 0)
        >>> x = torch.rand(3, 2)
        >>> bool((net(x) == base(x)).all()), net.output.weight is base.output.weight
        (True, False)
    """
    with torch.device("meta"):  # no random weights: the random state is unchanged
        module = HypoNet(**base.config)
    state = {name: buffer.clone() for name, buffer in base.named_buffers()}
    for i, (name, matrix, bias) in enumerate(zip(base.linears(), *weights, strict=True)):
        state[f"{name}.weight"] = matrix[index].detach().clone()
        state[f"{name}.bias"] = bias.detach() + (out_bias if i == len(weights.matrices) - 1 else 0.0)
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(True)


def stack_weights(modules: list[HypoNet] | list[nn.Module]) -> Weights:
    """Stack the weights of several modules: each matrix (B, out, in), each bias (B, 1, out).

    Example:
        >>> from xinc_captum.inr import HypoNet
        >>> nets = [HypoNet(hidden=4, layers=2, count=2) for _ in range(3)]
        >>> run_networks(nets[0].encoding(torch.rand(5, 2)), stack_weights(nets)).shape
        torch.Size([3, 5, 3])
    """
    linears = [[m for m in net.children() if isinstance(m, nn.Linear)] for net in modules]
    layers = list(zip(*linears, strict=True))
    return Weights(
        tuple(torch.stack([m.weight.detach() for m in layer]) for layer in layers),
        tuple(torch.stack([m.bias.detach() for m in layer])[:, None] for layer in layers),
    )
