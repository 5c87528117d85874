"""From data tokens to the weights of a coordinate network: weight tokens, a transformer, and shared base weights."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...inr import HypoNet
from ...inr.layers import seeded
from .encoder import Encoder

Groups = int | Literal["vector"]
Modulations = tuple[Tensor, ...]


class Weights(NamedTuple):
    """The networks of B pictures.

    Attributes:
        matrices: one (B, out, in) a layer, as in ``nn.Linear``; every row has length 1.
        biases: one (out,) a layer, the same for all pictures.
    """

    matrices: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


class Read(NamedTuple):
    """What the transformer makes of data tokens.

    Attributes:
        modulations: one (B, rows, in) a layer.
        routing: attention weights, (B, depth, heads, from tokens, to tokens), data tokens first.
    """

    modulations: Modulations
    routing: Tensor


class WeightWriter(nn.Module):
    r"""Learned weight tokens join the data tokens; each is turned into a modulation of some rows of a base matrix.

    .. math:: x_t = W_l\, \mathrm{LN}_l(z_t) + c_l, \qquad
        W_{j} = \frac{u_j}{\|u_j\|_2}, \quad u_j = B_j \odot x_{j \bmod g}

    Symbols: z_t what the encoder makes of weight token t of layer l; x_t (in,) its modulation; B (out, in) the base
    matrix, j a neuron of the layer; g = min(groups, out). Biases are the base's. So every neuron's weights have
    length 1, a modulation's length means nothing, neurons of a group differ only through B, and neuron j is the same
    neuron in every picture.

    Args:
        base: the network whose weights are shared.
        dim: numbers a token.
        depth: blocks of the encoder.
        heads: of each block.
        ff: width of the blocks' two-layer networks.
        groups: weight tokens of each layer; "vector": one token for the whole network, from which a wider Linear makes
            a modulation for each neuron, as hypernetworks of a single vector do.
        head_dim: numbers of each head; None is dim / heads.
        init_std: standard deviation of the first weight tokens.
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
        at_least_one(dim=dim, depth=depth, heads=heads, ff=ff)
        self.base, self.groups = base, groups
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
        """Layer and number of each modulation, in the order of ``TokenContribution``'s parts.

        Example:
            >>> from xinc_captum.attributions.trans_inr import TransINR
            >>> TransINR(hidden=4, groups=2).writer.token_names
            ('linear1 · 0', 'linear1 · 1', 'linear2 · 0', 'linear2 · 1', 'output · 0')
        """
        pairs = zip(self.names, self.rows, strict=True)
        return tuple(f"{name} · {t}" for name, rows in pairs for t in range(rows))

    def read(self, data: Tensor, seen: Tensor | None = None) -> Read:
        """Data tokens (B, n, dim) to modulations, and the attention on the way.

        Args:
            data: tokens of pictures or views.
            seen: (B, n) bool; None means all.
        """
        tokens, routing = self.encoder.routed(*self._joined(data, seen))
        return Read(self._headed(tokens[:, data.shape[1] :]), routing)

    def modulations(self, data: Tensor, seen: Tensor | None = None) -> Modulations:
        """Those of :meth:`read`, without keeping the attention of every block."""
        return self._headed(self.encoder(*self._joined(data, seen))[:, data.shape[1] :])

    def _joined(self, data: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if seen is not None:
            seen = torch.cat([seen, seen.new_ones(len(data), len(self.tokens))], 1)
        return torch.cat([data, self.tokens.expand(len(data), -1, -1)], 1), seen

    def _headed(self, written: Tensor) -> Modulations:
        parts = [written] * len(self.rows) if self.groups == "vector" else written.split(self.rows, 1)
        made = (head(part) for head, part in zip(self.heads, parts, strict=True))
        inputs = [linear.in_features for linear in self.base.linears().values()]
        return tuple(x.reshape(len(x), -1, width) for x, width in zip(made, inputs, strict=True))

    def weights(self, modulations: Modulations) -> Weights:
        """The matrices and biases that modulations stand for.

        Args:
            modulations: one (B, rows, in) a layer.
        """
        matrices = []
        linears = self.base.linears().values()
        for linear, x in zip(linears, modulations, strict=True):
            tiled = x.repeat(1, linear.out_features // x.shape[1], 1)  # neuron j takes row j mod g
            matrices.append(F.normalize(linear.weight * tiled, dim=-1))
        return Weights(tuple(matrices), tuple(linear.bias for linear in linears))

    def layer_index(self, layer: int | str) -> int:
        """Which layer, by number (negative ones from the end) or by name.

        Raises:
            ValueError: no such layer.
        """
        count = len(self.names)
        if isinstance(layer, str) and layer in self.names:
            return self.names.index(layer)
        if isinstance(layer, int) and -count <= layer < count:
            return layer % count
        raise ValueError(f"layer is {layer!r}; wanted one of {', '.join(self.names)}, or {-count} to {count - 1}.")


def at_least_one(**numbers: int) -> None:
    """Say which number is too small.

    Raises:
        ValueError: one of them below 1.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; wanted at least 1.")


def _rows(groups: Groups, name: str, outputs: int) -> int:
    """How many modulations a layer has."""
    if groups == "vector":
        return outputs
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise ValueError(f'groups is {groups!r}; wanted a number of at least 1, or "vector".')
    rows = min(groups, outputs)
    if outputs % rows:
        good = [g for g in range(1, outputs + 1) if outputs % g == 0]
        raise ValueError(
            f"layer {name!r} has {outputs} outputs, which {rows} groups do not divide; choose groups among "
            f"{', '.join(map(str, good))}, or at least {outputs}."
        )
    return rows
