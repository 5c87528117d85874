"""Workshop: networks that write the convolutions of other networks, and what their neurons wrote."""

from .compressed import Compressed, compressed
from .convolutions import Convolution, convolutions
from .coordinates import kernel_coordinates
from .crop import crop, uncrop
from .embedding import FourierEmbedding, SmoothEmbedding
from .embedding_levels import EmbeddingLevels, embedding_levels
from .error_map import ErrorMap, error_map
from .filter_pruning import filter_ranking, without_filters
from .fit import Look, NernFit
from .gated import GatedPass
from .kernel_canvas import KernelCanvas
from .layer_profile import LayerProfile, layer_profile
from .losses import feature_loss, logit_loss, reconstruction_loss
from .nern import NeRN
from .permutation import LayerOrder, greedy_paths, ordered
from .predictor import KernelPredictor
from .quantised import Quantised, quantised
from .sampling import sampled_kernels
from .size_report import SizeReport
from .smoothness import smoothness_loss
from .weight_noise import with_noise

__all__ = [
    "Compressed",
    "Convolution",
    "EmbeddingLevels",
    "ErrorMap",
    "FourierEmbedding",
    "GatedPass",
    "KernelCanvas",
    "KernelPredictor",
    "LayerOrder",
    "LayerProfile",
    "Look",
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
    "sampled_kernels",
    "smoothness_loss",
    "uncrop",
    "with_noise",
    "without_filters",
]
