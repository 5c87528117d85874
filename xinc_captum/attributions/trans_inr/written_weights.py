"""WrittenWeights: any module that generates the weights of another network, for TokenContribution."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, chunks
from ...hooks import JacobianVectorProduct, LayerError, UnsupportedError, capture, find_layer, patch
from ...inr.training import check_at_least_one
from .writer import MAX_NUMBERS

Module = nn.Module | str


class WrittenWeights(nn.Module):
    r"""A module that generates weights, with the network that uses them, as one model for :class:`.TokenContribution`.

    .. math:: y = f_{W(h(x))}

    Symbols: x the inputs of the writer, h the outputs of its modules ``tokens``, W the weights that the writer computes
    from h, f the network. With it, hypernetworks of other code are explained without changing that code. As a module it
    maps x to y, so Captum's methods attribute y to x.

    Args:
        writer: the module that generates weights.
        network: maps the generated weights, by name, to outputs (B, …): sample b with the weights of sample b. To
            explain a weight itself, return it: ``lambda weights: weights["0.weight"]``.
        tokens: modules of the writer, or their names, whose outputs are to be explained: each (B, tokens, dim), or
            (B, neurons).
        write: maps inputs to the generated weights; None calls the writer, which must then return a mapping.

    Raises:
        TypeError, LayerError: a writer that is not a module; no token modules, or one that is not in the writer. In a
            call: weights that are not a mapping, a module that does not run once, or outputs of another shape.

    Example:
        >>> writer = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5 * 2))  # weights of a linear network
        >>> network = lambda weights: torch.rand(6, 5) @ weights["weight"]
        >>> write = lambda z: {"weight": writer(z).unflatten(1, (5, 2))}
        >>> WrittenWeights(writer, network, "1", write=write)(torch.rand(4, 3)).shape
        torch.Size([4, 6, 2])

    Source: Ha et al., "HyperNetworks" (ICLR 2017), for the model; the layouts of Chen & Wang (ECCV 2022) and of
    Sitzmann et al. (NeurIPS 2020) are in ``docs/trans_inr.md``.
    """

    def __init__(
        self,
        writer: nn.Module,
        network: Callable[[dict[str, Tensor]], Tensor],
        tokens: Module | Sequence[Module],
        *,
        write: Callable[..., Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(writer, nn.Module) or not callable(network):
            raise TypeError(
                f"writer is a {type(writer).__name__} and network a {type(network).__name__}; expected an nn.Module "
                "that generates weights, and a function of these weights."
            )
        selected = [tokens] if isinstance(tokens, Module) else list(tokens)
        modules = [find_layer(writer, module) for module in selected]
        if not modules or len(set(modules)) < len(modules):
            raise LayerError(f"tokens are {selected}; expected one or more different modules of the writer.")
        self.writer, self.network, self.write = writer, network, write
        names = {module: name for name, module in writer.named_modules()}
        self.names = tuple(names[module] for module in modules)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the outputs of the generated networks: (B, …)."""
        outputs = self.network(self.weights(*inputs))
        if not isinstance(outputs, Tensor) or outputs.dim() == 0 or len(outputs) != len(inputs[0]):
            received = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise LayerError(
                f"network returned {received} for {len(inputs[0])} samples; expected a tensor (B, …), one entry for "
                "each sample: select it in network."
            )
        return outputs

    def weights(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the generated weights by name."""
        generated = (self.write or self.writer)(*inputs)
        if not isinstance(generated, Mapping):
            function = "write" if self.write is not None else "the writer"
            raise TypeError(
                f"{function} returned a {type(generated).__name__}; expected the generated weights by name: give "
                "write=, a function that maps the inputs to a dict of them."
            )
        return dict(generated)

    def read(self, *inputs: Tensor) -> list[Tensor]:
        """Return the outputs of the token modules, detached: each (B, tokens, dim) or (B, neurons)."""
        modules = self._modules_of_tokens()
        with torch.no_grad(), capture(self.writer, modules) as captured:
            self.weights(*(one.clone() for one in inputs))  # a model may write into its inputs
        outputs = []
        for name, module in zip(self.names, modules, strict=True):
            output = captured[module]
            if not isinstance(output, Tensor) or output.dim() not in (2, 3) or len(output) != len(inputs[0]):
                received = tuple(output.shape) if isinstance(output, Tensor) else "several tensors"
                raise LayerError(
                    f"module {name!r} returned {received} for {len(inputs[0])} samples; expected (B, tokens, dim) or "
                    "(B, neurons): choose another module as tokens=."
                )
            outputs.append(output)
        return outputs

    def outputs_of(self, tokens: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        """Return the outputs with these outputs of the token modules in place of the writer's own."""
        with ExitStack() as stack:
            for module, value in zip(self._modules_of_tokens(), tokens, strict=True):
                stack.enter_context(patch(self.writer, module, partial(_second, second=value)))
            outputs: Tensor = self(*(one.clone() for one in inputs))
        return outputs

    def _modules_of_tokens(self) -> list[nn.Module]:
        return [self.writer.get_submodule(name) for name in self.names]

    def layer_index(self, layer: int | str) -> int:
        """Return the index of a token module, given by index (negative ones count from the end) or name."""
        count = len(self.names)
        if isinstance(layer, str) and layer in self.names:
            return self.names.index(layer)
        if isinstance(layer, int) and -count <= layer < count:
            return layer % count
        raise ValueError(
            f"layer is {layer!r}; expected one of {', '.join(map(repr, self.names))}, or {-count} to {count - 1}."
        )


def _second(_: Any, second: Tensor) -> Tensor:
    return second


def contributions_of_written_weights(
    model: WrittenWeights,
    inputs: tuple[Tensor, ...],
    layer: int | None,
    baselines: Any,
    steps: Sequence[float],
    limit: int | None,
) -> Tensor:
    r"""Return the contributions of tokens and the rest to the outputs: (B, tokens + 1, …).

    .. math:: I_t = \int_0^1 \frac{\partial y}{\partial h}(h_0 + a (h - h_0))\, (h - h_0)_t \, da

    ``steps`` are the points a. The order is that of the token modules. The last entry is y(h_0). If ``layer`` is
    given, it also includes the contributions of the tokens of all other modules.
    """
    check_at_least_one(internal_batch_size=limit)
    one = tuple(x[:1] for x in inputs)
    with torch.no_grad():
        shapes, output = [token.shape[1:] for token in model.read(*one)], model(*one)
    sizes = [math.prod(shape) for shape in shapes]
    at_once = limit if limit is not None else max(1, MAX_NUMBERS // max(output.numel(), sum(sizes), 1))
    origin = _baseline_tokens(model, baselines, shapes, at_once, output)
    masks = _token_masks([shape[0] for shape in shapes], sizes, layer).to(output.device)
    total: Tensor = output.new_zeros(len(inputs[0]), len(masks) + 1, *output.shape[1:])

    def run(numbers: Tensor, samples: tuple[Tensor, ...]) -> Tensor:
        parts = zip(numbers.split(sizes, 1), shapes, strict=True)
        return model.outputs_of([part.unflatten(1, shape) for part, shape in parts], *samples)

    for low, high in chunks(len(inputs[0]), at_once):
        samples = tuple(x[low:high] for x in inputs)
        start = origin.expand(high - low, -1)
        difference = _flat_tokens(model, samples) - start
        for a in steps:
            point = (start + a * difference).requires_grad_()
            outputs = run(point, samples)
            for i, j in chunks(len(masks), max(1, at_once // (high - low))):
                products = _products(point, outputs, masks[i:j, None] * difference)
                total[low:high, i:j] += products.transpose(0, 1) / len(steps)
        # Last, and without gradients: a network that stores its weights would else keep those of a graph.
        with torch.no_grad():
            total[low:high, -1] = run(start, samples)
    if layer is None:
        return total
    return torch.cat([total[:, :-2], total[:, -2:].sum(1, keepdim=True)], 1)


def _flat_tokens(model: WrittenWeights, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return all tokens of each sample in one row: (B, numbers)."""
    return torch.cat([tokens.flatten(1) for tokens in model.read(*inputs)], 1)


def _baseline_tokens(
    model: WrittenWeights, baselines: Any, shapes: Sequence[torch.Size], at_once: int, like: Tensor
) -> Tensor:
    """Return the start of the path, (1, numbers): the mean tokens of reference inputs, or a number."""
    if baselines is None:
        raise ValueError(
            "baselines is None, but the mean tokens of a WrittenWeights are not known; give reference inputs, whose "
            "mean tokens are used, or a number for all tokens."
        )
    numbers = sum(math.prod(shape) for shape in shapes)
    if isinstance(baselines, int | float) or (isinstance(baselines, Tensor) and baselines.dim() == 0):
        return like.new_full((1, numbers), float(baselines))
    batch = Batch.of(baselines)
    parts = (batch.cut(*piece).inputs for piece in chunks(batch.rows, at_once))
    mean: Tensor = torch.stack([_flat_tokens(model, part).sum(0) for part in parts]).sum(0, keepdim=True) / batch.rows
    if mean.shape[1] != numbers:
        raise ValueError(
            f"the tokens of baselines have {mean.shape[1]} numbers and those of the inputs {numbers}; give reference "
            "inputs of the same size."
        )
    return mean


def _token_masks(counts: Sequence[int], sizes: Sequence[int], layer: int | None) -> Tensor:
    """Return the numbers of each token, (tokens, numbers) bool; with a layer, the last mask is that of all others."""
    ids: Tensor = torch.cat(
        [torch.arange(n).repeat_interleave(size // n) for n, size in zip(counts, sizes, strict=True)]
    )
    module = torch.arange(len(counts)).repeat_interleave(torch.tensor(sizes))
    if layer is None:
        ids, number = ids + torch.tensor([sum(counts[:i]) for i in range(len(counts))])[module], sum(counts)
    else:
        ids, number = ids.where(module == layer, counts[layer]), counts[layer] + 1
    masks: Tensor = ids == torch.arange(number)[:, None]
    return masks


def _products(point: Tensor, outputs: Tensor, directions: Tensor) -> Tensor:
    """Return the derivatives of the outputs along each direction: (k, B, numbers) to (k, B, …)."""
    try:
        return JacobianVectorProduct(point, outputs)(directions)
    except UnsupportedError as error:
        raise LayerError(
            f"the outputs cannot be differentiated along tokens: {error}. Choose modules nearer to the weights as "
            "tokens=, or run fused attention with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)."
        ) from error
