"""Generators of images from latents, adapters for common families, and the parts of their images."""

from .adapters import DCGAN, BigGANAdapter, DCGANAdapter, StyleGANAdapter, load_weights
from .eigen import EigenGenerator
from .features import images_and_features
from .part_heads import FewShotHead, ProjectionHead, fit_head
from .parts import FeatureClusters, FeatureParts, ImageParts, Parts, cluster_features
from .protocol import (
    Generator,
    check_generator,
    class_rows,
    from_callable,
    images_in_unit_range,
    normal,
    normal_latents,
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
    "DCGANAdapter",
    "EigenGenerator",
    "FeatureClusters",
    "FeatureParts",
    "FewShotHead",
    "Generator",
    "ImageParts",
    "LoadedStyle",
    "Parts",
    "ProjectionHead",
    "Recipe",
    "StyleGANAdapter",
    "StyleGenerator",
    "check_generator",
    "class_rows",
    "cluster_features",
    "fit_head",
    "from_callable",
    "images_and_features",
    "images_in_unit_range",
    "load_style_generator",
    "load_weights",
    "normal",
    "normal_latents",
    "save_style_generator",
    "train_style_generator",
    "truncate",
]
