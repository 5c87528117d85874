"""Workshop: generators, what a link needs of them, and adapters for the usual families."""

from .biggan import BigGANAdapter
from .checked import check_generator
from .checkpoint import LoadedStyle, load_style_generator, save_style_generator
from .dcgan import DCGAN, DCGANAdapter
from .eigen import EigenGenerator
from .encoder import Encoded, Encoder
from .features import pictures_and_features
from .latent_link import LatentLink
from .latent_search import Searched, latent_search
from .latent_walk import LatentWalk
from .latents import class_rows, normal, normal_latents, truncate
from .linear_head import LinearHead
from .link_audit import LinkAudit
from .make_pairs import make_pairs
from .minimal_shift import MinimalShift, Shortest, shortest_shift
from .mlp_link import MLPLink
from .pairs import Pairs
from .paper_update import LinkingInStyle, shift_losses
from .part_heads import FewShotHead, ProjectionHead
from .part_training import fit_head
from .parts import Parts, PictureParts
from .pooling import Pool, pooled
from .protocol import CallableGenerator, Generator, from_callable, pictures_in_unit_range
from .quantify import quantify
from .ray import Ray
from .ridge import RankReport
from .screening import screen
from .segmentation import FeatureClusters, FeatureParts, cluster_features
from .style_generator import StyleGenerator
from .stylegan import StyleGANAdapter
from .train_style import Recipe, train_style_generator
from .unit_null import shuffled_directions
from .unit_query import Found
from .unit_steps import unit_steps, unit_values
from .unit_table import UnitTable
from .weights import load_weights

__all__ = [
    "DCGAN",
    "BigGANAdapter",
    "CallableGenerator",
    "DCGANAdapter",
    "EigenGenerator",
    "Encoded",
    "Encoder",
    "FeatureClusters",
    "FeatureParts",
    "FewShotHead",
    "Found",
    "Generator",
    "LatentLink",
    "LatentWalk",
    "LinearHead",
    "LinkAudit",
    "LinkingInStyle",
    "LoadedStyle",
    "MLPLink",
    "MinimalShift",
    "Pairs",
    "Parts",
    "PictureParts",
    "Pool",
    "ProjectionHead",
    "RankReport",
    "Ray",
    "Recipe",
    "Searched",
    "Shortest",
    "StyleGANAdapter",
    "StyleGenerator",
    "UnitTable",
    "check_generator",
    "class_rows",
    "cluster_features",
    "fit_head",
    "from_callable",
    "latent_search",
    "load_style_generator",
    "load_weights",
    "make_pairs",
    "normal",
    "normal_latents",
    "pictures_and_features",
    "pictures_in_unit_range",
    "pooled",
    "quantify",
    "save_style_generator",
    "screen",
    "shift_losses",
    "shortest_shift",
    "shuffled_directions",
    "train_style_generator",
    "truncate",
    "unit_steps",
    "unit_values",
]
