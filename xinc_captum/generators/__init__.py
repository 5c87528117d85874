"""Workshop: generators, what a link needs of them, and adapters for the usual families."""

from .checked import check_generator
from .eigen import EigenGenerator
from .encoder import Encoded, Encoder
from .latent_link import LatentLink
from .latent_search import Searched, latent_search
from .latents import class_rows, normal, normal_latents, truncate
from .link_audit import LinkAudit
from .make_pairs import make_pairs
from .mlp_link import MLPLink
from .pairs import Pairs
from .pooling import Pool, pooled
from .protocol import CallableGenerator, Generator, from_callable, pictures_in_unit_range
from .ridge import RankReport

__all__ = [
    "CallableGenerator",
    "EigenGenerator",
    "Encoded",
    "Encoder",
    "Generator",
    "LatentLink",
    "LinkAudit",
    "MLPLink",
    "Pairs",
    "Pool",
    "RankReport",
    "Searched",
    "check_generator",
    "class_rows",
    "from_callable",
    "latent_search",
    "make_pairs",
    "normal",
    "normal_latents",
    "pictures_in_unit_range",
    "pooled",
    "truncate",
]
