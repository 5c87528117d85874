"""Measure the PSNR of a NeRV on a real video: 12 small frames in a minute or two, and with --large 60 frames of full size.

    python benchmarks/video_fit.py [--large] [--seeds 1] [--threads 2] [--device cpu] [--checkpoint FILE]

With --checkpoint an interrupted run is resumed (one seed); its time is then that of the last part only.
"""

import argparse
import time

import torch

from xinc_captum.inr import NeRV, fit_video
from xinc_captum.zoo import video

SMALL = {
    "name": "carphone, 12 frames of 72x88 (expected 37 dB with <= 100,000 parameters in 180 s on 2 cores)",
    "limit": 12,
    "size": (72, 88),
    "network": {},
    "training": {},
}
LARGE = {
    "name": "carphone, 60 frames of 144x176 (expected 33 dB with <= 400,000 parameters)",
    "limit": 60,
    "size": (144, 176),
    "network": {"widths": (24, 64, 48, 24, 14), "strides": (2, 2, 2, 2), "stem": (64,)},
    "training": {"steps": 1600, "batch_size": 4},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint")
    arguments = parser.parse_args()
    if arguments.checkpoint and arguments.seeds > 1:
        parser.error("--checkpoint is for one seed: a checkpoint belongs to one run")
    torch.set_num_threads(arguments.threads)
    job = LARGE if arguments.large else SMALL
    frames = video("carphone_pristine", job["limit"], job["size"]).frames
    print(job["name"], flush=True)
    for seed in range(arguments.seeds):
        model = NeRV(job["size"], seed=seed, **job["network"]).to(arguments.device)
        start, cpu = time.perf_counter(), time.process_time()
        result = fit_video(model, frames, seed=seed, checkpoint=arguments.checkpoint, **job["training"])
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        count = sum(p.numel() for p in model.parameters())
        print(
            f"seed {seed}: {result.psnr:.2f} dB (frames {min(result.frame_psnr):.2f} to {max(result.frame_psnr):.2f}), "
            f"{count:,} parameters, {result.steps} steps, {seconds:.0f} s, {cpu:.0f} CPU s on {arguments.threads} threads"
            + (f", taken up at step {result.resumed_at}" if result.resumed_at else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
