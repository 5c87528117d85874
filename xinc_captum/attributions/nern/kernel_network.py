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
    find_represented,
    kernel_coordinates,
    kernel_size_for,
    parameter_name,
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
        with exclusive(), torch.inference_mode(False):  # parameters made in inference mode cannot be trained
            self.layers = convolutions(target, layers)
            self.crop, self.permutation = crop, permutation
            self.kernel_size = kernel_size_for(self.layers, kernel_size)
            object.__setattr__(self, "target", target)  # not a submodule: its weights are not part of this network
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
            _check_crop(crop, self.kernel_size)
            target_weights = self.target_weights()
            self.orders = tuple(
                orders or (order_kernels(target_weights[layer.name], permutation) for layer in self.layers)
            )
            rows = kernel_coordinates([layer.shape for layer in self.layers], coordinates)
            coordinates_of_layers = rows.split([layer.kernels for layer in self.layers])
            layer_rows = zip(self.layers, self.orders, coordinates_of_layers, strict=True)
            self._coordinates = {
                layer.name: layer_coordinates[order.ranks(layer.shape)]
                for layer, order, layer_coordinates in layer_rows
            }
            weight = target_weights[self.layers[0].name]
            self.embedding = SmoothEmbedding(base, levels, fusion)
            self.predictor = KernelPredictor(self.embedding.out_features, hidden, blocks, self.kernel_size, seed)
            self.to(weight.device)
            self.predictor.to(weight.dtype)

    def layer(self, layer: nn.Module | str | Convolution) -> Convolution:
        """Return the represented layer of a module or a dotted name.

        Raises:
            LayerError: a layer that is not in the target or not represented.
        """
        return layer if isinstance(layer, Convolution) else find_represented(self.target, self.layers, layer)

    def coordinates(self, layer: nn.Module | str | Convolution) -> Tensor:
        """Return the coordinates of the kernels of a layer, in the order of its weight: (kernels, 3) float64."""
        rows: Tensor = self._coordinates[self.layer(layer).name]
        return rows

    def embedded(self, layer: nn.Module | str | Convolution, piece: slice = slice(None)) -> Tensor:
        """Return the inputs of the predictor for a layer, or for a slice of its kernels: (kernels, in_features)."""
        weight = next(self.predictor.parameters())
        places = self.coordinates(layer)[piece].float().to(self.embedding.frequencies.device)
        rows: Tensor = self.embedding(places).to(weight)
        return rows

    def predicted(self, layer: nn.Module | str | Convolution) -> Tensor:
        """Return the outputs of the predictor for a layer, not cropped: (kernels, K, K)."""
        kernels: Tensor = self.predictor(self.embedded(layer)).unflatten(-1, (self.kernel_size, self.kernel_size))
        return kernels

    def weights(self) -> dict[str, Tensor]:
        """Return Ŵ: the generated weight of every represented layer, by name; differentiable."""
        return {layer.name: self.cut(self.predicted(layer), layer) for layer in self.layers}

    forward = weights

    def cut(self, predicted: Tensor, layer: Convolution, *, chosen_by: Tensor | None = None) -> Tensor:
        """Crop predictions (…, kernels, K, K) to weights (…, F, C, h, w); ``chosen_by`` as in :func:`crop`."""
        kernels = crop(predicted, layer.size, self.crop, chosen_by=chosen_by)
        weight: Tensor = kernels.unflatten(-3, layer.shape[:2])
        return weight

    @exclusive()  # a call in another thread may have exchanged the weights
    def target_weights(self) -> dict[str, Tensor]:
        """Return W: the target's weight of every represented layer, by name, detached."""
        root = target_behind(self.target)
        return {layer.name: root.get_parameter(parameter_name(layer.name)).detach() for layer in self.layers}

    def relative_error(self) -> float:
        r"""Return ‖Ŵ − W‖ / ‖W‖ over all represented weights."""
        with torch.no_grad():
            generated, targets = self.weights(), self.target_weights()
            error = sum(
                (generated[name] - targets[name].to(generated[name])).double().square().sum() for name in targets
            )
            return float((error / sum(w.double().square().sum() for w in targets.values())) ** 0.5)

    def rebuild(self) -> nn.Module:
        """Return a copy of the target with the generated weights: a plain module, independent of this one."""
        with exclusive(), torch.no_grad():
            model = copy.deepcopy(target_behind(self.target))
            for name, weight in self.weights().items():
                model.get_parameter(parameter_name(name)).copy_(weight)
        return model


def _check_crop(how: str, side: int) -> None:
    """Raise the errors of :func:`crop` before any kernel is predicted."""
    crop(torch.zeros(1, side, side), (side, side), how)  # type: ignore[arg-type]
