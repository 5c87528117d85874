import pytest
import torch

from xinc_captum.attributions.trans_inr import PatchTokens


def plain(**arguments):
    """Weights of one and no bias: a token is the sum of its pixels (and of what is seen) plus its place."""
    tokens = PatchTokens(1, (4, 4), 2, 1, **arguments)
    with torch.no_grad():
        tokens.linear.weight.fill_(1.0)
        tokens.linear.bias.zero_()
        tokens.places.copy_(torch.tensor([[0.0, 100.0], [200.0, 300.0]])[None, None])
    return tokens


IMAGE = torch.arange(16.0).reshape(1, 1, 4, 4)


def test_known_answer():
    """Patch sums 0+1+4+5 = 10, 18, 42, 50, and the places, row by row."""
    assert plain()(IMAGE)[0].flatten().tolist() == [10, 118, 242, 350]


def test_padding_is_zeros():
    tokens = PatchTokens(1, (2, 2), 2, 1, padding=1)
    with torch.no_grad():
        tokens.linear.weight.fill_(1.0)
        tokens.linear.bias.zero_()
        tokens.places.zero_()
        assert tokens(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[0].flatten().tolist() == [1, 2, 3, 4]


def test_places_of_another_size_lie_between():
    """Bilinear between centres: 4 columns out of 2 at 0, 25, 75, 100 %."""
    tokens, _ = plain()(torch.zeros(1, 1, 4, 8))
    assert tokens.flatten().tolist() == [0, 25, 75, 100, 200, 225, 275, 300]


def test_pixels_that_are_not_seen():
    tokens = plain(pixel_mask=True)
    seen = torch.ones(4, 4, dtype=torch.bool)
    assert tokens(IMAGE)[0].flatten().tolist() == [14, 122, 246, 354], "4 pixels seen in each"
    seen[0, :2] = False
    spoilt = IMAGE.clone()
    spoilt[0, 0, 0, 0] = float("nan")
    values, patches = tokens(spoilt, seen)
    assert values.flatten().tolist() == [11, 122, 246, 354] and patches.tolist() == [[True] * 4]
    seen[:2, :2] = False
    values, patches = tokens(spoilt, seen)
    assert patches.tolist() == [[False, True, True, True]] and values.isfinite().all()


def test_patches_that_are_not_seen_are_reported():
    seen = torch.tensor([True, False, True, True])
    _, patches = plain()(IMAGE.expand(2, -1, -1, -1), seen)
    assert patches.tolist() == [seen.tolist()] * 2


@pytest.mark.parametrize(
    ("mask", "seen", "text"),
    [
        (False, torch.ones(4), r"seen is torch.float32 of shape \(4,\); wanted torch.bool of shape \(4,\) or \(1, 4\)"),
        (False, torch.ones(4, 4, dtype=torch.bool), r"one for each of the patches; pixel_mask=True makes a model that"),
        (
            True,
            torch.ones(4, dtype=torch.bool),
            r"wanted torch.bool of shape \(4, 4\) or \(1, 4, 4\): one for each of the p",
        ),
    ],
)
def test_masks_that_do_not_fit(mask, seen, text):
    with pytest.raises(ValueError, match=text):
        plain(pixel_mask=mask)(IMAGE, seen)


def test_pictures_that_do_not_fit():
    tokens = plain()
    with pytest.raises(ValueError, match=r"a picture of \(4, 5\) pixels .* such as \(4, 4\): crop, pad or resize it"):
        tokens(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"images have shape \(1, 3, 4, 4\); wanted \(N, 1, H, W\)"):
        tokens(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"images have shape \(1, 4, 4\)"):
        tokens(torch.zeros(1, 4, 4))


def test_oblong_patches():
    """Patches of 1 x 4 pixels are rows of the picture; of 4 x 2, halves."""
    tokens = PatchTokens(1, (4, 4), (1, 4), 1)
    halves = PatchTokens(1, (4, 4), (4, 2), 1)
    for one in (tokens, halves):
        with torch.no_grad():
            one.linear.weight.fill_(1.0)
            one.linear.bias.zero_()
            one.places.zero_()
    assert tokens(IMAGE)[0].flatten().tolist() == [6, 22, 38, 54]
    assert halves(IMAGE)[0].flatten().tolist() == [52, 68]
    assert tokens.grid((8, 12)) == (8, 3)
    with pytest.raises(
        ValueError, match=r"\(4, 6\) pixels .* does not tile into patches of 1 x 4; .* such as \(4, 8\)"
    ):
        tokens.grid((4, 6))


@pytest.mark.parametrize("patch", [0, (2,), (2, 2, 2), (0, 2), 2.0, "2", None])
def test_patches_that_cannot_be(patch):
    with pytest.raises(ValueError, match="patch is .*; wanted a side in pixels, at least 1, or .height, width."):
        PatchTokens(1, (4, 4), patch, 1)


def test_images_of_another_dtype_are_refused_in_words():
    with pytest.raises(
        ValueError, match=r"images are torch.float64 and the weights torch.float32; give images.to\(tor"
    ):
        plain()(IMAGE.double())
    assert plain().double()(IMAGE.double())[0].dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain()(IMAGE.bfloat16())
