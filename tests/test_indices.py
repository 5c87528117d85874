import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerContribution, NeuronCanvas, NeuronFeatureAccentuation
from xinc_captum.batch import Batch
from xinc_captum.indices import python_index

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3)).eval()
X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
QUICK = {"n_steps": np.int64(1), "transforms": (), "seed": np.int64(3)}


def same(a, b):
    return type(a) is type(b) and (all(map(same, a, b)) if isinstance(a, list | tuple) else a == b)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (np.int64(3), 3),
        (np.uint8(200), 200),
        (np.array(2), 2),
        (np.array([1, -2], dtype=np.int32), [1, -2]),
        ([np.int64(1), 2], [1, 2]),
        ((np.int16(1), slice(None)), (1, slice(None))),
        ([(np.int64(0), 1), (2, np.int64(3))], [(0, 1), (2, 3)]),
        (None, None),
        ("0:1", "0:1"),
    ],
)
def test_numpy_integers_become_ints(given, plain):
    assert same(python_index(given), plain)


def test_everything_else_stays():
    for thing in (np.bool_(True), np.float32(1), np.array([0.5]), torch.tensor([1, 2]), True):
        assert python_index(thing) is thing


@pytest.mark.parametrize(
    ("given", "plain"), [(np.int64(1), 1), (np.array([1, 2]), [1, 2]), ([np.int32(2), 1], [2, 1])], ids=str
)
def test_every_class_takes_them(given, plain):
    assert Batch.of(X, None, given).target == plain
    for method in (LayerContribution(NET, "1"), NeuronCanvas(NET, "1")):
        assert torch.equal(method.attribute(X, target=given), method.attribute(X, target=plain))
    chosen = NeuronCanvas(NET, "1")
    assert torch.equal(
        chosen.attribute(X, target=0, neuron_selector=given), chosen.attribute(X, target=0, neuron_selector=plain)
    )
    for method in (FeatureAccentuation(NET, size=np.int64(6)), NeuronFeatureAccentuation(NET, "1")):
        found = method.accentuate(X, given, contrast=np.int64(0), **QUICK)
        assert torch.equal(found.images, method.accentuate(X, plain, contrast=0, **QUICK).images)


def test_floats_and_bools_are_refused():
    for wrong in (np.float64(1), np.bool_(True)):
        with pytest.raises(ValueError, match="does not fit the output's shape"):
            LayerContribution(NET, "1").attribute(X, target=wrong)
    with pytest.raises(TypeError, match="neuron_selector is True; wanted an int"):
        NeuronFeatureAccentuation(NET, "1").accentuate(X, True, **QUICK)


@pytest.mark.parametrize("size", [0, -3, (8,), (8, 0), 8.5, (8, 8, 8)])
def test_impossible_sizes(size):
    with pytest.raises(ValueError, match=r"size is .*; wanted the height and width of the model's input"):
        FeatureAccentuation(NET, size=size)
