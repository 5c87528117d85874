import json
from dataclasses import replace

import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.linking.counterfactuals.counterfactual import sparsity


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
    assert found.success == 1 and str(found.trust) == (
        "holds, because 9 of 9 pictures are given the class asked for; 1 more was of it already"
    )
    most, few = torch.arange(10) < 8, torch.arange(10) < 3
    assert found.already.tolist() == [i == 5 for i in range(10)], "the five"
    assert replace(found, reached=most).trust.verdict == "weak"
    assert replace(found, reached=few).trust.verdict == "fails"
    lost = replace(found, agreement=0.2).trust
    assert lost.verdict == "weak" and lost.because.startswith("80% of the inputs are of another class once linked")


def test_a_confidence_is_judged_by_the_probability(digits):
    found = digits.units.counterfactual(digits.pictures(10), 5, "minimal", confidence=0.99)
    there = (found.answers[:, 2] == 5) & ~found.already
    assert found.reached.sum() < there.sum(), "some are given the class with less than was asked for"
    asked = int((~found.already).sum())
    said = (
        f"{int((found.reached & ~found.already).sum())} of {asked} pictures reach 99 % for the class asked for, which"
    )
    assert f"{said} {int(there.sum())} are given" in found.trust.because
    assert "are given the class" not in found.trust.because


def test_rows_that_are_there_already_are_not_counted(digits, tmp_path):
    own = replace(
        digits.units.counterfactual(digits.pictures(10), 5, "latent"),
        already=torch.arange(10) < 3,
        reached=torch.arange(10) != 9,
    )
    assert own.success == 6 / 7
    assert str(own.trust).endswith("because 6 of 7 pictures are given the class asked for; 3 more were of it already")
    nothing = replace(own, already=torch.ones(10, dtype=torch.bool))
    assert nothing.trust.verdict == "fails" and "all 10 pictures are of the class already" in nothing.trust.because
    assert json.loads((nothing.save(tmp_path / "own") / "manifest.json").read_text())["success"] is None


def test_sparsity():
    shift = torch.tensor([[2.0, 0.0, 0.0], [1.0, 10.0, 5.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(sparsity(shift, torch.tensor([1.0, 10.0, 5.0])), torch.tensor([1.0, 3.0, 0.0]))
    torch.testing.assert_close(sparsity(shift, torch.tensor([1.0, 0.0, 0.0])), torch.tensor([1.0, 1.0, 0.0]))
