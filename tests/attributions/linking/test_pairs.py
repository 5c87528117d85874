"""Pairs: splitting, rejection sampling, and the limit of attempts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking import Encoder, Pairs, make_pairs
from xinc_captum.attributions.linking.pairs import ANY, PairSampler
from xinc_captum.generators import EigenGenerator, from_callable, normal_latents


def some(n=50):
    return Pairs(torch.rand(n, 3), torch.arange(n)[:, None].float(), torch.arange(n) % 5, torch.rand(n, 5), 1.0, {})


def test_split_is_class_by_class_and_complete():
    pairs = some()
    fit, held = pairs.split(0.2, seed=1)
    assert held.classes.bincount().tolist() == [2] * 5
    assert sorted([*fit.latents[:, 0].tolist(), *held.latents[:, 0].tolist()]) == list(range(50))
    assert torch.equal(pairs.split(0.2, seed=1)[1].latents, held.latents)
    assert not torch.equal(pairs.split(0.2, seed=2)[1].latents, held.latents)


def test_take():
    assert some().take(torch.tensor([4, 2])).latents[:, 0].tolist() == [4, 2]


def test_errors():
    with pytest.raises(ValueError, match="held_out is 1; expected a fraction between 0 and 1"):
        some().split(1)
    with pytest.raises(ValueError, match="leaves one side empty; make more pairs"):
        some(5).split(0.1)


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


def test_pairs_match_and_are_balanced(eigen, found):
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


def test_a_generator_in_training_mode_is_restored(found):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).train()
    paint = from_callable(lambda w: net(w + torch.rand_like(w)).view(-1, 1, 2, 2), normal_latents(4))
    model, record = Bright().eval(), found(net)
    make_pairs(model, "out", paint, 10)
    assert record.differences(net) == []


def test_seeds_and_streams(eigen):
    model = Bright().eval()
    first, again, other, of_numpy = (make_pairs(model, "out", eigen, 12, rng=seed) for seed in (3, 3, 4, np.int64(3)))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.latents, of_numpy.latents) and of_numpy.manifest == first.manifest
    for side, of_int in zip(first.split(seed=np.int64(5)), first.split(seed=5), strict=True):
        assert torch.equal(side.latents, of_int.latents)
    assert not torch.equal(first.latents, other.latents)
    stream = torch.Generator().manual_seed(3)
    assert torch.equal(make_pairs(model, "out", eigen, 12, rng=stream).latents, first.latents)
    assert not torch.equal(make_pairs(model, "out", eigen, 12, rng=stream).latents, first.latents)


def test_rejected_images_are_replaced_by_new_ones(eigen):
    model = Bright(level=0.68).eval()  # turns most of class 1 away
    pairs = make_pairs(model, "out", eigen, 60, truncation=1.0, max_attempts=100)
    assert pairs.kept < 0.9
    assert len(pairs.latents.unique(dim=0)) == 60
    assert (pairs.classes == 1).sum() == 30
    kept = make_pairs(model, "out", eigen, 60, keep_class=False)
    assert kept.kept == 1


def test_the_limit_of_attempts_raises_with_the_number_of_pairs(eigen):
    with pytest.raises(ValueError, match=r"60 images gave 10 of 20 pairs \(10 of 10 of class 0, 0 of 10 of class 1\)"):
        make_pairs(Bright(level=9.0).eval(), "out", eigen, 20, max_attempts=3, batch_size=64)
    with pytest.raises(ValueError, match=r"80 images gave 2 of 4 pairs.*at truncation 0 a class has one"):
        make_pairs(Bright().eval(), "out", eigen, 4, truncation=0.0)


def test_a_generator_without_classes():
    paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    pairs = make_pairs(Bright().eval(), "out", paint, 30)
    assert torch.equal(pairs.classes, pairs.logits.argmax(1))
    assert pairs.manifest["classes"] == []
    with pytest.raises(ValueError, match="class 1 is not one of the generator's: it has no classes"):
        make_pairs(Bright().eval(), "out", paint, 30, classes=[1])


def test_make_pairs_errors(eigen):
    model = Bright().eval()
    for call, text in (
        (lambda: make_pairs(model, "out", eigen, 0), "n is 0; expected at least 1"),
        (lambda: make_pairs(model, "out", eigen, 4, max_attempts=0), "max_attempts is 0"),
        (
            lambda: make_pairs(model, "out", eigen, 4, classes=[2]),
            "class 2 is not one of the generator's: it has the classes 0 to 1",
        ),
        (lambda: make_pairs(model, "out", eigen, 4, classes=[]), "expected at least one, each once"),
        (lambda: make_pairs(model, "out", eigen, 4, classes=[1, 1]), "expected at least one, each once"),
        (lambda: make_pairs(model, "out", _lying((0.0, 0.1)), 4), "but its image_range is"),
        (lambda: make_pairs(model, "out", _lying((0.0, 1.0), torch.nan), 4), "sampled latents of shape"),
        (
            lambda: make_pairs(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), "1", eigen, 4),
            "images of class 1 were generated, but the model has 1 classes",
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


def test_a_link_with_a_manifest_uses_the_side_of_its_pairs(eigen):
    """What enters and what leaves this layer is of one size, so the wrong side would be a silent mistake."""
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    for at_input in (True, False):
        pairs = make_pairs(model, "2", eigen, 40, keep_class=False, attribute_to_neuron_input=at_input)
        fit, _ = pairs.split()
        link = LatentLink().fit(fit.representations, fit.latents, manifest=fit.manifest)
        x = eigen.synthesize(fit.latents[:2])
        result = LinkedUnitVisualization(model, "2", eigen, link).sweep(x, 1, mode="replace")
        torch.testing.assert_close(result.own, fit.representations[:2, 1].to(result.own))


def answering(classes=2):
    """A model that answers 1 where the picture's only pixel is above a half, and 0 below."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, classes))
    with torch.no_grad():
        net[1].weight.zero_()[-1] = 2.0
        net[1].bias.zero_()[0] = 1.0
    return Encoder(net.eval(), "1")


