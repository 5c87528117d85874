"""Trained DCGANs from PyPI packages: faces, and eyes of eight colours."""

import torch

from ..generators import DCGAN, DCGANAdapter
from .assets import asset

EYE_COLOURS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")
_FACES = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
_EYES = "dd486abbd738bfe3d28ddd46987bec11e3842ddcc8c28ccc5251b52c6ecf4da0"


def dcgan_faces() -> DCGANAdapter:
    """Return a generator of faces, 64 x 64 pixels in colour, with 100 latent dimensions and 3.6 M weights.

    Raises:
        AssetError: gan-face-generate is missing, or the sha256 of its file differs.

    Source: gan-face-generate 1.1.1 (MIT); trained on DigiFace-1M, rendered people, a data set for research only.
    """
    path = asset("gan-face-generate", "gan_face_generate/weights.tar", _FACES)
    weights = torch.load(path, map_location="cpu", weights_only=True)["netG_state_dict"]
    with torch.device("meta"):  # faster, and the random state is unchanged
        network = DCGAN()
    network.load_state_dict(weights, assign=True)
    return DCGANAdapter(network.eval().requires_grad_(False))


def omniart_eyes() -> DCGANAdapter:
    """Return a generator of painted eyes, 128 x 128 pixels, with 100 latent dimensions and 12.9 M weights.

    Its eight classes are ``EYE_COLOURS``.

    Raises:
        AssetError: omniart-eye-generator is missing, or the sha256 of its file differs.

    Source: omniart-eye-generator 0.1 (MIT); trained on details of paintings.
    """
    path = asset("omniart-eye-generator", "generator_model_state.pth", _EYES)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        network = DCGAN(108, (1024, 512, 256, 128, 64), dropout=0.2)
    network.load_state_dict(weights, assign=True)
    return DCGANAdapter(network.eval().requires_grad_(False), num_classes=len(EYE_COLOURS))
