"""Make xinc_captum/zoo/data/carphone_nerv.safetensors: a small NeRV fitted to the first frames of a real video."""

from pathlib import Path

import torch

import xinc_captum
from xinc_captum.inr import NeRV, fit_video, load, psnr, render_video, save
from xinc_captum.zoo import video

FRAMES, SIZE = 24, (72, 88)
FILE = Path(xinc_captum.__file__).parent / "zoo" / "data" / "carphone_nerv.safetensors"


def main() -> None:
    """Fit the network, save it in half precision, and print the loss in decibels."""
    torch.set_num_threads(1)  # one order of additions on every machine
    frames = video("carphone_pristine", FRAMES, SIZE).frames
    model = NeRV(SIZE, seed=0)
    result = fit_video(model, frames, steps=2000)
    FILE.parent.mkdir(exist_ok=True)
    save(model, FILE, size=(FRAMES, *SIZE), dtype=torch.float16)
    saved = psnr(render_video(load(FILE).model, FRAMES), frames)
    print(f"{result.psnr:.2f} dB, {saved:.2f} dB as saved in {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
