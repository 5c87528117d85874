import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.nern import crop, uncrop

WAYS = ["center", "average", "max"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("side", [1, 3])
def test_as_recorded(arrays, how, side):
    found = crop(arrays["crop/pred3x3"], (side, side), how)
    torch.testing.assert_close(found, arrays[f"crop/{how}/to{side}"], atol=1e-7, rtol=0)


def test_larger_kernels_by_hand():
    p = torch.arange(49.0).view(1, 7, 7)
    assert crop(p, (5, 5))[0, 0].tolist() == [8, 9, 10, 11, 12]
    assert crop(p, (1, 3))[0].tolist() == [[23, 24, 25]]
    assert crop(p, (2, 2), "max")[0].tolist() == [[40, 41], [47, 48]]
    assert crop(p, (2, 2), "average")[0].tolist() == [[20, 21], [27, 28]]


@given(how=st.sampled_from(WAYS), k=st.integers(1, 5), h=st.integers(1, 5), w=st.integers(1, 5))
def test_i12_the_transpose(how, k, h, w):
    h, w = min(h, k), min(w, k)
    generator = torch.Generator().manual_seed(k * 25 + h * 5 + w)
    p, other, g = (torch.randn(6, *size, dtype=torch.float64, generator=generator) for size in ((k, k), (k, k), (h, w)))
    left = (crop(other, (h, w), how, chosen_by=p) * g).sum()
    right = (other * uncrop(g, k, how, chosen_by=p)).sum()
    assert abs(left - right) < 1e-10
    # and autograd agrees, at the point where the maxima were chosen
    p.requires_grad_()
    (gradient,) = torch.autograd.grad((crop(p, (h, w), how) * g).sum(), p)
    torch.testing.assert_close(uncrop(g, k, how, chosen_by=p), gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", WAYS)
def test_leading_dims_are_cut_alike(how):
    p = torch.randn(4, 3, 3)
    many = torch.stack([p, 2 * p])
    found = crop(many, (2, 1), how, chosen_by=p)
    torch.testing.assert_close(found[1], 2 * crop(p, (2, 1), how))
    torch.testing.assert_close(uncrop(found, 3, how, chosen_by=p)[0], uncrop(found[0], 3, how, chosen_by=p))


@pytest.mark.parametrize(
    ("size", "how", "text"),
    [
        ((5, 5), "center", "5x5 kernels cannot be cut out of 3x3; predict larger ones"),
        ((0, 1), "center", "0x1 kernels cannot be cut"),
        ((1, 1), "mean", "crop is 'mean'; wanted one of 'center', 'average', 'max'"),
    ],
)
def test_errors(size, how, text):
    with pytest.raises(ValueError, match=text):
        crop(torch.zeros(1, 3, 3), size, how)


def test_the_transpose_of_the_maximum_needs_to_know_whose():
    with pytest.raises(ValueError, match="needs chosen_by="):
        uncrop(torch.ones(1, 1, 1), 3, "max")
