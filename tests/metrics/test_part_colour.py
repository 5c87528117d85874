import pytest
import torch

from xinc_captum.metrics import lab, part_lab, part_rgb

color = pytest.importorskip("skimage.color")


def test_lab_is_scikit_images():
    pictures = torch.rand(3, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    pictures[0, :, 0] = 0.02  # the linear branches
    for ours, picture in zip(lab(pictures), pictures, strict=True):
        theirs = torch.from_numpy(color.rgb2lab(picture.permute(1, 2, 0).numpy())).permute(2, 0, 1)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_gradients_are_finite_at_black_and_right_elsewhere():
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab(black).sum().backward()
    assert black.grad.isfinite().all()
    assert torch.autograd.gradcheck(lab, torch.full((1, 3, 1, 2), 0.4, dtype=torch.float64, requires_grad=True))


def test_colours_of_parts_by_hand():
    red_and_white = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    masks = torch.tensor([[[[1, 0]], [[1, 1]]]])
    assert part_rgb(red_and_white, masks).tolist() == [[[1, 0, 0], [1, 0.5, 0.5]]]
    assert part_lab(red_and_white, masks)[0, 0].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


def test_grey_pictures_have_no_colour():
    with pytest.raises(ValueError, match="1 channels; expected 3. For grey images, use part_luminance"):
        part_rgb(torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="expected three channels"):
        part_lab(torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
