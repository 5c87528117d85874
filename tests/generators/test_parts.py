import pytest
import torch

from xinc_captum.generators import ImageParts, from_callable, normal_latents

GENERATOR = from_callable(lambda w: w.view(-1, 1, 2, 2).tanh(), normal_latents(4), (-1, 1))
LATENTS = torch.tensor([[3.0, -3.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]])


def test_a_function_sees_pictures_in_the_unit_range():
    pictures, masks = ImageParts(lambda p: torch.cat([p > 0.5, p <= 0.5], 1), ["ink", "paper"]).draw(GENERATOR, LATENTS)
    torch.testing.assert_close(pictures, (LATENTS.view(-1, 1, 2, 2).tanh() + 1) / 2)
    assert masks[0].int().tolist() == [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]


def test_fixed_masks_and_the_whole_image():
    masks = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [1, 1]]])
    assert torch.equal(ImageParts(masks, ["a", "b"]).draw(GENERATOR, LATENTS)[1], masks.expand(2, 2, 2, 2))
    whole = ImageParts()
    assert whole.names == ("picture",) and whole.draw(GENERATOR, LATENTS)[1].sum() == 8


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"masks have shape \(2, 2, 2\) for the parts a; expected \(1, H, W\)"):
        ImageParts(torch.ones(2, 2, 2), ["a"])
    with pytest.raises(ValueError, match="the mask of 'b' is empty"):
        ImageParts(torch.tensor([[[1]], [[0]]]), ["a", "b"])
    with pytest.raises(ValueError, match="the whole image is one part"):
        ImageParts(names=["a", "b"])
    with pytest.raises(ValueError, match="a different word for each part"):
        ImageParts(torch.ones(2, 2, 2), ["a", "a"])
    with pytest.raises(ValueError, match="the masks have 1 parts, the names are a, b"):
        ImageParts(lambda p: p, ["a", "b"]).draw(GENERATOR, LATENTS)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 1, 4, 4\) for images of \(2, 1, 2, 2\)"):
        ImageParts(lambda p: torch.ones(2, 1, 4, 4), ["a"]).draw(GENERATOR, LATENTS)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 1, 3, 3\) for images of \(2, 1, 2, 2\)"):
        ImageParts(torch.ones(1, 3, 3), ["a"]).draw(GENERATOR, LATENTS)
