"""End-to-end test on handwritten digits in seconds: pairs, links, audits, and links that must fail."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xinc_captum.attributions.linking import Encoder, LatentLink, make_pairs
from xinc_captum.generators import EigenGenerator

datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn (extra analysis)")


@pytest.fixture(scope="module")
def digits():
    bunch = datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(bunch.target)
    stream = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.no_grad():
        for layer in (net[1], net[3], net[5]):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=stream) * layer.in_features**-0.5)
            layer.bias.zero_()
    train = torch.arange(len(images)) % 4 > 0
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(300):
        rows = train.nonzero()[:, 0][torch.randint(int(train.sum()), (64,), generator=stream)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
        optimizer.step()
    net.eval()
    eigen = EigenGenerator(images[train], labels[train], components=24)
    fit, held = (make_pairs(net, "5", eigen, n, rng=seed, batch_size=256) for n, seed in ((1500, 0), (300, 1)))
    return SimpleNamespace(
        net=net, eigen=eigen, fit=fit, held=held, real=images[~train], encoder=Encoder(net, "5"), labels=labels[~train]
    )


def linked(digits, variant, pairs=None):
    pairs = pairs or digits.fit
    return LatentLink(variant, features=512).fit(
        pairs.representations, pairs.latents, pairs.classes, manifest=pairs.manifest
    )


def audit(digits, link, held=None, fit=None, **more):
    return link.audit(
        held or digits.held, fit or digits.fit, encoder=digits.encoder, generator=digits.eigen, real=digits.real, **more
    )


def test_the_numbers(digits):
    found = audit(digits, linked(digits, "per_class"))
    assert found.generated.value >= 0.97
    assert found.r2_within.value >= 0.4
    assert found.shuffled_within <= 0.05
    assert found.real.value >= 0.9
    assert found.cycle_r2 > 0.9
    assert found.leaked == found.duplicates == 0
    assert str(found.trust).startswith("holds, because")


def test_one_map_for_all_explains_within_classes_what_the_order_of_classes_does_not(digits):
    found = audit(digits, linked(digits, "linear"), ceiling=True, search_rows=8)
    assert found.generated.value >= 0.97
    assert found.r2_within.value - max(found.shuffled_within, 0) >= 0.4
    # On digits the classes' own order says something of the order within them: a line through shuffled pairs keeps it.
    assert found.shuffled_within <= 0.2
    assert found.mlp_r2_within > 0.4
    assert found.search_cycle_r2 > found.search_from
    assert found.searched == 8
    bent = audit(digits, linked(digits, "fourier_features"))
    assert bent.r2_within.value > found.r2_within.value
    assert bent.r2_within.value - max(bent.shuffled_within, 0) >= 0.4
    assert found.order.between_p < 0.05
    assert found.order.within_p < 0.05
    assert found.left_out_r2 == pytest.approx(found.r2.value, abs=0.03)


def test_class_means_fool_agreement_and_not_the_verdict(digits):
    means = torch.stack([digits.fit.latents[digits.fit.classes == c].mean(0) for c in range(10)])
    noise = 0.01 * torch.randn(len(digits.fit), 24, generator=torch.Generator().manual_seed(0))
    blind = replace(digits.fit, representations=only_class(digits.fit), latents=means[digits.fit.classes] + noise)
    held = replace(digits.held, representations=only_class(digits.held))
    link = LatentLink().fit(blind.representations, blind.latents, blind.classes)
    found = link.audit(held, blind, encoder=digits.encoder, generator=digits.eigen)
    assert found.generated.value >= 0.97
    assert found.r2.value > 0.5
    assert found.r2_within.value < 0.05
    assert found.class_mean_agreement == 1
    assert found.trust.verdict == "fails"
    assert "within classes it explains nothing" in found.trust.because


def only_class(pairs):
    return 9.0 * nn.functional.one_hot(pairs.classes, 128).float()


def test_leaked_pairs_are_reported_in_the_verdict(digits):
    link = linked(digits, "per_class")
    found = audit(digits, link, held=digits.fit.take(torch.arange(0, 1500, 5)))
    assert found.leaked == 1
    assert "100% of the held-out pairs were in the fit" in found.trust.because


def test_repeated_pairs_are_counted(digits):
    twice = digits.fit.take(torch.arange(1500).repeat(2))
    assert audit(digits, linked(digits, "linear", twice), fit=twice).duplicates == 0.5


def test_without_fit_and_pictures_it_is_weak_at_most(digits):
    found = linked(digits, "per_class").audit(digits.held)
    assert found.trust.verdict == "weak"
    assert "no fitted pairs were given" in found.trust.because
    assert "no real pictures were looked at" in found.trust.because
    assert found.generated is None


def test_saving_restores_the_model_state(digits, tmp_path, found):
    record = found(digits.net)
    result = audit(digits, linked(digits, "linear"))
    assert record.differences(digits.net) == []
    result.save(tmp_path / "audit")
    told = json.loads((tmp_path / "audit" / "manifest.json").read_text())["audit"]
    assert told["trust"]["verdict"] in ("holds", "weak")
    assert told["r2_within"]["value"] == result.r2_within.value
    assert told["manifest"]["layer"] == "5"
    assert (tmp_path / "audit" / "units.safetensors").exists()
    assert len(result.to_dict()["unit_cycle"]) == 128
