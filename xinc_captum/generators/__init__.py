"""Workshop: generators, what a link needs of them, and adapters for the usual families."""

from .adapters import DCGAN, BigGANAdapter, DCGANAdapter, StyleGANAdapter, load_weights
from .eigen import EigenGenerator
from .features import pictures_and_features
from .part_heads import FewShotHead, ProjectionHead, fit_head
from .parts import FeatureClusters, FeatureParts, Parts, PictureParts, cluster_features
from .protocol import (
    CallableGenerator,
    Generator,
    check_generator,
    class_rows,
    from_callable,
    normal,
    normal_latents,
    pictures_in_unit_range,
    truncate,
)
from .style import (
    LoadedStyle,
    Recipe,
    StyleGenerator,
    load_style_generator,
    save_style_generator,
    train_style_generator,
)

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
