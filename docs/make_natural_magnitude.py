"""Measures on scikit-image's photos the spectrum that ``Phase()`` starts with, and puts it in the package."""

from pathlib import Path

import torch

from xinc_captum.attributions.accentuation import natural_magnitude
from xinc_captum.store import write_tensors
from xinc_captum.zoo import skimage_photo

NAMES = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
SIDE, STRIDE = 128, 64
PLACE = Path(__file__).parents[1] / "xinc_captum" / "ascent" / "natural_magnitude.safetensors"


def windows() -> torch.Tensor:
    """All squares of SIDE pixels, STRIDE apart, each faded out at its edges and mirrored: (n, 3, SIDE, SIDE)."""
    cut = []
    for name in NAMES:
        image = skimage_photo(name).image
        pieces = image.unfold(1, SIDE, STRIDE).unfold(2, SIDE, STRIDE)
        cut.append(pieces.permute(1, 2, 0, 3, 4).reshape(-1, 3, SIDE, SIDE))
    pieces = torch.cat(cut)
    mean = pieces.mean((2, 3), keepdim=True)
    fade = torch.hann_window(SIDE).outer(torch.hann_window(SIDE))  # without it every edge adds a bright cross
    fade = fade / fade.square().mean().sqrt()
    faded = (mean + (pieces - mean) * fade).clamp(0, 1)
    return torch.cat([faded, faded.flip(3)])


def main() -> None:
    """Photos in, one small file out."""
    pieces = windows()
    magnitude = natural_magnitude(pieces, margin=0.05)
    write_tensors(PLACE, {"magnitude": magnitude.half()}, kind="magnitude")


if __name__ == "__main__":
    main()
