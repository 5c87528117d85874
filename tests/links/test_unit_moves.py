"""Directions and bounds of units, worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.class_means import ClassMeans
from xinc_captum.attributions.linking.moments import Moments
from xinc_captum.attributions.linking.reservoir import Reservoir
from xinc_captum.attributions.linking.unit_moves import bounds, marginal, within_class

# Within its class the latent rises with the unit, by one for one; between classes it falls.
R = torch.tensor([[0.0], [2.0], [10.0], [12.0]], dtype=torch.float64)
W = torch.tensor([[0.0], [2.0], [-5.0], [-3.0]], dtype=torch.float64)
CLASSES = torch.tensor([0, 0, 1, 1])
FIRST = torch.tensor([0])


def gathered(r, w, classes=None):
    moments, means = Moments(r.shape[1], w.shape[1]), ClassMeans()
    moments.add(r, w)
    if classes is not None:
        means.add(r, w, classes)
    return moments, means


def test_marginal_and_within_class_by_hand():
    moments, means = gathered(R, W, CLASSES)
    # Around the means, r is -6, -4, 4, 6 and w is 1.5, 3.5, -3.5, -1.5.
    assert marginal(moments, FIRST).item() == pytest.approx(-46 / 104)
    assert within_class(moments, means, FIRST).item() == pytest.approx(1.0)


@given(st.integers(0, 30))
def test_within_one_class_is_marginal(seed):
    generator = torch.Generator().manual_seed(seed)
    r, w = torch.randn(20, 4, generator=generator), torch.randn(20, 3, generator=generator)
    moments, means = gathered(r, w, torch.full((20,), 5))
    units = torch.tensor([3, 0])
    torch.testing.assert_close(within_class(moments, means, units), marginal(moments, units))


def test_bounds_by_hand():
    rows = torch.arange(11.0)[:, None]
    moments, kept = Moments(1, 1), Reservoir(20)
    moments.add(rows, torch.zeros(11, 1))
    kept.add(rows)

    def ends(kind, tail=0.05, sds=2.0):
        return bounds(moments, kept, FIRST, kind, tail, sds)[0].tolist()

    sd = 11**0.5  # mean 5, squares 110 over 10
    assert ends("minmax") == [0, 10]
    assert ends("quantile", tail=0.1) == pytest.approx([1, 9])
    assert ends("quantile", tail=0.0) == [0, 10]
    assert ends("sd", sds=1.0) == pytest.approx([5 - sd, 5 + sd])
    assert ends("sd", sds=2.0) == [0, 10], "never beyond what was seen"
    assert ends("sd", sds=torch.inf) == [0, 10]
    for kind, more, text in (
        ("iqr", {}, "kind is 'iqr'; wanted 'minmax', 'quantile' or 'sd'"),
        ("quantile", {"tail": 0.5}, r"tail is 0.5; wanted a share in \[0, .5\)"),
        ("quantile", {"tail": -0.1}, "tail is -0.1"),
        ("sd", {"sds": -1.0}, "sds is -1.0; wanted a number of standard deviations above 0"),
        ("sd", {"sds": torch.nan}, "sds is nan"),
    ):
        with pytest.raises(ValueError, match=text):
            ends(kind, **more)


def test_within_class_wants_classes_and_variation_within_one():
    moments, means = gathered(torch.cat([CLASSES[:, None].double(), R], 1), W, CLASSES)
    with pytest.raises(ValueError, match=r"directions within classes want classes; give them to fit\(\)"):
        within_class(moments, None, FIRST)
    with pytest.raises(ValueError, match="unit 0 does not vary within any class; take kind='marginal'"):
        within_class(moments, means, torch.tensor([1, 0]))
    link = LatentLink().fit(torch.cat([CLASSES[:, None].double(), R], 1), W, CLASSES)
    assert link.direction(1, "within_class").item() == pytest.approx(1.0)
