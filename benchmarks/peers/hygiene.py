"""Check what a call changes in the caller's model and process, and whether the first image is the seed image.

python hygiene.py LIBRARY [--rows-only]      (with the Python of the library's environment)
"""

import argparse
import math
import random
import warnings

import numpy as np
import torch
from libraries import LIBRARIES, label
from torch import nn

COLUMNS = [
    "library", "user's hook still fires", "no hooks left", "requires_grad restored", ".grad of weights restored",
    "buffers restored", "train/eval flags restored", "random state restored", "error inside the model is raised",
    "… hooks restored", "… flags restored", "65×65", "48×64", "first image − seed, PSNR",
]  # fmt: skip


class Net(nn.Module):
    """A classifier that can be made to fail in its n-th forward pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.drop, self.conv2, self.fc = nn.Dropout(0.0), nn.Conv2d(8, 8, 3, stride=2), nn.Linear(8, 10)
        self.fails_after = math.inf

    def forward(self, x):
        self.fails_after -= 1
        if self.fails_after < 0:
            raise RuntimeError("out of paper")
        x = self.drop(self.relu(self.norm(self.conv1(x))))
        return self.fc(torch.relu(self.conv2(x)).mean((-2, -1)))


def picture(height, width, low=0.1, high=0.9):
    """Return smooth waves with some grain."""
    drawn = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 10
    waves = np.stack([np.sin(x + k) * np.cos(y - k) for k in range(3)]) + 0.3 * drawn.standard_normal(
        (3, height, width)
    )
    waves = (waves - waves.min()) / (waves.max() - waves.min())
    return torch.tensor(low + (high - low) * waves, dtype=torch.float32)


def found(model):
    """Return the state that a caller expects to be restored."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "hooks": {(name, kind, key) for name, m in model.named_modules() for kind in kinds for key in getattr(m, kind)},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "buffers": [b.tolist() for b in model.buffers()],
        "training": [m.training for m in model.modules()],
        "random": (torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2], random.getstate()),
    }


def case():
    """Return a typical model: a hook, one frozen weight, gradients, statistics, one module in training mode."""
    model, calls = Net().eval(), []
    model.relu.register_forward_hook(lambda *_: calls.append(1))
    model.drop.train()
    model.conv1.weight.requires_grad_(False)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5) if p.requires_grad else None
    model.norm.running_mean.fill_(0.1)
    return model, calls


def yes(value):
    return "yes" if value else "**no**"


def psnr(image, seed):
    return -10 * math.log10(max(float((image - seed).square().mean()), 1e-20))


def after_success(accentuate):
    model, calls = case()
    before = found(model)
    accentuate(model, picture(64, 64), steps=3, canvas=(64, 64), view=32, layer="relu")
    after = found(model)
    calls.clear()
    model(torch.rand(1, 3, 32, 32))
    same = [yes(before[k] == after[k]) for k in ("requires_grad", "grad", "buffers", "training", "random")]
    return [yes(calls), yes(not after["hooks"] - before["hooks"]), *same]


def after_failure(accentuate):
    model, _ = case()
    before, told = found(model), "no error"
    model.fails_after = 3
    try:
        accentuate(model, picture(64, 64), steps=6, canvas=(64, 64), view=32, layer="relu")
    except Exception as error:
        told = "yes" if "out of paper" in str(error) else f"**no**, {type(error).__name__}: {str(error)[:40]}…"
    after = found(model)
    flags = all(before[k] == after[k] for k in ("requires_grad", "training"))
    return [told, yes(before["hooks"] == after["hooks"]), yes(flags)]


def of_size(accentuate, height, width):
    """Check whether an image is returned in its own size and starts as itself."""
    seed = picture(height, width)
    try:
        first, last = accentuate(Net().eval(), seed, steps=1, canvas=(height, width), view=32)
    except Exception as error:
        return f"**no**, {type(error).__name__}"
    if last.shape != seed.shape:
        return f"**no**, {last.shape[-2]}×{last.shape[-1]}"
    return "yes" if psnr(first, seed) > 30 else f"**no**, other content ({psnr(first, seed):.0f} dB)"


def fidelity(accentuate):
    """Compare the image before any update with a seed whose values lie in [0.4, 0.6]."""
    seed = picture(64, 64, 0.4, 0.6)
    first, _ = accentuate(Net().eval(), seed, steps=1, canvas=(64, 64), view=32)
    return "equal" if torch.equal(first, seed) else f"{psnr(first, seed):.0f} dB"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--rows-only", action="store_true")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    accentuate = LIBRARIES[chosen.library]
    if not chosen.rows_only:
        print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    sizes = [of_size(accentuate, 65, 65), of_size(accentuate, 48, 64)]
    row = [*after_success(accentuate), *after_failure(accentuate), *sizes, fidelity(accentuate)]
    print("| " + " | ".join([label(chosen.library), *row]) + " |")


if __name__ == "__main__":
    main()
