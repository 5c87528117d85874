"""A link reads units off the moments of its pairs, by any way of naming them."""

import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.moments import Moments
from xinc_captum.attributions.linking.reservoir import Reservoir
from xinc_captum.attributions.linking.unit_readings import UnitReadings


@pytest.fixture
def pairs():
    """120 pairs of 6 units and 3 latents in 3 classes; unit 4 is dead."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.arange(120) % 3
    r = torch.rand(120, 6, generator=generator, dtype=torch.float64) + classes[:, None]
    r[:, 4] = 0.25
    w = torch.sin(r @ torch.randn(6, 3, generator=generator, dtype=torch.float64))
    return r, w, classes


class Read(UnitReadings):
    """Readings of given moments; a partial direction repeats what was asked."""

    def __init__(self, r, w):
        self.class_means, self.reservoir, self._moments = None, Reservoir(9), Moments(r.shape[1], w.shape[1])
        self._moments.add(r, w)
        self.reservoir.add(r)

    @property
    def moments(self):
        return self._moments

    def partial(self, units, class_):
        return units, class_


def test_by_hand():
    read = Read(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0], [5.0]]))
    assert read.direction(0).tolist() == [[2.0]]
    assert read.r_mean.tolist() == [1.0, 1.0]
    assert read.r_sd.tolist() == pytest.approx([2**0.5, 0.0])
    assert read.alive.tolist() == [True, False]
    assert read.covariance.tolist() == [[2.0, 0.0], [0.0, 0.0]]
    assert read.bounds(0).tolist() == [[0.0, 2.0]]
    assert read.bounds(0, "quantile", tail=0.25).tolist() == [[0.5, 1.5]]
    assert read.bounds(0, "sd", sds=0.5)[0].tolist() == pytest.approx([1 - 0.5**0.5, 1 + 0.5**0.5])


def test_partial_is_asked_with_units_from_the_front():
    read = Read(torch.rand(5, 3), torch.rand(5, 2))
    units, class_ = read.direction([-1, 0], "partial", class_=8)
    assert (units.tolist(), class_) == ([2, 0], 8)


def test_the_three_directions(pairs):
    r, w, classes = pairs
    link = LatentLink(ridge=0.0).fit(r, w, classes)
    centred, moved = r - r.mean(0), w - w.mean(0)
    expected = (centred[:, 1, None] * moved).sum(0) / centred[:, 1].square().sum()
    torch.testing.assert_close(link.direction(1)[0], expected)
    rc, wc = r.clone(), w.clone()
    for c in range(3):
        rc[classes == c] -= rc[classes == c].mean(0)
        wc[classes == c] -= wc[classes == c].mean(0)
    expected = (rc[:, 1, None] * wc).sum(0) / rc[:, 1].square().sum()
    torch.testing.assert_close(link.direction([1], "within_class")[0], expected)
    torch.testing.assert_close(link.direction(torch.tensor([1, 2]), "partial"), link.weight[:, [1, 2]].T)
    own = LatentLink("per_class", 0.1).fit(r, w, classes)
    torch.testing.assert_close(own.direction(-5, "partial", class_=2)[0], own.weight[2, :, 1])


def test_bounds_and_spread(pairs):
    r, w, _ = pairs
    link = LatentLink().fit(r, w)
    torch.testing.assert_close(link.bounds(3), torch.stack([r[:, 3].min(), r[:, 3].max()])[None])
    levels = torch.tensor([0.1, 0.9], dtype=torch.float64)
    torch.testing.assert_close(link.bounds(3, "quantile", tail=0.1)[0], r[:, 3].quantile(levels), atol=1e-6, rtol=0)
    torch.testing.assert_close(link.bounds(3, "sd", sds=99.0), link.bounds(3))
    torch.testing.assert_close(link.covariance, r.T.cov())
    torch.testing.assert_close(link.r_sd, r.std(0))
    torch.testing.assert_close(link.r_mean, r.mean(0))
    assert link.alive.tolist() == [True, True, True, True, False, True]


def test_what_it_refuses(pairs):
    r, w, classes = pairs
    link, own = LatentLink().fit(r, w), LatentLink("per_class").fit(r, w, classes)
    for call, text in (
        (lambda: link.direction(0, "total"), "kind is 'total'; wanted 'marginal', 'partial' or 'within_class'"),
        (lambda: link.bounds(0, "iqr"), "kind is 'iqr'"),
        (lambda: link.direction(4), "unit 4 is dead"),
        (lambda: link.bounds([0, 4]), "unit 4 is dead"),
        (lambda: link.direction(0, "within_class"), "want classes; give them to fit"),
        (lambda: own.direction(1, "partial"), "say of which one with class_="),
        (lambda: LatentLink().r_mean, "has seen no pairs"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
