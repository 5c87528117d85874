import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking.counterfactuals.counterfactual import sparsity
from xinc_captum.generators import from_callable, normal_latents


def test_the_head_is_found_through_dropout_and_a_wrapper(digits):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = digits.net[:5], digits.net[5]

        def forward(self, x):
            return {"y": nn.functional.dropout(self.head(self.body(x)), 0.5, self.training)}

    link = LatentLink().fit(torch.rand(400, 64), torch.rand(400, 24))
    units = LinkedUnitVisualization(Wrapped().eval(), "body", digits.generator, link, output_fn=lambda o: o["y"])
    assert units.counterfactual(digits.pictures(2), 3, "minimal").head.all()


def test_without_a_linear_head_only_methods_that_need_it_raise(digits):
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.tail = digits.net[:5], digits.net[5]

        def forward(self, x):
            return self.tail(self.body(x)).square()

    net = Bent().eval()
    with torch.no_grad():
        classes = torch.arange(600) % 10
        w = digits.generator.sample_latents(600, classes, 0.7, generator=torch.Generator().manual_seed(0))
        link = LatentLink().fit(net.body(digits.generator.synthesize(w)), w)
    units = LinkedUnitVisualization(net, "body", digits.generator, link)
    with pytest.raises(ValueError, match="method 'minimal' needs class scores that are linear"):
        units.counterfactual(digits.pictures(2), 3, "minimal")
    result = units.counterfactual(digits.pictures(6), 3, "ray")
    assert result.head is None and result.reached.any()


def test_samples_of_the_target_are_not_shifted(digits):
    result = digits.units.counterfactual(digits.pictures(10), digits.classes(10))
    stays = result.steps == 0
    assert (
        stays.sum() >= 8 and (result.flip[stays] == 0).all() and torch.equal(result.images[stays], result.linked[stays])
    )
    assert torch.equal(result.already, result.answers[:, 0] == result.target) and result.already.sum() >= 8
    surer = digits.units.counterfactual(digits.pictures(10), digits.classes(10), confidence=0.999)
    assert surer.already.sum() < result.already.sum(), "the answer alone is not enough"


def test_answers_are_the_predictions_of_all_three_images(digits):
    result = digits.units.counterfactual(digits.pictures(6), 3)
    with torch.no_grad():
        three = [digits.net(x).argmax(1) for x in (result.inputs, result.linked, result.images)]
    assert torch.equal(result.answers, torch.stack(three, 1))
    assert result.agreement == float((three[0] == three[1]).double().mean())


def test_one_logit_raises():
    paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    units = LinkedUnitVisualization(net, "0", paint, LatentLink().fit(torch.rand(50, 4), torch.rand(50, 4)))
    with pytest.raises(
        ValueError, match="the model returns 1 score per sample; a counterfactual needs one score per class"
    ):
        units.counterfactual(torch.rand(2, 1, 2, 2), 0)


def test_a_model_that_ends_in_softmax_reaches_its_own_probability(digits):
    class Ended(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = digits.net[:5], digits.net[5]

        def forward(self, x):
            return self.head(self.body(x)).softmax(1)

    net = Ended().eval()
    manifest = {"layer": "head", "attribute_to_neuron_input": True, "pool": "auto"}
    latents = digits.generator.sample_latents(600, torch.arange(600) % 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        link = LatentLink().fit(net.body(digits.generator.synthesize(latents)), latents, manifest=manifest)
    units = LinkedUnitVisualization(net, "head", digits.generator, link)
    result = units.counterfactual(digits.pictures(6), 5, "ray", confidence=0.6)
    assert result.method["probability"] == "identity" and result.reached.any()
    torch.testing.assert_close(result.confidence, result.scores[:, 5])
    assert torch.equal(result.reached, (result.scores[:, 5] >= 0.6) & (result.scores.argmax(1) == 5))
    with torch.no_grad():
        torch.testing.assert_close(net(result.images)[:, 5], result.confidence, atol=1e-4, rtol=1e-3)


def test_the_error_for_one_logit_suggests_equivalent_scores(digits):
    link = LatentLink().fit(torch.rand(400, 64), torch.rand(400, 24))
    units = LinkedUnitVisualization(digits.net, "4", digits.generator, link, output_fn=lambda y: y[:, :1])
    with pytest.raises(ValueError, match=r"torch.cat\(\[torch.zeros_like\(y\), y\], 1\)"):
        units.counterfactual(digits.pictures(2), 0, attribute_to_neuron_input=False)
    y = torch.randn(5, 1)
    torch.testing.assert_close(torch.cat([torch.zeros_like(y), y], 1).softmax(1)[:, 1:], y.sigmoid())


def test_the_minimal_shift_needs_a_softmax(digits):
    result = digits.units.counterfactual(digits.pictures(2), 5, "minimal", probability="sigmoid")
    torch.testing.assert_close(result.confidence, result.scores[:, 5].sigmoid())
    with pytest.raises(ValueError, match="'minimal' computes the shift for a softmax probability, and the scores"):
        digits.units.counterfactual(digits.pictures(2), 5, "minimal", confidence=0.5, probability="sigmoid")
    with pytest.raises(ValueError, match="probability is 'none'"):
        digits.units.counterfactual(digits.pictures(2), 5, probability="none")


def test_a_counterfactual_is_saved_in_a_folder(digits, tmp_path):
    result = digits.units.counterfactual(digits.pictures(3), 5, "minimal")
    place = result.save(tmp_path / "flipped")
    held = load_file(place / "counterfactual.safetensors")
    assert torch.equal(held["shift"], result.shift) and torch.equal(held["bound"], result.bound)
    note = json.loads((place / "manifest.json").read_text())
    assert note["success"] == result.success and note["method"]["name"] == "MinimalShift"
    with Image.open(place / "row0.png") as strip:
        assert strip.size == (24, 8), "input, linked, flipped"


def test_trust(digits):
    result = digits.units.counterfactual(digits.pictures(10), 5, "latent")
    assert result.success == 1 and str(result.trust) == (
        "holds, because 9 of 9 pictures are given the class asked for; 1 more was of it already"
    )
    most, few = torch.arange(10) < 8, torch.arange(10) < 3
    assert result.already.tolist() == [i == 5 for i in range(10)], "the five"
    assert replace(result, reached=most).trust.verdict == "weak"
    assert replace(result, reached=few).trust.verdict == "fails"
    lost = replace(result, agreement=0.2).trust
    assert lost.verdict == "weak" and lost.because.startswith("80% of the inputs are of another class once linked")


def test_trust_uses_the_confidence(digits):
    result = digits.units.counterfactual(digits.pictures(10), 5, "minimal", confidence=0.99)
    there = (result.answers[:, 2] == 5) & ~result.already
    assert result.reached.sum() < there.sum(), "some are given the class with less than was asked for"
    asked = int((~result.already).sum())
    text = (
        f"{int((result.reached & ~result.already).sum())} of {asked} pictures reach 99 % for the class asked for, which"
    )
    assert f"{text} {int(there.sum())} are given" in result.trust.because
    assert "are given the class" not in result.trust.because


def test_trust_does_not_count_samples_of_the_target(digits, tmp_path):
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
