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
from .latents import class_rows, normal, normal_latents, truncate
from .link_audit import LinkAudit
from .make_pairs import make_pairs
from .mlp_link import MLPLink
from .pairs import Pairs
from .part_heads import FewShotHead, ProjectionHead
from .part_training import fit_head
from .parts import Parts, PictureParts
from .pooling import Pool, pooled
from .protocol import CallableGenerator, Generator, from_callable, pictures_in_unit_range
from .quantify import quantify
from .ridge import RankReport
from .screening import screen
from .segmentation import FeatureClusters, FeatureParts, cluster_features
from .style_generator import StyleGenerator
from .stylegan import StyleGANAdapter
from .train_style import Recipe, train_style_generator
from .unit_null import shuffled_directions
from .unit_query import Found
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
    "LinkAudit",
    "LoadedStyle",
    "MLPLink",
    "Pairs",
    "Parts",
    "PictureParts",
    "Pool",
    "ProjectionHead",
    "RankReport",
    "Recipe",
    "Searched",
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
    "shuffled_directions",
    "train_style_generator",
    "truncate",
]
