"""Pairs belong together, none comes twice, retries go on in one stream, and an end is always reached."""

import pytest
import torch
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking import Encoder, make_pairs
from xinc_captum.generators import EigenGenerator, from_callable, normal_latents


class Bright(nn.Module):
    """Class 1 where the mean of the picture is above a level."""

    def __init__(self, level=0.5):
        super().__init__()
        self.flat, self.level = nn.Flatten(), level
        self.out = nn.Linear(4, 2)
        with torch.no_grad():
            self.out.weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
            self.out.bias.copy_(torch.tensor([8 * level, 0.0]))

    def forward(self, x):
        return self.out(self.flat(x))


@pytest.fixture
def eigen():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = (0.3 * torch.rand(60, 1, 2, 2, generator=generator) + 0.2 + 0.3 * labels[:, None, None, None]).clamp(0, 1)
    return EigenGenerator(images, labels, components=4)


def test_pairs_belong_together_and_balance(eigen, found):
    model = Bright().eval()
    record = found(model)
    pairs = make_pairs(model, "out", eigen, 41, truncation=1.0, batch_size=7)
    assert record.differences(model) == []
    assert len(pairs) == 41
    torch.testing.assert_close(pairs.representations, Encoder(model, "out")(eigen.synthesize(pairs.latents)))
    assert torch.equal(pairs.logits.argmax(1), pairs.classes)
    assert pairs.classes.bincount().tolist() == [21, 20]
    assert len(pairs.latents.unique(dim=0)) == 41
    assert 0.5 < pairs.kept <= 1
    told = pairs.manifest
    assert (told["layer"], told["truncation"], told["classes"], told["seed"]) == ("out", 1.0, [0, 1], 0)
    assert len(told["model_sha256"]) == len(told["generator_sha256"]) == 64


def test_a_generator_in_training_is_left_as_found(found):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).train()
    paint = from_callable(lambda w: net(w + torch.rand_like(w)).view(-1, 1, 2, 2), normal_latents(4))
    model, record = Bright().eval(), found(net)
    make_pairs(model, "out", paint, 10)
    assert record.differences(net) == []


def test_seeds_and_streams(eigen):
    model = Bright().eval()
    first, again, other = (make_pairs(model, "out", eigen, 12, rng=seed) for seed in (3, 3, 4))
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents, other.latents)
    stream = torch.Generator().manual_seed(3)
    assert torch.equal(make_pairs(model, "out", eigen, 12, rng=stream).latents, first.latents)
    assert not torch.equal(make_pairs(model, "out", eigen, 12, rng=stream).latents, first.latents)


def test_rejected_pictures_are_replaced_by_new_ones(eigen):
    model = Bright(level=0.68).eval()  # turns most of class 1 away
    pairs = make_pairs(model, "out", eigen, 60, truncation=1.0, max_attempts=100)
    assert pairs.kept < 0.9
    assert len(pairs.latents.unique(dim=0)) == 60
    assert (pairs.classes == 1).sum() == 30
    kept = make_pairs(model, "out", eigen, 60, keep_class=False)
    assert kept.kept == 1


def test_the_end_is_always_reached_and_says_what_was_found(eigen):
    with pytest.raises(
        ValueError, match=r"60 pictures gave 10 of 20 pairs \(10 of 10 of class 0, 0 of 10 of class 1\)"
    ):
        make_pairs(Bright(level=9.0).eval(), "out", eigen, 20, max_attempts=3, batch_size=64)
    with pytest.raises(ValueError, match=r"80 pictures gave 2 of 4 pairs.*at truncation 0 a class has one"):
        make_pairs(Bright().eval(), "out", eigen, 4, truncation=0.0)


def test_a_generator_without_classes():
    paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    pairs = make_pairs(Bright().eval(), "out", paint, 30)
    assert torch.equal(pairs.classes, pairs.logits.argmax(1))
    assert pairs.manifest["classes"] == []
    with pytest.raises(ValueError, match="class 1 is not one of the generator's: it knows no classes"):
        make_pairs(Bright().eval(), "out", paint, 30, classes=[1])


def test_what_it_refuses(eigen):
    model = Bright().eval()
    for call, text in (
        (lambda: make_pairs(model, "out", eigen, 0), "n is 0; wanted at least 1"),
        (lambda: make_pairs(model, "out", eigen, 4, max_attempts=0), "max_attempts is 0"),
        (
            lambda: make_pairs(model, "out", eigen, 4, classes=[2]),
            "class 2 is not one of the generator's: it knows 0 to 1",
        ),
        (lambda: make_pairs(model, "out", eigen, 4, classes=[]), "wanted at least one, each once"),
        (lambda: make_pairs(model, "out", eigen, 4, classes=[1, 1]), "wanted at least one, each once"),
        (lambda: make_pairs(model, "out", _lying((0.0, 0.1)), 4), "but its image_range says"),
        (lambda: make_pairs(model, "out", _lying((0.0, 1.0), torch.nan), 4), "sampled latents of shape"),
        (
            lambda: make_pairs(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), "1", eigen, 4),
            "class 1 was drawn, but the model scores 1 classes",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def _lying(image_range, factor=1.0):
    return from_callable(
        lambda w: w.view(-1, 1, 2, 2).sigmoid(),
        lambda n, classes=None, truncation=1.0, *, generator=None: factor * torch.rand(n, 4, generator=generator),
        image_range,
    )


def test_a_link_with_the_manifest_reads_the_side_that_the_pairs_are_of(eigen):
    """What enters and what leaves this layer is of one size, so the wrong side would be a silent mistake."""
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    for at_input in (True, False):
        pairs = make_pairs(model, "2", eigen, 40, keep_class=False, attribute_to_neuron_input=at_input)
        fit, _ = pairs.split()
        link = LatentLink().fit(fit.representations, fit.latents, manifest=fit.manifest)
        x = eigen.synthesize(fit.latents[:2])
        found = LinkedUnitVisualization(model, "2", eigen, link).sweep(x, 1, mode="replace")
        torch.testing.assert_close(found.own, fit.representations[:2, 1].to(found.own))
