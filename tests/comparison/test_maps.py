import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Saliency

from xinc_captum.comparison import as_maps
from xinc_captum.comparison.maps import faults, maps_of

GIVEN = torch.rand(2, 3, 4, 6)
SIZE = (4, 6)


def test_input_shaped_answers_are_summed_by_magnitude():
    answer = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    maps = as_maps(answer, GIVEN, SIZE)
    torch.testing.assert_close(maps, answer.detach().abs().sum(1).float())
    assert not maps.requires_grad and maps.dtype == torch.float32


def test_layer_shaped_answers_by_hand():
    answer = torch.tensor([[[[2.0, -1.0]]]])
    row = [2.0, 1.5, 0.5, 0.0]  # bilinear between 2 at a quarter and 0 at three quarters
    assert as_maps(answer, torch.rand(1, 3, 2, 4), (2, 4)).tolist() == [[row, row]]


def test_finished_maps_stay_signed():
    answer = torch.randn(2, 4, 6)
    assert torch.equal(as_maps(answer, GIVEN, SIZE), answer)
    assert torch.equal(as_maps(answer.numpy(), GIVEN, SIZE), answer)


def test_preprocessing_that_resizes_is_undone():
    assert as_maps(torch.ones(2, 3, 8, 8), torch.rand(2, 3, 8, 8), SIZE).tolist() == torch.full((2, 4, 6), 3.0).tolist()
    assert as_maps(torch.rand(2, 8, 8), torch.rand(2, 3, 8, 8), SIZE).shape == (2, 4, 6)


def test_a_grey_image_is_input_shaped():
    answer = -torch.ones(2, 1, 4, 6)
    assert as_maps(answer, GIVEN[:, :1], SIZE).unique().tolist() == [1.0]


@pytest.mark.parametrize("shape", [(2, 5, 2, 3), (1, 1, 2, 3), (2, 5), (2, 3, 3), (2, 3, 4, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"answered shape \(.*\) for inputs of shape \(2, 3, 4, 6\); wanted maps .* units a sum"
    ):
        as_maps(torch.rand(shape), GIVEN, SIZE)


def test_no_tensor_is_refused():
    with pytest.raises(TypeError, match="answered a tuple; wanted one tensor, one map for each image"):
        as_maps((torch.rand(2, 4, 6),), GIVEN, SIZE)


def test_which_maps_say_nothing():
    maps = torch.rand(6, 2, 2)
    maps[1], maps[2], maps[3, 0, 0], maps[4, 0, 0] = 0, 7 + 1e-7 * torch.rand(2, 2), np.nan, -np.inf
    assert faults(maps) == ["", "constant", "constant", "not finite", "not finite", ""]


def test_a_layers_map_as_large_as_a_grey_image_stays_a_layers():
    net = torch.nn.Sequential(torch.nn.Identity())
    answer, grey = torch.tensor([[[[2.0, -1.0]]]]), torch.zeros(1, 1, 1, 2)
    assert maps_of(LayerGradCam(net, net[0]), answer, grey, (1, 2)).tolist() == [[[2, 0]]]
    assert maps_of(Saliency(net), answer, grey, (1, 2)).tolist() == as_maps(answer, grey, (1, 2)).tolist() == [[[2, 1]]]
