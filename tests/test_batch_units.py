import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerContribution, NeuronCanvas, NeuronFeatureAccentuation
from xinc_captum.batch import Batch, list_units, python_index, replace_unit, select

A = torch.arange(24.0).reshape(2, 3, 4)


def test_every_kind_of_selector():
    assert torch.equal(select(A, None), A.sum(2))
    assert torch.equal(select(A, 1), A[:, 1].sum(1)[:, None])
    assert torch.equal(select(A, -1), A[:, 2].sum(1)[:, None])
    assert torch.equal(select(A, [2, 0]), A[:, [2, 0]].sum(2))
    assert torch.equal(select(A, (1, 2)), A[:, 1, 2][:, None])
    assert torch.equal(select(A, (slice(0, 2), 3)), A[:, 0:2, 3].sum(1)[:, None])
    assert torch.equal(select(A, lambda a: a[:, 0, 0]), A[:, 0, 0][:, None])
    assert torch.equal(select(A, [0, (1, 2)]), torch.stack([A[:, 0].sum(1), A[:, 1, 2]], 1))


@pytest.mark.parametrize("one", [1, (1, 2), (slice(None), 0), lambda a: a[:, 2].sum(1)])
def test_replacing_a_unit_takes_exactly_its_share(one):
    left = replace_unit(A, one, torch.zeros(()))
    assert torch.equal(select(A, one) - select(left, one), select(A, one))
    assert torch.allclose(A.sum((1, 2)) - left.sum((1, 2)), select(A, one)[:, 0])


@pytest.mark.parametrize(
    ("selector", "error", "text"),
    [
        (
            3,
            IndexError,
            r"neuron_selector 3 is out of range: the layer's units are \(3, 4\), so 3 must lie in \[-3, 2\]",
        ),
        ((0, 9), IndexError, r"9 must lie in \[-4, 3\]"),
        ((0,), IndexError, r"has 1 entries, but the layer has 2 dims after the rows \(3, 4\)"),
        ([], ValueError, "empty list"),
        ("fc", TypeError, "is a str; expected an int"),
        (True, TypeError, "is a bool"),
        ((0, "x"), TypeError, "holds a str"),
        (slice(0, 1), TypeError, "is a slice"),
    ],
)
def test_invalid_selectors_raise_errors_with_the_valid_range(selector, error, text):
    with pytest.raises(error, match=text):
        list_units(A, selector)


def test_a_function_must_return_one_value_per_sample():
    with pytest.raises(ValueError, match=r"returned \(2, 3, 4\); expected one value a row, shape \(2,\)"):
        select(A, lambda a: a)


def test_an_activation_needs_a_unit_axis():
    with pytest.raises(ValueError, match=r"activation has shape \(5,\); expected \(rows, units"):
        list_units(torch.zeros(5), None)


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


def test_all_other_state_is_unchanged():
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
    with pytest.raises(TypeError, match="neuron_selector is True; expected an int"):
        NeuronFeatureAccentuation(NET, "1").accentuate(X, True, **QUICK)


@pytest.mark.parametrize("size", [0, -3, (8,), (8, 0), 8.5, (8, 8, 8)])
def test_impossible_sizes(size):
    with pytest.raises(ValueError, match=r"size is .*; expected the height and width of the model's input"):
        FeatureAccentuation(NET, size=size)


def test_the_gradient_of_a_unit_is_not_expanded_over_positions():
    """Behind TinyViT's batch norm, torch 2.15 returns another gradient for one that has strides of 0."""
    x = torch.rand(1, 6, 2, 2, requires_grad=True)
    strides, activation = [], 2 * x
    activation.register_hook(lambda gradient: strides.append(gradient.stride()))
    (slope,) = torch.autograd.grad(select(activation, 4).sum(), x)
    assert strides == [(24, 4, 2, 1)]
    assert torch.equal(slope, 2.0 * (torch.arange(6) == 4).view(1, 6, 1, 1).expand(1, 6, 2, 2))
