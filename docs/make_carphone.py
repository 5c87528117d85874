"""Makes xinc_captum/zoo/data/carphone_nerv.safetensors: a small NeRV fitted to the first frames of a real video."""

from pathlib import Path

import torch

import xinc_captum
from xinc_captum.inr import NeRV, fit_video, load, psnr, render_video, save
from xinc_captum.zoo import video

FRAMES, SIZE = 24, (72, 88)
PLACE = Path(xinc_captum.__file__).parent / "zoo" / "data" / "carphone_nerv.safetensors"


def main() -> None:
    """Fit it, keep half of each number's digits, and say what that cost."""
    torch.set_num_threads(1)  # one order of additions, whatever the machine
    frames = video("carphone_pristine", FRAMES, SIZE).frames
    model = NeRV(SIZE, seed=0)
    result = fit_video(model, frames, steps=2000)
    PLACE.parent.mkdir(exist_ok=True)
    save(model, PLACE, size=(FRAMES, *SIZE), dtype=torch.float16)
    kept = psnr(render_video(load(PLACE).model, FRAMES), frames)
    print(f"{result.psnr:.2f} dB, {kept:.2f} dB as kept in {PLACE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
