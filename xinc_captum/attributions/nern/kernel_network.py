"""The predictor of convolution kernels: settings, coordinates, permutation and generated weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import ForwardFunc, exclusive
from .kernels import (
    Convolution,
    Crop,
    Scale,
    convolutions,
    crop,
    kernel_coordinates,
    kernel_size_for,
    parameter_name,
    represented,
    target_behind,
)
from .permutation import Kind, LayerOrder, order_kernels
from .predictor import Fusion, KernelPredictor, SmoothEmbedding


class KernelNetwork(nn.Module):
    """Everything of a :class:`NeRN` but its training and its file; the arguments and attributes are documented there.

    Attributes:
        embedding: γ, the :class:`SmoothEmbedding`.
        orders: the :class:`LayerOrder` of each layer.
        config: the settings, as JSON can hold them.
    """

    target: ForwardFunc
    predictor: KernelPredictor

    def __init__(
        self,
        target: ForwardFunc,
        layers: Sequence[nn.Module | str] | None = None,
        *,
        base: float = 0.85,
        levels: int = 20,
        fusion: Fusion = "concat",
        hidden: int = 40,
        blocks: int = 5,
        kernel_size: int | None = None,
        permutation: Kind = "cross-filter",
        crop: Crop = "center",
        coordinates: Scale = "index",
        seed: int = 0,
        orders: Sequence[LayerOrder] | None = None,
    ) -> None:
        super().__init__()
        with exclusive(), torch.inference_mode(False):  # the predictor is trained whatever mode the caller is in
            self.layers = convolutions(target, layers)
            self.crop, self.permutation = crop, permutation
            self.kernel_size = kernel_size_for(self.layers, kernel_size)
            object.__setattr__(self, "target", target)  # not a submodule: its weights are not this network's
            self.config: dict[str, Any] = {
                "base": base,
                "levels": levels,
                "fusion": fusion,
                "hidden": hidden,
                "blocks": blocks,
                "kernel_size": self.kernel_size,
                "permutation": permutation,
                "crop": crop,
                "coordinates": coordinates,
                "seed": seed,
            }
            _checked_crop(crop, self.kernel_size)
            own = self.target_weights()
            self.orders = tuple(orders or (order_kernels(own[layer.name], permutation) for layer in self.layers))
            rows = kernel_coordinates([layer.shape for layer in self.layers], coordinates)
            parts = rows.split([layer.kernels for layer in self.layers])
            each = zip(self.layers, self.orders, parts, strict=True)
            self._coordinates = {one.name: part[order.ranks(one.shape)] for one, order, part in each}
            weight = own[self.layers[0].name]
            self.embedding = SmoothEmbedding(base, levels, fusion)
            self.predictor = KernelPredictor(self.embedding.out_features, hidden, blocks, self.kernel_size, seed)
            self.to(weight.device)
            self.predictor.to(weight.dtype)

    def layer(self, layer: nn.Module | str | Convolution) -> Convolution:
        """The represented layer that is meant by a module or a dotted name.

        Raises:
            LayerError: not in the target, or not represented.
        """
        return layer if isinstance(layer, Convolution) else represented(self.target, self.layers, layer)

    def coordinates(self, layer: nn.Module | str | Convolution) -> Tensor:
        """(kernels, 3) float64: which coordinate each kernel of a layer gets, in the order of its weight."""
        rows: Tensor = self._coordinates[self.layer(layer).name]
        return rows

    def embedded(self, layer: nn.Module | str | Convolution, piece: slice = slice(None)) -> Tensor:
        """(kernels, in_features): what the predictor reads for a layer, or for a piece of it, as it wants it."""
        weight = next(self.predictor.parameters())
        places = self.coordinates(layer)[piece].float().to(self.embedding.frequencies.device)
        rows: Tensor = self.embedding(places).to(weight)
        return rows

    def predicted(self, layer: nn.Module | str | Convolution) -> Tensor:
        """(kernels, K, K): what the predictor writes for a layer, not yet cut to its size."""
        kernels: Tensor = self.predictor(self.embedded(layer)).unflatten(-1, (self.kernel_size, self.kernel_size))
        return kernels

    def weights(self) -> dict[str, Tensor]:
        """Ŵ: the generated weight of every represented layer, by name; differentiable where gradients are on."""
        return {layer.name: self.cut(self.predicted(layer), layer) for layer in self.layers}

    forward = weights

    def cut(self, predicted: Tensor, layer: Convolution, *, chosen_by: Tensor | None = None) -> Tensor:
        """(…, kernels, K, K) predictions as weights of a layer, (…, F, C, h, w); ``chosen_by`` as in :func:`crop`."""
        kernels = crop(predicted, layer.size, self.crop, chosen_by=chosen_by)
        weight: Tensor = kernels.unflatten(-3, layer.shape[:2])
        return weight

    @exclusive()  # a call in another thread may have other weights in their places
    def target_weights(self) -> dict[str, Tensor]:
        """W: the target's own weight of every represented layer, by name, detached."""
        root = target_behind(self.target)
        return {layer.name: root.get_parameter(parameter_name(layer.name)).detach() for layer in self.layers}

    def relative_error(self) -> float:
        r"""‖Ŵ − W‖ / ‖W‖ over all represented weights together."""
        with torch.no_grad():
            found, expected = self.weights(), self.target_weights()
            error = sum((found[name] - expected[name].to(found[name])).double().square().sum() for name in expected)
            return float((error / sum(w.double().square().sum() for w in expected.values())) ** 0.5)

    def rebuild(self) -> nn.Module:
        """A copy of the target with the generated weights in it: a plain module, independent of this one."""
        with exclusive(), torch.no_grad():
            model = copy.deepcopy(target_behind(self.target))
            for name, weight in self.weights().items():
                model.get_parameter(parameter_name(name)).copy_(weight)
        return model


def _checked_crop(how: str, side: int) -> None:
    """Raise where :func:`crop` would."""
    crop(torch.zeros(1, side, side), (side, side), how)  # type: ignore[arg-type]
