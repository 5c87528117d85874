import sys

import pytest
import torch

from xinc_captum import zoo
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.network import network_called

PHOTO = torch.rand(3, 12, 16)
SOURCE = """
import torch
from torch import nn

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 16, 2), nn.Dropout())

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 2))

def image():
    return nn.Conv2d(3, 3, 1)

def nothing():
    return 7

def broken():
    raise KeyError("weights")

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"networks_in_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return name


def named(name):
    return network_called(name, PHOTO, torch.device("cpu"))


def test_a_plain_module_gets_numbers_for_names_and_eval_mode(module, capsys):
    path = list(sys.path)
    network = named(f"{module}:flat")
    assert network.size is None
    assert network.classifier.labels == ("class 0", "class 1")
    assert not any(m.training for m in network.classifier.model.modules())
    assert torch.equal(network.classifier.preprocess(PHOTO), PHOTO)
    assert sys.path == path
    assert "gets photos as they are, in [0, 1]; if its normalisation is not inside it" in capsys.readouterr().err


def test_a_network_that_answers_images_has_no_classes(module):
    assert named(f"{module}:image").classifier.labels == ()


def test_a_name_of_the_zoo(monkeypatch):
    made = zoo.Classifier("tiny", torch.nn.Identity(), lambda x: x, 24, ("a",))
    monkeypatch.setattr(zoo, "classifier", lambda name: made)
    assert named("squeezenet1_1") == (made, 24)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet", "'resnet' is no classifier of the zoo; wanted one of .*, or a function of your own as module:func"),
        ("no_such_module_at_all:f", "'no_such_module_at_all' cannot be imported .*lies in the current folder"),
        (":f", "cannot be imported"),
        ("{}:flatt", "has no function 'flatt'; did you mean 'flat'"),
        ("{}:NUMBER", "has no function 'NUMBER'"),
        ("{}:nothing", "returned a int; wanted a torch.nn.Module"),
        ("{}:wide", r"cannot be run on the photo, \(1, 3, 12, 16\) in \[0, 1\] .*return a xinc_captum.zoo.Classifier"),
    ],
)
def test_what_cannot_be_used_is_said(module, name, text):
    with pytest.raises(UsageError, match=text):
        named(name.format(module))


def test_pictures_of_a_generator_are_not_called_a_photo_and_have_no_size_to_change(module):
    says = r"cannot be run on what blobs draws, \(1, 3, 12, 16\) .* or give another --generator\.$"
    with pytest.raises(UsageError, match=says):
        network_called(f"{module}:wide", PHOTO, torch.device("cpu"), "blobs")


def test_what_fails_inside_the_function_keeps_its_traceback(module):
    with pytest.raises(KeyError, match="weights") as caught:
        named(f"{module}:broken")
    assert caught.value.__notes__ == [f"This was the function {module}:broken of --model."]
