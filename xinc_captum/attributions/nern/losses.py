"""Losses of a NeRN: reconstruction, distillation and smoothness."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import python_index
from ...hooks import ForwardFunc, LayerError, capture, exchange, find_layer
from ...metrics.statistics import predict_classes
from .kernels import Convolution, convolutions, parameter_name, target_behind

Logits = Literal["stable", "plain"]


def reconstruction_loss(generated: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    r"""Return the distance between generated weights and the target's own weights, a scalar.

    .. math:: \sqrt{\textstyle\sum_l \lVert W_l - \hat W_l \rVert^2 / N}

    Symbols: N the number of weights of all layers together; W and Ŵ, one tensor a layer.

    Example:
        >>> reconstruction_loss([torch.zeros(1), torch.ones(3)], [torch.full((1,), 4.0), torch.ones(3)]).item()
        2.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2.
    """
    squares = torch.stack([(a - b).square().sum() for a, b in zip(generated, targets, strict=True)])
    return (squares.sum() / sum(w.numel() for w in targets)).sqrt()


def feature_loss(rebuilt: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    r"""Return the distance between the feature maps of the rebuilt network and of the target, summed over layers.

    .. math:: \tfrac{1}{B} \sum_b \lVert \tfrac{a_b}{\lVert a_b \rVert + ε}
        - \tfrac{\hat a_b}{\lVert \hat a_b \rVert + ε} \rVert^2

    Symbols: a and â the maps of a layer in the target and in the rebuilt network, (B, …), b an image; ε = 1e-3.

    Example:
        >>> a = torch.ones(2, 3, 4, 4)
        >>> feature_loss([a], [a]).item()
        0.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2.
    """
    distances = []
    for maps in zip(rebuilt, targets, strict=True):
        a, b = (one.flatten(1) / (one.flatten(1).norm(dim=1, keepdim=True) + 1e-3) for one in maps)
        distances.append((a - b).square().sum() / len(a))
    return torch.stack(distances).sum()


def logit_loss(rebuilt: Tensor, target: Tensor, kind: Logits = "stable") -> Tensor:
    r"""Return the divergence of the outputs of the rebuilt network from those of the target.

    .. math:: plain: \mathrm{KL}(p \Vert \hat p) \qquad stable: \sum p\,(\log p - \log(\hat p + δ)) / B

    Symbols: p and p̂ the softmax of the target's and the rebuilt network's logits (B, classes), δ = 1e-4. "stable" may
    be slightly below 0. A single column is the logit of one class, so p has two entries: its sigmoid, and 1 minus it.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> round(logit_loss(torch.zeros(3, 2), torch.zeros(3, 2), "plain").item(), 6)
        0.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.2, and the released code.
    """
    if kind not in get_args(Logits):
        raise ValueError(f"kind is {kind!r}; expected 'plain' or 'stable'.")
    a, b = rebuilt.flatten(1), target.flatten(1)
    if a.shape[1] == 1:  # with a zero beside it, the softmax of a single logit is its sigmoid and not always 1
        a, b = F.pad(a, (1, 0)), F.pad(b, (1, 0))
    log_probabilities = a.log_softmax(1) if kind == "plain" else (a.softmax(1) + 1e-4).log()
    return F.kl_div(log_probabilities, b.softmax(1), reduction="batchmean")


class Distillation:
    """Compares a target, in eval mode, with the rebuilt network: the target with generated weights.

    Outputs and maps of ``feature_layers`` are compared; None takes every batch norm with as many dims as one of
    ``layers``, or ``layers`` without any.
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
            every = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
            kinds = tuple({every[len(layer.size) - 1] for layer in layers})
            norms: list[nn.Module] = [m for m in root.modules() if isinstance(m, kinds)]
            self.hooked = norms or [root.get_submodule(layer.name) for layer in layers]
        else:
            self.hooked = [find_layer(target, layer) for layer in feature_layers]

    def losses(self, weights: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return feature loss and logit loss of a batch, differentiable with respect to ``weights``."""
        with torch.no_grad():
            maps, target = self._run_with_maps({}, images)
        rebuilt_maps, rebuilt = self._run_with_maps(weights, images)
        targets = [map_.detach() for map_ in maps]
        return feature_loss(rebuilt_maps, targets), logit_loss(rebuilt, target.detach())

    def agreement(
        self,
        weights: Mapping[str, Tensor],
        images: Tensor,
        *,
        parameters: Mapping[str, Tensor] | None = None,
        batch_size: int = 256,
    ) -> tuple[float, float]:
        """Return the share of images for which both networks predict the same class, and the mean KL(p ‖ p̂).

        ``parameters``, by full name, are exchanged in the rebuilt network too.
        """
        same, divergence = 0.0, 0.0
        with torch.no_grad():
            for batch in images.split(python_index(batch_size)):
                target, rebuilt = _logits(self._run({}, batch)), _logits(self._run(weights, batch, parameters))
                classes = [predict_classes(logits.flatten(1), target) for logits in (target, rebuilt)]
                same += float((classes[0] == classes[1]).sum())
                divergence += float(logit_loss(rebuilt, target, "plain")) * len(batch)
        return same / len(images), divergence / len(images)

    def _run(
        self, weights: Mapping[str, Tensor], images: Tensor, parameters: Mapping[str, Tensor] | None = None
    ) -> object:
        named = {parameter_name(name): weight for name, weight in weights.items()} | dict(parameters or {})
        return self.using(named)(images)

    def _run_with_maps(self, weights: Mapping[str, Tensor], images: Tensor) -> tuple[list[Tensor], Tensor]:
        try:
            with capture(self.target, self.hooked) as captured:
                output = self._run(weights, images)
            maps = [captured[layer] for layer in self.hooked]
        except LayerError as error:
            raise LayerError(f"{error} Choose the maps to compare with feature_layers=.") from error
        return [layer_map[0] if isinstance(layer_map, tuple) else layer_map for layer_map in maps], _logits(output)


def _logits(output: object) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() < 2:
        described = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise LayerError(
            f"the target returns {described}; expected logits (rows, classes). Give NeRN a function around the module "
            "that selects them, for example lambda x: model(x)['logits']."
        )
    return output


def smoothness_loss(target: ForwardFunc, layers: Sequence[nn.Module | str] | None = None) -> Tensor:
    r"""Return the dissimilarity of neighbouring kernels; add it, times 1e-4, to a training loss.

    .. math:: -\sum_{l: k > 1} \sum_{f, c} \cos(W_{f, c}, W_{f, c + 1}) + \cos(W_{f, c}, W_{f + 1, c})
        + \sum_{l: k = 1} \sum_{f, c} |W_{f, c} - W_{f, c + 1}| + |W_{f, c} - W_{f + 1, c}|

    Symbols: W_{f,c} a kernel of layer l, k its side. Neighbours differ by one channel or one filter. 1x1 kernels are
    compared by distance, because the cosine of two numbers is only their sign. There the released code normalises one
    of the two numbers and not the other; this looks like a mistake and is not reproduced. The scalar is differentiable
    with respect to the parameters of the target; lower is smoother. Arguments and errors as for :func:`convolutions`.

    Example:
        >>> conv = nn.Conv2d(1, 3, 3)
        >>> _ = conv.weight.data.fill_(1.0)  # two pairs of equal neighbours
        >>> round(smoothness_loss(conv).item(), 4)
        -2.0

    Source: Ashkenazi et al. (ICLR 2023), sec. 3.3.
    """
    root = target_behind(target)
    names = [parameter_name(layer.name) for layer in convolutions(target, layers)]
    return torch.stack([layer_roughness(root.get_parameter(name)) for name in names]).sum()


def layer_roughness(weight: Tensor) -> Tensor:
    """Return the terms of :func:`smoothness_loss` for one layer's weight (F, C, h, w), a scalar."""
    kernels = weight.flatten(2)
    pairs = ((kernels[:, 1:], kernels[:, :-1]), (kernels[1:], kernels[:-1]))
    if kernels.shape[2] == 1:
        return torch.stack([(a - b).abs().sum() for a, b in pairs]).sum()
    return -torch.stack([F.cosine_similarity(a, b, dim=2).sum() for a, b in pairs]).sum()


def check_images(images: Tensor) -> Tensor:
    """Return ``images``, or raise a TypeError or a ValueError if they are not finite floats (n, …)."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images are {kind}; expected a float tensor (n, …), the input of the target.")
    if images.dim() < 2 or images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (n, …), at least one image.")
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"images hold NaN or infinite values in {bad} of {len(images)}; leave those images out.")
    return images
