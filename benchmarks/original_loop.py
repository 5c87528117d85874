"""The cost of the released code's way, written anew: for every output unit, a map of each input, kept as pair tensors.

Only a yardstick for benchmarks/cost.py; the package does not use it. Layers are (weight, bias); x is (rows, in).
"""

import torch
from torch import Tensor


def pair_tensor(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(in, out, rows): what each input adds to each output, an equal share of the bias included."""
    pixels, n = x.shape
    pairs = torch.zeros(n, weight.shape[0], pixels)
    for j in range(weight.shape[0]):
        contribution = weight[j][None] * x + bias[j] / n
        pairs[:, j] = contribution.T
    return pairs


def maps(model, x: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """All maps of a network of three Linear layers, and the two pair tensors they are made from."""
    with torch.no_grad():
        encoded = model.encoding(x)
        h1 = model.activation1(model.linear1(encoded))
        h2 = model.activation2(model.linear2(h1))
        c12 = pair_tensor(encoded, model.linear1.weight, model.linear1.bias)
        c23 = pair_tensor(h1, model.linear2.weight, model.linear2.bias)
        rgb = pair_tensor(h2, model.output.weight, model.output.bias)
        return {
            "layer1": torch.relu(c12.sum(1)).unflatten(1, size),
            "layer2": torch.relu(c23.sum(1)).unflatten(1, size),
            "layer3": rgb.sum(1).unflatten(1, size),
            "layer3_rgb": rgb.unflatten(2, size),
            "c12": c12,
            "c23": c23,
        }
