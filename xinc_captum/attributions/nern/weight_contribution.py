"""WeightContribution: contributions of a NeRN's neurons to weights and outputs of the rebuilt network."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..._compat import LayerAttribution
from ...batch import Batch, OutputFn, call_model, chunks, one_score_a_row, python_index, select_output, settle_arguments
from ...hooks import LayerError, exchange
from ...inr.training import check_at_least_one, check_finite
from ..base import attribution_context, captum_method, plain
from .kernel_canvas import KernelCanvas
from .kernels import Convolution, parameter_name, target_behind
from .nern import NeRN

Weights = dict[str, Tensor]


class WeightScores:
    """y(x; W), the selected outputs of a NeRN's target; only the weights of ``layers`` change and get gradients."""

    def __init__(self, nern: NeRN, layers: Sequence[Convolution], output_fn: OutputFn | None) -> None:
        self.layers, self.output_fn = layers, output_fn
        self._using = exchange(nern.target)
        with torch.no_grad():
            self.generated = nern.weights()

    def shift(self, change: Callable[[Tensor, Convolution], Tensor]) -> Weights:
        """Return the generated weights, those of explained layers replaced by ``change(weight, layer)``."""
        return self.generated | {one.name: change(self.generated[one.name], one) for one in self.layers}

    def network(self, weights: Weights) -> Callable[..., Any]:
        """Return the target with these weights."""
        return self._using({parameter_name(name): weight for name, weight in weights.items()})

    def score(self, weights: Weights, batch: Batch) -> Tensor:
        """Return y, (rows,)."""
        return one_score_a_row(select_output(batch.through(self.network(weights)), batch, self.output_fn))

    def scores(self, weights: Weights, batch: Batch, batch_size: int) -> Tensor:
        """Return y, (rows,), in chunks and without gradients."""
        with torch.no_grad():
            return torch.cat([self.score(weights, batch.cut(*piece)) for piece in chunks(batch.rows, batch_size)])

    def gradients(self, weights: Weights, row: Batch) -> list[Tensor]:
        """Return ∂y/∂W of each explained layer, for a batch of one sample."""
        leaves = {one.name: weights[one.name].detach().requires_grad_() for one in self.layers}
        score = self.score(weights | leaves, row)
        gradients: Sequence[Tensor | None] = [None] * len(leaves)
        if score.requires_grad:
            gradients = torch.autograd.grad(score.sum(), list(leaves.values()), allow_unused=True)
        idle = [one.name for one, gradient in zip(self.layers, gradients, strict=True) if gradient is None]
        if idle:
            raise LayerError(
                f"the selected output does not depend on the weights of {', '.join(map(repr, idle))}: the layer did "
                "not run, or no differentiable path leads from it to the target. Choose a layer that this model calls."
            )
        return [gradient.detach() for gradient in gradients if gradient is not None]

    def average_gradients(self, path: Callable[[float], Weights], row: Batch, n_steps: int) -> list[Tensor]:
        """Return ∫₀¹ ∂y/∂W along a path of weights, by the midpoint rule."""
        sums = self.gradients(path(0.5 / n_steps), row)
        for step in range(1, n_steps):
            for total, gradient in zip(sums, self.gradients(path((step + 0.5) / n_steps), row), strict=True):
                total.add_(gradient)
        return [total / n_steps for total in sums]


Mode = Literal["kernel", "gradient", "integrated", "removal"]
Baseline = Literal["zero", "mean"]


