"""What a TransINR reaches on small pictures it was not fitted to, against everything that a fit from scratch reaches.

    python benchmarks/trans_inr.py [--data digits|mnist|fashion] [--seeds 2] [--steps 1000] [--short 400] [--threads 1] [--folder FOLDER]

"digits" are scikit-learn's at 8 x 8: the first 1,500 to fit (a tenth of them to look at), the last 297 to judge by.
"mnist" are 5,000 at 28 x 28, every tenth to judge by. "fashion" are the first 4,500 of Fashion-MNIST's own training pictures and the first
500 of its own test pictures, 28 x 28 too; FOLDER holds its files where Debian's package dataset-fashion-mnist is not installed.
CPU seconds of this process. "+10" means ten more Adam steps on each picture's own network; the rates of all such steps are fixed below,
not searched for each row.
"""

import argparse
import copy
import time

import torch
import torch.nn.functional as F

from xinc_captum import TokenContribution
from xinc_captum.attributions.trans_inr import (
    TransINR,
    fine_tune,
    identical_inits,
    independent_inits,
    mean_psnr,
    neuron_canvases,
)
from xinc_captum.attributions.trans_inr.shares import flatten_modulations, unflatten_modulations
from xinc_captum.metrics import correspondence, region_agreement, region_use
from xinc_captum.zoo import fashion_mnist, mnist_digits

WARM, SCRATCH = 3e-3, 1e-2  # rates of Adam after generation, and from random weights
STARTED = 64  # pictures of the rows that fit networks one by one
COMPARED = 24  # pictures whose neurons are compared
QUADRANTS = 2
LARGER = {"size": (28, 28), "patch": 4, "count": 8, "highest": 14.0, "dim": 64}  # 14 periods are all 28 pixels can show


def digits():
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    return images[:1500], images[1500:], {}


def mnist():
    images = mnist_digits().images
    held_out = torch.arange(len(images)) % 10 == 0
    return images[~held_out], images[held_out], LARGER


def fashion(folder):
    return fashion_mnist(folder=folder).images[:4500], fashion_mnist("t10k", folder=folder).images[:500], LARGER


def timed(function, *args, **settings):
    start = time.process_time()
    result = function(*args, **settings)
    return result, time.process_time() - start


def judged(model, images, seen=None):
    with torch.no_grad():
        return mean_psnr(model(images, seen), images)


def reptile(model, images, rounds, inner=10, seed=0):
    """One start for all pictures: moved towards where ten steps from it lead (Nichol et al., arXiv 1803.02999)."""
    generator = torch.Generator().manual_seed(seed)
    start = identical_inits(model, 1, seed=seed)[0]
    for k in range(rounds):
        batch = images[torch.randint(len(images), (32,), generator=generator)]
        ends = fine_tune([start] * len(batch), batch, inner, SCRATCH).inrs
        with torch.no_grad():
            for name, parameter in start.named_parameters():
                mean = torch.stack([end.get_parameter(name) for end in ends]).mean(0)
                parameter += (1 - k / rounds) * (mean - parameter)
    return start


def steps_from(model, images, base, say):
    """Decibels after some steps from four starts."""
    starts = {
        "written by the transformer": (model.generate(images), WARM),
        "Reptile's start": ([copy.deepcopy(base) for _ in images], SCRATCH),
        "one random start": (identical_inits(model, len(images)), SCRATCH),
        "random starts": (independent_inits(model, len(images)), SCRATCH),
    }
    table = {}
    for name, (inrs, lr) in starts.items():
        table[name] = [fine_tune(inrs, images, steps, lr).psnr for steps in (0, 5, 10, 20, 50)]
        say(f"  {name:28s} +0 / 5 / 10 / 20 / 50 steps: " + " / ".join(f"{dB:5.1f}" for dB in table[name]) + " dB")
    gain = table["written by the transformer"][2] - table["random starts"][2]
    say(f"  written and 10 steps, above 10 steps from scratch: {gain:+.1f} dB (expected +10)")


