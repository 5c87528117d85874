"""FeatureActivationMap: where two pictures are alike for a network that has no classifier."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._compat import LayerAttribution
from ..batch import Batch, chunks, settle_arguments
from ..hooks import ForwardFunc, LayerError, capture, find_layer, fits, image_size, layer_name, one_tensor
from .base import attribution_context, captum_method, differentiable, plain
from .token_grid import units_second


class FeatureActivationMap(LayerAttribution):  # type: ignore[misc]
    r"""Where in a picture the features lie that make it similar to a reference.

    .. math:: M = \mathrm{relu}\Bigl(\Sigma_k \alpha_k\, \mathrm{sign}(f_k) A_k\Bigr), \qquad
        \alpha_k = \frac{f_k\, g_k}{\lVert f \rVert\, \lVert g \rVert}, \qquad \Sigma_k \alpha_k = \cos(f, g)

    Symbols: A_k a channel of the layer, f its mean over places, g the same of the reference; with several pictures of a
    class, or none at hand, g may be any vector, such as a prototype. The sign is 1 behind a ReLU; in a vision
    transformer it lets a channel count the way its mean points, so that no map depends on which way that happens to be.
    It needs neither labels nor gradients: for features of self-supervised networks, few-shot classes and retrieval.

    Args:
        forward_func: the network, or any function around it.
        layer: a module or dotted name whose output has a map.
        references: pictures, as ``forward_func`` takes them, or vectors (M, channels).
        device_ids: accepted for Captum's sake.
        layer_to_grid: rearranges the activation to (rows, channels, h, w); vision transformers need
            :func:`xinc_captum.layer_to_grid`.
        unit_axis: which axis of a map holds the channels: 1 for (rows, channels, h, w), -1 for (rows, h, w, channels).
            None determines it from the layer's class, the input's height and width, and the modules inside.

    Raises:
        LayerError: the layer is not in the model, never runs, folds several maps into the rows of one sample, or which
            axis holds its channels cannot be determined.
        ValueError: a layer without a map, references of another width, or a target that is none of them.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> method = FeatureActivationMap(model, "1", references=torch.rand(2, 3, 8, 8))
        >>> method.attribute(torch.rand(5, 3, 8, 8), target=1).shape
        torch.Size([5, 1, 6, 6])

    Source: Liao et al., "Feature Activation Map" (arXiv 2307.05017), whose abstract has it: weights from the similarity
    of two embeddings, normalised, times the activation maps. The terms of the cosine are our reading of it, and
    the sign is ours.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        references: Tensor,
        device_ids: list[int] | None = None,
        *,
        layer_to_grid: Callable[[Tensor], Tensor] | None = None,
        unit_axis: int | None = None,
    ) -> None:
        LayerAttribution.__init__(self, forward_func, find_layer(forward_func, layer), device_ids)
        self.layer_to_grid, self.references, self.unit_axis = layer_to_grid, references, unit_axis

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: weights times activations."""
        return True

    @captum_method
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Maps as coarse as the layer: (rows, 1, h, w), zero or more.

        Args:
            inputs: (rows, …) or a tuple of such.
            target: which reference, a number or one for each row; None where there is only one.
            additional_forward_args: passed on to the model, for references that are pictures too.
            internal_batch_size: at most so many rows a forward.
        """
        maps, one, other = self._parts(inputs, target, additional_forward_args, internal_batch_size)
        return plain((maps * (one.abs() * other)[:, :, None, None]).sum(1, keepdim=True).relu())

    def weights(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:
        """Each channel's part of the similarity, (rows, channels): a row adds up to the cosine."""
        _, one, other = self._parts(inputs, target, None, None)
        return plain(one * other)

    def places(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:
        r"""Each place's part of the similarity, (rows, 1, h, w), of either sign: a map adds up to the cosine.

        .. math:: P = \frac{1}{hw} \Sigma_k \frac{A_k\, g_k}{\lVert f \rVert\, \lVert g \rVert}

        Source: Stylianou et al., "Visualizing Deep Similarity Networks" (WACV 2019).
        """
        maps, _, other = self._parts(inputs, target, None, None)
        length = maps.mean((2, 3)).norm(dim=1).clamp_min(1e-12) * maps[0, 0].numel()
        return plain((maps * (other / length[:, None])[:, :, None, None]).sum(1, keepdim=True))

    def _parts(self, inputs: Any, target: Any, args: Any, at_once: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's maps, and their mean over places and the reference, both of length one."""
        maps, given = self._maps(inputs, args, at_once), self.references
        if given.dim() != 2:
            like = inputs[0] if isinstance(inputs, tuple) else inputs
            given = self._maps(given.to(like), _shared(args, len(like)), at_once).mean((2, 3))
        alone = 0 if len(given) == 1 else -1
        which = torch.as_tensor(alone if target is None else target, device=maps.device).long().flatten()
        wrong = len(which) not in {1, len(maps)} or not bool((which >= 0).all() & (which < len(given)).all())
        if given.shape[1] != maps.shape[1] or wrong:
            raise ValueError(
                f"target is {target} for {len(maps)} rows and references of shape {tuple(given.shape)}, and the layer "
                f"has {maps.shape[1]} channels; expected references of as many, and the number of one, or of one a row."
            )
        one, other = (v / v.norm(dim=1, keepdim=True).clamp_min(1e-12) for v in (maps.mean((2, 3)), given.to(maps)))
        return maps, one, other[which.expand(len(maps))]

    def _maps(self, inputs: Any, args: Any, at_once: int | None) -> Tensor:
        parts = []
        with attribution_context(self.forward_func, self.layer), torch.no_grad():
            call = differentiable(self.forward_func, self.layer)
            batch = Batch.of(inputs, args, None)
            pieces = chunks(batch.rows, at_once or batch.rows)
            if len(pieces) > 1:
                batch = settle_arguments(batch, partial(self._seen, call))
            for piece in pieces:
                rows = batch.cut(*piece)
                found = one_tensor(self._seen(call, rows)[0], self._name, rows.rows).detach()
                parts.append(self._map(found, tuple(rows.inputs[0].shape)))
        return torch.cat(parts)

    def _seen(self, call: ForwardFunc, batch: Batch) -> tuple[Any, Any]:
        """The layer's value, and the output."""
        with capture(self.forward_func, self.layer) as captured:
            output = batch.through(call)
        return captured[self.layer], output

    def _map(self, found: Tensor, entered: tuple[int, ...]) -> Tensor:
        """One chunk's activation as (rows, channels, h, w)."""
        given = self.layer_to_grid is not None or self.unit_axis is not None
        if found.dim() > 4 and self.layer_to_grid is None:
            raise ValueError(
                f"layer {self._name()} returns shape {tuple(found.shape)}; expected maps (rows, channels, h, w). Give "
                "layer_to_grid= a function that leaves two axes of places, for example lambda a: a.mean(2) for the "
                "mean over the first."
            )
        if found.dim() == 3 and self.layer_to_grid is None:
            raise ValueError(
                f"layer {self._name()} returns shape {tuple(found.shape)}; expected maps (rows, channels, h, w). Give "
                "layer_to_grid=xinc_captum.layer_to_grid for the tokens of a vision transformer, or a function of your "
                "own."
            )
        maps = units_second(
            found, self.layer, self.forward_func, input_shape=entered, rearrange=self.layer_to_grid, axis=self.unit_axis
        )
        if maps.dim() != 4 or len(maps) != len(found):
            made = "" if self.layer_to_grid is None else f", which layer_to_grid made {tuple(maps.shape)}"
            raise ValueError(
                f"layer {self._name()} returns shape {tuple(found.shape)}{made}; expected maps (rows, channels, "
                "h, w) of "
                f"{len(found)} rows. Choose a layer whose output has places, or give layer_to_grid=."
            )
        image = image_size(entered)
        if not given and maps.stride() != found.stride() and image is not None and not fits(maps.shape[2:], image):
            raise LayerError(
                f"layer {self._name()} returns shape {tuple(found.shape)} with its channels on the last axis, and its "
                f"places {maps.shape[2]} x {maps.shape[3]} are no map of the {image[0]} x {image[1]} input. Give "
                "layer_to_grid=, a function to (rows, channels, h, w), or unit_axis=-1 where they are."
            )
        return maps

    def _name(self) -> str:
        return layer_name(self.forward_func, self.layer)


def _shared(args: Any, rows: int) -> Any:
    """Additional arguments that the references' pictures can get too."""
    every = args if isinstance(args, tuple) else (args,)
    if rows > 1 and any(isinstance(a, Tensor) and a.dim() and len(a) == rows for a in every):
        raise ValueError(
            f"additional_forward_args hold a value for each of the {rows} rows and none for the references; expected "
            "arguments that all rows share (inside of the function, lambda x: model(x, shared), where they have as "
            "many rows by chance), or references as vectors."
        )
    return args
