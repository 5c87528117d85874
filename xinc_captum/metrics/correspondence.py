"""Whether neuron i paints alike in different pictures' networks, and serves the same regions."""

from typing import NamedTuple

import torch
from torch import Tensor

from .rank import rank_vectors
from .share import share


class Correspondence(NamedTuple):
    """How well a neuron of one network finds itself in another by what it paints.

    Where no neuron paints anything, the first three are nan.

    Attributes:
        retrieval: share of neurons whose most similar canvas in the other network has the same index.
        same: mean cosine of canvases with the same index.
        other: mean cosine of canvases with different indices.
        chance: retrieval by guessing, 1 / neurons.
        queries: how many neurons looked, over all ordered pairs of pictures.
        silent: how many could not look, since they paint nothing in their own picture.
    """

    retrieval: float
    same: float
    other: float
    chance: float
    queries: int
    silent: int


def correspondence(canvases: Tensor) -> Correspondence:
    r"""Retrieval of each neuron among the neurons of every other picture's network.

    .. math:: \mathrm{mean}_{a \ne b,\, i}\; \bigl[\arg\max_j \cos(C_{a,i}, C_{b,j}) = i\bigr]

    A neuron that is silent in b is similar to none there (cosine 0), so it counts as not found. The number alone says
    little: networks that are written from shared base weights correspond *before any training*, and networks fitted
    one by one from the same first weights find each other too, to some extent. Compare with
    :func:`.shared_start` and :func:`.own_starts`, and with an unfitted model.

    Args:
        canvases: (pictures, neurons, *picture), contributions with their signs; at least 2 of each.

    Raises:
        ValueError: another shape, or values that are not finite.

    Example:
        >>> maps = torch.eye(4)
        >>> correspondence(torch.stack([maps, maps[[0, 1, 3, 2]]])).retrieval
        0.5

    Source: the protocol is ours; aligned neurons follow from Chen & Wang (ECCV 2022), eq. 3.
    """
    vectors = _unit(canvases)
    pictures, neurons = vectors.shape[:2]
    painting = vectors.abs().sum(-1) > 0
    found = same = other = 0.0
    for a in range(pictures):
        similar = vectors[a] @ vectors.mT  # (pictures, neurons of a, neurons)
        others = torch.arange(pictures, device=vectors.device) != a
        kept = similar[others][:, painting[a]]
        index = painting[a].nonzero()[:, 0]
        own = kept.gather(2, index.expand(len(kept), -1)[..., None])[..., 0]
        rivals = kept.scatter(2, index.expand(len(kept), -1)[..., None], -torch.inf).amax(2)
        found += float(((own > rivals) & (own != 0)).sum())
        same += float(own.sum())
        other += float((kept.sum(2) - own).sum()) / (neurons - 1)
    queries = int(painting.sum()) * (pictures - 1)
    retrieval, same, other = (total / queries if queries else float("nan") for total in (found, same, other))
    return Correspondence(retrieval, same, other, 1 / neurons, queries, int((~painting).sum()) * (pictures - 1))


def region_use(canvases: Tensor, masks: Tensor) -> Tensor:
    r"""Each neuron's share of what is painted in each region of each picture: (pictures, regions, neurons).

    .. math:: U_{b,r,i} = \Sigma_{p \in r} |C_{b,i,p}| \, / \, \Sigma_v \Sigma_{p \in r} |C_{b,v,p}|

    Args:
        canvases: (pictures, neurons, C, H, W); channels are added up.
        masks: (regions, H, W), or (pictures, regions, H, W) where each picture has its own; bool or in [0, 1].

    Returns:
        float64, rows of neurons adding up to 1.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> region_use(torch.ones(2, 4, 1, 3, 3), torch.ones(1, 3, 3)).tolist()
        [[[0.25, 0.25, 0.25, 0.25]], [[0.25, 0.25, 0.25, 0.25]]]
    """
    if canvases.dim() != 5 or masks.dim() not in (3, 4) or (masks.dim() == 4 and len(masks) != len(canvases)):
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)} and masks {tuple(masks.shape)}; wanted (pictures, neurons, "
            "C, H, W) and (regions, H, W), or (pictures, regions, H, W)."
        )
    amounts = canvases.abs().sum(2)
    each = masks if masks.dim() == 4 else masks.expand(len(canvases), *masks.shape)
    return torch.stack([share(a, m) for a, m in zip(amounts, each, strict=True)])


def region_agreement(use: Tensor) -> Tensor:
    r"""Whether the same neurons serve a region in every picture: one number a region.

    .. math:: \mathrm{mean}_{a \ne b}\; \rho(U_{a,r,\cdot}, U_{b,r,\cdot})

    Args:
        use: (pictures, regions, neurons), as :func:`region_use` answers; ρ is Spearman's over neurons.

    Returns:
        (regions,), float64; nan where a picture's neurons share a region equally.

    Raises:
        ValueError: fewer than 2 pictures or neurons.

    Example:
        >>> region_agreement(torch.tensor([[[0.1, 0.2, 0.7]], [[0.2, 0.3, 0.5]]])).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    if use.dim() != 3 or use.shape[0] < 2 or use.shape[2] < 2:
        raise ValueError(f"use has shape {tuple(use.shape)}; wanted (pictures, regions, neurons).")
    vectors = rank_vectors(use).movedim(1, 0)  # (regions, pictures, neurons)
    every = vectors @ vectors.mT
    pairs = use.shape[0] * (use.shape[0] - 1)
    return (every.sum((1, 2)) - every.diagonal(dim1=1, dim2=2).sum(1)) / pairs


def _unit(canvases: Tensor) -> Tensor:
    if canvases.dim() < 3 or min(canvases.shape[:2]) < 2:
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)}; wanted (pictures, neurons, *picture), 2 or more of both."
        )
    flat = canvases.detach().double().flatten(2)
    if not flat.isfinite().all():
        raise ValueError("canvases hold NaN or infinity; wanted finite contributions.")
    length = flat.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, flat / length.where(length > 0, 1), 0)
