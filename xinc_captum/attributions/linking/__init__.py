"""Linking in Style: links from a layer's units to a generator's latents, sweeps of units, and counterfactuals."""

from .counterfactuals.counterfactual import Counterfactual
from .latent_link import LatentLink, LinkAudit, MLPLink, SearchedLatents, latent_search
from .linked_unit import LinkedUnitVisualization
from .loop import Encoded, Encoder, Pool, pool_units
from .moments import RankReport
from .pairs import Pairs, make_pairs
from .sweep import SweepTrust, UnitSweep, unit_steps, unit_values

__all__ = [
    "Counterfactual",
    "Encoded",
    "Encoder",
    "LatentLink",
    "LinkAudit",
    "LinkedUnitVisualization",
    "MLPLink",
    "Pairs",
    "Pool",
    "RankReport",
    "SearchedLatents",
    "SweepTrust",
    "UnitSweep",
    "latent_search",
    "make_pairs",
    "pool_units",
    "unit_steps",
    "unit_values",
]