class WeightContribution(LayerAttribution):  # type: ignore[misc]
    r"""Contributions of predictor neurons to the kernels and outputs of a network that a :class:`NeRN` generates.

    .. math:: kernel: C_i \qquad gradient: \langle C_{i,l}, \partial y / \partial W_l \rangle \qquad
        integrated: \langle C_{i,l} - C^0_{i,l}, \textstyle\int_0^1 \partial y / \partial W_l (W^0 + a (\hat W - W^0))\,
        da \rangle \qquad removal: y(\hat W) - y(\hat W - C_i)

    Symbols: C_i the contribution of neuron i to the generated weights Ŵ (fixed gates; neurons and bias sum to Ŵ), y the
    selected output of the rebuilt network, l an explained layer; W⁰ the baseline weights, C⁰_i the contribution to
    them: zero, or the mean kernel of C_i in each layer. Other represented layers have the weights Ŵ.

    - "kernel" is the contribution to the weights. It does not depend on images or outputs.
    - "gradient" is the effect of a slightly larger contribution. Over neurons and bias it sums to ⟨Ŵ, ∂y/∂W⟩, which is
      y only for networks without biases and normalisation.
    - "integrated" explains the difference to a baseline network, with all weights zero or each kernel the mean of its
      layer; it sums to that difference, up to the error of the steps.
    - "removal" is the difference of two forward passes, with and without the contribution; it is exact for one layer.
      With several layers the contribution is removed from all of them, and integrated gradients along the path divide
      the difference among them. It does not add up over neurons.

    The first three modes do not predict the fourth: a neuron contributes to all kernels, so its removal is a large
    step. In two networks of digits, the rank correlations over neurons of "gradient" with "removal" were .66
    (.44 to .90 between images) and .33 (.05 to .57).

    Args:
        nern: a fitted :class:`NeRN`; the weights of its target are not used.
        layer: of the target: a module, a dotted name, or a list of these; None takes all represented layers.
        device_ids: unused, part of Captum's signature.
        mode: one of the four.
        at: the layer of the predictor that has the neurons, as in :class:`KernelCanvas`, like ``memory_budget``.
        output_fn: selects the tensor to explain from a dict or tuple output of the target.

    Raises:
        TypeError, LayerError, ValueError: another ``nern``; a layer that is unknown, not represented, or does not lead
            to the output; an unknown mode, missing or superfluous arguments, parameters that are not finite.

    Example:
        >>> from xinc_captum.attributions.nern import NeRN
        >>> target = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten())
        >>> nern = NeRN(target, hidden=8)
        >>> WeightContribution(nern, mode="removal").attribute(torch.rand(5, 1, 5, 5), target=1).shape
        torch.Size([5, 9, 2])

    Source: Ashkenazi et al. (ICLR 2023) for the network; Padmanabhan et al. (CVPR 2024) for the canvas; Sundararajan
    et al. (ICML 2017) for the integral.
    """

    def __init__(
        self,
        nern: NeRN,
        layer: nn.Module | str | Sequence[nn.Module | str] | None = None,
        device_ids: list[int] | None = None,
        *,
        mode: Mode = "kernel",
        at: int = -1,
        output_fn: OutputFn | None = None,
        memory_budget: int = 1 << 28,
    ) -> None:
        if not isinstance(nern, NeRN):
            raise TypeError(
                f"nern is a {type(nern).__name__}; expected a NeRN, whose predictor is to be explained. For another "
                "module that generates weights use xinc_captum.TokenContribution with a WrittenWeights."
            )
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; expected one of {', '.join(map(repr, get_args(Mode)))}.")
        self.several = layer is None or (isinstance(layer, Iterable) and not isinstance(layer, nn.Module | str))
        selected: Sequence[Any] = nern.layers if layer is None else layer if self.several else [layer]  # type: ignore[assignment]
        if not selected:
            raise ValueError("layer is an empty list; give at least one represented layer, or None for all.")
        self.layers: tuple[Convolution, ...] = tuple(nern.layer(selection) for selection in selected)
        if len(names := [one.name for one in self.layers]) != len(set(names)):
            raise ValueError(f"layers are {', '.join(map(repr, names))}; expected each layer once.")
        root = target_behind(nern.target)
        super().__init__(nern.target, root.get_submodule(self.layers[0].name), device_ids)
        self.nern, self.mode, self.output_fn = nern, mode, output_fn
        self.canvases = [KernelCanvas(nern, selection, at, memory_budget=memory_budget) for selection in self.layers]
        self.units = self.canvases[0].units

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: contributions, not sensitivities."""
        return True

    def has_convergence_delta(self) -> bool:
        """Return whether the mode has a known sum: "integrated" over neurons, "removal" over layers."""
        return self.mode in ("integrated", "removal")

    @captum_method
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | None = None,
        target: Any = None,
        neuron_selector: int | slice | Sequence[int] | None = None,
        additional_forward_args: Any = None,
        *,
        baseline: Baseline = "zero",
        n_steps: int = 64,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Return the contributions of the predictor's neurons; the bias is the last entry.

        Args:
            inputs: images (rows, …) or a tuple of such; None in mode "kernel".
            target: a Captum target that selects one number a sample; None in mode "kernel".
            neuron_selector: an index, a slice or several indices; None is all and the bias, whose index is ``units``.
            additional_forward_args: passed to the target; a tensor with one entry for each sample is split with the
                inputs (:func:`~xinc_captum.batch.settle_arguments`).
            baseline: W⁰ of "integrated": "zero", or "mean", every kernel its layer's mean kernel.
            n_steps: midpoints of an integral. On ReLU networks its error does not shrink steadily: check the delta.
            internal_batch_size: the largest number of samples in a forward pass without gradients.
            return_convergence_delta: also return the error of the integral: "integrated" (rows,), Σ over neurons and
                layers − (y(Ŵ) − y(W⁰)); "removal" (rows, neurons), Σ over layers − (y(Ŵ) − y(Ŵ − C_i)).

        Returns:
            "kernel": (neurons + 1, *weight shape), a list of such for several layers. Other modes: (rows, neurons + 1,
            layers). With a selector, the selected entries instead of neurons + 1.
        """
        index = self._select(neuron_selector)
        check_at_least_one(n_steps=n_steps, internal_batch_size=internal_batch_size)
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline is {baseline!r}; expected 'zero' or 'mean'.")
        if return_convergence_delta and not self.has_convergence_delta():
            raise ValueError(
                f"mode {self.mode!r} has no known sum, so it has no convergence delta; use mode 'integrated'."
            )
        check_finite(self.nern.predictor)
        if self.mode == "kernel":
            return self._kernels(inputs, target, None if neuron_selector is None else index)
        if inputs is None:
            raise ValueError(f"mode {self.mode!r} explains outputs for images; give inputs (rows, …) and a target.")
        root = target_behind(self.nern.target)
        check_finite(root, [root.get_parameter(parameter_name(layer.name)) for layer in self.nern.layers])
        device = next(self.nern.predictor.parameters()).device.type
        with attribution_context(self.forward_func):
            batch = Batch.of(inputs, additional_forward_args, target)
            with torch.autocast(device, enabled=False):  # autocast is for the target only
                scores = WeightScores(self.nern, self.layers, self.output_fn)
            call = partial(call_model, scores.network(scores.generated), self.output_fn)
            batch, batch_size = settle_arguments(batch, call), internal_batch_size or batch.rows
            # All samples first: a target that does not fit them could fit each one alone. And a layer without a path to
            # the output is an error, not a difference of zero.
            full_scores = scores.scores(scores.generated, batch, batch_size)
            scores.gradients(scores.generated, batch.cut(0, 1))
            if self.mode == "gradient":
                rows = [self._project(scores.gradients(scores.generated, row)) for row in _rows(batch)]
                contributions, delta = torch.stack(rows), None
            elif self.mode == "integrated":
                contributions, delta = self._integrate(scores, batch, full_scores, baseline, n_steps, batch_size)
            else:
                contributions, delta = self._removal(scores, batch, full_scores, index, n_steps, batch_size)
            if self.mode != "removal" and neuron_selector is not None:
                contributions = contributions[:, index]
            contributions = plain(contributions)
        return (contributions, plain(delta)) if return_convergence_delta and delta is not None else contributions

    def _select(self, selector: int | slice | Sequence[int] | None) -> list[int]:
        every = range(self.units + 1)
        selector = selector.tolist() if isinstance(selector, Tensor | np.ndarray) else selector
        try:
            if selector is None:
                return list(every)
            if isinstance(selector, slice):
                return list(every[selector])
            entries = python_index([selector] if isinstance(selector, int | np.integer) else list(selector))
            if any(isinstance(entry, bool | np.bool_) for entry in entries):
                raise TypeError("a mask")
            return [every[entry] for entry in entries]
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"neuron_selector {selector!r} does not fit {self.units} neurons and the bias, number {self.units}; "
                "expected an integer, a slice or a sequence of integers, such as mask.nonzero()[:, 0] of a mask."
            ) from error

    def _kernels(self, inputs: Any, target: Any, index: list[int] | None) -> Tensor | list[Tensor]:
        if inputs is not None or target is not None:
            raise ValueError(
                "mode 'kernel' does not depend on images; leave inputs and target out, or use mode "
                "'gradient', 'integrated' or 'removal'."
            )
        kernels = [plain(canvas.to_tensor(index)) for canvas in self.canvases]
        return kernels if self.several else kernels[0]

    def _project(self, gradients: list[Tensor]) -> Tensor:
        """Return ⟨C_i, G⟩ of every layer: (units + 1, layers)."""
        with torch.autocast(gradients[0].device.type, enabled=False):
            parts = [c.project(g[None])[0] for c, g in zip(self.canvases, gradients, strict=True)]
        return torch.stack(parts, 1)

    def _integrate(
        self, scores: WeightScores, batch: Batch, full_scores: Tensor, baseline: Baseline, n_steps: int, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        def start(weight: Tensor) -> Tensor:
            return weight.mean((0, 1), keepdim=True).expand_as(weight) if baseline == "mean" else weight.new_zeros(())

        def path(a: float) -> Weights:
            return scores.shift(lambda w, _: start(w) + a * (w - start(w)))

        rows = []
        for row in _rows(batch):
            gradients = scores.average_gradients(path, row, n_steps)
            if baseline == "mean":  # ⟨C − mean C, G⟩ = ⟨C, G − mean G⟩
                gradients = [g - g.mean((0, 1), keepdim=True) for g in gradients]
            rows.append(self._project(gradients))
        contributions = torch.stack(rows)
        return contributions, contributions.sum((1, 2)) - (full_scores - scores.scores(path(0.0), batch, batch_size))

    def _removal(
        self, scores: WeightScores, batch: Batch, full_scores: Tensor, index: list[int], n_steps: int, batch_size: int
    ) -> tuple[Tensor, Tensor]:
        contributions = full_scores.new_empty(batch.rows, len(index), len(self.layers))
        delta = full_scores.new_zeros(batch.rows, len(index))
        for position, unit in enumerate(index):
            with torch.autocast(full_scores.device.type, enabled=False):
                parts = {c.layer.name: c.unit(unit) for c in self.canvases}

            def path(a: float, parts: Weights = parts) -> Weights:
                return scores.shift(lambda w, one: w - (1 - a) * parts[one.name])

            difference = full_scores - scores.scores(path(0.0), batch, batch_size)
            if len(self.layers) == 1:
                contributions[:, position, 0] = difference
                continue
            for number, row in enumerate(_rows(batch)):
                gradients = scores.average_gradients(path, row, n_steps)
                for column, (layer, gradient) in enumerate(zip(self.layers, gradients, strict=True)):
                    contributions[number, position, column] = (parts[layer.name] * gradient).sum()
            delta[:, position] = contributions[:, position].sum(1) - difference
        return contributions, delta


def _rows(batch: Batch) -> list[Batch]:
    return [batch.cut(row, row + 1) for row in range(batch.rows)]
