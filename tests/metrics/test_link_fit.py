"""R² of everything and within classes, against sums written out."""

import pytest
import torch

from xinc_captum.metrics import class_means, r2, r2_within


def test_class_means_fool_r2_and_not_r2_within():
    classes = torch.arange(200) % 4
    w = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + 10 * classes[:, None]
    guess = class_means(w, classes)
    assert r2(w, guess) > 0.98
    assert abs(float(r2_within(w, guess, classes))) < 1e-9


def test_known_values():
    w = torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
    off = w + torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert float(r2(w, off)) == pytest.approx(1 - 5 / 40)
    classes = torch.tensor([0, 0, 5])
    assert float(r2_within(w, off, classes)) == pytest.approx(1 - 5 / 10)
    assert r2(w, w) == 1
    assert r2_within(w[:1], w[:1], classes[:1]).isnan()


def test_what_they_refuse():
    with pytest.raises(ValueError, match=r"got shapes \(3, 2\) and \(2, 2\); wanted the same"):
        r2(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"got classes of shape \(2,\) for 3 rows"):
        r2_within(torch.ones(3, 2), torch.ones(3, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("value", [0.1, 1e-7, 3.3e8])
def test_equal_rows_have_no_variance_to_explain(value):
    """The mean of equal numbers is rounded, and what rounding leaves of them is no variance."""
    w = torch.full((7, 2), value, dtype=torch.float64)
    assert not r2(w, w + 0.01).isfinite() and not r2_within(w, w + 0.01, torch.arange(7) % 2).isfinite()
    w[0, 0] *= 1 + 1e-6
    assert r2(w, w) == 1


def test_class_means_of_half_precision_do_not_overflow():
    rows = torch.full((3000, 1), 30.0).half()
    assert class_means(rows, torch.zeros(3000).long())[0].item() == 30.0
    assert class_means(rows, torch.zeros(3000).long()).dtype == torch.float16
