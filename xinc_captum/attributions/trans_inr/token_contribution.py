"""TokenContribution: contributions of neurons, weight tokens and data patches to the images of a TransINR."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..._compat import GradientAttribution
from ...batch import Batch, chunks, select_output
from ...hooks import LayerError, modules_behind, unwrap
from ...images import check_images
from ...inr.training import check_at_least_one, check_finite
from ..base import attribution_context, captum_method, plain
from .trans_inr import OUT_BIAS, TransINR
from .writer import MAX_NUMBERS, Modulations, Weights
from .written_weights import WrittenWeights, contributions_of_written_weights

Level = Literal["token", "modulation", "patch"]
Baselines = Tensor | float | None


class _Call(NamedTuple):
    """The checked arguments of one call."""

    images: Tensor
    mask: Tensor | None
    size: tuple[int, int]
    batch: Batch


class TokenContribution(GradientAttribution):  # type: ignore[misc]
    r"""Contributions of weight tokens or data patches to each pixel of the generated networks' images.

    .. math:: \Sigma_t C_t + \mathrm{rest} = \hat x \qquad (\pm\ \mathrm{gap})

    Symbols: C_t the contribution of token or patch t, x̂ the generated image, gap the error of numerical integration (0
    at level "token"), g the number of modulations of a layer. There are three levels:

    - "token": the contributions of the neurons of a token, with fixed gates: the neurons j of a layer with
      j mod g = t. They are exact at every layer of the generated network; the rest is the output of the biases through
      the same gates.
    - "modulation": the effect of a token's modulation compared with the mean one, by integrated gradients; the rest is
      the image of the mean modulations.
    - "patch": the effect of a patch of the *input* compared with the mean image, through transformer and network, by
      integrated derivatives; the rest is the output for the mean image.

    The means are stored by :meth:`TransINR.fit`. Attention weights are not contributions (:meth:`TransINR.routing`).
    Other hypernetworks are explained at level "modulation", as a :class:`.WrittenWeights`.

    Args:
        trans_inr: a :class:`~xinc_captum.TransINR`, also compiled or in a DataParallel; or a :class:`.WrittenWeights`.
        level: "token", "modulation" or "patch".
        device_ids: unused, part of Captum's signature.

    Raises:
        TypeError, LayerError, ValueError: another model, a scripted or traced one, or an unknown level.

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model = TransINR(1, (8, 8), patch=2, groups=4, seed=0)
        >>> tokens = TokenContribution(model, "token")
        >>> tokens.attribute(torch.rand(2, 1, 8, 8), target=0, layer="linear2").shape  # 4 tokens and the rest
        torch.Size([2, 5, 8, 8])

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022) for the model;
    Padmanabhan et al. (CVPR 2024) and Sundararajan et al. (ICML 2017) for the contributions.
    """

    def __init__(self, trans_inr: nn.Module, level: Level = "token", device_ids: list[int] | None = None) -> None:
        if isinstance(trans_inr, torch.jit.ScriptModule):
            raise LayerError(
                f"trans_inr is a {type(trans_inr).__name__}: scripted and traced models give no access to "
                "their weights. Give the original TransINR."
            )
        model = unwrap(trans_inr) if isinstance(trans_inr, nn.Module) else trans_inr
        if not isinstance(model, TransINR | WrittenWeights):
            raise TypeError(
                f"trans_inr is a {type(model).__name__}; expected a xinc_captum.attributions.trans_inr.TransINR, or a "
                "WrittenWeights around another module that generates weights."
            )
        if level not in get_args(Level):
            raise ValueError(f"level is {level!r}; expected one of {', '.join(map(repr, get_args(Level)))}.")
        self.written = model if isinstance(model, WrittenWeights) else None
        if self.written is not None and level != "modulation":
            raise ValueError(
                f"level {level!r} needs a TransINR, whose neurons and patches are known, and this is a WrittenWeights; "
                "use level='modulation' for tokens, or captum.attr.IntegratedGradients(model) for inputs."
            )
        GradientAttribution.__init__(self, trans_inr)
        self.model, self.level, self.device_ids = cast(TransINR, model), level, device_ids

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: contributions add up to pixels."""
        return True

    def has_convergence_delta(self) -> bool:
        """True: ``attribute(..., return_convergence_delta=True)`` works."""
        return True

    @captum_method
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        layer: int | str | None = None,
        baselines: Baselines | tuple[Tensor, ...] = None,
        seen: Tensor | None = None,
        size: tuple[int, int] | None = None,
        n_steps: int = 64,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        r"""Return the contributions of tokens or patches to every pixel; the rest is the last entry.

        Args:
            inputs: (B, C, H, W) in [0, 1]; of a WrittenWeights, one tensor or several with B samples.
            target: a channel, or one for each sample; any Captum target of (B, C, H, W). None is all channels.
            layer: of the generated network, by name or index. At level "token" None is the last hidden one; with the
                rest, the contributions at any layer sum to the image. At level "modulation" None is all layers; with
                one layer the contributions of the others are in the rest. At level "patch" it must be None.
            baselines: start of the path. At level "modulation" images (N, C, H, W) whose mean modulation is used, or a
                number for all modulations (1.0 is the base network, which is not trained to be an image). At level
                "patch" an image (C, H, W), one for each sample, or a number. None is the means of the fit. For a
                WrittenWeights, inputs whose mean tokens are used, or a number for all tokens.
            seen: mask of visible patches or pixels, as for :meth:`TransINR.forward`.
            size: of the output; None is that of ``inputs``.
            n_steps: midpoints of the path.
            internal_batch_size: the largest number of samples in a pass; None keeps intermediate results below 128 MB.
            return_convergence_delta: also return Σ contributions − Σ pixels, (B,). Errors of pixels can cancel in it;
                :func:`xinc_captum.metrics.completeness_error` returns the largest.

        Returns:
            (B, tokens or patches + 1, \*image), image being (C, H, W), or (H, W) of one channel. Tokens are in order of
            layers, patches in order of rows. A WrittenWeights has the shape of its outputs in place of an image.

        Raises:
            TypeError, ValueError: images that are not finite or do not tile; an invalid target, layer or baseline.
        """
        if self.level == "patch" and layer is not None:
            raise ValueError(f"layer is {layer!r}, but level 'patch' uses all layers; leave it out.")
        if self.level == "token" and baselines is not None:
            raise ValueError("baselines are given, but level 'token' has no baseline; leave them out.")
        if self.written is not None:
            if seen is not None or size is not None:
                raise ValueError("seen and size are for a TransINR; a WrittenWeights gets everything from its inputs.")
            batch, limit = Batch.of(inputs, None, target), internal_batch_size
            return self._contributions_of_writer(
                self.written, batch, layer, baselines, n_steps, limit, return_convergence_delta
            )
        baselines = cast(Baselines, baselines)
        with attribution_context(self.model):
            call = self._prepare(inputs, target, seen, size)
            if self.level == "token":
                contributions = self._token(call, layer, internal_batch_size)
            elif self.level == "modulation":
                contributions = self._modulation(call, layer, baselines, n_steps, internal_batch_size)
            else:
                contributions = self._patch(call, baselines, n_steps, internal_batch_size)
            result = _of_target(contributions, call.batch)
            if not return_convergence_delta:
                return result
            with torch.no_grad():
                outputs = _select_target(self.model(call.images, call.mask, call.size), call.batch)
            return result, plain(result.flatten(1).sum(1) - outputs.reshape(len(outputs), -1).sum(1))

    @captum_method
    def composed(
        self,
        inputs: Tensor,
        target: Any = None,
        layer: int | str | None = None,
        baselines: Tensor | float | None = None,
        seen: Tensor | None = None,
        size: tuple[int, int] | None = None,
        n_steps: int = 64,
        internal_batch_size: int | None = None,
        patches: Sequence[int] | None = None,
    ) -> Tensor:
        r"""Return contributions of patches through each token to every pixel: (B, patches, tokens, \*image).

        .. math:: D_{qt} = \int_0^1 \frac{\partial y}{\partial x_t} \frac{\partial x_t}{\partial q} \, da, \qquad
            \Sigma_t D_{qt} = D_q

        Symbols: q a patch, D_q its contribution at level "patch", x_t the modulation of token t. The sum over tokens
        equals D_q with the same steps, up to rounding; there is no rest. Each step renders patches x tokens images.
        Arguments and errors are those of :meth:`attribute` at level "patch", but ``layer`` selects the tokens of one
        layer, with one more entry for all others, and ``patches`` selects patches by index (None: all).
        """
        if self.written is not None:
            raise TypeError("composed() needs patches of a TransINR; a WrittenWeights has attribute() only.")
        index = None if layer is None else self.model.writer.layer_index(layer)
        with attribution_context(self.model):
            call = self._prepare(inputs, target, seen, size)
            start, tokens = self._baseline_images(call, baselines), modulation_tokens(self.model, index)
            batch_size = self._max_batch_size(call, internal_batch_size)
            contributions = patch_token_contributions(
                self.model, call.images, start, call.mask, tokens, call.size, n_steps, batch_size, patches
            )
            result = _of_target(contributions.flatten(1, 2), call.batch)
            return result.reshape(len(result), *contributions.shape[1:3], *result.shape[2:])

    def _contributions_of_writer(
        self,
        model: WrittenWeights,
        batch: Batch,
        layer: int | str | None,
        baselines: Any,
        n_steps: int,
        limit: int | None,
        with_delta: bool,
    ) -> Any:
        index = None if layer is None else model.layer_index(layer)
        check_finite(model)
        with attribution_context(model, *modules_behind(model.network)):
            steps = list(midpoints(n_steps))
            parts = contributions_of_written_weights(model, batch.inputs, index, baselines, steps, limit)
            result = _of_target(parts, batch, parts.dtype)
            if not with_delta:
                return result
            with torch.no_grad():
                outputs = _select_target(model(*batch.inputs), batch)
            return result, plain(result.flatten(1).sum(1) - outputs.reshape(len(outputs), -1).sum(1))

    def _prepare(self, inputs: Any, target: Any, seen: Tensor | None, size: tuple[int, int] | None) -> _Call:
        images = check_images(inputs).to(self.model.tokens.places)
        check_finite(self.model)
        mask = None if seen is None else self.model.tokens.mask(seen, images)
        output_size = size or (images.shape[2], images.shape[3])
        return _Call(images, mask, output_size, Batch.of(images, None, target))

    def _max_batch_size(self, call: _Call, limit: int | None) -> int:
        patches = math.prod(self.model.tokens.grid(tuple(call.images.shape[2:])))
        return self.model.writer.max_batch_size(call.size, limit, patches)

    def _token(self, call: _Call, layer: int | str | None, limit: int | None) -> Tensor:
        writer, parts = self.model.writer, []
        index = max(len(writer.rows) - 2, 0) if layer is None else writer.layer_index(layer)
        neurons = self.model.config["hidden"] * self.model.config["channels"] * call.size[0] * call.size[1]
        batch_size = limit if limit is not None else max(1, MAX_NUMBERS // neurons)
        check_at_least_one(internal_batch_size=batch_size)
        with torch.no_grad():
            encoded = self.model.encoded(call.size)
            for start in range(0, len(call.images), batch_size):
                mask = None if call.mask is None else call.mask[start : start + batch_size]
                weights = self.model.weights(self.model.modulations(call.images[start : start + batch_size], mask))
                contributions, rest = neuron_contributions(encoded, weights, index, OUT_BIAS)
                entries = torch.cat([sum_groups(contributions, writer.rows[index]), rest[..., None]], -1)
                parts.append(entries.permute(0, 3, 2, 1).unflatten(-1, call.size))
        return torch.cat(parts)

    def _modulation(
        self, call: _Call, layer: int | str | None, baselines: Baselines, steps: int, limit: int | None
    ) -> Tensor:
        index = None if layer is None else self.model.writer.layer_index(layer)
        batch_size = self.model.writer.max_batch_size(call.size, limit)
        with torch.no_grad():
            x = self.model.modulations(call.images, call.mask)
            start = self._baseline_modulations(baselines)
            rest = self.model.paint(self.model.weights(start), call.size)
        tokens = modulation_tokens(self.model, index)
        parts = modulation_contributions(self.model, x, start, tokens, call.size, steps, batch_size)
        rest = rest.expand(len(parts), -1, -1, -1)
        if index is not None:  # contributions of the other layers
            parts, rest = parts[:, :-1], rest + parts[:, -1]
        return torch.cat([parts, rest[:, None].to(parts)], 1)

    def _patch(self, call: _Call, baselines: Baselines, steps: int, limit: int | None) -> Tensor:
        batch_size = self._max_batch_size(call, limit)
        start = self._baseline_images(call, baselines)
        parts = patch_contributions(self.model, call.images, start, call.mask, call.size, steps, batch_size)
        with torch.no_grad():
            rest = self.model(start, call.mask, call.size)
        return torch.cat([parts, rest[:, None].to(parts)], 1)

    def _baseline_modulations(self, baselines: Baselines) -> Modulations:
        if isinstance(baselines, Tensor) and baselines.dim():
            images = check_images(baselines).to(self.model.tokens.places)
            return tuple(x.mean(0, keepdim=True) for x in self.model.modulations(images))
        means = self.model.mean_modulations
        if baselines is None:
            return tuple(mean[None] for mean in means)
        if baselines == 0:
            raise ValueError("baselines is 0, but weights of length 0 cannot be normalised; expected another number.")
        return tuple(torch.full_like(mean, float(baselines))[None] for mean in means)

    def _baseline_images(self, call: _Call, baselines: Baselines) -> Tensor:
        images = call.images
        if baselines is None:
            start = self.model.mean_image[None]
            if start.shape[2:] != images.shape[2:]:
                start = F.interpolate(start, images.shape[2:], mode="bilinear", antialias=True)
        elif isinstance(baselines, Tensor) and baselines.dim():
            start = check_images(baselines if baselines.dim() == 4 else baselines[None]).to(images)
            if start.shape[1:] != images.shape[1:] or len(start) not in (1, len(images)):
                raise ValueError(
                    f"baselines have shape {tuple(baselines.shape)}; expected an image {tuple(images.shape[1:])}, or "
                    f"one for each of the {len(images)}."
                )
        else:
            start = torch.full_like(images[:1], float(baselines))
        return start.to(images).expand_as(images)


def _of_target(parts: Tensor, batch: Batch, dtype: torch.dtype | None = None) -> Tensor:
    """Select the target of (B, entries, C, H, W), in a dtype or that of the inputs: (B, entries, …)."""
    return plain(_select_target(parts.movedim(1, -1), batch).movedim(-1, 1).to(dtype or batch.inputs[0].dtype))


def _select_target(outputs: Tensor, batch: Batch) -> Tensor:
    """Select the target of (B, C, H, W, …); Captum selects one channel for each sample of 2-D outputs only."""
    target = batch.target
    if isinstance(target, list) and all(isinstance(one, int) for one in target):
        batch = replace(batch, target=[(one,) for one in target])
    elif isinstance(target, Tensor) and target.dim() == 1 and target.numel() == batch.rows > 1:
        low, high = -outputs.shape[1], outputs.shape[1] - 1
        try:
            return outputs[torch.arange(batch.rows, device=outputs.device), target.to(outputs.device)]
        except IndexError as error:
            raise ValueError(f"target holds a channel outside {low} to {high}: {error}") from error
    return select_output(outputs, batch, None)


def neuron_contributions(encoded: Tensor, weights: Weights, layer: int, out_bias: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Return the contributions of the neurons of a layer, and the remainder; they sum to the networks' outputs.

    .. math:: C_j = h_{j}\, J_{j}, \quad J = W_L G_{L-1} W_{L-1} \cdots G_{l+1} W_{l+1}, \qquad \Sigma_j C_j + \beta = y

    Symbols: h the layer's neurons after their ReLU (before ``out_bias`` at the last layer, where J is the identity); G
    the gates, 1 where a later neuron is positive at this point; β, which includes ``out_bias``, the output of the later
    biases through the same gates with h = 0. A neuron that is 0 everywhere has no contribution. Encoded coordinates
    (points, in) and B networks give C (B, points, out, neurons) and β (B, points, out).

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), for the last layer; the gated form
    is activation x gradient, exact for piecewise linear networks.
    """
    hidden, last = encoded, len(weights.matrices) - 1
    activations, gates = encoded, []
    for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
        preactivations = hidden @ matrix.mT + bias
        hidden = preactivations.relu() if i < last else preactivations
        if i == layer:
            activations = hidden
        elif i > layer:
            gates.append((preactivations > 0).to(preactivations) if i < last else torch.ones_like(preactivations))
    count, points, outputs = hidden.shape
    jacobian = torch.eye(outputs, dtype=hidden.dtype, device=hidden.device).expand(count, points, -1, -1)
    rest = torch.full_like(hidden, out_bias)
    for i in range(last, layer, -1):
        gated = jacobian * gates[i - layer - 1][:, :, None]
        rest = rest + (gated @ weights.biases[i][:, None])[..., 0]
        jacobian = gated @ weights.matrices[i][:, None]
    return jacobian * activations[:, :, None], rest


def sum_groups(contributions: Tensor, rows: int) -> Tensor:
    """Sum neurons of the same modulation: (…, neurons) to (…, rows); neuron j belongs to modulation j mod rows."""
    return contributions.reshape(*contributions.shape[:-1], -1, rows).sum(-2)


def midpoints(steps: int) -> Iterator[float]:
    """Return the points of the midpoint rule on [0, 1]."""
    if steps < 1:
        raise ValueError(f"n_steps is {steps}; expected at least 1.")
    return ((k + 0.5) / steps for k in range(steps))


def flatten_modulations(modulations: Modulations) -> Tensor:
    """Concatenate the modulations of each image: (B, numbers)."""
    return torch.cat([x.flatten(1) for x in modulations], 1)


def unflatten_modulations(model: TransINR, numbers: Tensor) -> Modulations:
    """Invert :func:`flatten_modulations`."""
    shapes = [mean.shape for mean in model.mean_modulations]
    parts = numbers.split([shape.numel() for shape in shapes], 1)
    return tuple(part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))


class TokenIds(NamedTuple):
    """The token of each number of :func:`flatten_modulations`, (numbers,), and the number of tokens."""

    ids: Tensor
    number: int


def modulation_tokens(model: TransINR, layer: int | None) -> TokenIds:
    """Return the tokens of all layers, or those of one layer and one more for all other layers."""
    ids_of_layers, start = [], 0
    for i, mean_modulation in enumerate(model.mean_modulations):
        rows, width = mean_modulation.shape
        ids = torch.arange(rows, device=mean_modulation.device).repeat_interleave(width)
        if layer is None:
            ids_of_layers.append(ids + start)
            start += rows
        else:
            ids_of_layers.append(ids if i == layer else torch.full_like(ids, model.writer.rows[layer]))
    return TokenIds(torch.cat(ids_of_layers), start if layer is None else model.writer.rows[layer] + 1)


def patch_masks(model: TransINR, size: tuple[int, int]) -> Tensor:
    """Return the pixels of each patch: (patches, H, W), 0 or 1; a pixel belongs to one patch."""
    rows, columns = model.tokens.grid(size)
    like, padding = model.tokens.places, model.tokens.padding
    y, x = (
        (torch.arange(side, device=like.device) + padding) // step == torch.arange(n, device=like.device)[:, None]
        for side, step, n in zip(size, model.tokens.patch, (rows, columns), strict=True)
    )
    return (y.reshape(rows, 1, -1, 1) & x.reshape(1, columns, 1, -1)).flatten(0, 1).to(like)


def jvp(function: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's value and its derivative along ``direction``, by forward mode."""
    with torch.no_grad(), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(point, direction)))
        return value, torch.zeros_like(value) if tangent is None else tangent


