"""Workshop: generators, what a link needs of them, and adapters for the usual families."""

from .biggan import BigGANAdapter
from .checked import check_generator
from .checkpoint import LoadedStyle, load_style_generator, save_style_generator
from .dcgan import DCGAN, DCGANAdapter
from .eigen import EigenGenerator
from .features import pictures_and_features
from .latents import class_rows, normal, normal_latents, truncate
from .part_heads import FewShotHead, ProjectionHead
from .part_training import fit_head
from .parts import Parts, PictureParts
from .protocol import CallableGenerator, Generator, from_callable, pictures_in_unit_range
from .segmentation import FeatureClusters, FeatureParts, cluster_features
from .style_generator import StyleGenerator
from .stylegan import StyleGANAdapter
from .train_style import Recipe, train_style_generator
from .weights import load_weights

__all__ = [
    "DCGAN",
    "BigGANAdapter",
    "CallableGenerator",
    "DCGANAdapter",
    "EigenGenerator",
    "FeatureClusters",
    "FeatureParts",
    "FewShotHead",
    "Generator",
    "LoadedStyle",
    "Parts",
    "PictureParts",
    "ProjectionHead",
    "Recipe",
    "StyleGANAdapter",
    "StyleGenerator",
    "check_generator",
    "class_rows",
    "cluster_features",
    "fit_head",
    "from_callable",
    "load_style_generator",
    "load_weights",
    "normal",
    "normal_latents",
    "pictures_and_features",
    "pictures_in_unit_range",
    "save_style_generator",
    "train_style_generator",
    "truncate",
]
