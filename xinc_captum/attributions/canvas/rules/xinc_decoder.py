"""The released maps of a convolutional decoder: one for every kernel of a block."""

from dataclasses import dataclass

from torch import Tensor

from ....batch import Batch, chunks
from .expansion import Expansion
from .kernels import Kernels
from .pairs import Pair, behind, grouped, kernels_of, layer_input
from .stages import stages
from .tail import Tail
from .trace import trace

_WORKING = 16 << 20  # bytes of full maps in the making


@dataclass(frozen=True)
class KernelMaps:
    r"""The maps of all kernels of one inner block at some rows, kept as their core.

    .. math:: k_{io} = W_{oi} * x_i + b_o / n

    Symbols: x_i what enters the convolution, n its number of inputs. The core k is all that there is to know; a full
    map is k expanded, ``phases`` output channels to a pixel.

    Attributes:
        kernels: the convolution.
        x: (rows, in, h, w).
        expansion: from k to a full map.
        size: of a full map, (H, W).
    """

    kernels: Kernels
    x: Tensor
    expansion: Expansion
    size: tuple[int, int]

    by_adjoint = False

    @classmethod
    def of(cls, tail: Tail, batch: Batch) -> "KernelMaps":
        """Run the rows up to the layer, and one row behind it to find what follows."""
        kernels, x = kernels_of(tail), layer_input(tail, batch)
        expansion = Expansion(tuple(stages(trace(behind(tail), batch.cut(0, 1)), tail.name)))
        low = kernels.parts(x[:1, :, :], slice(0, 1)).shape[-2:]
        return cls(kernels, x, expansion, expansion.size((int(low[0]), int(low[1]))))

    def core(self, outs: slice) -> Tensor:
        """The core k of some output channels, (rows, in, outs, h, w)."""
        k = self.kernels.parts(self.x, outs)
        return k.add_((self.kernels.bias[outs] / self.kernels.shape[0])[:, None, None])

    def maps(self, units: list[Pair]) -> Tensor:
        """Full maps of some kernels: (rows, k, H, W)."""
        answer: Tensor | None = None
        for o, members in grouped(units).items():
            low = self.core(slice(o, o + 1))[:, [i for _, i in members], 0]
            answer = low.new_empty(len(self.x), len(units), *self.size) if answer is None else answer
            into = [answer[r, at] for r in range(len(self.x)) for at, _ in members]
            self.expansion.at(o % self.expansion.phases)(low.flatten(0, 1), into)
        return self.x[:, :0] if answer is None else answer

    def sums(self, weights: Tensor) -> Tensor:
        """Activations act on each map alone, so that no sum comes without the maps."""
        raise NotImplementedError("the released maps have no adjoint; ask for maps")

    def all(self) -> Tensor:
        """Full maps of every kernel: (rows, in, out, H, W)."""
        (ins, outs), phases = self.kernels.shape, self.expansion.phases
        core = self.core(slice(None))
        answer = core.new_empty(len(self.x), ins, outs, *self.size)
        at_once = max(1, _WORKING // (self.size[0] * self.size[1] * core.element_size()))
        for phase in range(phases):
            expand, low = self.expansion.at(phase), core[:, :, phase::phases].flatten(0, 2)
            full = [m for row in answer for of_input in row for m in of_input[phase::phases]]
            for first, last in chunks(len(full), at_once):
                expand(low[first:last], full[first:last])
        return answer


def head_maps(tail: Tail, batch: Batch) -> Tensor:
    """W_oi * x_i + b_o / n of the last convolution, which add up to its output: (rows, in, out, H, W)."""
    kernels = kernels_of(tail)
    k = kernels.parts(layer_input(tail, batch), slice(None))
    share = kernels.bias / kernels.shape[0]
    return k.add_(share.reshape(-1, *[1] * (k.dim() - 3)))
