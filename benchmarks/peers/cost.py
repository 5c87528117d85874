"""Measure a step relative to a forward and backward pass of as many crops to the image, weights frozen.

    python cost.py LIBRARY [--rows-only] [--rounds 1]      (with the Python of the library's environment)

ResNet-18 with random weights at 224 pixels, in CPU seconds of one thread. One reference pass is measured inside the
library's own loop at each step; a step is the time between two reference passes.
"""

import argparse
import copy
import time
import warnings
from statistics import mean

import torch
from libraries import LIBRARIES, UNIT, label
from torchvision.models import resnet18

PEER = [
    ("canvas 512, no regularizer", {"crops": 16, "steps": 6}),
    ("canvas 512, features at layer2", {"crops": 16, "steps": 6, "layer": "layer2"}),
]
CASES = {
    "xinc-captum": [
        ("canvas 224, no regularizer", {"crops": 4, "steps": 24, "regularizer": False}),
        ("canvas 224, features at layer2", {"crops": 4, "steps": 24, "layer": "layer2"}),
        ("canvas 224, no regularizer", {"crops": 16, "steps": 8, "regularizer": False}),
        ("canvas 224, features at layer2", {"crops": 16, "steps": 24, "layer": "layer2"}),
    ],
    "faccent": PEER,
    "dreamlens": PEER,
    "horama": [
        ("canvas 1280, pixels", {"crops": 6, "steps": 6}),
        ("canvas 1280, pixels, weights frozen by the caller", {"crops": 6, "steps": 6, "frozen": True}),
        (
            "canvas 224, pixels, weights frozen by the caller",
            {"crops": 6, "steps": 6, "canvas": (224, 224), "frozen": True},
        ),
    ],
}
HEADER = "| library | setting | views | reference pass, ms | step / reference pass (each round) | before the first step / reference pass |"


class Beside:
    """Measure a reference pass each time it is called, and the time between calls."""

    def __init__(self, model, crops):
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.views = torch.rand(crops, 3, 224, 224, requires_grad=True)
        self.begun, self.ended = [], []

    def __call__(self):
        self.begun.append(time.process_time())
        with torch.enable_grad():
            torch.autograd.grad(self.model(self.views)[:, UNIT].sum(), self.views)
        self.ended.append(time.process_time())

    def floors(self):
        return [end - begin for begin, end in zip(self.begun, self.ended, strict=True)]

    def steps(self):
        return [begin - end for begin, end in zip(self.begun[1:], self.ended, strict=False)]


def run(name, options):
    """Return the reference pass in seconds, and the step and the work before the first step relative to it."""
    options = dict(options)
    torch.manual_seed(0)
    model = resnet18().eval().requires_grad_(not options.pop("frozen", False))
    beside = Beside(model, options["crops"])
    beside()
    beside.begun.clear(), beside.ended.clear()
    if name == "xinc-captum":
        options["on_step"] = beside
    else:
        forward = model.forward
        model.forward = lambda views: (beside(), forward(views))[1]
    begin = time.process_time()
    LIBRARIES[name](model, torch.rand(3, 224, 224), **options)
    whole = time.process_time() - begin - sum(beside.floors())
    balancing = 1 if name != "xinc-captum" and options.get("layer") else 0  # one forward pass before the loop
    floor, step = mean(beside.floors()), mean(beside.steps()[balancing:])
    return floor, step / floor, (whole - step * (len(beside.begun) - balancing)) / floor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--rows-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if not chosen.rows_only:
        print(HEADER + "\n" + "|---" * 6 + "|")
    for setting, options in CASES[chosen.library]:
        floors, steps, before = zip(*(run(chosen.library, options) for _ in range(chosen.rounds)), strict=True)
        spread = ", ".join(f"{step:.2f}" for step in sorted(steps))
        numbers = f"{1000 * mean(floors):.0f} | **{mean(steps):.2f}** ({spread}) | {mean(before):.1f}"
        print(f"| {label(chosen.library)} | {setting} | {options['crops']} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
