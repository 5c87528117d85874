"""What a NeRN is trained on: the weights, the feature maps and the logits of the network that it represents."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reconstruction = Literal["rms", "mean_mse"]
Features = Literal["each", "whole", "similarity"]
Logits = Literal["stable", "plain", "both_stable", "temperature"]
_EPS = 1e-3
_STABLE = 1e-4


def reconstruction_loss(found: Sequence[Tensor], wanted: Sequence[Tensor], kind: Reconstruction = "rms") -> Tensor:
    r"""How far generated weights are from the network's own.

    .. math:: rms: \sqrt{\textstyle\sum_l \lVert W_l - \hat W_l \rVert^2 / N} \qquad
        mean\_mse: \mathrm{mean}_l\, \mathrm{mean}\, (W_l - \hat W_l)^2

    Symbols: N the number of weights of all layers together.

    Args:
        found: Ŵ, one tensor a layer.
        wanted: W, shaped like them.
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
        squares = torch.stack([(a - b).square().sum() for a, b in zip(found, wanted, strict=True)])
        return (squares.sum() / sum(w.numel() for w in wanted)).sqrt()
    if kind == "mean_mse":
        return torch.stack([F.mse_loss(a, b) for a, b in zip(found, wanted, strict=True)]).mean()
    raise ValueError(f"reconstruction is {kind!r}; wanted 'rms' or 'mean_mse'.")


def feature_loss(found: Sequence[Tensor], wanted: Sequence[Tensor], kind: Features = "each") -> Tensor:
    r"""How far the feature maps of the rebuilt network are from the network's own, summed over layers.

    .. math:: each: \tfrac{1}{B} \sum_b \lVert \tfrac{a_b}{\lVert a_b \rVert + ε} - \tfrac{\hat a_b}{\lVert \hat a_b
        \rVert + ε} \rVert^2 \qquad whole: \lVert \tfrac{a}{\lVert a \rVert} - \tfrac{\hat a}{\lVert \hat a \rVert + ε}
        \rVert^2 \qquad similarity: \tfrac{1}{B^2} \lVert \bar G - \bar{\hat G} \rVert^2

    Symbols: a (B, …) the maps of a layer, ε = 1e-3, Ḡ the Gram matrix of the batch with rows of length 1.

    Args:
        found: â, one tensor a layer.
        wanted: a.
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
        raise ValueError(f"features is {kind!r}; wanted 'each', 'whole' or 'similarity'.")
    return torch.stack([one(a.flatten(1), b.flatten(1)) for a, b in zip(found, wanted, strict=True)]).sum()


def _each(found: Tensor, wanted: Tensor) -> Tensor:
    a, b = (rows / (rows.norm(dim=1, keepdim=True) + _EPS) for rows in (found, wanted))
    loss: Tensor = (a - b).square().sum() / len(a)
    return loss


def _whole(found: Tensor, wanted: Tensor) -> Tensor:
    # ε only below the rebuilt network's maps: as recorded from the released code.
    loss: Tensor = (found / (found.norm() + _EPS) - wanted / wanted.norm()).square().sum()
    return loss


def _similarity(found: Tensor, wanted: Tensor) -> Tensor:
    grams = (rows @ rows.T for rows in (found, wanted))
    a, b = (gram / (gram.norm(dim=1, keepdim=True) + _EPS) for gram in grams)
    loss: Tensor = (a - b).square().sum() / len(a) ** 2
    return loss


def logit_loss(found: Tensor, wanted: Tensor, kind: Logits = "stable") -> Tensor:
    r"""How far the answers of the rebuilt network are from the network's own.

    .. math:: plain: \mathrm{KL}(p \Vert \hat p) \qquad stable: \sum p\,(\log p - \log(\hat p + δ)) / B

    Symbols: p, p̂ softmax of the logits, δ = 1e-4, B rows. "both_stable" adds δ to p as well; "temperature" is "stable"
    of softmax(logits / 2), times 4. All but "plain" may be slightly below 0. A single column is the logit of one class:
    p is its sigmoid, and one minus it.

    Args:
        found: (B, classes) logits of the rebuilt network.
        wanted: those of the network itself.
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
        raise ValueError(f"logits is {kind!r}; wanted one of {', '.join(map(repr, kinds))}.")
    return kinds[kind](*(_two_classes(side.flatten(1)) for side in (found, wanted)))


def _two_classes(logits: Tensor) -> Tensor:
    """The softmax of one column is 1 whatever its logit; with a zero beside it, it is the sigmoid."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _kl(log_found: Tensor, wanted: Tensor) -> Tensor:
    return F.kl_div(log_found, wanted, reduction="batchmean")
