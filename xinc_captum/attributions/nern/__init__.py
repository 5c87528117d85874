"""NeRN: networks that generate the convolution kernels of other networks, and analyses of them."""

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
from .kernel_network import KernelPredictor, SmoothEmbedding
from .kernels import (
    Convolution,
    LayerOrder,
    convolutions,
    crop,
    greedy_paths,
    kernel_coordinates,
    order_kernels,
    uncrop,
)
from .losses import feature_loss, logit_loss, reconstruction_loss, smoothness_loss
from .nern import Evaluation, NeRN, NernFit, sample_kernels
from .size import CompressedNeRN, QuantizedNetwork, SizeReport, compress, quantize
from .weight_contribution import WeightContribution

__all__ = [
    "CompressedNeRN",
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
    "QuantizedNetwork",
    "SizeReport",
    "SmoothEmbedding",
    "WeightContribution",
    "compress",
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
    "order_kernels",
    "quantize",
    "reconstruction_loss",
    "sample_kernels",
    "smoothness_loss",
    "uncrop",
    "with_noise",
    "without_filters",
]
