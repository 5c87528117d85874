"""Measure the PSNR of fits: the paper's network on a photo after 400 and 1,000 steps, and a larger one above 40 dB.

python benchmarks/fit_quality.py [--device cpu] [--seeds 2]
"""

import argparse
import tempfile
import time
from importlib import resources
from pathlib import Path

from PIL import Image

from xinc_captum.images import read_photo
from xinc_captum.inr import FourierMLP, Siren, fit


def photo(width, height):
    """Return skimage.data.chelsea, cropped to the given aspect ratio and downsampled."""
    packaged = resources.files("skimage.data").joinpath("chelsea.png")
    with resources.as_file(packaged) as path, tempfile.TemporaryDirectory() as folder:
        image = Image.open(path)
        scale = min(image.width / width, image.height / height)
        cut = (round(width * scale), round(height * scale))
        left, top = (image.width - cut[0]) // 2, (image.height - cut[1]) // 2
        image = image.crop((left, top, left + cut[0], top + cut[1]))
        small = Path(folder) / "photo.png"
        image.resize((width, height), Image.Resampling.LANCZOS).save(small)
        return read_photo(small)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    cat, square = photo(192, 128), photo(256, 256)
    jobs = [
        ("FFN 128x192, 400 steps (expected 33 dB)", cat, lambda s: FourierMLP(scale=5.0, seed=s), {"steps": 400}),
        ("FFN 128x192, 1000 steps (expected 35.5 dB)", cat, lambda s: FourierMLP(scale=5.0, seed=s), {"steps": 1000}),
        (
            "SIREN 128x192, 800 steps",
            cat,
            lambda s: Siren(hidden=128, layers=4, first_omega=40.0, seed=s),
            {"steps": 800, "lr": 2e-3, "batch_size": 8192},
        ),
        (
            "SIREN 256x256 (expected 40 dB with <= 270k)",
            square,
            lambda s: Siren(hidden=256, layers=4, first_omega=50.0, seed=s),
            {"steps": 800, "lr": 1e-3, "batch_size": 8192},
        ),
    ]
    for name, image, make, how in jobs:
        for seed in range(arguments.seeds):
            model = make(seed).to(arguments.device)
            start = time.perf_counter()
            result = fit(model, image, seed=seed, show_progress=True, **how)
            size = sum(p.numel() for p in model.parameters())
            print(
                f"{name:45s} seed {seed}: {result.psnr:.2f} dB, {size:,} parameters, {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
