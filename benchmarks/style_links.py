"""Fit a link through a style generator trained on digits: explained variance, and whether sweeps move the named units.

    python benchmarks/style_links.py [--data mnist digits] [--seeds 2] [--steps 2000] [--keep FOLDER]

Generator and classifier are trained by the recipe of examples/train_style_generator.py at 16 x 16 (about four minutes
each on a core; --keep stores them for the next run). 5,000 pairs fit each link; it is tested on 1,000 other latents, and
on real images that were in no training set. R2w is R² relative to class means; "shuffled" is the same for a link fitted
to pairs shuffled within their classes. A sweep's top-1 is the share of units that move most, by root mean square over
images and frames, among all active units, when the classifier measures the frames.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking import Encoder, make_pairs
from xinc_captum.generators import (
    Recipe,
    images_in_unit_range,
    load_style_generator,
    save_style_generator,
    train_style_generator,
)
from xinc_captum.zoo import mnist_digits, small_convnet, train_small_convnet

WANTED = {
    "mnist": "R2w >= .40 linear, >= .75 per class or Fourier; real >= .70; marginal top-1 >= .6, Spearman >= .75",
    "digits": "R2w >= .70, real >= .80",
}
SWEEPS = (
    ("marginal", "anchored", "quantile"),
    ("marginal", "anchored", "minmax"),
    ("within_class", "anchored", "quantile"),
    ("partial", "anchored", "minmax"),
    ("partial", "replace", "minmax"),
)


def pictures(data):
    """Return images (n, 1, 16, 16) in [0, 1], and labels."""
    if data == "mnist":
        kept = mnist_digits().halve()
        return kept.images, kept.labels
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    return F.interpolate(small, size=(16, 16), mode="bilinear"), torch.from_numpy(digits.target)


def trained(data, seed, steps, keep):
    """Return classifier, generator and real images that neither was trained on."""
    images, labels = pictures(data)
    seen = torch.arange(len(images)) % 5 != 4
    folder = keep and Path(keep) / f"{data}_{seed}_{steps}"
    if folder and (folder / "generator.safetensors").exists():
        net = small_convnet(10, 16)
        net.load_state_dict(load_file(folder / "classifier.safetensors"))
        return (
            net.eval(),
            load_style_generator(folder / "generator.safetensors").generator,
            images[~seen],
            labels[~seen],
        )
    start = time.process_time()
    net = train_small_convnet(images[seen], labels[seen], epochs=8 if data == "mnist" else 16, seed=seed)
    generator = train_style_generator(images[seen], labels[seen], Recipe(steps=steps, seed=seed))
    print(f"trained in {time.process_time() - start:.0f} CPU s", flush=True)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        save_style_generator(generator, folder / "generator.safetensors", recipe={"data": data, "seed": seed})
        save_file(net.state_dict(), folder / "classifier.safetensors")
    return net, generator, images[~seen], labels[~seen]


def agreement(net, generator, seed):
    """Return the share of generated images with the requested class, at truncation .7."""
    asked = torch.arange(1000) % 10
    latents = generator.sample_latents(1000, asked, 0.7, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return float((net(images_in_unit_range(generator, latents)).argmax(1) == asked).float().mean())


def shown(interval):
    return "-" if interval is None else f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=WANTED, default=list(WANTED))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--keep", default=None, help="folder for trained networks")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for data in chosen.data:
        for seed in range(chosen.seeds):
            one(data, seed, chosen)
        print(f"\nexpected for {data}: class agreement of the generator >= .95; {WANTED[data]}", flush=True)


def one(data, seed, chosen):
    net, generator, real, labels = trained(data, seed, chosen.steps, chosen.keep)
    with torch.no_grad():
        right = float((net(real).argmax(1) == labels).float().mean())
    print(f"\n{data}, seed {seed}: classifier {right:.3f}, generator {agreement(net, generator, seed):.3f}", flush=True)
    fit = make_pairs(net, "head", generator, 5000, rng=10 * seed)
    held = make_pairs(net, "head", generator, 1000, rng=10 * seed + 1)
    links = {}
    for variant in ("linear", "per_class", "fourier_features"):
        link = LatentLink(variant).fit(fit.representations, fit.latents, fit.classes, manifest=fit.manifest)
        found = link.audit(held, fit, encoder=Encoder(net, "head"), generator=generator, real=real)
        links[variant] = link
        print(
            f"  {variant}: R2w {shown(found.r2_within)}, shuffled {found.shuffled_within:.3f}; agreement generated "
            f"{shown(found.generated)}, real {shown(found.real)}; cycle R2 {found.cycle_r2:.3f}; {found.trust}",
            flush=True,
        )
    units = LinkedUnitVisualization(net, "head", generator, links["linear"])
    stream = torch.Generator().manual_seed(10 * seed + 2)
    latents = generator.sample_latents(30, torch.arange(30) % 10, 0.7, generator=stream).detach()
    inputs = images_in_unit_range(generator, latents).detach().clamp(0, 1)
    alive = links["linear"].alive.nonzero()[:, 0].tolist()
    for direction, mode, span in SWEEPS:
        swept = [s.fidelity for s in units.sweeps(inputs, alive, span, steps=5, mode=mode, direction=direction)]
        first, rho = (sum(values) / len(swept) for values in ([s.moves_most for s in swept], [s.rho for s in swept]))
        flips = sum(s.flips for s in swept) / len(swept)
        told = f"{direction}, {mode}, {span}"
        print(f"  {told:32s} top-1 {first:.2f}, Spearman {rho:.2f}, flips {flips:.2f} ({len(swept)} units)", flush=True)


if __name__ == "__main__":
    main()