def modulation_contributions(
    model: TransINR,
    x: Modulations,
    x0: Modulations,
    tokens: TokenIds,
    size: tuple[int, int],
    steps: int,
    batch_size: int,
) -> Tensor:
    r"""Return the contributions of tokens to the change of the output from ``x0`` to ``x``: (B, tokens, C, H, W).

    .. math:: I_t = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_t \, da

    ``x0`` is one start of the path for all images, (1, rows, in) a layer, or one for each image; (x - x_0)_t is zero
    outside token t.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks" (ICML 2017), sec. 3.
    """
    start, difference = flatten_modulations(x0), flatten_modulations(x) - flatten_modulations(x0)
    start = start.expand_as(difference)
    render = _renderer(model, size)
    total = _zeros(len(difference) * tokens.number, model, size, difference)
    for a in midpoints(steps):
        for part, sample, token in _pairs(len(difference), tokens.number, batch_size, difference.device):
            direction = difference[sample] * (tokens.ids == token[:, None])
            total[part] += jvp(render, (start + a * difference)[sample], direction)[1] / steps
    return total.reshape(len(difference), tokens.number, *total.shape[1:])


def patch_contributions(
    model: TransINR, x: Tensor, x0: Tensor, mask: Tensor | None, size: tuple[int, int], steps: int, batch_size: int
) -> Tensor:
    r"""Return the contributions of patches to the change of the output from ``x0`` to ``x``: (B, patches, C, H, W).

    .. math:: D_q = \int_0^1 \frac{\partial y}{\partial x}(x_0 + a (x - x_0))\, (x - x_0)_q \, da
    """
    difference, masks = x - x0, patch_masks(model, (x.shape[2], x.shape[3]))
    total = _zeros(len(x) * len(masks), model, size, x)
    for a in midpoints(steps):
        for part, sample, patch in _pairs(len(x), len(masks), batch_size, x.device):
            part_mask = None if mask is None else mask[sample]
            direction = difference[sample] * masks[patch][:, None]
            run = lambda images, mask=part_mask: model(images, mask, size)  # noqa: E731
            total[part] += jvp(run, (x0 + a * difference)[sample], direction)[1] / steps
    return total.reshape(len(x), len(masks), *total.shape[1:])


