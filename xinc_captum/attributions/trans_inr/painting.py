"""What written networks answer at coordinates, all pictures at once, and one of them as a module of its own."""

import torch
from torch import Tensor, nn

from ...inr import HypoNet
from .writer import Weights


def painted(encoded: Tensor, weights: Weights, out_bias: float = 0.0) -> Tensor:
    r"""B networks at the same or each at its own coordinates: (B, points, out).

    .. math:: y_b = W_L^b\, \mathrm{relu}(\cdots \mathrm{relu}(W_1^b \gamma + b_1) \cdots) + b_L + out\_bias

    Args:
        encoded: γ, what the encoding makes of coordinates: (points, in) or (B, points, in).
        weights: of the B networks.
        out_bias: added to what comes out; 0.5 for pictures in [0, 1].
    """
    h, last = encoded, len(weights.matrices) - 1
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        h = h @ matrix.mT + bias
        h = h.relu() if i < last else h + out_bias
    return h


def as_module(base: HypoNet, weights: Weights, index: int, out_bias: float = 0.0) -> HypoNet:
    """Network ``index`` as an ordinary module; it shares nothing with the others, the writer or any later call.

    Args:
        base: the shared network, for its architecture.
        weights: of B networks.
        index: which of them.
        out_bias: becomes part of the last bias.

    Example:
        >>> from xinc_captum.inr import HypoNet
        >>> base = HypoNet(hidden=4, layers=2, count=2)
        >>> own = tuple(p.weight[None] for p in base.linears().values())
        >>> net = as_module(base, Weights(own, tuple(p.bias for p in base.linears().values())), 0)
        >>> x = torch.rand(3, 2)
        >>> bool((net(x) == base(x)).all()), net.output.weight is base.output.weight
        (True, False)
    """
    with torch.device("meta"):  # no weights to draw: the random state stays as found
        module = HypoNet(**base.config)
    state = {name: buffer.clone() for name, buffer in base.named_buffers()}
    for i, (name, matrix, bias) in enumerate(zip(base.linears(), *weights, strict=True)):
        state[f"{name}.weight"] = matrix[index].detach().clone()
        state[f"{name}.bias"] = bias.detach() + (out_bias if i == len(weights.matrices) - 1 else 0.0)
    module.load_state_dict(state, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module


def stacked(modules: list[HypoNet] | list[nn.Module]) -> Weights:
    """The weights of several modules as one: each matrix (B, out, in), each bias (B, 1, out).

    Example:
        >>> from xinc_captum.inr import HypoNet
        >>> nets = [HypoNet(hidden=4, layers=2, count=2) for _ in range(3)]
        >>> painted(nets[0].encoding(torch.rand(5, 2)), stacked(nets)).shape
        torch.Size([3, 5, 3])
    """
    linears = [[m for m in net.children() if isinstance(m, nn.Linear)] for net in modules]
    layers = list(zip(*linears, strict=True))
    return Weights(
        tuple(torch.stack([m.weight.detach() for m in layer]) for layer in layers),
        tuple(torch.stack([m.bias.detach() for m in layer])[:, None] for layer in layers),
    )
