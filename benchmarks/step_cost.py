"""Measure an accentuation step relative to a forward and backward pass of the same crops to the image, weights frozen.

    python benchmarks/step_cost.py [--rounds 3] [--steps 24] [--threads 1]

Reference pass and step are timed in turns, in CPU seconds of this process, on ResNet-18 (random weights) at 224 pixels.
"""

import argparse
import time
from statistics import median

import torch
from torchvision.models import resnet18

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import Crops, FeatureDistance, Noise


def run(crops, steps, regularizer):
    """Return seconds of each step and of the reference pass beside it; the work before the first step is spread over the steps."""
    torch.manual_seed(0)
    model = resnet18().eval().requires_grad_(False)
    photo = torch.rand(1, 3, 224, 224)
    floors = []

    def floor():
        views = torch.rand(crops, 3, 224, 224, requires_grad=True)
        start = time.process_time()
        torch.autograd.grad(model(views)[:, 3].sum(), views)
        floors.append(time.process_time() - start)

    floor()
    floors.clear()
    start = time.process_time()
    FeatureAccentuation(model).attribute(
        photo,
        target=3,
        n_steps=steps,
        transforms=(Crops(crops), Noise()),
        regularizer=regularizer,
        on_step=lambda *_: floor(),
    )
    return (time.process_time() - start - sum(floors)) / steps, median(floors)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| crops | regularizer | CPU ms per step | reference ms | ratio (each round) |\n|---|---|---|---|---|")
    for crops in (4, 16):
        for name, regularizer in (("none", None), ("features at layer2, with mask", FeatureDistance("layer2"))):
            rounds = [run(crops, chosen.steps, regularizer) for _ in range(chosen.rounds)]
            ratios = sorted(step / floor for step, floor in rounds)
            step, floor = (1000 * median(values) for values in zip(*rounds, strict=True))
            spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {crops} | {name} | {step:.0f} | {floor:.0f} | **{median(ratios):.2f}** ({spread}) |", flush=True)


if __name__ == "__main__":
    main()
