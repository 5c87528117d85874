"""Workshop: generators, what a link needs of them, and adapters for the usual families."""

from .checked import check_generator
from .eigen import EigenGenerator
from .features import pictures_and_features
from .latent_link import LatentLink
from .latents import class_rows, normal, normal_latents, truncate
from .part_heads import FewShotHead, ProjectionHead
from .part_training import fit_head
from .parts import Parts, PictureParts
from .protocol import CallableGenerator, Generator, from_callable, pictures_in_unit_range
from .quantify import quantify
from .ridge import RankReport
from .screening import screen
from .segmentation import FeatureClusters, FeatureParts, cluster_features
from .unit_query import Found
from .unit_steps import shuffled_link
from .unit_table import UnitTable

__all__ = [
    "CallableGenerator",
    "EigenGenerator",
    "FeatureClusters",
    "FeatureParts",
    "FewShotHead",
    "Found",
    "Generator",
    "LatentLink",
    "Parts",
    "PictureParts",
    "ProjectionHead",
    "RankReport",
    "UnitTable",
    "check_generator",
    "class_rows",
    "cluster_features",
    "fit_head",
    "from_callable",
    "normal",
    "normal_latents",
    "pictures_and_features",
    "pictures_in_unit_range",
    "quantify",
    "screen",
    "shuffled_link",
    "truncate",
]
