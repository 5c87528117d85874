import json
import re

import pytest
import torch
from PIL import Image
from torch import nn

from xinc_captum.attributions.nern import NeRN
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.nern import compare_models, fit_and_test_images, load_nern, load_nern_classifier, nern_command
from xinc_captum.hooks import LayerError
from xinc_captum.image_model import ImageModel, Normalise
from xinc_captum.zoo import mnist_convnet, mnist_nern

CPU = torch.device("cpu")


def tiny():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2), nn.Flatten())
        model.append(nn.Linear(6 * 9, 3))
    return ImageModel("tiny", model.eval(), Normalise((0.5,), (0.5,)), 8, ("a", "b", "c"))


def bare():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def named(monkeypatch):
    """The functions above, as a user's module."""
    import sys
    import types

    module = types.ModuleType("my_networks")
    module.tiny, module.bare = tiny, bare
    monkeypatch.setitem(sys.modules, "my_networks", module)


def commanded(out, model="my_networks:tiny", **more):
    given = {"pictures": "noise", "layers": [], "hidden": 6, "steps": 4, "seed": 0, "device": "cpu"}
    nern_command(model, out, **given | more)


def test_a_folder_with_everything(named, tmp_path, capsys):
    commanded(tmp_path / "out")
    said = capsys.readouterr().out
    assert re.search(r"^NeRN: agreement [\d.]+%, [\d,]+ bytes, weight error [\d.]+$", said, re.M)
    out = tmp_path / "out"
    note = json.loads((out / "manifest.json").read_text())
    assert note["layers"] == ["0", "2"] and note["pictures"] == "noise" and note["steps"] == 4
    page = (out / "index.html").read_text()
    for name in ("profile.png", "kernels_0.png", "kernels_1.png"):
        assert name in page
        with Image.open(out / name) as picture:
            assert picture.width > 300
    assert (
        "represented weights rounded to int8" in page
        and "all weights rounded to int8" in page
        and "permutation" in page
    )
    again = NeRN.load(out / "nern.safetensors", tiny().model)
    assert again.config == note["nern"]


def test_a_fitted_nern_is_used(named, tmp_path):
    commanded(tmp_path / "fit")
    file = str(tmp_path / "fit" / "nern.safetensors")
    commanded(tmp_path / "again", hidden=None, steps=None, fitted=file)
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("fit", "again"))
    assert second["fitted"] == file and "steps" not in second and second["nern"] == first["nern"]
    assert (tmp_path / "again" / "nern.safetensors").read_bytes() == (
        tmp_path / "fit" / "nern.safetensors"
    ).read_bytes()
    page = (tmp_path / "again" / "index.html").read_text()
    assert "generated for this page" in page and "fitted earlier" in page
    assert "held out from the fit" in (tmp_path / "fit" / "index.html").read_text()


def test_the_shipped_nern_belongs_to_the_shipped_network():
    classifier = mnist_convnet()
    assert [layer.name for layer in load_nern("mnist_nern", "mnist_convnet", classifier).layers] == [
        "conv1",
        "conv2",
        "conv3",
    ]
    with pytest.raises(UsageError, match="mnist_nern represents the convolutions of mnist_convnet, not of mnist_cnn"):
        load_nern("mnist_nern", "mnist_cnn", classifier)


def test_other_files_raise(named, tmp_path):
    with pytest.raises(FileNotFoundError, match="none is not a file; expected a file of NeRN.save, or mnist_nern"):
        load_nern("none", "my_networks:tiny", tiny())
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(UsageError, match="--nern: .*text is no"):
        load_nern(str(tmp_path / "text"), "my_networks:tiny", tiny())
    mnist_nern().save(tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="--nern: .*other.safetensors"):
        load_nern(str(tmp_path / "other.safetensors"), "my_networks:tiny", tiny())
    with pytest.raises(UsageError, match="--layer, --hidden and --steps are for a new fit, and mnist_nern is fitted"):
        commanded(tmp_path / "out", fitted="mnist_nern")


def test_equal_commands_give_equal_networks(named, tmp_path):
    for name in "ab":
        commanded(tmp_path / name, steps=1, layers=["2"])
    first, second = ((tmp_path / name / "nern.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_bytes_and_agreement_are_measured():
    classifier = tiny()
    nern, held = NeRN(classifier, hidden=6), torch.rand(20, 1, 8, 8)
    lines = compare_models(nern, classifier, held)
    assert [line[0] for line in lines][:2] == ["the network itself", "NeRN"]
    assert [line[0] for line in lines][3:] == [
        f"{which} weights rounded to int{bits}" for bits in (8, 4) for which in ("represented", "all")
    ]
    assert lines[0][1:] == ("100.0%", f"{nern.size_report().target:,}", "100.0%", "0.000")
    same = nern.rebuild()(classifier.preprocess(held)).argmax(1) == classifier(held).argmax(1)
    assert lines[1][1] == f"{float(same.float().mean()):.1%}"
    assert lines[1][2] == f"{nern.size_report().total:,}"


def test_pictures_of_a_generator():
    seen, held = fit_and_test_images("mnist_generator", mnist_convnet(), (1, 16, 16), 0, CPU)
    assert seen.shape == (1000, 1, 16, 16) and held.shape == (500, 1, 16, 16)
    assert seen.min() >= 0 and seen.max() <= 1 and not seen.requires_grad
    assert not any(torch.equal(held[0], one) for one in seen)


def test_pictures_that_do_not_fit(named):
    with pytest.raises(
        UsageError, match=r"the images of mnist_generator are \(1, 16, 16\), but tiny takes \(1, 8, 8\)"
    ):
        fit_and_test_images("mnist_generator", tiny(), (1, 8, 8), 0, CPU)
    with pytest.raises(UsageError, match="the input size of .* is unknown; let the function return"):
        load_nern_classifier("my_networks:bare", CPU)


def test_unknown_layers_raise(named, tmp_path):
    with pytest.raises(LayerError, match="layer 'nope' is not in the model"):
        commanded(tmp_path / "out", layers=["nope"])
    assert not (tmp_path / "out").exists()
