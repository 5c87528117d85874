"""FeatureActivationMap: the similarity of two images as a map, for networks without a classifier."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .._compat import LayerAttribution
from ..batch import Batch, chunks, settle_arguments
from ..hooks import ForwardFunc, LayerError, capture, find_layer, fits, image_size, layer_name
from ..hooks.layout import tensor_of
from .base import attribution_context, captum_method, differentiable, plain
from .token_grid import TokenLayout, token_layout, units_second


class FeatureActivationMap(LayerAttribution):  # type: ignore[misc]
    r"""Map of the features that make an image similar to a reference.

    .. math:: M = \mathrm{relu}\Bigl(\Sigma_k \alpha_k\, \mathrm{sign}(f_k) A_k\Bigr), \qquad
        \alpha_k = \frac{f_k\, g_k}{\lVert f \rVert\, \lVert g \rVert}, \qquad \Sigma_k \alpha_k = \cos(f, g)

    Symbols: A_k channel k of the layer, f_k its mean over positions, g_k the same for the reference. The sign of f_k is
    1 after a ReLU; in a vision transformer it makes the map independent of the sign of each channel. The method needs
    neither labels nor gradients: it suits self-supervised networks, few-shot classes and retrieval.

    Args:
        forward_func: the network, or any function around it.
        layer: a module or dotted name whose output is a map.
        references: images, as ``forward_func`` takes them, or vectors (M, channels), such as prototypes of classes.
        device_ids: unused, part of Captum's signature.
        layer_to_grid: rearranges the activation to (rows, channels, h, w), such as :func:`xinc_captum.layer_to_grid`.
            None lays out the tokens of a vision transformer without its class and register tokens.
        unit_axis: axis of the channels in a map, 1 or -1. None determines it from the layer's class, the input's height
            and width, and the modules inside.

    Raises:
        LayerError: a layer that is missing, never runs or has no entry per sample, or an unknown channel axis.
        ValueError: a layer whose output is no map, references with another number of channels, or a target that is not
            the index of a reference.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> method = FeatureActivationMap(model, "1", references=torch.rand(2, 3, 8, 8))
        >>> method.attribute(torch.rand(5, 3, 8, 8), target=1).shape
        torch.Size([5, 1, 6, 6])

    Source: Liao et al., "Feature Activation Map" (arXiv 2307.05017), abstract. The terms of the cosine are this
    package's interpretation of "normalised weights from the similarity of two embeddings"; the sign is an addition.
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
        if not isinstance(references, Tensor):
            raise TypeError(f"references are a {type(references).__name__}; expected a tensor of images or vectors.")
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
        """Return one map per sample, (rows, 1, h, w), >= 0, with the height and width of the layer's maps.

        Args:
            inputs: (rows, ...), or a tuple of such, as the model takes them.
            target: index of the reference, or one for each row; None where there is only one.
            additional_forward_args: passed on to the model, also for references that are images.
            internal_batch_size: maximum number of rows in one forward pass.
        """
        maps, f, g = self._terms(inputs, target, additional_forward_args, internal_batch_size)
        return plain((maps * (f.abs() * g)[:, :, None, None]).sum(1, keepdim=True).relu())

    def weights(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:
        """Return the contribution of each channel to the similarity, (rows, channels); each row sums to the cosine."""
        _, f, g = self._terms(inputs, target, None, None)
        return plain(f * g)

    def places(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:
        r"""Return the contribution of each position to the similarity, (rows, 1, h, w); each map sums to the cosine.

        .. math:: P = \frac{1}{hw} \Sigma_k \frac{A_k\, g_k}{\lVert f \rVert\, \lVert g \rVert}

        Source: Stylianou et al., "Visualizing Deep Similarity Networks" (WACV 2019).
        """
        maps, _, g = self._terms(inputs, target, None, None)
        length = maps.mean((2, 3)).norm(dim=1).clamp_min(1e-12) * maps[0, 0].numel()
        return plain((maps * (g / length[:, None])[:, :, None, None]).sum(1, keepdim=True))

    def _terms(self, inputs: Any, target: Any, args: Any, batch_size: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's maps, f / ‖f‖ of each sample and g / ‖g‖ of its reference, (rows, channels)."""
        maps, references = self._maps(inputs, args, batch_size), self.references
        if references.dim() != 2:
            like = inputs[0] if isinstance(inputs, tuple) else inputs
            args = _check_shared(args, len(like))
            references = self._maps(references.to(like), args, batch_size).mean((2, 3))
        default = 0 if len(references) == 1 else -1
        index = torch.as_tensor(default if target is None else target, device=maps.device).flatten()
        whole = not index.is_floating_point() and index.dtype != torch.bool
        in_range = whole and (index >= 0).all() and (index < len(references)).all()
        if references.shape[1] != maps.shape[1] or len(index) not in {1, len(maps)} or not bool(in_range):
            raise ValueError(
                f"target is {target} for {len(maps)} rows and references of shape {tuple(references.shape)}, and the "
                f"layer has {maps.shape[1]} channels; expected references with as many channels, and the index of one, "
                "or of one for each row."
            )
        f, g = normalize(maps.mean((2, 3))), normalize(references.to(maps))
        return maps, f, g[index.long().expand(len(maps))]

    def _maps(self, inputs: Any, args: Any, batch_size: int | None) -> Tensor:
        maps = []
        with attribution_context(self.forward_func, self.layer), torch.no_grad():
            call = differentiable(self.forward_func, self.layer)
            batch = Batch.of(inputs, args)
            pieces = chunks(batch.rows, batch_size or batch.rows)
            if len(pieces) > 1:
                batch = settle_arguments(batch, partial(self._forward, call))
            for piece in pieces:
                part = batch.cut(*piece)
                activation = tensor_of(self._forward(call, part)[0], self.layer, self.forward_func, part.rows).detach()
                maps.append(self._map(activation, tuple(part.inputs[0].shape)))
        return torch.cat(maps)

    def _forward(self, call: ForwardFunc, batch: Batch) -> tuple[Any, Any]:
        """Return the layer's activation, and the output."""
        with capture(self.forward_func, self.layer) as captured:
            output = batch.through(call)
        return captured[self.layer], output

    def _map(self, activation: Tensor, input_shape: tuple[int, ...]) -> Tensor:
        """Return an activation as (rows, channels, h, w)."""
        shape, chosen = tuple(activation.shape), self.layer_to_grid is not None or self.unit_axis is not None
        layout: Any = None
        if len(shape) == 3 and not chosen:
            layout = token_layout(shape, self.layer, self.forward_func, input_shape)
        if self.layer_to_grid is None and len(shape) != 4 and len(shape) > 2 and not isinstance(layout, TokenLayout):
            advice = (
                "=xinc_captum.layer_to_grid for the tokens of a vision transformer, or a function of your own."
                if len(shape) == 3
                else "= a function to that shape, for example lambda a: a.mean(2) for the mean over the first axis of "
                "positions."
            )
            why = f" {layout}." if layout else ""
            raise ValueError(
                f"layer {self._name()} returns shape {shape}; expected maps (rows, channels, h, w).{why} Give "
                f"layer_to_grid{advice}"
            )
        maps = units_second(activation, self.layer, self.forward_func, input_shape, self.layer_to_grid, self.unit_axis)
        if maps.dim() != 4 or len(maps) != len(activation):
            grid = "" if self.layer_to_grid is None else f", and layer_to_grid returns {tuple(maps.shape)}"
            raise ValueError(
                f"layer {self._name()} returns shape {shape}{grid}; expected maps (rows, channels, h, w) of "
                f"{len(activation)} rows. Choose a layer whose output is a map, or give layer_to_grid=."
            )
        image = image_size(input_shape)
        moved = not chosen and len(shape) == 4 and maps.stride() != activation.stride()
        if moved and image is not None and not fits(maps.shape[2:], image):
            raise LayerError(
                f"layer {self._name()} returns shape {shape} with its channels on the last axis, and its positions "
                f"{maps.shape[2]} x {maps.shape[3]} are not a map of the {image[0]} x {image[1]} input. Give "
                "layer_to_grid=, a function to (rows, channels, h, w), or unit_axis=-1 where they are a map."
            )
        return maps

    def _name(self) -> str:
        return layer_name(self.forward_func, self.layer)


def _check_shared(args: Any, rows: int) -> Any:
    """Return the additional arguments; raise ValueError if the images in references= cannot use them too."""
    every = args if isinstance(args, tuple) else (args,)
    if rows > 1 and any(isinstance(a, Tensor) and a.dim() and len(a) == rows for a in every):
        raise ValueError(
            f"additional_forward_args hold one value for each of the {rows} rows, and none for the images in "
            f"references=; expected arguments that all rows share. If a shared argument has {rows} rows by "
            "coincidence, pass it inside the function: lambda x: model(x, shared). Otherwise give the references as "
            "vectors."
        )
    return args
