import pytest
import torch

from xinc_captum import layer_to_grid
from xinc_captum.attributions.token_grid import lay_out_for


@pytest.mark.parametrize(
    ("tokens", "kwargs", "size"),
    [
        (16, {}, (4, 4)),
        (17, {}, (4, 4)),
        (21, {"skip": 5}, (4, 4)),
        (12, {"size": (3, 4)}, (3, 4)),
        (13, {"size": (3, 4)}, (3, 4)),
        (1, {}, (1, 1)),
    ],
)
def test_patches_in_reading_order(tokens, kwargs, size):
    activation = torch.arange(2.0 * tokens * 3).reshape(2, tokens, 3)
    grid = layer_to_grid(activation, **kwargs)
    first = tokens - size[0] * size[1]
    assert grid.shape == (2, 3, *size)
    for patch in range(size[0] * size[1]):
        assert torch.equal(grid[:, :, patch // size[1], patch % size[1]], activation[:, first + patch])


def test_token_and_channel_axis():
    activation = torch.rand(2, 17, 3)
    turned = layer_to_grid(activation.mT, token_axis=-1, channel_axis=1)
    assert torch.equal(turned, layer_to_grid(activation))


@pytest.mark.parametrize(
    ("shape", "kwargs", "text"),
    [
        ((2, 3, 4, 4), {}, r"returns \(2, 3, 4, 4\) and the axes are token_axis=1, channel_axis=2; expected"),
        ((2, 16, 3), {"token_axis": 2}, "two different axes after the rows"),
        ((2, 16, 3), {"token_axis": 0}, "two different axes after the rows"),
        ((2, 19, 3), {}, "has 19 tokens, and neither 19 nor 18 of them make a square; give skip= and size="),
        ((2, 19, 3), {"size": (2, 3)}, r"neither 19 nor 18 of them make a map of \(2, 3\)"),
        ((2, 19, 3), {"skip": 2}, "skip=2 leaves 17 of 19 tokens, which do not make a square; give size="),
        ((2, 19, 3), {"skip": 20}, "skip=20 leaves -1 of 19 tokens"),
    ],
)
def test_tokens_that_do_not_fill_a_map_raise(shape, kwargs, text):
    with pytest.raises(ValueError, match=text):
        layer_to_grid(torch.rand(shape), **kwargs)


@pytest.mark.parametrize(
    ("tokens", "image", "size"),
    [
        (16, (128, 32), (8, 2)),
        (17, (32, 128), (2, 8)),
        (196, (224, 224), (14, 14)),
        (14 * 18 + 1, (231, 300), (14, 18)),
        (6 * 9, (90, 136), (6, 9)),
    ],
)
def test_the_map_has_the_shape_of_the_input_image(tokens, image, size):
    activation = torch.rand(2, tokens, 3)
    with lay_out_for(image):
        assert layer_to_grid(activation).shape[2:] == size
    assert torch.equal(layer_to_grid(activation, size=size).flatten(2), activation[:, -size[0] * size[1] :].mT)


def test_tokens_that_do_not_fit_the_image_raise():
    with (
        lay_out_for((128, 64)),
        pytest.raises(ValueError, match="do not make|make a map with the shape of the image, 128"),
    ):
        layer_to_grid(torch.rand(2, 64, 3))
    with lay_out_for((128, 64)):
        assert layer_to_grid(torch.rand(2, 64, 3), size=(8, 8)).shape == (2, 3, 8, 8)
    assert layer_to_grid(torch.rand(2, 64, 3)).shape == (2, 3, 8, 8), "the image is known inside the block only"
