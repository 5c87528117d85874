"""Measure whether the other modes of WeightContribution predict the effect of removing a neuron.

    python benchmarks/nern_modes.py [--steps 300]

Spearman's correlation over the predictor's neurons (without the bias) of "gradient" and of "integrated" (16 steps) with
"removal", each neuron removed from all represented layers at once; for the target's logit of its predicted class, one
number per image, 20 images that were not used in the fit. Two networks: the zoo's small network for MNIST with images
of the zoo's generator (as in examples/fit_nern.py, no batch norm), and that of benchmarks/nern.py for scikit-learn's
digits (batch norm). Two seeds of the NeRN each.
"""

import argparse

import torch
from nern import digits_split, digits_target

from xinc_captum import WeightContribution
from xinc_captum.attributions.nern import NeRN
from xinc_captum.generators import images_in_unit_range
from xinc_captum.metrics import spearman
from xinc_captum.zoo import mnist_convnet, mnist_generator

SHOWN = 20


def generated():
    style = mnist_generator().generator
    latents = style.sample_latents(
        1000 + SHOWN, generator=torch.Generator().manual_seed(0), classes=torch.arange(1000 + SHOWN) % 10
    )
    with torch.no_grad():
        pictures = torch.cat([images_in_unit_range(style, part) for part in latents.split(64)])
    return mnist_convnet().model, pictures[:1000], pictures[1000:]


def digits():
    seen, shown, x, _ = digits_split()
    return digits_target(seen, shown, 0), seen, x[:SHOWN]


def compared(name, target, seen, pictures, hidden, steps):
    for seed in (0, 1):
        nern = NeRN(target, hidden=hidden, seed=seed)
        fit = nern.fit(seen, steps=steps, seed=seed, show_progress=False)
        with torch.no_grad():
            answers = target(pictures).argmax(1)
        found = {}
        for mode, count in (("removal", 1), ("gradient", 1), ("integrated", 16)):
            method = WeightContribution(nern, mode=mode)
            if mode == "removal":  # what the sum over layers misses is known exactly, so one step does
                parts, missed = method.attribute(pictures, answers, n_steps=1, return_convergence_delta=True)
                found[mode] = (parts.sum(2) - missed)[:, :-1]
            else:
                found[mode] = method.attribute(pictures, answers, n_steps=count).sum(2)[:, :-1]
        print(
            f"{name}, NeRN of seed {seed}, agreement {fit.report.agreement:.1%}, error {fit.report.relative_error:.3f}"
        )
        for mode in ("gradient", "integrated"):
            values = spearman(found[mode], found["removal"]).values
            print(f"    {mode:11} mean {values.mean():.2f}, from {values.min():.2f} to {values.max():.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of the MNIST network's fit; the other takes 1000")
    given = parser.parse_args()
    torch.set_num_threads(1)
    compared("MNIST", *generated(), 52, given.steps)
    compared("digits", *digits(), 40, 1000)
