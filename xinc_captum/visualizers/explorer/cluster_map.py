"""Which units paint alike: two directions to look along, and the nearest of each."""

import torch
from torch import Tensor

POOL = (8, 16)  # cells; the same that units are clustered by


def places_of(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of where units paint.

    Args:
        vectors: (units, cells), one each.

    Returns:
        (units, 2) from 0 to 1 in each direction, and the part of the variance that each direction shows, (2,).

    Example:
        >>> places, spread = places_of(torch.eye(4)[:, :3])
        >>> places.shape, float(spread.sum()) <= 1
        (torch.Size([4, 2]), True)
    """
    centred = (vectors - vectors.mean(0)).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # ascending; cells are few, units may be many
    directions = directions[:, -2:].flip(1)
    most = directions.abs().argmax(0)
    directions = directions * directions.gather(0, most[None]).sign()  # a direction has no sign of its own
    along = centred @ directions
    low, high = along.amin(0), along.amax(0)
    spread = variances[-2:].flip(0).clamp_min(0) / variances.clamp_min(0).sum().clamp_min(1e-30)
    return ((along - low) / (high - low).clamp_min(1e-30)).float(), spread.float()


def nearest(vectors: Tensor, count: int) -> Tensor:
    """The units whose vectors point most the same way, nearest first: (units, count).

    Example:
        >>> nearest(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=1)
    found = []
    for first in range(0, len(unit), 1024):
        alike = unit[first : first + 1024] @ unit.T
        alike[torch.arange(len(alike)), first + torch.arange(len(alike))] = -2.0  # not itself
        found.append(alike.topk(count, dim=1).indices)
    return torch.cat(found)
