import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError
from xinc_captum.attributions.accentuation import Crops
from xinc_captum.attributions.accentuation.lucent import from_lucent, from_string, is_lucent
from xinc_captum.attributions.accentuation.objectives import channel
from xinc_captum.attributions.accentuation.reading import Reader


@pytest.fixture
def theirs():
    return pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")


@pytest.fixture
def seen():
    """Two views of three images."""
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    return Reader(net).read(torch.rand(6, 4, 3, 3), (), [net[0]], whole=True)


def test_its_objectives_are_known_by_their_package(theirs):
    assert is_lucent(theirs.channel("0", 1))
    assert not is_lucent(channel("0", 1)) and not is_lucent("0:1") and not is_lucent(lambda seen: seen)


def test_a_sum_of_two(theirs, seen):
    ours = from_lucent(theirs.channel("0", 1) + theirs.neuron("0", 2), rows=3)
    assert ours.name == "lucent channel, neuron"
    activation = seen("0")
    for view in (0, 1):
        part = activation[3 * view : 3 * view + 3]
        expected = part[:, 1].mean() + part[:, 2, 1, 1].mean()
        torch.testing.assert_close(ours(seen)[3 * view : 3 * view + 3], expected.expand(3))


def test_diversity_compares_images_not_views(theirs, seen):
    objective = theirs.diversity("0")
    ours = from_lucent(objective, rows=3)(seen)
    for view in (0, 1):
        torch.testing.assert_close(ours[3 * view], -objective(seen.part(slice(3 * view, 3 * view + 3))))


def test_strings(seen):
    torch.testing.assert_close(from_string("0:2")(seen), seen("0")[:, 2].mean((1, 2)))
    for wrong in ("fc", "0:", ":3", "0:x", "0:-1"):
        with pytest.raises(ValueError, match=f"objective '{wrong}' is not understood; wanted \"layer:unit\" such as"):
            from_string(wrong)


NET = nn.Sequential(
    nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
)


@pytest.fixture
def changes():
    return pytest.importorskip("lucent.optvis.transform", reason="pip install torch-lucent")


@pytest.fixture
def parameters():
    return pytest.importorskip("lucent.optvis.param", reason="pip install torch-lucent")


@pytest.mark.parametrize("kind", ["jitter", "pad", "scale", "rotate", "list", "composed", "after crops"])
def test_its_transforms_show_candidate_and_seed_alike(changes, kind):
    """At the first step the candidate is the seed, so their distance is zero; cutting the batch changes nothing."""
    transforms = {
        "jitter": [changes.jitter(8)],
        "pad": [changes.pad(5)],
        "scale": [changes.random_scale([0.8, 0.9, 1.0, 1.1, 1.2])],
        "rotate": [changes.random_rotate(list(range(-20, 21)))],
        "list": changes.standard_transforms,
        "composed": [changes.compose(changes.standard_transforms)],
        "after crops": [Crops(2), changes.jitter(4), changes.random_rotate([-5, 5])],
    }[kind]
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    options = {"n_steps": 2, "transforms": transforms, "seed": 3}
    found = FeatureAccentuation(NET).accentuate(x, [1, 2], **options)
    torch.testing.assert_close(found.distances[0], torch.zeros(2), atol=1e-6, rtol=0)
    assert found.images.shape == x.shape and (found.images != x).any()
    assert torch.equal(found.images, FeatureAccentuation(NET).perturb(x, [1, 2], **options))
    cut = FeatureAccentuation(NET).perturb(x, [1, 2], internal_batch_size=1, **options)
    torch.testing.assert_close(cut, found.images, atol=1e-4, rtol=0)  # 2 steps of lr .03; rounding by batch size


def test_its_transforms_suit_a_model_of_one_size(changes):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    found = FeatureAccentuation(flat, size=16).accentuate(
        torch.rand(1, 3, 24, 24), 1, n_steps=2, transforms=changes.standard_transforms
    )
    assert found.after > found.before


@pytest.mark.parametrize("kind", ["cppn", "fft", "pixel", "correlated", "two"])
@pytest.mark.parametrize("optimizer", [None, torch.optim.Adam])
def test_its_parameterizations_with_any_optimizer(parameters, kind, optimizer):
    rows = 2 if kind == "two" else 1
    param_f = {
        "cppn": lambda: parameters.cppn(12),
        "fft": lambda: parameters.image(12),
        "pixel": lambda: parameters.image(12, fft=False),
        "correlated": lambda: parameters.image(12, decorrelate=False),
        "two": lambda: parameters.image(12, batch=2),
    }[kind]
    options = {} if optimizer is None else {"optimizer": optimizer}
    options |= {"n_steps": 6, "lr": 0.003 if kind == "cppn" else 0.03, "transforms": (), "parameterization": param_f}
    method = FeatureAccentuation(NET)
    found = method.accentuate(None, "1:2", shape=(rows, 3, 12, 12), **options)
    assert found.images.shape == (rows, 3, 12, 12)
    assert (found.after > found.scores[0]).all()
    again = method.accentuate(None, "1:2", shape=(rows, 3, 12, 12), **options)
    assert torch.equal(again.images, found.images), "one seed, one result"


def test_a_parameterization_of_other_images(parameters):
    method = FeatureAccentuation(NET)
    with pytest.raises(
        ValueError, match=r"draws images of shape \(1, 3, 12, 12\) on cpu; wanted as many images and chan"
    ):
        method.accentuate(None, "1:2", shape=(2, 3, 12, 12), n_steps=1, parameterization=lambda: parameters.image(12))
    two = lambda: parameters.image(12, batch=2)
    with pytest.raises(ValueError, match="internal_batch_size cuts the batch; leave it out"):
        method.accentuate(None, "1:2", shape=(2, 3, 12, 12), n_steps=1, parameterization=two, internal_batch_size=1)
    with pytest.raises(ValueError, match=r"the parameterization draws a torch.float32 \(3, 4\); wanted float images"):
        leaf = torch.zeros(3, 4, requires_grad=True)
        method.accentuate(None, "1:2", shape=(1, 3, 4, 4), parameterization=lambda: ([leaf], lambda: leaf))


class Last(nn.Module):
    """Maps (N, h, w, channels)."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    def forward(self, x):
        return self.block(x.permute(0, 2, 3, 1)).mean((1, 2))


def test_channels_on_the_last_axis_are_asked_about():
    """An objective that takes channel 2 from axis 1, as Lucent's do."""
    net, x = Last(), torch.rand(2, 3, 5, 6)
    objective = from_lucent(lambda model: -model("block")[:, 2].mean(), 1)
    score = lambda axis: objective(Reader(net, unit_axis=axis).read(x, (), [net.block], whole=True))
    with pytest.raises(LayerError, match=r"returns shape \(2, 5, 6, 4\) with its units on the last axis, and Lucent's"):
        score(None)
    a = net.block(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(score(-1), a[..., 2].mean((1, 2)))
    torch.testing.assert_close(score(1), a[:, 2].mean((1, 2)))
