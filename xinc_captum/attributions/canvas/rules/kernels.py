"""Layers with weights: what each input channel adds to each output channel."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....hooks import LayerError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Linear, *CONVOLUTIONS)


@dataclass(frozen=True)
class Kernels:
    """A Linear or convolution, read as a table of kernels from input channel i to output channel o.

    Attributes:
        layer: the module.
        name: of the layer, for messages.
    """

    layer: Any
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.layer, WEIGHTED):
            raise LayerError(
                f"layer {self.name} is a {type(self.layer).__name__}; pairs and the 'xinc' rule need a "
                "torch.nn.Linear or a convolution (ConvNd, ConvTransposeNd), because they read its weight."
            )

    @property
    def is_conv(self) -> bool:
        """Whether inputs have places beside channels."""
        return isinstance(self.layer, CONVOLUTIONS)

    @property
    def shape(self) -> tuple[int, int]:
        """Input and output channels."""
        if isinstance(self.layer, nn.Linear):
            return self.layer.in_features, self.layer.out_features
        return int(self.layer.in_channels), int(self.layer.out_channels)

    @property
    def weight(self) -> Tensor:
        """Detached."""
        weight: Tensor = self.layer.weight.detach()
        return weight

    @property
    def bias(self) -> Tensor:
        """(out,), zeros where there is none."""
        bias: Tensor | None = self.layer.bias
        return self.weight.new_zeros(self.shape[1]) if bias is None else bias.detach()

    def check(self, x: Tensor) -> Tensor:
        """What enters the layer, with the dims that pairs need.

        Raises:
            LayerError: other dims.
        """
        wanted = self.layer.weight.dim()
        if x.dim() != wanted:
            raise LayerError(
                f"layer {self.name} takes inputs of shape {tuple(x.shape)}; pairs and the 'xinc' rule need "
                f"{'(rows, units)' if not self.is_conv else '(rows, channels, ...) with ' + str(wanted) + ' dims'}."
            )
        return x

    def parts(self, x: Tensor, outs: slice) -> Tensor:
        """k_io = W_oi * x_i without bias, for all i: (rows, in, outs, *space), in one grouped convolution."""
        if not self.is_conv:
            return x[:, :, None] * self.weight.T[:, outs]
        ins, _ = self.shape
        groups = int(self.layer.groups)
        if groups == 1:
            return self._grouped(x, self._table()[:, outs])
        whole: Tensor | None = None
        for at, o in enumerate(chosen := range(*outs.indices(self.shape[1]))):
            inside, kernels = self._group(o)
            part = self._grouped(x[:, inside], kernels)
            if whole is None:
                whole = part.new_zeros(x.shape[0], ins, len(chosen), *part.shape[3:])
            whole[:, inside, at] = part[:, :, 0]
        return x.new_zeros(x.shape[0], ins, 0) if whole is None else whole

    def _table(self) -> Tensor:
        """(in, out, *kernel) of a layer without groups."""
        return self.weight if self._transposed else self.weight.transpose(0, 1)

    def _group(self, o: int) -> tuple[slice, Tensor]:
        """The inputs that output o sees, and their kernels (inside, 1, *kernel)."""
        ins, outs = self.shape
        groups = int(self.layer.groups)
        group, local = divmod(o, outs // groups)
        inside = slice(group * ins // groups, (group + 1) * ins // groups)
        return inside, self.weight[inside, local, None] if self._transposed else self.weight[o][:, None]

    @property
    def _transposed(self) -> bool:
        return isinstance(self.layer, nn.modules.conv._ConvTransposeNd)

    def _grouped(self, x: Tensor, table: Tensor) -> Tensor:
        """Every channel of x with its own kernels (channels, n, *kernel): (rows, channels, n, *space)."""
        channels, n = table.shape[:2]
        weight = table if self._transposed else table.reshape(channels * n, 1, *table.shape[2:])
        return _tensor(self._apply(x, weight, channels).unflatten(1, (channels, n)))

    def _apply(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """The layer without its bias, with another weight."""
        if isinstance(self.layer, nn.Linear):
            return _tensor(F.linear(x, weight))
        layer, dims = self.layer, self.layer.weight.dim() - 2
        if self._transposed:
            transposed: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
            options = layer.stride, layer.padding, layer.output_padding, groups, layer.dilation
            return _tensor(transposed(x, weight, None, *options))
        conv: Any = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        padding = layer.padding
        if layer.padding_mode != "zeros":
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        return _tensor(conv(x, weight, None, layer.stride, padding, layer.dilation, groups))

    def sums(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Σ_places g_o k_io, by the gradient of the weight: (rows, in, out).

        Args:
            x: (rows, in, *space).
            gradient: (rows, out, *space) at the layer's output.
        """
        if not self.is_conv:
            return x[:, :, None] * self.weight.T * gradient[:, None]
        answer = x.new_zeros(x.shape[0], *self.shape)
        groups = int(self.layer.groups)
        for r in range(x.shape[0]):
            with torch.enable_grad():
                leaf = self.weight.clone().requires_grad_()
                z = self._apply(x[r : r + 1], leaf, groups)
                (slope,) = torch.autograd.grad(z, leaf, gradient[r : r + 1])
            summed = (slope * self.weight).flatten(2).sum(2)
            if groups == 1:
                answer[r] = summed if self._transposed else summed.T
                continue
            for o in range(self.shape[1]):
                inside, _ = self._group(o)
                local = o % (self.shape[1] // groups)
                answer[r, inside, o] = summed[inside, local] if self._transposed else summed[o]
        return answer


def _tensor(x: Tensor) -> Tensor:
    return x
