"""Workshop: linear links from a layer's units to a generator's latents, the pairs they learn from, and their audit."""

from .audit import LinkAudit, MLPLink, Searched, latent_search
from .encoder import Encoded, Encoder, Pool, pooled
from .latent_link import LatentLink
from .pairs import Pairs, make_pairs
from .ridge import RankReport
from .sweep import unit_steps, unit_values

__all__ = [
    "Encoded",
    "Encoder",
    "LatentLink",
    "LinkAudit",
    "MLPLink",
    "Pairs",
    "Pool",
    "RankReport",
    "Searched",
    "latent_search",
    "make_pairs",
    "pooled",
    "unit_steps",
    "unit_values",
]
