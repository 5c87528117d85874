"""Workshop: linear links from a layer's units to a generator's latents, the pairs they learn from, and their audit."""

from .encoder import Encoded, Encoder
from .latent_link import LatentLink
from .latent_search import Searched, latent_search
from .link_audit import LinkAudit
from .make_pairs import make_pairs
from .mlp_link import MLPLink
from .pairs import Pairs
from .pooling import Pool, pooled
from .ridge import RankReport
from .unit_steps import unit_steps, unit_values

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
