"""The network with generated weights in it beside the network itself: how far their maps and answers are apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...hooks import (
    LayerError,
    capture,
    exchange,
    find_layer,
)
from ...metrics.probability import predicted_classes
from .convolutions import Convolution, parameter_name
from .losses import feature_loss, logit_loss


class Agreement(NamedTuple):
    """How a rebuilt network answers beside its target.

    Attributes:
        share: of the images that both put into the same class.
        divergence: KL(p ‖ p̂), mean over images.
    """

    share: float
    divergence: float


class Distillation:
    """Compares answers and feature maps of a target under its own and under generated weights.

    Args:
        target: the network, or a function around it, in eval mode.
        layers: the represented ones.
        feature_layers: whose outputs are compared; None takes every ``BatchNorm2d``, or ``layers`` where there is none.
    """

    def __init__(
        self,
        target: Callable[..., object],
        root: nn.Module,
        layers: Sequence[Convolution],
        feature_layers: Sequence[nn.Module | str] | None = None,
    ) -> None:
        self.target, self.using = target, exchange(target)
        if feature_layers is None:
            norms: list[nn.Module] = [m for m in root.modules() if isinstance(m, nn.BatchNorm2d)]
            self.hooked = norms or [root.get_submodule(layer.name) for layer in layers]
        else:
            self.hooked = [find_layer(target, layer) for layer in feature_layers]

    def losses(self, weights: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature loss and logit loss of a batch, differentiable towards ``weights``."""
        with torch.no_grad():
            maps, answer = self._seen({}, images)
        found_maps, found = self._seen(weights, images)
        wanted = [map_.detach() for map_ in maps]
        return feature_loss(found_maps, wanted), logit_loss(found, answer.detach())

    def agreement(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        *,
        parameters: Mapping[str, Tensor] | None = None,
        rows_at_once: int = 256,
    ) -> Agreement:
        """Over all images, without gradients; ``parameters`` are exchanged too, under their full names."""
        same, divergence = 0.0, 0.0
        with torch.no_grad():
            for rows in images.split(rows_at_once):
                own, found = self._answer({}, rows), self._answer(weights, rows, parameters)
                classes = [predicted_classes(side.flatten(1), own) for side in (own, found)]
                same += float((classes[0] == classes[1]).sum())
                divergence += float(logit_loss(found, own, "plain")) * len(rows)
        return Agreement(same / len(images), divergence / len(images))

    def _answer(
        self, weights: Mapping[str, Tensor], images: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        return _logits(self._called(weights, images, parameters))

    def _called(
        self, weights: Mapping[str, Tensor], images: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> object:
        named = {parameter_name(name): weight for name, weight in weights.items()} | dict(parameters or {})
        answer: object = self.using(named)(images)
        return answer

    def _seen(self, weights: Mapping[str, Tensor], images: Tensor) -> tuple[list[Tensor], Tensor]:
        try:
            with capture(self.target, self.hooked) as captured:
                answer = self._called(weights, images)
            maps = [captured[layer] for layer in self.hooked]
        except LayerError as error:
            raise LayerError(f"{error} Say which maps are to be compared with feature_layers=.") from error
        return [map_[0] if isinstance(map_, tuple) else map_ for map_ in maps], _logits(answer)


def _logits(answer: object) -> Tensor:
    if not isinstance(answer, Tensor) or answer.dim() < 2:
        seen = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise LayerError(
            f"the target answers {seen}; wanted logits (rows, classes). Give NeRN a function around the module "
            "that picks them, for example lambda x: model(x)['logits']."
        )
    return answer
