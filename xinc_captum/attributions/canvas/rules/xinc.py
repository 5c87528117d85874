"""The contribution maps of the released XINC code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ....batch import Batch, Selector, chunks, select, select_output
from ....hooks import LayerError, modules_behind, of_this_thread
from .chain import CONV_ARGUMENTS, Step, Trace, as_pair, trace
from .kernels import WEIGHTED, DirectSite, Kernels, Pair, Site, group_by_output, kernels_of, layer_input
from .secant_tensor import POINTWISE
from .tail import Tail

_SAME = {"contiguous", "clone", "dropout", "dropout2d", "batch_norm"}  # norms are ignored, as in the released code
_RESAMPLED = {"interpolate", "upsample", "avg_pool2d", "adaptive_avg_pool2d", "pad"}


@dataclass(frozen=True)
class Box:
    """Mean filter with the size, stride, padding and dilation of a convolution, one number for each axis."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    more: tuple[int, int] = (0, 0)  # padding of the end beyond that of the start, of "same" and an even kernel

    def matrix(self, axis: int, size: int) -> Tensor:
        """Return the filter along one axis as a matrix (new size, size), zero padded."""
        k, s, p, d = self.kernel[axis], self.stride[axis], self.padding[axis], self.dilation[axis]
        new = (size + 2 * p + self.more[axis] - d * (k - 1) - 1) // s + 1
        at = torch.arange(new)[:, None] * s + torch.arange(k) * d - p
        inside = (at >= 0) & (at < size)
        matrix = torch.zeros(new, size, dtype=torch.float64)
        return matrix.scatter_add_(1, at.clamp(0, size - 1), inside.double() / k)


@dataclass(frozen=True)
class Nearest:
    """Nearest upsampling, in place of a later PixelShuffle."""

    factor: int

    def matrix(self, axis: int, size: int) -> Tensor:
        """Return the matrix along one axis, (size * factor, size)."""
        return torch.eye(size, dtype=torch.float64).repeat_interleave(self.factor, 0)


@dataclass(frozen=True)
class PlacePhase:
    """PixelShuffle of one kernel: its phase of the finer grid, zero elsewhere."""

    factor: int
    phase: tuple[int, int] = (0, 0)

    def matrix(self, axis: int, size: int) -> Tensor:
        """Return the matrix along one axis, (size * factor, size)."""
        matrix = torch.zeros(size * self.factor, size, dtype=torch.float64)
        matrix[self.phase[axis] :: self.factor] = torch.eye(size, dtype=torch.float64)
        return matrix


@dataclass(frozen=True)
class Pointwise:
    """An activation function, applied to each map alone."""

    sigma: Callable[[Tensor], Tensor]
    zero_stays: bool


AxisStage = Box | Nearest | PlacePhase  # one matrix for each axis
Stage = AxisStage | Pointwise | Step  # a step: pooling, interpolation or padding of each map alone


def stages(trace: Trace | None, name: str) -> list[Stage]:
    """Return the stages that the released code applies between an inner convolution and the last one."""
    if trace is None:
        raise _layer_error(name, "the operations after it are not a chain")
    last = max((i for i, step in enumerate(trace.steps) if step.name.startswith("conv")), default=None)
    if last is None:
        raise _layer_error(name, "no convolution follows it")
    result: list[Stage] = []
    before_shuffle = True
    for step in trace.steps[: last + 1]:
        if step.name == "conv2d":
            result.append(_box(step))
        elif step.name == "pixel_shuffle":
            factor = int(step.arguments("upscale_factor")["upscale_factor"])
            result.append(PlacePhase(factor) if before_shuffle else Nearest(factor))
        elif step.name in POINTWISE and not step.has_tensors:
            with torch.no_grad():
                moved = step.apply(torch.zeros(1)).numpy().any()  # on the CPU, without waiting for another device
            result.append(Pointwise(step.apply, zero_stays=not moved))
        elif step.name in _RESAMPLED:
            result.append(step)
        elif step.name not in _SAME:
            raise _layer_error(name, f"met {step.name!r}")
        before_shuffle = before_shuffle and step.name not in {"conv2d", "pixel_shuffle"}
    return result


