import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.nern import Convolution, NeRN, convolutions


def test_every_convolution_in_order(mixed):
    found = convolutions(mixed)
    assert [one.name for one in found] == ["stem", "wide", "depthwise", "point"]
    assert found[2] == Convolution("depthwise", (6, 1, 3, 3))
    assert (found[0].kernels, found[0].size, found[0].weights) == (8, (5, 5), 200)


def test_by_name_by_module_and_behind_functions(mixed):
    assert [one.name for one in convolutions(mixed, ["point", mixed.wide])] == ["point", "wide"]
    assert convolutions(lambda x: mixed(x)["logits"], [mixed.stem])[0].name == "stem"
    assert convolutions(nn.DataParallel(mixed), ["stem"])[0].name == "stem"


def test_a_module_that_is_used_twice_is_one_layer():
    conv = nn.Conv2d(2, 2, 3)
    assert len(convolutions(nn.Sequential(conv, nn.ReLU(), conv))) == 1


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["fc"], r"layer 'fc' is a Linear; wanted an nn.Conv2d"),
        (["stam"], "did you mean 'stem'"),
        ([], "layers is empty; name at least one"),
        (["stem", "stem"], "layers names 'stem' twice"),
        ([nn.Conv2d(1, 1, 1)], "is not part of the model"),
    ],
)
def test_wrong_layers(mixed, layers, text):
    with pytest.raises(LayerError, match=text):
        convolutions(mixed, layers)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d])
def test_other_convolutions_are_named_not_guessed(kind):
    with pytest.raises(LayerError, match=f"layer '0' is a {kind.__name__}; wanted an nn.Conv2d"):
        convolutions(nn.Sequential(kind(1, 1, 3)), ["0"])


def test_targets_without_convolutions():
    with pytest.raises(LayerError, match=r"the target Linear has no nn\.Conv2d, and a NeRN represents kernels"):
        NeRN(nn.Linear(2, 2))


def test_computed_weights():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)))
    with pytest.raises(LayerError, match=r"the weight of layer '0' is computed .*remove_parametrizations"):
        convolutions(model, ["0"])


def test_targets_that_are_not_one_module(mixed):
    other = nn.Conv2d(1, 1, 1)
    with pytest.raises(LayerError, match="a NeRN represents one module, but behind .* are Mixed, Conv2d|Conv2d, Mixed"):
        convolutions(lambda x: other(mixed(x)))
    with pytest.raises(LayerError, match="are none; give the module itself"):
        convolutions(torch.relu)
    with pytest.raises(LayerError, match="scripted and traced models run no Python hooks"):
        convolutions(torch.jit.trace(mixed, torch.rand(1, 2, 6, 6)))


def test_kernels_larger_than_the_predicted(mixed):
    with pytest.raises(LayerError, match=r"larger than the predicted 3x3 .*'stem' 5x5. Take kernel_size=5, or leave"):
        NeRN(mixed, kernel_size=3)
    assert NeRN(mixed).kernel_size == 5
    assert NeRN(mixed, ["point", "wide"], kernel_size=3).kernel_size == 3
    with pytest.raises(ValueError, match="kernel_size is 0; wanted at least 1"):
        NeRN(mixed, kernel_size=0)
