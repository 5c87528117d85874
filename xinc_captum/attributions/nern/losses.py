"""Reconstruction and distillation losses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...hooks import ForwardFunc, LayerError, capture, exchange, find_layer
from ...metrics.probability import predict_classes
from .kernels import Convolution, convolutions, parameter_name, target_behind

Reconstruction = Literal["rms", "mean_mse"]
Features = Literal["each", "whole", "similarity"]
Logits = Literal["stable", "plain", "both_stable", "temperature"]
_EPS = 1e-3
_STABLE = 1e-4


def reconstruction_loss(found: Sequence[Tensor], expected: Sequence[Tensor], kind: Reconstruction = "rms") -> Tensor:
    r"""How far generated weights are from the network's own.

    .. math:: rms: \sqrt{\textstyle\sum_l \lVert W_l - \hat W_l \rVert^2 / N} \qquad
        mean\_mse: \mathrm{mean}_l\, \mathrm{mean}\, (W_l - \hat W_l)^2

    Symbols: N the number of weights of all layers together.

    Args:
        found: Ŵ, one tensor a layer.
        expected: W, shaped like them.
        kind: one of the two.

    Returns:
        a scalar.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> reconstruction_loss([torch.zeros(1), torch.ones(3)], [torch.full((1,), 4.0), torch.ones(3)]).item()
        2.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2.
    """
    if kind == "rms":
        squares = torch.stack([(a - b).square().sum() for a, b in zip(found, expected, strict=True)])
        return (squares.sum() / sum(w.numel() for w in expected)).sqrt()
    if kind == "mean_mse":
        return torch.stack([F.mse_loss(a, b) for a, b in zip(found, expected, strict=True)]).mean()
    raise ValueError(f"reconstruction is {kind!r}; expected 'rms' or 'mean_mse'.")


def feature_loss(found: Sequence[Tensor], expected: Sequence[Tensor], kind: Features = "each") -> Tensor:
    r"""How far the feature maps of the rebuilt network are from the network's own, summed over layers.

    .. math:: each: \tfrac{1}{B} \sum_b \lVert \tfrac{a_b}{\lVert a_b \rVert + ε} - \tfrac{\hat a_b}{\lVert \hat a_b
        \rVert + ε} \rVert^2 \qquad whole: \lVert \tfrac{a}{\lVert a \rVert} - \tfrac{\hat a}{\lVert \hat a \rVert + ε}
        \rVert^2 \qquad similarity: \tfrac{1}{B^2} \lVert \bar G - \bar{\hat G} \rVert^2

    Symbols: a (B, …) the maps of a layer, ε = 1e-3, Ḡ the Gram matrix of the batch with rows of length 1.

    Args:
        found: â, one tensor a layer.
        expected: a.
        kind: one of the three.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> a = torch.ones(2, 3, 4, 4)
        >>> feature_loss([a], [a]).item()
        0.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2; "similarity" is Tung & Mori's (ICCV 2019).
    """
    one = {"each": _each, "whole": _whole, "similarity": _similarity}.get(kind)
    if one is None:
        raise ValueError(f"features is {kind!r}; expected 'each', 'whole' or 'similarity'.")
    return torch.stack([one(a.flatten(1), b.flatten(1)) for a, b in zip(found, expected, strict=True)]).sum()


def _each(found: Tensor, expected: Tensor) -> Tensor:
    a, b = (rows / (rows.norm(dim=1, keepdim=True) + _EPS) for rows in (found, expected))
    loss: Tensor = (a - b).square().sum() / len(a)
    return loss


def _whole(found: Tensor, expected: Tensor) -> Tensor:
    # ε only below the rebuilt network's maps: as recorded from the released code.
    loss: Tensor = (found / (found.norm() + _EPS) - expected / expected.norm()).square().sum()
    return loss


def _similarity(found: Tensor, expected: Tensor) -> Tensor:
    grams = (rows @ rows.T for rows in (found, expected))
    a, b = (gram / (gram.norm(dim=1, keepdim=True) + _EPS) for gram in grams)
    loss: Tensor = (a - b).square().sum() / len(a) ** 2
    return loss


def logit_loss(found: Tensor, expected: Tensor, kind: Logits = "stable") -> Tensor:
    r"""How far the answers of the rebuilt network are from the network's own.

    .. math:: plain: \mathrm{KL}(p \Vert \hat p) \qquad stable: \sum p\,(\log p - \log(\hat p + δ)) / B

    Symbols: p, p̂ softmax of the logits, δ = 1e-4, B rows. "both_stable" adds δ to p as well; "temperature" is "stable"
    of softmax(logits / 2), times 4. All but "plain" may be slightly below 0. A single column is the logit of one class:
    p is its sigmoid, and one minus it.

    Args:
        found: (B, classes) logits of the rebuilt network.
        expected: those of the network itself.
        kind: one of the four.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> round(logit_loss(torch.zeros(3, 2), torch.zeros(3, 2), "plain").item(), 6)
        0.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2, and the released code; Hinton et al. (2015).
    """
    kinds: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "plain": lambda f, w: _kl(f.log_softmax(1), w.softmax(1)),
        "stable": lambda f, w: _kl((f.softmax(1) + _STABLE).log(), w.softmax(1)),
        "both_stable": lambda f, w: _kl((f.softmax(1) + _STABLE).log(), w.softmax(1) + _STABLE),
        "temperature": lambda f, w: 4 * _kl(((f / 2).softmax(1) + _STABLE).log(), (w / 2).softmax(1)),
    }
    if kind not in kinds:
        raise ValueError(f"logits is {kind!r}; expected one of {', '.join(map(repr, kinds))}.")
    return kinds[kind](*(_two_classes(side.flatten(1)) for side in (found, expected)))


def _two_classes(logits: Tensor) -> Tensor:
    """The softmax of one column is 1 whatever its logit; with a zero beside it, it is the sigmoid."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _kl(log_found: Tensor, expected: Tensor) -> Tensor:
    return F.kl_div(log_found, expected, reduction="batchmean")


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
        expected = [map_.detach() for map_ in maps]
        return feature_loss(found_maps, expected), logit_loss(found, answer.detach())

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
                classes = [predict_classes(side.flatten(1), own) for side in (own, found)]
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
            f"the target answers {seen}; expected logits (rows, classes). Give NeRN a function around the module "
            "that picks them, for example lambda x: model(x)['logits']."
        )
    return answer


