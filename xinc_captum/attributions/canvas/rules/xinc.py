"""Xinc: what the paper's released code computes, flaws included."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ....batch import Batch, chunks
from ....hooks import LayerError, modules_behind, of_this_thread
from ....targets import selected
from ....units import Selector, select
from .kernels import WEIGHTED
from .pairs import Pair, chosen, kernels_of, layer_input
from .site import Asked, Site
from .tail import Tail
from .xinc_decoder import KernelMaps, head_maps


@dataclass(frozen=True)
class Xinc:
    r"""The released maps of coordinate MLPs and convolutional decoders: bias shared equally, no later weight used.

    .. math:: last: W_{ci} * x_i + b_c / n, \qquad
        MLP: ReLU(\textstyle\sum_j W_{ji} x_i + b_j / n), \qquad
        block: box(\sigma(\cdots near(box(\sigma(place(W_{oi} * x_i + b_o / n))))))

    Symbols: x_i what enters the Linear or convolution (the paper's neuron is an *input* of the layer, so
    ``attribute_to_layer_input=True`` is required), n its number of inputs, σ the decoder's activations, place the
    kernel's own phase of the PixelShuffle, box a mean filter in place of each later convolution, near nearest
    upsampling in place of each later PixelShuffle. The last layer's maps sum to its output exactly (what follows it,
    ``output_fn`` included, is not looked at); earlier maps never see the output: MLP units with Σ_j W_ji < 0 are
    erased, and at an inner block of a decoder there are maps of kernels only (``unit="pair"``, (frames, in, out, H,
    W)). Use it to reproduce the paper; use Tangent or Secant to explain a network.

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), released code.

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> canvas = NeuronCanvas(model, "2", rule=Xinc())
        >>> canvas.attribute(torch.rand(5, 2), attribute_to_layer_input=True).shape
        torch.Size([5, 4, 3])
    """

    _is_last: bool | None = None

    slots = 0

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Xinc":
        """Find out, by running one row, whether the layer is the last with weights."""
        kernels = kernels_of(tail)
        if not tail.at_input:
            raise LayerError(
                "rule 'xinc' explains the units that enter a Linear or a convolution, as the paper does; "
                "give attribute_to_layer_input=True, to attribute() or canvas()."
            )
        order = _order(tail, batch)
        is_last = bool(order) and order[-1] is tail.layer
        if not is_last and batch.target is not None:
            raise ValueError(
                f"target={batch.target!r} has no meaning under rule 'xinc' at layer {tail.name}: before the last "
                "layer the paper's maps never reach an output. Leave target out, or choose the last layer."
            )
        if not is_last and order and not kernels.is_conv and not isinstance(order[-1], nn.Linear):
            raise LayerError(
                f"layer {tail.name} is a Linear in front of convolutions (a stem), which the paper's code does not "
                "analyse; choose a convolution, or use rule='tangent' or rule='secant'."
            )
        return replace(self, _is_last=is_last)

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """(rows, k, *left) at the last layer, (rows, k) at an earlier Linear."""
        if kernels_of(tail).is_conv:
            return self._channels(tail, batch, selector)
        layer: nn.Linear = tail.layer  # type: ignore[assignment]
        x, weight, bias = layer_input(tail, batch), layer.weight.detach(), kernels_of(tail).bias
        n = layer.in_features
        if not self._is_last:
            return select(_summed_then_rectified(x, weight, bias / n), selector)
        # One output channel at a time, so that targets that leave one channel never build the others.
        if isinstance(batch.target, int) and not isinstance(batch.target, bool):
            _in_range(batch.target, len(bias))
            return select(torch.addcmul(bias[batch.target] / n, x, weight[batch.target]), selector)
        maps = torch.stack(
            [select(torch.addcmul(b / n, x, w), selector) for w, b in zip(weight, bias, strict=True)], -1
        )
        return maps if batch.target is None else _targeted(maps, batch)

    def _channels(self, tail: Tail, batch: Batch, selector: Selector) -> Tensor:
        if not self._is_last:
            raise LayerError(
                f"layer {tail.name} is an inner convolution, whose units under rule 'xinc' are kernels; construct "
                'NeuronCanvas with unit="pair", or choose the last convolution.'
            )
        maps = head_maps(tail, batch)
        if batch.target is not None:
            ins = maps.shape[1]
            flat = selected(maps.transpose(0, 1).flatten(0, 1), batch.repeat(ins), None)
            maps = flat.reshape(ins, batch.rows, *flat.shape[1:]).transpose(0, 1)
        if selector is None or maps.dim() == 2:
            return maps if selector is None else select(maps, selector)
        places = select(maps.flatten(2).transpose(1, 2).flatten(0, 1), selector)  # every place is a row of units
        return places.reshape(len(maps), -1, places.shape[1]).transpose(1, 2).reshape(len(maps), -1, *maps.shape[2:])

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """W_ji x_i + b_j / n before any activation, (rows, in, out), or the maps of kernels, (rows, in, out, H, W)."""
        kernels = kernels_of(tail)
        wanted = chosen(kernels.shape, selector)
        if kernels.is_conv and not self._is_last:
            maps = KernelMaps.of(tail, batch)
            return maps.all() if wanted is None else maps.maps(wanted)
        if kernels.is_conv:
            whole = head_maps(tail, batch)
            return whole if wanted is None else whole[:, [i for i, _ in wanted], [j for _, j in wanted]]
        x, weight = layer_input(tail, batch), kernels.weight
        share = kernels.bias / kernels.shape[0]
        if wanted is None:
            return torch.addcmul(share, x[:, :, None], weight.T.contiguous())
        i, j = [i for i, _ in wanted], [j for _, j in wanted]
        return torch.addcmul(share[j], x[:, i], weight[j, i])

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """These rows with the core of an inner block kept; other layers are asked anew."""
        if pairs and kernels_of(tail).is_conv and not self._is_last:
            return KernelMaps.of(tail, batch)
        return Asked(self, tail, batch, per_eval, pairs)

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """The output, which the last layer's maps add up to.

        Raises:
            ValueError: at an earlier layer, whose maps add up to nothing.
        """
        if not self._is_last:
            raise ValueError(
                f"rule 'xinc' has no convergence delta at layer {tail.name}: before the last layer the paper's maps "
                "add up to nothing. Use rule='secant' for shares that add up."
            )
        with torch.no_grad():
            return tail.output(batch)


def _summed_then_rectified(x: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """ReLU(Σ_j W_ji x_i + share_j), (rows, in), summed over j in the released code's order.

    ReLU(x_i Σ_j W_ji + Σ_j share_j) is the same in exact arithmetic and 40 times cheaper, but where the sum over j
    cancels, its other rounding shows in the recorded full-map sums.
    """
    answer = torch.empty_like(x)
    for first, last in chunks(len(x), max(1, (1 << 22) // weight.numel())):
        columns = x[first:last].T.contiguous()
        answer[first:last] = (weight[:, :, None] * columns).add_(share[:, None, None]).sum(0).relu_().T
    return answer


def _order(tail: Tail, batch: Batch) -> list[nn.Module]:
    """Layers with weights in the order in which one row runs through them."""
    order: list[nn.Module] = []
    found: list[nn.Module] = [
        m for root in modules_behind(tail.forward_func) for m in root.modules() if isinstance(m, WEIGHTED)
    ]
    ours = of_this_thread()
    handles = [
        m.register_forward_hook(lambda m, _a, _o: order.append(m) if ours(m) else None) for m in found or [tail.layer]
    ]
    try:
        with torch.no_grad():
            tail.output(replace(batch.cut(0, 1), target=None))
    finally:
        for handle in handles:
            handle.remove()
    return order


def _in_range(target: int, size: int) -> None:
    if not -size <= target < size:
        raise ValueError(f"target {target} does not fit the output's {size} channels.")


def _targeted(maps: Tensor, batch: Batch) -> Tensor:
    """Apply a target that is more than one int to (rows, k, channels)."""
    target = batch.target
    if isinstance(target, tuple):
        return maps[(slice(None), slice(None), *target)]
    wanted = torch.as_tensor(target, device=maps.device).reshape(-1)
    if wanted.numel() == 1:
        wanted = wanted.expand(batch.rows)
    if wanted.numel() != batch.rows:
        raise ValueError(f"target has {wanted.numel()} entries for {batch.rows} rows; give one each, or a single int.")
    return maps.gather(2, wanted[:, None, None].expand(-1, maps.shape[1], 1))[..., 0]
