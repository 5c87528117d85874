"""Workshop: networks that write the convolutions of other networks, and what their neurons wrote."""

from .analysis import (
    EmbeddingLevels,
    ErrorMap,
    LayerProfile,
    embedding_levels,
    error_map,
    filter_ranking,
    layer_profile,
    with_noise,
    without_filters,
)
from .kernel_canvas import GatedPass, KernelCanvas
from .kernels import Convolution, convolutions, crop, kernel_coordinates, uncrop
from .losses import feature_loss, logit_loss, reconstruction_loss, smoothness_loss
from .nern import NeRN
from .permutation import LayerOrder, greedy_paths, ordered
from .predictor import KernelPredictor, SmoothEmbedding
from .size import Compressed, Quantised, SizeReport, compressed, quantised
from .training import Evaluation, NernFit, sample_kernels

__all__ = [
    "Compressed",
    "Convolution",
    "EmbeddingLevels",
    "ErrorMap",
    "Evaluation",
    "GatedPass",
    "KernelCanvas",
    "KernelPredictor",
    "LayerOrder",
    "LayerProfile",
    "NeRN",
    "NernFit",
    "Quantised",
    "SizeReport",
    "SmoothEmbedding",
    "compressed",
    "convolutions",
    "crop",
    "embedding_levels",
    "error_map",
    "feature_loss",
    "filter_ranking",
    "greedy_paths",
    "kernel_coordinates",
    "layer_profile",
    "logit_loss",
    "ordered",
    "quantised",
    "reconstruction_loss",
    "sample_kernels",
    "smoothness_loss",
    "uncrop",
    "with_noise",
    "without_filters",
]
