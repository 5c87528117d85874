"""Measure the mean spectrum of scikit-image's photos, from which ``Phase()`` starts, and save it in the package."""

from pathlib import Path

import torch

from xinc_captum.attributions.accentuation import natural_magnitude
from xinc_captum.store import write_tensors
from xinc_captum.zoo import skimage_photo

NAMES = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
SIDE, STRIDE = 128, 64
FOLDER = Path(__file__).parents[1] / "xinc_captum" / "attributions" / "accentuation"


def windows() -> torch.Tensor:
    """Return all squares of SIDE pixels, faded out at their edges, and their mirror images: (n, 3, SIDE, SIDE)."""
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
    """Compute the spectrum and write it to a file."""
    pieces = windows()
    magnitude = natural_magnitude(pieces, margin=0.05)
    write_tensors(FOLDER / "natural_magnitude.safetensors", {"magnitude": magnitude.half()}, kind="magnitude")


if __name__ == "__main__":
    main()
