import pytest
import torch
from torch import nn

from xinc_captum.attributions.accentuation.feature import OutputFeature, UnitFeature
from xinc_captum.attributions.accentuation.objectives import channel
from xinc_captum.attributions.accentuation.reading import Reader

NET = nn.Sequential(nn.Identity(), nn.Flatten())
X = torch.arange(24.0).reshape(2, 2, 2, 3)


def seen(images=X):
    return Reader(NET).read(images, (), [NET[0]], whole=True)


def unit(selector):
    return UnitFeature(NET[0], selector)


@pytest.mark.parametrize("target", [[5, 0], torch.tensor([5, 0])])
def test_targets_one_a_row(target):
    feature = OutputFeature(target)
    assert feature.one_a_row(2) and not feature.one_a_row(3) and not OutputFeature(5).one_a_row(2)
    assert feature.objective(2)(seen()).tolist() == [5.0, 12.0]
    one = feature.cut(1, 2, 2)
    assert one.objective(1)(seen(X[1:])).tolist() == [12.0]
    assert OutputFeature((5,)).cut(0, 1, 2) == OutputFeature((5,))


def test_every_kind_of_target():
    for target, name in (
        (channel("0", 1), "0:1"),
        ("0:1", "0:1"),
        (lambda seen: seen("0")[:, 1].mean((1, 2)), "<lambda>"),
    ):
        objective = OutputFeature(target).objective(2)
        assert objective.name == name
        assert objective(seen()).tolist() == [8.5, 20.5]
        assert OutputFeature(target).spread(seen()) is None


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (1, [8.5, 20.5]),
        ((1,), [8.5, 20.5]),
        ((1, 0, 2), [8.0, 20.0]),
        ((slice(0, 2), 0, 0), [6.0, 30.0]),
        (lambda a: a[:, 0, 0, 0], [0.0, 12.0]),
        (torch.tensor([1.0, -1.0]), [-6.0, -6.0]),
        (channel("0", 1) * 2, [17.0, 41.0]),
        ([1, (0, 0, 0)], [8.5, 12.0]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_selector(selector, expected):
    assert unit(selector).objective(2)(seen()).tolist() == expected


def test_a_list_is_for_rows_in_every_view():
    objective = unit([1, (0, 0, 0)]).objective(2)
    assert objective.name == "Identity:1 | Identity:(0, 0, 0)"
    assert objective(seen(X.repeat(3, 1, 1, 1))).tolist() == [8.5, 12.0] * 3
    assert unit([1, (0, 0, 0)]).cut(1, 2, 2).objective(1)(seen(X[1:])).tolist() == [12.0]


def test_the_spread_of_peers():
    assert OutputFeature(1).spread(seen()).tolist() == pytest.approx([float(torch.arange(12.0).std())] * 2)
    assert unit(1).spread(seen()).tolist() == pytest.approx([float(torch.tensor([2.5, 8.5]).std())] * 2)
    assert unit([1, 0]).spread(seen()).shape == (2,)
    assert unit((1, 0, 0)).spread(seen()) is None
    alone = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shown = Reader(alone).read(-X[:, :1], (), [], whole=True)
    assert OutputFeature(0).spread(shown).tolist() == [2.5, 14.5], "a single output has its size for a scale"


def test_targets_for_other_rows():
    for wrong in ([0], [0, 1, 2], torch.tensor([0, 1, 2])):
        with pytest.raises(ValueError, match="target has . entries, but there are 2 images; give one target a row"):
            OutputFeature(wrong).objective(2)
    assert OutputFeature(torch.tensor([5])).objective(2)(seen()).tolist() == [5.0, 17.0], "as in Captum"


def test_selectors_that_are_none():
    with pytest.raises(ValueError, match="neuron_selector is a list of 3, but there are 2 images; give one selector a"):
        unit([0, 1, 2]).objective(2)
    for wrong in (None, True):
        with pytest.raises(TypeError, match=f"neuron_selector is {wrong}; wanted an int"):
            unit(wrong).objective(2)
    with pytest.raises(TypeError, match="is a str; wanted an int"):
        unit("fc").objective(2)(seen())