class Script:
    """Hands out latents, one pixel each, as written down, and remembers what it was asked for."""

    def __init__(self, *latents):
        self.latents, self.asked = iter(latents), []

    def __call__(self, n, classes, truncation, *, generator):
        self.asked.append(None if classes is None else classes.tolist())
        self.random = generator
        return torch.tensor(next(self.latents)).reshape(n, -1)


def stream(script, expected, keep_class=True, encoder=None):
    paint = from_callable(lambda w: w.view(-1, 1, 1, 1), script)
    return PairSampler(encoder or answering(), paint, expected, 0.7, torch.Generator(), keep_class)


def test_accepted_pairs_by_hand():
    script = Script([0.1, 0.6, 0.7, 0.8], [0.2, 0.1, 0.3, 0.9])
    own = stream(script, {0: 3, 1: 2})
    assert own.step(4) == 2
    assert script.asked == [[0, 0, 0, 1]], "three lack of class 0, two of class 1"
    assert own.missing == {0: 2, 1: 1}, "0.6 and 0.7 were drawn of class 0 and look like class 1"
    assert own.step(4) == 3
    assert script.asked[1] == [0, 0, 0, 1]
    assert own.missing == {}, "0.1 came again and was turned away"
    pairs = own.pairs({"seed": 4})
    assert pairs.latents.flatten().tolist() == pytest.approx([0.1, 0.8, 0.2, 0.3, 0.9])
    assert pairs.classes.tolist() == [0, 1, 0, 0, 1]
    assert torch.equal(pairs.representations, pairs.latents)
    assert torch.equal(pairs.logits.argmax(1), pairs.classes)
    assert (own.generated, pairs.kept, pairs.manifest) == (8, 5 / 8, {"seed": 4})
    assert script.random is own.random


def test_surplus_pairs_count_as_accepted_and_are_not_stored():
    own = stream(Script([0.1, 0.2, 0.3, 0.9]), {0: 1})
    assert own.step(4) == 1
    pairs = own.pairs({})
    assert (len(pairs), pairs.kept) == (1, 3 / 4)


def test_without_classes_the_prediction_is_the_class():
    script = Script([0.9, 0.1])
    own = stream(script, {ANY: 2})
    assert own.step(2) == 2
    assert script.asked == [None]
    assert own.pairs({}).classes.tolist() == [1, 0]


def test_without_keep_class_pairs_have_the_requested_class():
    own = stream(Script([0.9, 0.1, 0.2, 0.3]), {0: 2, 5: 2}, keep_class=False)
    assert own.step(4) == 4
    assert own.pairs({}).classes.tolist() == [0, 0, 5, 5], "also classes that the model does not score"


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 12), min_size=1), st.integers(1, 20))
def test_next_classes_are_in_proportion_to_missing_pairs(expected, size):
    own = PairSampler(None, None, expected, 1.0, torch.Generator(), True)
    whole = [c for c, count in expected.items() for _ in range(count)]
    if not whole:
        assert own.missing == {}
        return
    turns = own._next_classes(size)
    assert turns == [whole[place * len(whole) // size] for place in range(size)]
    for c, count in expected.items():
        assert abs(turns.count(c) - size * count / len(whole)) < 1


def test_the_error_text_for_too_many_attempts():
    checked = stream(Script([0.1, 0.2]), {0: 3, 1: 1})
    checked.step(2)
    assert checked.too_many_attempts().startswith(
        "2 images gave 2 of 4 pairs (2 of 3 of class 0, 0 of 1 of class 1), and "
    )
    assert (
        "Check that the model predicts these classes, lower truncation, or raise max_attempts, or check"
        in checked.too_many_attempts()
    )
    free = stream(Script([0.1, 0.1]), {ANY: 2})
    free.step(2)
    assert free.too_many_attempts() == (
        "2 images gave 1 of 2 pairs, and max_attempts allows no more. Raise max_attempts, or check whether latents "
        "repeat (at truncation 0 a class has one)."
    )


def test_pair_sampler_errors():
    with pytest.raises(
        ValueError,
        match=r"of shape \(2, 1\); expected finite \(2, latent_dim\). Check the generator with check_generator",
    ):
        stream(Script([0.1, float("nan")]), {0: 2}).step(2)
    paint = from_callable(lambda w: w.view(-1, 1, 1, 1), lambda n, *_, generator: torch.rand(n + 1, 1))
    with pytest.raises(ValueError, match=r"sampled latents of shape \(3, 1\); expected finite \(2, latent_dim\)"):
        PairSampler(answering(), paint, {0: 2}, 1.0, torch.Generator(), True).step(2)
    with pytest.raises(
        ValueError, match="images of class 5 were generated, but the model has 2 classes. .* the same class numbers"
    ):
        stream(Script([0.1]), {5: 1}).step(1)
