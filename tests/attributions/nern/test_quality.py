"""A small network that knows bars, written by a smaller one: the benchmark's claims, in seconds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.nern import NeRN


def bars(count, seed):
    """8 x 8 pictures of one bar, across or down, in one of four places, in noise."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 8
    pictures = 0.3 * torch.rand(count, 1, 8, 8, generator=stream)
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        place = 2 * (label % 4)
        (picture[0, place] if label < 4 else picture[0, :, place]).add_(0.5)
    return pictures, labels


def accuracy(model, images, labels):
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


@pytest.fixture(scope="module")
def known():
    images, labels = bars(400, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 8))
        adam = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(80):
            rows = torch.randperm(400)[:64]
            adam.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            adam.step()
    return model.eval(), images


def test_accuracy_error_and_size_together(known):
    target, images = known
    pictures, labels = bars(400, 1)
    own = accuracy(target, pictures, labels)
    assert own >= 0.98
    errors = {}
    for kind in ("cross-filter", "none"):
        nern = NeRN(target, hidden=10, levels=6, permutation=kind)
        nern.fit(images, steps=120, batch_size=24, lr=1e-2, every=60, show_progress=False)
        report = nern.size_report(pictures)
        errors[kind] = report.relative_error
        if kind == "cross-filter":
            assert report.share <= 0.75 and report.total < report.target
            assert accuracy(nern.rebuild(), pictures, labels) >= own - 0.04
            assert report.agreement >= 0.96 and report.int8_agreement >= 0.99
    assert errors["cross-filter"] < errors["none"] < 1


def test_freer_permutations_err_less():
    """Kernels of one curve, out of order within each filter; in a tiny trained layer "in-filter" need not help."""
    stream = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 3, generator=stream)
    angle = torch.stack([torch.randperm(16, generator=stream) for _ in range(16)]) * torch.pi / 8
    layer, errors = nn.Conv2d(16, 16, 3), {}
    with torch.no_grad():
        layer.weight.copy_(0.2 * (angle.cos()[..., None, None] * one + angle.sin()[..., None, None] * other))
    for kind in ("cross-filter", "in-filter", "none"):
        nern = NeRN(layer, hidden=16, levels=10, permutation=kind)
        errors[kind] = nern.fit(None, steps=100, lr=1e-2, show_progress=False).report.relative_error
    assert errors["cross-filter"] < 0.5 * errors["in-filter"] and errors["in-filter"] < 0.98 * errors["none"]


def test_without_data(known):
    target, _ = known
    pictures, labels = bars(400, 1)
    nern = NeRN(target, hidden=16, levels=6)
    nern.fit("noise", steps=200, lr=1e-2, every=50, batch_size=24, noise_shape=(1, 8, 8), show_progress=False)
    assert accuracy(nern.rebuild(), pictures, labels) >= 0.85
