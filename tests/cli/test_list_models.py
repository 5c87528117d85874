"""xinc models and xinc layers."""

import sys

import pytest
from safetensors.torch import save_file

from xinc_captum.cli.command import UsageError
from xinc_captum.cli.list_models import layers_command, models_command
from xinc_captum.zoo import mnist_convnet


def test_names_are_printed_one_a_line(capsys):
    models_command("squeezenet1_1")
    assert capsys.readouterr().out == "squeezenet1_1\ntorchvision:squeezenet1_1\n"
    with pytest.raises(UsageError, match="no model of the zoo and the installed libraries has 'qqq' in its name"):
        models_command("qqq")


def test_layers_are_listed_after_the_description_without_a_download(capsys):
    layers_command("torchvision:squeezenet1_1", size=64, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name: torchvision:squeezenet1_1" and "weights: random" in lines[2]
    assert lines[8].split() == ["features.0", "Conv2d", *"1 x 64 x 31 x 31".split()]
    assert lines[-1].split() == ["classifier", "Sequential", *"1 x 1000 x 1 x 1".split()]


def test_layers_of_the_zoo_have_their_weights_or_those_of_a_file(capsys, tmp_path):
    layers_command("mnist_convnet", device="cpu")
    assert "source: weights and preprocessing: mnist_convnet" in capsys.readouterr().out
    save_file(mnist_convnet().model.state_dict(), tmp_path / "w.safetensors")
    layers_command("mnist_convnet", device="cpu", weights=str(tmp_path / "w.safetensors"))
    assert f"weights: {tmp_path / 'w.safetensors'}" in capsys.readouterr().out


def test_a_missing_library_is_an_error_of_the_user(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[timm\]'"):
        layers_command("timm:resnet50", device="cpu")
