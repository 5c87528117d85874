"""UMAP, to look at vectors. Nothing is measured on it."""

import torch
from torch import Tensor

from .._extra import needed


def umap_positions(vectors: Tensor, *, neighbors: int = 15, seed: int = 0) -> Tensor:
    """Two coordinates for each vector, near ones near each other (umap-learn, extra ``analysis``).

    For pictures only: distances between groups and their sizes mean nothing here, and another seed gives another
    picture. The first call compiles for about twenty seconds.

    Args:
        vectors: (units, dims).
        neighbors: how many neighbours count as near, less than the number of units.
        seed: of the layout.

    Returns:
        (units, 2), float32.

    Raises:
        ValueError: another number of dims, or no more units than neighbours.
        ModuleNotFoundError: umap-learn is missing.

    Example:
        >>> umap_positions(torch.rand(60, 8)).shape  # doctest: +SKIP
        torch.Size([60, 2])

    Source: McInnes, Healy & Melville, "UMAP: Uniform Manifold Approximation and Projection" (arXiv 1802.03426).
    """
    if vectors.dim() != 2 or not 2 <= neighbors < len(vectors):
        raise ValueError(
            f"vectors have shape {tuple(vectors.shape)} for {neighbors} neighbours; wanted (units, dims) with more "
            "units than neighbours, and at least 2 neighbours."
        )
    umap = needed("umap", purpose="a UMAP picture", extra="analysis")
    layout = umap.UMAP(n_neighbors=neighbors, min_dist=0.1, random_state=seed, n_jobs=1)
    return torch.from_numpy(layout.fit_transform(vectors.detach().double().cpu().numpy())).float().to(vectors.device)