def smoothness_loss(target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None) -> Tensor:
    r"""How unlike neighbouring kernels are, along channels and along filters; add it, times 1e-4, to a training loss.

    .. math:: -\sum_{l: k > 1} \sum_{f, c} \cos(W_{f, c}, W_{f, c + 1}) + \cos(W_{f, c}, W_{f + 1, c})
        + \sum_{l: k = 1} \sum_{f, c} |W_{f, c} - W_{f, c + 1}| + |W_{f, c} - W_{f + 1, c}|

    1x1 kernels are compared by distance, since the cosine of two numbers is only their sign. The released code
    normalises one of the two numbers there and not the other, which looks like a slip and is not repeated.

    Args:
        target: the network that is being trained; the loss reaches its parameters.
        layers: modules or dotted names; None takes every ``nn.Conv2d``.

    Returns:
        a scalar; lower is smoother.

    Raises:
        LayerError: as :func:`convolutions`.

    Example:
        >>> conv = nn.Conv2d(1, 3, 3)
        >>> _ = conv.weight.data.fill_(1.0)  # two pairs of equal neighbours
        >>> round(smoothness_loss(conv).item(), 4)
        -2.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.3.
    """
    root = target_behind(target)
    terms = []
    for layer in convolutions(target, layers):
        weight = root.get_submodule(layer.name).weight
        assert isinstance(weight, Tensor)  # noqa: S101 - convolutions() looked
        terms.append(layer_roughness(weight))
    return torch.stack(terms).sum()


def layer_roughness(weight: Tensor) -> Tensor:
    """The terms of one layer's weight (F, C, h, w), a scalar."""
    kernels = weight.flatten(2)
    pairs = ((kernels[:, 1:], kernels[:, :-1]), (kernels[1:], kernels[:-1]))
    if kernels.shape[2] == 1:
        return torch.stack([(a - b).abs().sum() for a, b in pairs]).sum()
    return -torch.stack([F.cosine_similarity(a, b, dim=2).sum() for a, b in pairs]).sum()


def check_images(images: Tensor) -> Tensor:
    """Images that a network can be shown.

    Raises:
        TypeError: no float tensor.
        ValueError: none, or NaN or infinite values.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images are {kind}; expected a float tensor (n, …) as the target takes it.")
    if images.dim() < 2 or images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (n, …), at least one image.")
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"images hold NaN or infinite values in {bad} of {len(images)}; leave those images out.")
    return images
