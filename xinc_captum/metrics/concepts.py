"""Which unit stands for which concept: overlap of its highest activations with masks, beside what chance gives."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import chunks
from .discoveries import chance_of, false_discovery_rate

BLOCK = 16  # units whose enlarged maps are held at a time


class ConceptUnits(NamedTuple):
    """Units that stand for a concept, the strongest first: (kept,) each."""

    units: Tensor
    iou: Tensor
    q: Tensor


class Concepts(NamedTuple):
    """Every unit beside every concept.

    Attributes:
        iou: intersection over union, (units, concepts), float64; nan where a unit is never active and the concept
            nowhere.
        p: chance of as much when masks belong to other pictures, (units, concepts).
        q: smallest rate of false discoveries at which a pair is kept, over all pairs, (units, concepts).
        thresholds: above which a unit counts as active, (units,).
        shuffled: mean overlap under the exchange of pictures, (units, concepts).
    """

    iou: Tensor
    p: Tensor
    q: Tensor
    thresholds: Tensor
    shuffled: Tensor

    def __repr__(self) -> str:
        """How many, and the highest overlap, not every number."""
        units, concepts = self.iou.shape
        best = self.iou.nan_to_num(0).max() if self.iou.numel() else torch.tensor(0.0)
        return f"Concepts({units} units, {concepts} concepts, highest overlap {float(best):.2f})"

    def units_for(self, concept: int, *, least: float = 0.04, fdr: float = 0.05) -> ConceptUnits:
        """Units with an overlap of at least ``least`` that chance does not explain.

        Raises:
            ValueError: a concept that is not there.
        """
        if not 0 <= concept < self.iou.shape[1]:
            raise ValueError(f"concept is {concept}; there are 0 to {self.iou.shape[1] - 1}.")
        overlap, rate = self.iou[:, concept], self.q[:, concept]
        kept = ((overlap >= least) & (rate <= fdr)).nonzero()[:, 0]
        order = kept[overlap[kept].argsort(descending=True, stable=True)]
        return ConceptUnits(order, overlap[order], rate[order])


def concept_overlap(
    activations: Tensor, masks: Tensor, *, generator: torch.Generator, quantile: float = 0.99, repeats: int = 20
) -> Concepts:
    r"""Intersection over union of units' highest activations with concepts' masks, beside exchanged pictures.

    .. math:: \mathrm{IoU}_{u,c} = \frac{\Sigma_{i,p}\, [\uparrow a_{u,i,p} > t_u]\, m_{c,i,p}}
              {\Sigma_{i,p}\, \max([\uparrow a_{u,i,p} > t_u],\, m_{c,i,p})}, \qquad P(a_u > t_u) = 1 - \text{quantile}

    Symbols: a the activation of unit u in picture i, ↑ bilinear enlargement to the masks' size, m the mask of concept
    c. The control hands the pictures' masks round at random: what remains is what any unit gets that likes the places
    where the concept usually is. Overlaps are standardised unit by unit, the true one among those of the control, and
    compared with the control's of all units.

    Args:
        activations: (n, units, h, w), any float dtype.
        masks: (n, concepts, H, W), bool or 0 and 1; they may overlap.
        generator: of the exchanges.
        quantile: in (0, 1).
        repeats: exchanges; the smallest p is 1 / (1 + repeats · units).

    Returns:
        :class:`Concepts`, on the CPU.

    Raises:
        ValueError: shapes that do not match, fewer than three pictures, masks that are soft, a concept that is nowhere,
            a quantile outside (0, 1), or fewer than three repeats.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> masks = torch.rand(8, 1, 4, 4, generator=g) > 0.9
        >>> activations = torch.cat([masks.float(), torch.rand(8, 1, 4, 4, generator=g)], 1)
        >>> concept_overlap(activations, masks, generator=g, quantile=0.85).iou[0]
        tensor([1.], dtype=torch.float64)

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020); the control
    is ours.
    """
    _check(activations, masks, quantile, repeats)
    flags = masks.to(torch.float32).cpu().flatten(2)
    areas = flags.sum((0, 2)).double()
    orders = [torch.randperm(len(masks), generator=generator, device=generator.device).cpu() for _ in range(repeats)]
    found, nulls, levels = [], [], []
    for start, stop in chunks(activations.shape[1], BLOCK):
        own = activations[:, start:stop].detach().float()
        level = own.transpose(0, 1).flatten(1).double().quantile(quantile, dim=1).to(own)
        large = F.interpolate(own, masks.shape[2:], mode="bilinear", align_corners=False)
        # Between equal largest values, enlargement rounds up: nothing is above the largest one.
        edge = level.where(level < own.amax((0, 2, 3)), torch.inf)
        active = (large > edge[:, None, None]).float().cpu().flatten(2)
        size = active.sum((0, 2)).double()[:, None] + areas
        found.append(_over(_met(active, flags), size))
        nulls.append(torch.stack([_over(_met(active, flags[order]), size) for order in orders], 1))
        levels.append(level.cpu())
    iou, null = torch.cat(found), torch.cat(nulls)
    # standardised with the truth among its exchanges: each of them is treated as the truth is
    every = torch.cat([iou[:, None], null], 1)
    z = (every - every.mean(1, keepdim=True)) / _positive(every.std(1, keepdim=True, correction=0))
    p = torch.stack([_chance(z[:, 0, c], z[:, 1:, c].flatten()) for c in range(iou.shape[1])], 1)
    q = false_discovery_rate(p.flatten()).view_as(p)
    return Concepts(iou, p, q, torch.cat(levels), null.mean(1))


def _chance(found: Tensor, null: Tensor) -> Tensor:
    """p-values; 1 where nothing varies under the exchange, so that it cannot say anything."""
    return torch.ones_like(found) if null.isnan().all() else chance_of(found, null)


def _positive(spread: Tensor) -> Tensor:
    return spread.where(spread > 1e-12, torch.nan)


def _met(active: Tensor, flags: Tensor) -> Tensor:
    """Pixels that each unit and concept share over all pictures, (units, concepts)."""
    return torch.einsum("iup,icp->uc", active, flags).double()


def _over(met: Tensor, size: Tensor) -> Tensor:
    union = size - met
    return met / union.where(union > 0, torch.nan)


def _check(activations: Tensor, masks: Tensor, quantile: float, repeats: int) -> None:
    if activations.dim() != 4 or masks.dim() != 4 or len(activations) != len(masks) or len(masks) < 3:
        raise ValueError(
            f"activations have shape {tuple(activations.shape)} and masks {tuple(masks.shape)}; wanted (n, units, h, w)"
            " and (n, concepts, H, W) of the same pictures, at least 3."
        )
    if not activations.isfinite().all():
        raise ValueError("activations hold nan or infinity; wanted finite ones. Leave such pictures out.")
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError(
            "masks have values between 0 and 1; a concept is there or not. Compare with a threshold first."
        )
    nowhere = (~masks.flatten(2).any(2).any(0)).nonzero()[:, 0]
    if len(nowhere):
        raise ValueError(f"concept {int(nowhere[0])} is in none of the pictures; leave it out.")
    if not 0 < quantile < 1 or repeats < 3:
        raise ValueError(f"quantile is {quantile} with {repeats} repeats; wanted one in (0, 1), and at least 3.")
