import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.nern import NeRN
from xinc_captum.attributions.nern.weight_contribution import WeightScores
from xinc_captum.batch import Batch


@pytest.fixture
def nern():
    torch.manual_seed(0)
    target = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(8, 3)).double().eval()
    return NeRN(target, hidden=6)


def batch_of(images, target=1):
    return Batch((images,), rows=len(images), target=target)


@pytest.fixture
def images():
    return torch.rand(4, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_scores_equal_those_of_the_rebuilt_network(nern, images):
    scores = WeightScores(nern, nern.layers, None)
    expected = nern.rebuild()(images)[:, 1]
    torch.testing.assert_close(scores.scores(scores.generated, batch_of(images), 3), expected)


def test_gradients_equal_finite_differences(nern, images):
    scores = WeightScores(nern, nern.layers, None)
    row = batch_of(images[:1])
    slopes = scores.gradients(scores.generated, row)
    for layer, slope in zip(nern.layers, slopes, strict=True):
        way = torch.randn_like(slope)
        near = [scores.generated | {layer.name: scores.generated[layer.name] + sign * 1e-5 * way} for sign in (-1, 1)]
        low, high = (float(scores.score(weights, row)) for weights in near)
        assert (high - low) / 2e-5 == pytest.approx(float((slope * way).sum()), rel=1e-6)


def test_integral_along_a_path_is_the_difference_of_its_ends(nern, images):
    scores = WeightScores(nern, nern.layers, None)
    row = batch_of(images[:1])
    mean = scores.average_gradients(lambda t: scores.shift(lambda weight, _: t * weight), row, 8)
    total = sum(float((m * scores.generated[one.name]).sum()) for m, one in zip(mean, nern.layers, strict=True))
    nothing = scores.shift(lambda weight, _: torch.zeros_like(weight))
    ends = scores.score(scores.generated, row) - scores.score(nothing, row)
    assert total == pytest.approx(float(ends), rel=1e-9), "two linear layers: the midpoint rule is exact"


def test_only_explained_layers_are_changed(nern):
    scores = WeightScores(nern, nern.layers[:1], None)
    shifted = scores.shift(lambda weight, _: weight * 0)
    assert not shifted["0"].any() and torch.equal(shifted["1"], scores.generated["1"])


def test_unused_layer_is_named(images):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.used(x).mean((2, 3))

    nern = NeRN(Idle().double().eval(), hidden=4)
    scores = WeightScores(nern, nern.layers, None)
    with pytest.raises(LayerError, match="does not depend on the weights of 'idle': the layer did not run"):
        scores.gradients(scores.generated, batch_of(images[:1]))
