"""What compare() makes of a model's outputs: logits, probabilities, a single column, a regression, or no tensor."""

import warnings

import pytest
import torch
from comparison.fast_compare import PHOTOS, quick
from torch import nn

from xinc_captum.comparison import ALL, integrated_gradients
from xinc_captum.image_model import ImageModel

EVERY = [name for name in ALL if name not in ("pointing", "energy")]


def net(classes, *after):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes))
    with torch.no_grad():
        model[4].weight.mul_(9)
    return model.append(nn.Sequential(*after)).eval() if after else model.eval()


def run(model, target, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already|Setting backward hooks")
        return quick({"mine": mean_map}, model, PHOTOS, target, metrics=EVERY, **how)


def mean_map(images, target):
    return images.mean(1)


def same(one, other):
    torch.testing.assert_close(one.confidence, other.confidence)
    for name in EVERY:
        torch.testing.assert_close(one.scores["mine"][name], other.scores["mine"][name], atol=1e-5, rtol=1e-4)


def test_a_model_that_ends_in_softmax_is_measured_as_without_it():
    whole, logits = run(net(4, nn.Softmax(1)), [1, 2]), run(net(4), [1, 2])
    same(whole, logits)
    assert (whole.note["probability"], logits.note["probability"]) == ("identity", "softmax")
    assert torch.equal(whole.confidence, net(4, nn.Softmax(1))(PHOTOS)[[0, 1], [1, 2]].detach())


def test_one_logit_is_measured_by_its_sigmoid():
    with pytest.warns(UserWarning, match="one output column, which is read as the logit of one class") as said:
        found = quick({"mine": mean_map}, net(1), PHOTOS, 0, metrics=EVERY)
    assert len([w for w in said if "one output column" in str(w.message)]) == 1, "said once"
    torch.testing.assert_close(found.confidence, net(1)(PHOTOS).sigmoid()[:, 0].detach())
    same(found, run(net(1), 0, probability="sigmoid"))
    same(found, run(net(1, nn.Sigmoid()), 0))
    same(found, run(lambda x: torch.cat([0 * net(1)(x), net(1)(x)], 1), 1, probability="softmax"))
    assert not (found.scores["mine"]["deletion"] == 1).any() and (found.scores["mine"]["road"] != 0).any()


def test_independent_classes_are_measured_by_their_sigmoids():
    found = run(net(3), 1, probability="sigmoid")
    torch.testing.assert_close(found.confidence, net(3)(PHOTOS).sigmoid()[:, 1].detach())
    same(found, run(net(3, nn.Sigmoid()), 1))
    same(found, run(ImageModel("many", net(3), lambda x: x, 8, ("a", "b", "c"), probability="sigmoid"), 1))


def figure_text(found):
    return " ".join(" ".join(t.get_text() for t in found.figure().findobj() if hasattr(t, "get_text")).split())


def test_the_figure_names_outputs_that_are_no_logits_of_a_softmax():
    softmax = run(net(4), 1)
    assert softmax.note["probability_detected"] and "outputs are" not in figure_text(softmax)
    own = run(net(4, nn.Softmax(1)), 1)
    assert "The model's outputs are probabilities (detected)." in figure_text(own)
    given = run(net(1), 0, probability="sigmoid")
    assert not given.note["probability_detected"]
    assert "The probability is the sigmoid of the model's output." in figure_text(given)


def test_a_saturated_column_is_measured_as_a_regression():
    with pytest.warns(UserWarning, match="so it is read as a regression"):
        found = quick({"mine": mean_map}, lambda x: 100 + net(1)(x), PHOTOS, 0, metrics=EVERY)
    same(found, run(lambda x: 100 + net(1)(x), 0, probability="none"))
    assert not any("probability" in column.meaning for column in found.columns)
    assert "The measures use the model's output, which is no probability (detected)." in figure_text(found)


def test_a_regression_is_measured_by_its_output(tmp_path):
    found = run(lambda x: 100 + net(1)(x), 0, probability="none")
    torch.testing.assert_close(found.confidence, 100 + net(1)(PHOTOS)[:, 0].detach())
    assert found.to_dict()["images"][0].keys() == {"output", "methods"}
    texts = [t.get_text() for t in found.figure().findobj() if hasattr(t, "get_text")]
    assert f"output {found.confidence[0]:.3g}" in " ".join(texts)
    assert not any("probability" in column.meaning for column in found.columns)
    with pytest.raises(ValueError, match=r"outputs go from .* expected probabilities in \[0, 1\]"):
        run(lambda x: 100 + net(1)(x), 0, probability="identity")
    with pytest.raises(ValueError, match="probability is 'softmx'; expected one of 'auto', 'softmax', 'sigmoid'"):
        run(net(3), 0, probability="softmx")


@pytest.mark.parametrize(
    ("wrapped", "error", "text"),
    [
        (
            lambda y: {"hidden": y, "y": 2 * y},
            TypeError,
            r"a dict with \['hidden'\] \(1, 3\).*Give output_fn=lambda output: output\['hidden'\]",
        ),
        (
            lambda y: {"out": y[:, :, None, None]},
            ValueError,
            r"maps of a segmentation, give output_fn=lambda output: output\['out'\].mean\(\(2, 3\)\), the mean over",
        ),
        (lambda y: y[:, :, None, None], ValueError, "maps of a segmentation"),
        (lambda y: y[:, 0], ValueError, r"keep its column: give output_fn=lambda output: output.reshape\(-1, 1\)"),
    ],
)
@pytest.mark.parametrize("method", ["Grad-CAM", "Integrated Gradients", "Feature Accentuation"])
def test_unsupported_outputs_are_rejected_before_any_run(wrapped, error, text, method):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net(3)

        def forward(self, x):
            return wrapped(self.net(x))

    def never(images, target):
        pytest.fail("checked too late")

    with pytest.raises(error, match=text):
        quick({"never": never, "named": method}, Whole(), PHOTOS, 1)


def test_a_function_around_a_scripted_part_is_compared():
    scripted = torch.jit.script(nn.Sequential(nn.ReLU()))
    model = net(3)
    found = quick({"IG": integrated_gradients(model, steps=4)}, lambda x: model(scripted(x)), PHOTOS, 1)
    assert not found.table[0].error and found.table[0].counts.forwards == 1
