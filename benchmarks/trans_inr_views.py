"""Measure a RayTransINR on held-out scenes, from one or two views, relative to images that need no network.

    python benchmarks/trans_inr_views.py [--scenes 4000] [--balls 1] [--steps 3000] [--seeds 2] [--threads 1]

One model per seed takes one view or two. Scenes: a ball at a random position, of random size and colour, 16 x 16 pixels,
eight cameras on a circle (xinc_captum.zoo.ball_scenes). Held out: 100 other scenes, of each one view, rendered from each
of the seven others and each pair of them; then views by cameras halfway between, from which no training scene was seen.
PSNR is the mean over images, not clamped. CPU seconds of this process.
"""

import argparse
import itertools
import time

import torch

from xinc_captum.attributions.trans_inr import RayTransINR, mean_psnr
from xinc_captum.zoo.ball_scenes import ball_scenes, orbit

CAMERAS = 8
HELD_OUT = 100


def drawn_and_true(model, held, choices, between, roll=0):
    """Return each held-out scene's target view, from each choice of input views; ``roll`` uses another scene's instead."""
    scenes = torch.arange(HELD_OUT)
    expected = 2 * (scenes % CAMERAS) + between
    for others in choices:
        read = torch.stack([(2 * (scenes % CAMERAS) + 2 * k) % (2 * CAMERAS) for k in others], 1)
        seen = scenes.roll(roll)[:, None]
        with torch.no_grad():
            drawn = model(
                held.views[seen, read], held.poses[seen, read], held.poses[scenes, expected][:, None], held.focal
            )
        yield drawn[:, 0], held.views[scenes, expected], held.views[scenes[:, None], read], read, expected


def nearest(views, read, expected):
    """Return the input view whose camera is nearest."""
    away = (read - expected[:, None]) % (2 * CAMERAS)
    return views[torch.arange(len(views)), torch.minimum(away, 2 * CAMERAS - away).argmin(1)]


def report(model, train, held, say):
    ring = range(1, CAMERAS)
    everything = train.views.mean((0, 1))
    by_camera = train.views.mean(0)
    for between in (0, 1):
        for count in (1, 2):
            choices = list(itertools.combinations(range(CAMERAS) if between else ring, count))
            rows = {
                name: [] for name in ("generated", "another scene's", "mean image", "camera's mean", "nearest copied")
            }
            for found, astray in zip(
                drawn_and_true(model, held, choices, between),
                drawn_and_true(model, held, choices, between, roll=CAMERAS),  # by the same cameras
                strict=True,
            ):
                drawn, true, views, read, expected = found
                rows["generated"].append(mean_psnr(drawn, true))
                rows["another scene's"].append(mean_psnr(astray[0], true))
                rows["mean image"].append(mean_psnr(everything.expand_as(true), true))
                rows["camera's mean"].append(mean_psnr(by_camera[expected // 2], true))
                rows["nearest copied"].append(mean_psnr(nearest(views, read, expected), true))
            if between:
                del rows["camera's mean"]  # of cameras that no training scene was seen by
            means = {name: sum(found) / len(found) for name, found in rows.items()}
            where = "cameras halfway between" if between else "cameras of the fit"
            words = ", ".join(f"{name} {dB:.2f}" for name, dB in means.items())
            gain = means["generated"] - means["mean image"]
            say(f"  {where}, from {count}: {words} dB; {gain:+.2f} above the mean image (expected +4)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--balls", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def say(line):
        print(line, flush=True)

    start = time.process_time()
    train = ball_scenes(options.scenes, orbit(CAMERAS), balls=options.balls, seed=0)
    held = ball_scenes(HELD_OUT, orbit(2 * CAMERAS), balls=options.balls, seed=1)
    say(f"{options.scenes} scenes to fit, {HELD_OUT} held out, {time.process_time() - start:.0f} CPU s to draw them")
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        model = RayTransINR(near=2.5, far=5.5, seed=seed)
        start = time.process_time()
        fit = model.fit(
            train.views, train.poses, train.focal, support=(1, 2), steps=options.steps, seed=seed, show_progress=False
        )
        seconds = time.process_time() - start
        count = sum(p.numel() for p in model.parameters())
        last = sum(fit.curve[-100:]) / len(fit.curve[-100:])
        say(
            f"seed {seed}: {count:,} parameters, {fit.steps} steps, {seconds:.0f} CPU s (expected <= 300); last batches {last:.2f} dB"
        )
        report(model, train, held, say)


if __name__ == "__main__":
    main()