def neurons(model, images, say):
    """Whether a neuron of the last hidden layer finds itself in other pictures' networks, with two controls."""
    size = tuple(images.shape[2:])
    half = torch.zeros(QUADRANTS * QUADRANTS, *size)
    for r in range(4):
        half[r, (r // 2) * size[0] // 2 :][: size[0] // 2, (r % 2) * size[1] // 2 :][:, : size[1] // 2] = 1
    rows = {
        "written by the transformer": model.generate(images),
        "written before any fit": TransINR(**model.config, seed=99).generate(images),
        "one random start, 100 steps": fine_tune(identical_inits(model, len(images)), images, 100, SCRATCH).inrs,
        "random starts, 100 steps": fine_tune(independent_inits(model, len(images)), images, 100, SCRATCH).inrs,
    }
    for layer in (-2, -3):
        for name, inrs in rows.items():
            with torch.no_grad():
                canvases = neuron_canvases(inrs, size, layer)
            found = correspondence(canvases)
            use = region_agreement(region_use(canvases, half))
            say(
                f"  layer {layer}, {name:28s} retrieval@1 {found.retrieval:.3f} (chance {found.chance:.3f}; cosine same "
                f"{found.same:+.2f}, other {found.other:+.2f}), quadrants served alike {float(use.mean()):+.2f}"
            )


def against_gradient(model, images, say):
    """Whether a picture's modulations lie where a step of gradient descent from the mean ones would go."""
    with torch.no_grad():
        change = flatten_modulations(model.modulations(images)) - flatten_modulations(
            tuple(m[None] for m in model.mean_modulations)
        )
    start = (
        flatten_modulations(tuple(m[None] for m in model.mean_modulations)).repeat(len(images), 1).requires_grad_(True)
    )
    drawn = model.paint(model.weights(unflatten_modulations(model, start)), tuple(images.shape[2:]))
    (gradient,) = torch.autograd.grad(F.mse_loss(drawn, images, reduction="sum"), start)
    parts = [m.numel() for m in model.mean_modulations]
    rolled = torch.roll(gradient, 1, 0)
    for name, a, b, c in zip(
        model.writer.names, change.split(parts, 1), gradient.split(parts, 1), rolled.split(parts, 1), strict=True
    ):
        own, other = (float(F.cosine_similarity(a, -g).mean()) for g in (b, c))
        say(
            f"  {name}: cosine of the modulation's change with minus the gradient {own:+.3f}, another picture's {other:+.3f}"
        )


def few_patches(train, test, arguments, seed, steps, say):
    """A model trained on parts of pictures, given all, a quarter and a twentieth of the patches."""
    sparse = TransINR(**arguments, seed=seed)
    _, seconds = timed(sparse.fit, train, steps=steps, keep=0.05, seed=seed, show_progress=False)
    images, size = test[:STARTED], tuple(test.shape[2:])
    rows, columns = sparse.tokens.grid(size)
    say(f"  fitted on random parts, {steps} steps, {seconds:.0f} CPU s")
    for share in (1.0, 0.25, 0.05):
        generator = torch.Generator().manual_seed(seed)
        count = max(round(share * rows * columns), 1)
        seen = torch.rand(len(images), rows * columns, generator=generator).argsort(1).argsort(1) < count
        patch = sparse.tokens.patch
        pixels = seen.reshape(-1, rows, columns).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        written = fine_tune(sparse.generate(images, seen), images, 0).psnr
        scratch = [
            fine_tune(independent_inits(sparse, len(images)), images, n, SCRATCH, mask=pixels).psnr
            for n in (10, 50, 200)
        ]
        say(
            f"  {count} of {rows * columns} patches: {written:.1f} dB; the same network from scratch on the same pixels, 10 / 50 / "
            f"200 steps: {' / '.join(f'{dB:.1f}' for dB in scratch)} dB"
        )


def gaps(model, images, say):
    """How far integrated parts miss the change that they explain, and how long a picture takes."""
    for level in ("token", "modulation", "patch"):
        method = TokenContribution(model, level)
        for steps in (8, 64) if level != "token" else (1,):
            parts, seconds = timed(method.attribute, images, n_steps=steps)
            with torch.no_grad():
                drawn = model(images)
            change = drawn - parts[:, -1]
            gap = float((parts.sum(1) - drawn).abs().sum() / change.abs().sum())
            say(
                f"  {level}, {steps} steps: gap {100 * gap:.4f} % of the change, {seconds / len(images):.2f} CPU s a picture"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "mnist", "fashion"), default="digits")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--short", type=int, default=400, help="steps of the rows that fit further models")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where Fashion-MNIST's files are, if not where Debian's package puts them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    read = {"digits": digits, "mnist": mnist, "fashion": lambda: fashion(options.folder)}
    train, test, arguments = read[options.data]()

    def say(line):
        print(line, flush=True)

    flat_picture = mean_psnr(train.mean(0).expand_as(test), test)
    say(
        f"{options.data}: {len(train)} pictures to fit, {len(test)} held out; the mean picture reaches {flat_picture:.2f} dB on these"
    )
    for seed in range(options.seeds):
        model = TransINR(**arguments, seed=seed)
        fit, seconds = timed(model.fit, train, steps=options.steps, seed=seed, show_progress=False)
        count = sum(p.numel() for p in model.parameters())
        dB = judged(model, test)
        say(
            f"seed {seed}: {dB:.2f} dB held out ({dB - flat_picture:+.2f} above the mean picture, expected +8), validation "
            f"{fit.psnr:.2f}, {count:,} parameters, {fit.steps} steps, {seconds:.0f} CPU s (expected <= 180 on digits)"
        )
        base, spent = timed(reptile, model, train, 100, seed=seed)
        say(f"  Reptile: 100 rounds of 32 pictures and 10 steps, {spent:.0f} CPU s")
        steps_from(model, test[:STARTED], base, say)
        neurons(model, test[:COMPARED], say)
        against_gradient(model, test[:STARTED], say)
        few_patches(train, test, arguments, seed, options.short, say)
        gaps(model, test[: 4 if test.shape[-1] == 8 else 1], say)  # 49 patches at 64 steps take half a minute a picture
    say(f"groups, seed 0, {options.short} steps each:")
    for groups in (1, 4, 16, 32, "vector"):
        model = TransINR(**arguments, groups=groups, seed=0)
        _, seconds = timed(model.fit, train, steps=options.short, show_progress=False)
        count = sum(p.numel() for p in model.parameters())
        say(
            f"  {groups!s:>6}: {judged(model, test):.2f} dB, {len(model.writer.tokens)} weight tokens, {count:,} parameters, {seconds:.0f} CPU s"
        )


if __name__ == "__main__":
    main()