def _box(step: Step) -> Box:
    arguments: dict[str, Any] = step.arguments(CONV_ARGUMENTS)
    kernel = (int(arguments["weight"].shape[-2]), int(arguments["weight"].shape[-1]))
    dilation, padding = as_pair(arguments.get("dilation", 1)), arguments.get("padding", 0)
    more = (0, 0)
    if isinstance(padding, str):
        total = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)) if padding == "same" else (0, 0)
        padding, more = (total[0] // 2, total[1] // 2), (total[0] % 2, total[1] % 2)
    return Box(kernel, as_pair(arguments.get("stride", 1)), as_pair(padding), dilation, more)


def _layer_error(name: str, why: str) -> LayerError:
    return LayerError(
        f"rule 'xinc' at layer {name} supports Conv2d, PixelShuffle, pointwise operations, pooling and interpolation "
        f"up to the last convolution; {why}. Use rule='tangent' or rule='secant', which support more operations."
    )


@dataclass(frozen=True)
class Expansion:
    """The stages that expand maps of one phase of the kernel's PixelShuffle to full maps.

    Box filters, nearest upsampling and phase placement act on each axis alone. Those between two activations are
    combined into one matrix for the rows and one for the columns. An activation after stages that only copy values is
    applied before them, on smaller maps.
    """

    stages: tuple[Stage, ...]

    @property
    def phases(self) -> int:
        """Number of output channels that form one channel of the next layer."""
        return next((s.factor**2 for s in self.stages if isinstance(s, PlacePhase)), 1)

    def at(self, phase: int) -> "Expansion":
        """Return the expansion for the output channels of one phase."""
        placed = [replace(s, phase=divmod(phase, s.factor)) if isinstance(s, PlacePhase) else s for s in self.stages]
        return Expansion(tuple(placed))

    def __call__(self, low: Tensor, into: Sequence[Tensor] | None) -> Tensor:
        """Expand (n, h, w); the result is written into n tensors (H, W), or into a new (n, H, W) without ``into``."""
        maps, pending = low, list[AxisStage]()
        for stage in self.stages:
            if isinstance(stage, Pointwise):
                copies = (Nearest, PlacePhase) if stage.zero_stays else Nearest
                if not all(isinstance(one, copies) for one in pending):
                    maps, pending = _apply_matrices(maps, pending), []
                maps = stage.sigma(maps)
            elif isinstance(stage, Step):
                maps, pending = stage.apply(_apply_matrices(maps, pending)[:, None])[:, 0], []
            else:
                pending.append(stage)
        return _apply_matrices(maps, pending, into)


def _apply_matrices(maps: Tensor, pending: Sequence[AxisStage], into: Sequence[Tensor] | None = None) -> Tensor:
    if not pending:
        if into is not None:
            for target, one in zip(into, maps, strict=True):
                target.copy_(one)
        return maps
    with torch.autocast(maps.device.type, enabled=False):  # keep the dtype of the maps
        down, right = (_product(tuple(pending), axis, maps.shape[1 + axis]).to(maps) for axis in (0, 1))
        across, result = maps @ right.T, maps
        if into is None:
            result = maps.new_empty(len(maps), down.shape[0], across.shape[2])
            into = list(result.unbind())
        for target, one in zip(into, across, strict=True):
            torch.mm(down, one, out=target)
        return result


@lru_cache(maxsize=128)
def _product(pending: tuple[AxisStage, ...], axis: int, size: int) -> Tensor:
    product = torch.eye(size, dtype=torch.float64)
    for stage in pending:
        product = stage.matrix(axis, product.shape[0]) @ product
    return product


_WORKING_BYTES = 16 << 20  # bytes of full maps that are computed together


def core(kernels: Kernels, x: Tensor, outs: slice) -> Tensor:
    """Return k_io = W_oi * x_i + b_o / n of some outputs, (rows, in, outs, *space), with n the number of inputs."""
    k = kernels.outputs(x, outs)
    share = kernels.bias[outs] / kernels.shape[0]
    return k.add_(share.reshape(-1, *[1] * (k.dim() - 3)))


class KernelMaps:
    """The maps of all kernels of one inner block at some rows: the :func:`core`, expanded to the size (H, W)."""

    def __init__(self, tail: Tail, batch: Batch) -> None:
        self._kernels, self._x = kernels_of(tail), layer_input(tail, batch)
        self._expansion = Expansion(tuple(stages(trace(tail.after_layer(), batch.cut(0, 1)), tail.name)))
        low = self._kernels.outputs(self._x[:1], slice(0, 1)).shape[-2:]
        self._size = self._expansion(torch.zeros(1, *low), None).shape[1:]

    def maps(self, units: list[Pair]) -> Tensor:
        """Return full maps of some kernels: (rows, k, H, W)."""
        result: Tensor | None = None
        for o, members in group_by_output(units).items():
            low = core(self._kernels, self._x, slice(o, o + 1))[:, [i for _, i in members], 0]
            result = low.new_empty(len(low), len(units), *self._size) if result is None else result
            into = [row[at] for row in result for at, _ in members]
            self._expansion.at(o % self._expansion.phases)(low.flatten(0, 1), into)
        return self._x[:, :0] if result is None else result

    def sums(self, weights: Tensor) -> None:
        """Return None, because activations act on each map alone and sums need all maps."""

    def all_maps(self) -> Tensor:
        """Return full maps of every kernel: (rows, in, out, H, W)."""
        phases, cores = self._expansion.phases, core(self._kernels, self._x, slice(None))
        result = cores.new_empty(*cores.shape[:3], *self._size)
        batch_size = max(1, _WORKING_BYTES // (self._size.numel() * cores.element_size()))
        for phase in range(phases):
            expand, low = self._expansion.at(phase), cores[:, :, phase::phases].flatten(0, 2)
            full = [m for row in result for of_input in row for m in of_input[phase::phases]]
            for first, last in chunks(len(full), batch_size):
                expand(low[first:last], full[first:last])
        return result


def head_maps(tail: Tail, batch: Batch) -> Tensor:
    """Return the maps of the last convolution, which sum to its output: (rows, in, out, H, W)."""
    return core(kernels_of(tail), layer_input(tail, batch), slice(None))


@dataclass(frozen=True)
class Xinc:
    r"""The maps of the paper's released code: the bias is split equally among inputs, later weights are not used.

    .. math:: last: W_{ci} * x_i + b_c / n, \qquad
        MLP: ReLU(\textstyle\sum_j W_{ji} x_i + b_j / n), \qquad
        block: box(\sigma(\cdots near(box(\sigma(place(W_{oi} * x_i + b_o / n))))))

    Symbols: x_i the input of the Linear or convolution (the paper's neuron is an *input* of the layer, so
    ``attribute_to_layer_input=True`` is required), n its number of inputs, W and b its weight and bias, c, j and o its
    outputs, σ the decoder's activations, *place* the kernel's phase of the PixelShuffle, *box* a mean filter in place
    of each later convolution, *near* nearest upsampling in place of each later PixelShuffle. The last layer's maps sum
    to its output exactly; operations after it, ``output_fn`` included, are ignored. Earlier maps do not depend on the
    output: an MLP unit is zero where its sum over j is negative, and an inner block of a decoder has maps of kernels
    only (``unit="pair"``, (frames, in, out, H, W)). Use this rule to reproduce the paper, and Tangent or Secant to
    explain a network.

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), released code.

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> canvas = NeuronCanvas(model, "2", rule=Xinc())
        >>> canvas.attribute(torch.rand(5, 2), attribute_to_layer_input=True).shape
        torch.Size([5, 4, 3])
    """

    _is_last: bool | None = None

    remainders = 0

    def prepare(self, tail: Tail, batch: Batch, max_rows: int) -> "Xinc":
        """Run one row, and return the rule, which then stores whether the layer is the last one with weights."""
        kernels = kernels_of(tail)
        if not tail.at_input:
            raise LayerError(
                "rule 'xinc' explains the inputs of a Linear or a convolution, as the paper does; "
                "give attribute_to_layer_input=True, to attribute() or canvas()."
            )
        order = _execution_order(tail, batch)
        is_last = bool(order) and order[-1] is tail.layer
        if not is_last and batch.target is not None:
            raise ValueError(
                f"target={batch.target!r} has no meaning under rule 'xinc' at layer {tail.name}: the "
                "paper's maps before the last layer do not depend on an output. Omit target, or choose the last layer."
            )
        if not is_last and order and not kernels.is_conv and not isinstance(order[-1], nn.Linear):
            raise LayerError(
                f"layer {tail.name} is a Linear before convolutions (a stem), which the paper's code does not "
                "analyse; choose a convolution, or use rule='tangent' or rule='secant'."
            )
        return replace(self, _is_last=is_last)

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """Return (rows, k, *output) at the last layer, (rows, k) at an earlier Linear."""
        kernels = kernels_of(tail)
        if kernels.is_conv:
            return self._channels(tail, batch, selector)
        x, weight, bias, (n, _) = layer_input(tail, batch), kernels.weight, kernels.bias, kernels.shape
        if not self._is_last:
            return select(_relu_of_sum(x, weight, bias / n), selector)
        # One output channel at a time: a target that selects one channel does not compute the others.
        if isinstance(batch.target, int) and not isinstance(batch.target, bool):
            if not -len(bias) <= batch.target < len(bias):
                raise ValueError(f"target {batch.target} does not fit the output's {len(bias)} channels.")
            return select(torch.addcmul(bias[batch.target] / n, x, weight[batch.target]), selector)
        maps = torch.stack(
            [select(torch.addcmul(b / n, x, w), selector) for w, b in zip(weight, bias, strict=True)], -1
        )
        return maps if batch.target is None else _apply_target(maps, batch)

    def _channels(self, tail: Tail, batch: Batch, selector: Selector) -> Tensor:
        if not self._is_last:
            raise LayerError(
                f"layer {tail.name} is an inner convolution, whose units under rule 'xinc' are kernels; construct "
                'NeuronCanvas with unit="pair", or choose the last convolution.'
            )
        maps = head_maps(tail, batch)
        if batch.target is not None:
            ins = maps.shape[1]
            flat = select_output(maps.transpose(0, 1).flatten(0, 1), batch.repeat(ins), None)
            maps = flat.reshape(ins, batch.rows, *flat.shape[1:]).transpose(0, 1)
        if selector is None:
            return maps
        if maps.dim() == 2:
            return select(maps, selector)
        positions = select(maps.flatten(2).transpose(1, 2).flatten(0, 1), selector)  # every position is a row of units
        by_row = positions.reshape(len(maps), -1, positions.shape[1])
        return by_row.transpose(1, 2).reshape(len(maps), -1, *maps.shape[2:])

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """Return W_ji x_i + b_j / n before any activation, (rows, in, out), or kernels' maps, (rows, in, out, H, W)."""
        kernels = kernels_of(tail)
        selected = kernels.resolve_pairs(selector)
        if kernels.is_conv and not self._is_last:
            maps = KernelMaps(tail, batch)
            return maps.all_maps() if selected is None else maps.maps(selected)
        if kernels.is_conv:
            all_maps = head_maps(tail, batch)
            return all_maps if selected is None else all_maps[:, [i for i, _ in selected], [j for _, j in selected]]
        x, weight = layer_input(tail, batch), kernels.weight
        share = kernels.bias / kernels.shape[0]
        if selected is None:
            return torch.addcmul(share, x[:, :, None], weight.T.contiguous())
        i, o = [i for i, _ in selected], [o for _, o in selected]
        return torch.addcmul(share[o], x[:, i], weight[o, i])

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """Return the contributions at these rows; the input of an inner block is stored for repeated queries."""
        if pairs and kernels_of(tail).is_conv and not self._is_last:
            return KernelMaps(tail, batch)
        return DirectSite(self, tail, batch, per_eval, pairs)

    def total(self, tail: Tail, batch: Batch) -> Tensor:
        """Return the output, to which the last layer's maps sum; raise a ValueError at earlier layers."""
        if not self._is_last:
            raise ValueError(
                f"rule 'xinc' has no convergence delta at layer {tail.name}: the paper's maps before the last "
                "layer do not sum to the output. Use rule='secant' for contributions that do."
            )
        with torch.no_grad():
            return tail.output(batch)


def _relu_of_sum(x: Tensor, weight: Tensor, share: Tensor) -> Tensor:
    """Return ReLU(Σ_j W_ji x_i + share_j), (rows, in), summed over j in the released code's order.

    ReLU(x_i Σ_j W_ji + Σ_j share_j) is the same in exact arithmetic and 40 times cheaper. But where the sum over j
    cancels, it rounds differently from the released code.
    """
    result = torch.empty_like(x)
    for first, last in chunks(len(x), max(1, (1 << 22) // weight.numel())):
        columns = x[first:last].T.contiguous()
        result[first:last] = (weight[:, :, None] * columns).add_(share[:, None, None]).sum(0).relu_().T
    return result


def _execution_order(tail: Tail, batch: Batch) -> list[nn.Module]:
    """Return layers with weights in execution order, by running one row."""
    order: list[nn.Module] = []
    layers: list[nn.Module] = [
        m for root in modules_behind(tail.forward_func) for m in root.modules() if isinstance(m, WEIGHTED)
    ]
    ours = of_this_thread()
    handles = [
        m.register_forward_hook(lambda m, _a, _o: order.append(m) if ours(m) else None) for m in layers or [tail.layer]
    ]
    try:
        with torch.no_grad():
            tail.output(replace(batch.cut(0, 1), target=None))
    finally:
        for handle in handles:
            handle.remove()
    return order


def _apply_target(maps: Tensor, batch: Batch) -> Tensor:
    """Apply a target that is not a single int to (rows, k, channels)."""
    target = batch.target
    if isinstance(target, tuple):
        return maps[(slice(None), slice(None), *target)]
    channels = torch.as_tensor(target, device=maps.device).reshape(-1)
    if channels.numel() == 1:
        channels = channels.expand(batch.rows)
    if channels.numel() != batch.rows:
        raise ValueError(
            f"target has {channels.numel()} entries for {batch.rows} rows; use one entry for each row, or a single int."
        )
    return maps.gather(2, channels[:, None, None].expand(-1, maps.shape[1], 1))[..., 0]