def patch_token_contributions(
    model: TransINR,
    x: Tensor,
    x0: Tensor,
    mask: Tensor | None,
    tokens: TokenIds,
    size: tuple[int, int],
    steps: int,
    batch_size: int,
    patches: Sequence[int] | None = None,
) -> Tensor:
    r"""Return :func:`patch_contributions` through each token: (B, patches, tokens, C, H, W).

    .. math:: D_{qt} = \int_0^1 \frac{\partial y}{\partial x_t} \frac{\partial x_t}{\partial q} \, da

    By the chain rule, the sum over tokens is :func:`patch_contributions` with the same steps, up to rounding.
    """
    difference, masks, render = x - x0, patch_masks(model, (x.shape[2], x.shape[3])), _renderer(model, size)
    if patches is not None:
        if not patches or not all(0 <= q < len(masks) for q in patches):
            raise ValueError(f"patches are {list(patches)}; expected one or more of 0 to {len(masks) - 1}.")
        masks = masks[list(patches)]
    total = _zeros(len(x) * len(masks) * tokens.number, model, size, x)
    for a in midpoints(steps):
        for part, sample, patch in _pairs(len(x), len(masks), batch_size, x.device):
            part_mask = None if mask is None else mask[sample]
            direction = difference[sample] * masks[patch][:, None]
            read = lambda images, part_mask=part_mask: flatten_modulations(model.modulations(images, part_mask))  # noqa: E731
            modulations, change = jvp(read, (x0 + a * difference)[sample], direction)
            part_total = total[part.start * tokens.number : part.stop * tokens.number]
            for of_tokens, row, token in _pairs(len(sample), tokens.number, batch_size, x.device):
                derivative = jvp(render, modulations[row], change[row] * (tokens.ids == token[:, None]))[1]
                part_total[of_tokens] += derivative / steps
    return total.reshape(len(x), len(masks), tokens.number, *total.shape[1:])


def _renderer(model: TransINR, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    return lambda numbers: model.paint(model.weights(unflatten_modulations(model, numbers)), size)


def _pairs(outer: int, inner: int, batch_size: int, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunks of the pairs of (outer, inner) indices, of which the inner one is the faster."""
    for low, high in chunks(outer * inner, batch_size):
        pair = torch.arange(low, high, device=device)
        yield slice(low, high), pair // inner, pair % inner


def _zeros(rows: int, model: TransINR, size: tuple[int, int], like: Tensor) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float32)  # bfloat16 has too few digits for sums of many steps
    return torch.zeros(rows, model.config["channels"], *size, dtype=dtype, device=like.device)
