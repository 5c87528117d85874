import json
from dataclasses import replace

import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.counterfactual import sparsity


def test_it_saves_itself_whole(digits, tmp_path):
    found = digits.units.counterfactual(digits.pictures(3), 5, "minimal")
    place = found.save(tmp_path / "flipped")
    held = load_file(place / "counterfactual.safetensors")
    assert torch.equal(held["shift"], found.shift) and torch.equal(held["bound"], found.bound)
    note = json.loads((place / "manifest.json").read_text())
    assert note["success"] == found.success and note["method"]["name"] == "MinimalShift"
    with Image.open(place / "row0.png") as strip:
        assert strip.size == (24, 8), "input, linked, flipped"


def test_trust(digits):
    found = digits.units.counterfactual(digits.pictures(10), 5, "latent")
    assert found.success == 1 and str(found.trust) == "holds, because 10 of 10 pictures are given the class asked for"
    most, few = torch.arange(10) < 8, torch.arange(10) < 3
    assert replace(found, reached=most).trust.verdict == "weak"
    assert replace(found, reached=few).trust.verdict == "fails"
    lost = replace(found, agreement=0.2).trust
    assert lost.verdict == "weak" and lost.because.startswith("80% of the inputs are of another class once linked")


def test_sparsity():
    shift = torch.tensor([[2.0, 0.0, 0.0], [1.0, 10.0, 5.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(sparsity(shift, torch.tensor([1.0, 10.0, 5.0])), torch.tensor([1.0, 3.0, 0.0]))
    torch.testing.assert_close(sparsity(shift, torch.tensor([1.0, 0.0, 0.0])), torch.tensor([1.0, 1.0, 0.0]))
