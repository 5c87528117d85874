"""What each neuron of written networks adds to what they draw, with the gates as they are: exact at every layer."""

import torch
from torch import Tensor

from .writer import Weights


def neuron_shares(encoded: Tensor, weights: Weights, layer: int, out_bias: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Parts of the neurons that layer ``layer`` ends in, and the rest: together what the networks draw.

    .. math:: C_j = h_{j}\, J_{j}, \quad J = W_L G_{L-1} W_{L-1} \cdots G_{l+1} W_{l+1}, \qquad \Sigma_j C_j + \beta = y

    Symbols: h the layer's neurons after their ReLU (before ``out_bias`` at the last layer, where J is the identity); G
    the gates, 1 where a later neuron is positive at this point; β what the same gates let through of the later biases
    with h at 0. A neuron that is silent everywhere has no part.

    Args:
        encoded: γ, (points, in).
        weights: of B networks.
        layer: 0 to L − 1.
        out_bias: part of β.

    Returns:
        C, (B, points, out, neurons), and β, (B, points, out).

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model, images = TransINR(seed=0), torch.rand(2, 1, 8, 8)
        >>> weights = model.weights(model.modulations(images))
        >>> shares, rest = neuron_shares(model.encoded((8, 8)), weights, 1, 0.5)
        >>> bool(((shares.sum(-1) + rest) - model(images).flatten(2).mT).abs().max() < 1e-5)
        True

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), for the last layer; the gated form
    is activation x gradient, exact for piecewise linear networks.
    """
    h, last = encoded, len(weights.matrices) - 1
    at, gates = encoded, []
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        z = h @ matrix.mT + bias
        h = z.relu() if i < last else z
        if i == layer:
            at = h
        elif i > layer:
            gates.append((z > 0).to(z) if i < last else torch.ones_like(z))
    count, points, outputs = h.shape
    carried = torch.eye(outputs, dtype=h.dtype, device=h.device).expand(count, points, -1, -1)
    rest = torch.full_like(h, out_bias)
    for i in range(last, layer, -1):
        gated = carried * gates[i - layer - 1][:, :, None]
        rest = rest + (gated @ weights.biases[i][:, None])[..., 0]
        carried = gated @ weights.matrices[i][:, None]
    return carried * at[:, :, None], rest


def group_sums(shares: Tensor, rows: int) -> Tensor:
    """Neurons to the modulations that wrote them: (…, neurons) to (…, rows); neuron j belongs to row j mod rows.

    Example:
        >>> group_sums(torch.arange(6.0), 3)
        tensor([3., 5., 7.])
    """
    return shares.reshape(*shares.shape[:-1], -1, rows).sum(-2)
