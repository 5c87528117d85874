import torch

from xinc_captum.cli.sized import Sized


def test_grey_becomes_colour_and_colour_grey():
    grey, colour = torch.rand(2, 1, 8, 8), torch.rand(2, 3, 8, 8)
    assert torch.equal(Sized(None, None, 3)(grey), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(Sized(None, None, 1)(colour), colour.mean(1, keepdim=True))


def test_pictures_of_the_right_size_and_colour_stay_as_they_are():
    pictures = torch.rand(2, 3, 8, 8)
    assert Sized(None, 8, 3)(pictures) is pictures
    assert torch.equal(Sized(lambda x: 2 * x, 8, 3)(pictures), 2 * pictures)


def test_gradients_go_through():
    pictures = torch.rand(1, 1, 8, 8, requires_grad=True)
    Sized(None, 12, 3)(pictures).sum().backward()
    assert pictures.grad is not None and bool((pictures.grad > 0).all())
