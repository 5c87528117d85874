"""TokenContribution: which weight token or data patch painted what in the pictures that a TransINR draws."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..._compat import GradientAttribution
from ...batch import Batch, select_output
from ...hooks import LayerError
from ...hooks.layers import unwrap
from ...images import check_images
from ...inr.training import check_finite
from ..base import attribution_context, captum_method, plain
from .shares import (
    composed_shares,
    group_sums,
    modulation_shares,
    neuron_shares,
    owners,
    patch_shares,
)
from .trans_inr import OUT_BIAS, TransINR
from .writer import MAX_NUMBERS, Modulations

Level = Literal["token", "modulation", "patch"]
LEVELS = ("token", "modulation", "patch")
Baselines = Tensor | float | None


class _Scene(NamedTuple):
    """The pictures of one call, what of them is seen, and what is drawn."""

    images: Tensor
    seen: Tensor | None
    size: tuple[int, int]
    batch: Batch


class TokenContribution(GradientAttribution):  # type: ignore[misc]
    r"""Which weight token, or which data patch, adds how much to each pixel that a picture's own network draws.

    .. math:: \Sigma_t C_t + \mathrm{rest} = \hat x \qquad (\pm\ \mathrm{gap})

    Three levels, which answer three questions:

    - "token": what the neurons that a token wrote add, gates as they are: the neurons j of a layer with
      j mod g = t (:func:`.gated.neuron_shares`). A reading of the finished network, exact at
      every layer; rest is what biases alone bring through the same gates.
    - "modulation": what a token's modulation changes against the mean one, by integrated gradients; rest is the
      picture of the mean modulations.
    - "patch": what a patch of the *input* changes against the mean picture, through transformer and network, by
      integrated derivatives; rest is what is drawn for the mean picture.

    The means are those kept by :meth:`TransINR.fit`. Attention is none of the three: it says where a token looked
    (:meth:`TransINR.routing`).

    Args:
        trans_inr: a :class:`~xinc_captum.TransINR`, also compiled or in a DataParallel.
        level: "token", "modulation" or "patch".
        device_ids: as Captum's classes take it; everything is computed where the model is.

    Raises:
        TypeError: another model.
        LayerError: a scripted or traced model.
        ValueError: an unknown level.

    Example:
        >>> from xinc_captum.attributions.trans_inr import TransINR
        >>> model = TransINR(1, (8, 8), patch=2, groups=4, seed=0)
        >>> tokens = TokenContribution(model, "token")
        >>> tokens.attribute(torch.rand(2, 1, 8, 8), target=0, layer="linear2").shape  # 4 tokens and the rest
        torch.Size([2, 5, 8, 8])

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022) for the model;
    Padmanabhan et al. (CVPR 2024) and Sundararajan et al. (ICML 2017) for what is asked of it.
    """

    def __init__(self, trans_inr: nn.Module, level: Level = "token", device_ids: list[int] | None = None) -> None:
        if isinstance(trans_inr, torch.jit.ScriptModule):
            raise LayerError(
                f"trans_inr is a {type(trans_inr).__name__}: scripted and traced models have no weights to take apart. "
                "Give the original TransINR."
            )
        model = unwrap(trans_inr) if isinstance(trans_inr, nn.Module) else trans_inr
        if not isinstance(model, TransINR):
            raise TypeError(
                f"trans_inr is a {type(model).__name__}; expected a xinc_captum.attributions.trans_inr.TransINR."
            )
        if level not in LEVELS:
            raise ValueError(f"level is {level!r}; expected one of {', '.join(map(repr, LEVELS))}.")
        GradientAttribution.__init__(self, trans_inr)
        self.model, self.level, self.device_ids = model, level, device_ids

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: parts add up to pixels."""
        return True

    def has_convergence_delta(self) -> bool:
        """True: ``attribute(..., return_convergence_delta=True)`` works."""
        return True

    @captum_method
    def attribute(
        self,
        inputs: Tensor,
        target: Any = None,
        layer: int | str | None = None,
        baselines: Baselines = None,
        seen: Tensor | None = None,
        size: tuple[int, int] | None = None,
        n_steps: int = 64,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        r"""Parts of tokens or patches in every pixel, the rest last.

        Args:
            inputs: (B, C, H, W) in [0, 1].
            target: a channel, or one a row; any Captum target of (B, C, H, W) works. None keeps all channels.
            layer: of the written network, by name or number. At level "token" None is the last hidden one (each layer
                is a complete reading of its own); at level "modulation" None is all of them, and with one the others'
                parts are in the rest; at level "patch" there is none.
            baselines: where the path begins. At level "modulation" pictures (N, C, H, W) whose mean modulation is
                taken, or a number for all modulations (1.0 is the bare base network, which was never trained to be a
                picture); at level "patch" a picture (C, H, W), one a row, or a number. None: the means of the fit.
            seen: what may be looked at, as for :meth:`TransINR.forward`.
            size: of the picture that is drawn; None is that of ``inputs``.
            n_steps: midpoints of the path.
            internal_batch_size: at most so many rows a pass; None keeps intermediate results below 128 MB.
            return_convergence_delta: also answer Σ parts − Σ pixels, (B,). Signs can cancel in it;
                :func:`xinc_captum.metrics.completeness_error` takes the worst pixel.

        Returns:
            (B, tokens or patches + 1, \*picture), picture being (C, H, W), or (H, W) of one channel. Tokens come layer
            by layer, patches row by row.

        Raises:
            TypeError: no tensor.
            ValueError: images that are not finite or do not tile; an impossible target, layer or baseline.
        """
        self._check(layer, baselines)
        with attribution_context(self.model):
            scene = self._scene(inputs, target, seen, size)
            if self.level == "token":
                parts = self._token(scene, layer, internal_batch_size)
            elif self.level == "modulation":
                parts = self._modulation(scene, layer, baselines, n_steps, internal_batch_size)
            else:
                parts = self._patch(scene, baselines, n_steps, internal_batch_size)
            answer = _of_target(parts, scene.batch)
            if not return_convergence_delta:
                return answer
            with torch.no_grad():
                drawn = _picked(self.model(scene.images, scene.seen, scene.size), scene.batch)
            return answer, plain(answer.flatten(1).sum(1) - drawn.reshape(len(drawn), -1).sum(1))

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
        r"""From data patch over weight token to pixel: (B, patches, tokens, \*picture).

        .. math:: D_{qt} = \int_0^1 \frac{\partial y}{\partial x_t} \frac{\partial x_t}{\partial q} \, da, \qquad
            \Sigma_t D_{qt} = D_q

        The sum over tokens is level "patch" with as many steps, to rounding; there is no rest in it. It costs
        patches x tokens pictures a step.

        Args:
            inputs: as for :meth:`attribute`.
            target: as there.
            layer: only this layer's tokens, and one more for all others'; None is all tokens.
            baselines: as for level "patch".
            seen: as there.
            size: as there.
            n_steps: as there.
            internal_batch_size: as there.
            patches: only these, numbered row by row, in this order; None is all.

        Raises:
            ValueError: as there, or a patch that is not there.
        """
        index = None if layer is None else self.model.writer.layer_index(layer)
        with attribution_context(self.model):
            scene = self._scene(inputs, target, seen, size)
            start, owner = self._first_picture(scene, baselines), owners(self.model, index)
            rows = self._max_batch_size(scene, internal_batch_size)
            parts = composed_shares(
                self.model, scene.images, start, scene.seen, owner, scene.size, n_steps, rows, patches
            )
            answer = _of_target(parts.flatten(1, 2), scene.batch)
            return answer.reshape(len(answer), *parts.shape[1:3], *answer.shape[2:])

    def _check(self, layer: int | str | None, baselines: Baselines) -> None:
        if self.level == "patch" and layer is not None:
            raise ValueError(f"layer is {layer!r}, but level 'patch' goes through all of them; leave it out.")
        if self.level == "token" and baselines is not None:
            raise ValueError("baselines are given, but level 'token' reads the network as it is; leave them out.")

    def _scene(self, inputs: Any, target: Any, seen: Tensor | None, size: tuple[int, int] | None) -> _Scene:
        images = check_images(inputs).to(self.model.tokens.places)
        check_finite(self.model)
        seen = None if seen is None else self.model.tokens.mask(seen, images)
        drawn = size or (images.shape[2], images.shape[3])
        return _Scene(images, seen, drawn, Batch.of(images, None, target))

    def _max_batch_size(self, scene: _Scene, limit: int | None) -> int:
        patches = math.prod(self.model.tokens.grid(tuple(scene.images.shape[2:])))
        return self.model.writer.max_batch_size(scene.size, limit, patches)

    def _token(self, scene: _Scene, layer: int | str | None, limit: int | None) -> Tensor:
        writer, parts = self.model.writer, []
        index = max(len(writer.rows) - 2, 0) if layer is None else writer.layer_index(layer)
        neurons = self.model.config["hidden"] * self.model.config["channels"] * scene.size[0] * scene.size[1]
        rows = limit if limit is not None else max(1, MAX_NUMBERS // neurons)
        if rows < 1:
            raise ValueError(f"internal_batch_size is {rows}; expected at least 1.")
        with torch.no_grad():
            encoded = self.model.encoded(scene.size)
            for start in range(0, len(scene.images), rows):
                seen = None if scene.seen is None else scene.seen[start : start + rows]
                weights = self.model.weights(self.model.modulations(scene.images[start : start + rows], seen))
                shares, rest = neuron_shares(encoded, weights, index, OUT_BIAS)
                each = torch.cat([group_sums(shares, writer.rows[index]), rest[..., None]], -1)
                parts.append(each.permute(0, 3, 2, 1).unflatten(-1, scene.size))
        return torch.cat(parts)

    def _modulation(
        self, scene: _Scene, layer: int | str | None, baselines: Baselines, steps: int, limit: int | None
    ) -> Tensor:
        index = None if layer is None else self.model.writer.layer_index(layer)
        rows = self.model.writer.max_batch_size(scene.size, limit)
        with torch.no_grad():
            x = self.model.modulations(scene.images, scene.seen)
            start = self._first_modulations(baselines)
            rest = self.model.paint(self.model.weights(start), scene.size)
        owner = owners(self.model, index)
        parts = modulation_shares(self.model, x, start, owner, scene.size, steps, rows)
        rest = rest.expand(len(parts), -1, -1, -1)
        if index is not None:  # the other layers' part
            parts, rest = parts[:, :-1], rest + parts[:, -1]
        return torch.cat([parts, rest[:, None].to(parts)], 1)

    def _patch(self, scene: _Scene, baselines: Baselines, steps: int, limit: int | None) -> Tensor:
        rows = self._max_batch_size(scene, limit)
        start = self._first_picture(scene, baselines)
        parts = patch_shares(self.model, scene.images, start, scene.seen, scene.size, steps, rows)
        with torch.no_grad():
            rest = self.model(start, scene.seen, scene.size)
        return torch.cat([parts, rest[:, None].to(parts)], 1)

    def _first_modulations(self, baselines: Baselines) -> Modulations:
        if isinstance(baselines, Tensor) and baselines.dim():
            images = check_images(baselines).to(self.model.tokens.places)
            return tuple(x.mean(0, keepdim=True) for x in self.model.modulations(images))
        means = self.model.mean_modulations
        if baselines is None:
            return tuple(mean[None] for mean in means)
        if baselines == 0:
            raise ValueError("baselines is 0: modulations of 0 leave weights no direction; expected another one.")
        return tuple(torch.full_like(mean, float(baselines))[None] for mean in means)

    def _first_picture(self, scene: _Scene, baselines: Baselines) -> Tensor:
        images = scene.images
        if baselines is None:
            start = self.model.mean_image[None]
            if start.shape[2:] != images.shape[2:]:
                start = F.interpolate(start, images.shape[2:], mode="bilinear", antialias=True)
        elif isinstance(baselines, Tensor) and baselines.dim():
            start = check_images(baselines if baselines.dim() == 4 else baselines[None]).to(images)
            if start.shape[1:] != images.shape[1:] or len(start) not in (1, len(images)):
                raise ValueError(
                    f"baselines have shape {tuple(baselines.shape)}; expected a picture {tuple(images.shape[1:])}, or "
                    f"one for each of the {len(images)}."
                )
        else:
            start = torch.full_like(images[:1], float(baselines))
        return start.to(images).expand_as(images)


def _of_target(parts: Tensor, batch: Batch) -> Tensor:
    """Select the target of (B, entries, C, H, W) as of what is drawn, in the model's own dtype: (B, entries, …)."""
    return plain(_picked(parts.movedim(1, -1), batch).movedim(-1, 1).to(batch.inputs[0].dtype))


def _picked(drawn: Tensor, batch: Batch) -> Tensor:
    """The target of (B, C, H, W, …); Captum's own selection takes one channel a row of 2-D outputs only."""
    target = batch.target
    if isinstance(target, list) and all(isinstance(one, int) for one in target):
        batch = replace(batch, target=[(one,) for one in target])
    elif isinstance(target, Tensor) and target.dim() == 1 and target.numel() == batch.rows > 1:
        low, high = -drawn.shape[1], drawn.shape[1] - 1
        try:
            return drawn[torch.arange(batch.rows, device=drawn.device), target.to(drawn.device)]
        except IndexError as error:
            raise ValueError(f"target holds a channel outside {low} to {high}: {error}") from error
    return select_output(drawn, batch, None)
