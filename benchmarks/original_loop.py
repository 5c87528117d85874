"""Re-implementation of the released code's loop: for every output unit, a map of each input, stored as pair tensors.

It is a reference for benchmarks/cost.py and benchmarks/decoder_cost.py; the package does not use it. Layers are
(weight, bias); x is (rows, in).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_tensor(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the contribution of each input to each output with an equal share of the bias, (in, out, rows)."""
    pixels, n = x.shape
    pairs = torch.zeros(n, weight.shape[0], pixels)
    for j in range(weight.shape[0]):
        contribution = weight[j][None] * x + bias[j] / n
        pairs[:, j] = contribution.T
    return pairs


def maps(model, x: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return all maps of a network of three Linear layers, and the two pair tensors from which they are made."""
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


def kernel_maps(conv, x: Tensor, later: list[int], stride: int) -> Tensor:
    """Return the maps of a decoder block's kernels, (in, out, H, W), for one frame x (1, in, h, w).

    Every stage is a tensor of all kernels with its own name until the function ends: k on its phase of the finer
    grid, GELU, box, and for each later block nearest upsampling, GELU, box.
    """
    n, outs = conv.in_channels, conv.out_channels
    height, width = x.shape[2] * stride, x.shape[3] * stride
    pre = torch.zeros(n, outs, height, width)
    for o in range(outs):
        k = torch.cat([F.conv2d(x[:, i : i + 1], conv.weight[o, i][None, None], padding=1) for i in range(n)])
        k = k[:, 0] + (0 if conv.bias is None else conv.bias[o] / n)
        pre[:, o, o % stride**2 // stride :: stride, o % stride :: stride] = k
    kept = [pre]
    for factor in (1, *later):
        kept.append(F.interpolate(kept[-1], scale_factor=factor) if factor > 1 else kept[-1])
        kept.append(F.gelu(kept[-1]))
        kept.append(F.avg_pool2d(kept[-1], 3, 1, 1))
    return kept[-1]


def decoder_maps(model, x: Tensor) -> dict[str, Tensor]:
    """Return all maps of a decoder of blocks (conv, shuffle, GELU) and a head, for one frame."""
    with torch.no_grad():
        answers = {}
        strides = [block[1].upscale_factor for block in model.blocks]
        for i, block in enumerate(model.blocks):
            answers[f"blocks.{i}.0"] = kernel_maps(block[0], x, strides[i + 1 :], strides[i])
            x = block(x)
        head = model.head
        answers["head"] = torch.stack(
            [
                torch.stack(
                    [
                        F.conv2d(x[:, i : i + 1], w[None, None], padding=1)[0, 0] + b / x.shape[1]
                        for w, b in zip(head.weight[:, i], head.bias, strict=True)
                    ]
                )
                for i in range(x.shape[1])
            ]
        )
        return answers
