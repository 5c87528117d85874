"""The kind of a classifier's outputs, and the probabilities computed from them."""

import dataclasses
import warnings
from collections import namedtuple

import pytest
import torch
from torch import nn

from xinc_captum.metrics import (
    deletion_insertion,
    predict_classes,
    probabilities,
    probability_kind,
    road,
    target_score,
)

PHOTOS, MAPS = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8)


def head(classes, *after):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, classes), *after).eval()
    with torch.no_grad():
        model[2].weight.mul_(8)
    return model


def softmaxes(model):
    """Outputs of the model without its last layer, as logits."""
    return model[:-1]


def measured(model, target, **how):
    return (
        target_score(model, PHOTOS, target, **how),
        *deletion_insertion(model, PHOTOS, MAPS, target, steps=4, **how),
        road(model, PHOTOS, MAPS, target, **how),
    )


def same(left, right):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    e = torch.tensor(2.0).exp()
    torch.testing.assert_close(probabilities(logits), torch.stack([1 / (1 + e), e / (1 + e)])[None])
    torch.testing.assert_close(probabilities(logits, "sigmoid"), torch.stack([torch.tensor(0.5), e / (1 + e)])[None])
    assert probabilities(logits, "none") is logits
    with pytest.warns(UserWarning, match="one output column, which is read as the logit of one class"):
        torch.testing.assert_close(probabilities(logits[:, 1:]), (e / (1 + e))[None, None])
    own = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert torch.equal(probabilities(own), own)


def test_a_softmax_at_the_end_is_not_taken_twice():
    model = head(4, nn.Softmax(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(model, 1)
    assert torch.equal(found[0], model(PHOTOS)[:, 1].detach())
    same(found, measured(softmaxes(model), 1))


def test_one_logit_is_a_sigmoid():
    model = head(1)
    with pytest.warns(UserWarning, match="'none' for a regression"):
        found = measured(model, 0)
    torch.testing.assert_close(found[0], model(PHOTOS).sigmoid()[:, 0].detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(found, measured(model, 0, scores="sigmoid"))
    two = nn.Sequential(model, Beside())
    same(found, measured(two, 1))
    assert (found[3].abs() > 1e-4).any(), "ROAD is not zero for each map"
    with pytest.raises(
        IndexError, match="target 1 is not a class .*Its one column is the logit of one class, target 0"
    ):
        target_score(model, PHOTOS, 1)


class Beside(nn.Module):
    """Two logits whose softmax is the sigmoid of one."""

    def forward(self, logit):
        return torch.cat([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_sigmoid_at_the_end_is_found_in_the_graph(classes):
    model = head(classes, nn.Sigmoid())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(model, 0)
        same(found, measured(lambda x: model(x)[:, :], 0))
        with torch.inference_mode():
            same(found, measured(model, 0))
    assert torch.equal(found[0], model(PHOTOS)[:, 0].detach())
    same(found, measured(softmaxes(model), 0, scores="sigmoid"))
    assert not any(p.grad is not None for p in model.parameters())


def test_ambiguous_values_warn():
    with pytest.warns(UserWarning, match=r"All outputs of the model lie in \[0, 1\] and do not sum to 1"):
        assert probability_kind(torch.tensor([[0.9, 0.8]])) == "softmax"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("softmax", "sigmoid", "identity", "none"):
            assert probability_kind(torch.tensor([[0.9, 0.8]]), kind) == kind
        assert probability_kind(torch.tensor([[0.9, 0.1], [3.0, -2.0]])) == "softmax", "all rows count"
        assert probability_kind(torch.tensor([[0.9, 0.1], [torch.nan, 1.0]])) == "identity", "rows of nan do not"
        assert probability_kind(torch.full((1, 2), torch.nan)) == "softmax"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 1000])
def test_rounded_probabilities_are_still_probabilities(dtype, classes):
    own = (3 * torch.randn(4, classes)).softmax(1).to(dtype)
    assert probability_kind(own) == "identity"
    assert torch.equal(probabilities(own), own.to(torch.promote_types(dtype, torch.float32)))


def test_a_regression_is_measured_on_its_output():
    model = head(1)
    with torch.no_grad():
        model[2].bias.fill_(1152.0)
    found = measured(model, 0, scores="none")
    torch.testing.assert_close(found[0], model(PHOTOS)[:, 0].detach())
    same(found, (found[0], *deletion_insertion(model, PHOTOS, MAPS, 0, steps=4, scores=lambda y: y), found[3]))
    for measure in (
        lambda: target_score(model, PHOTOS, 0, scores="identity"),
        lambda: deletion_insertion(model, PHOTOS, MAPS, 0, steps=2, scores="identity"),
        lambda: road(model, PHOTOS, MAPS, 0, scores="identity"),
        lambda: probabilities(model(PHOTOS), "identity"),
    ):
        with pytest.raises(
            ValueError, match=r"outputs go from 1.1.*expected probabilities in \[0, 1\].*'none' for a regression"
        ):
            measure()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'logit' is no kind of outputs; expected one of 'auto', 'softmax'"):
        probabilities(torch.zeros(1, 2), "logit")
    with pytest.raises(ValueError, match=r"outputs have shape \(2,\); expected \(N, classes\)"):
        probabilities(torch.zeros(2))


@dataclasses.dataclass
class Answer:
    hidden: tuple
    logits: torch.Tensor


Pair = namedtuple("Pair", "features scores")


class Plain:
    def __init__(self, y):
        self.out = y


@pytest.mark.parametrize(
    ("wrapped", "what", "access"),
    [
        (lambda y: {"aux": y, "out": y}, r"a dict with keys \['aux', 'out'\]", r"model\(images\)\['out'\]"),
        (lambda y: Answer((), y), r"a Answer with fields \['hidden', 'logits'\]", r"model\(images\).logits"),
        (lambda y: Pair(y, y), r"a Pair with fields \['features', 'scores'\]", r"model\(images\).scores"),
        (lambda y: (None, y), r"a tuple of \(NoneType, Tensor\)", r"model\(images\)\[1\]"),
        (lambda y: [y], r"a list of \(Tensor\)", r"model\(images\)\[0\]"),
        (Plain, r"a Plain with fields \['out'\]", r"model\(images\).out"),
        (lambda y: None, "a NoneType; ", r"model\(images\)\[...\]"),
    ],
)
def test_an_output_that_is_not_a_tensor_raises_an_error(wrapped, what, access):
    model = head(3)
    for measure in (
        target_score,
        lambda f, *a: deletion_insertion(f, PHOTOS, MAPS, 0),
        lambda f, *a: road(f, PHOTOS, MAPS, 0),
    ):
        with pytest.raises(TypeError, match=f"the model returned {what}.*lambda images: {access}"):
            measure(lambda x: wrapped(model(x)), PHOTOS, 0)


@pytest.mark.parametrize(
    ("shaped", "text"),
    [
        (lambda y: y[:, :, None, None].expand(-1, -1, 4, 4), r"segmentation.*model\(images\).mean\(\(2, 3\)\)"),
        (lambda y: y[:, 0], r"keep its column: .*reshape\(-1, 1\)"),
        (lambda y: y[:1], r"of shape \(1, 3\) for 3 images; expected floats, \(3, classes\)"),
        (lambda y: torch.cat([y, y]), r"of shape \(6, 3\) for 3 images"),
        (lambda y: y.long(), r"returned torch.int64 of shape \(3, 3\)"),
    ],
)
def test_an_output_of_another_shape_is_refused(shaped, text):
    model = head(3)
    with pytest.raises(ValueError, match=text):
        target_score(lambda x: shaped(model(x)), PHOTOS, 0)


def test_one_column_has_two_classes():
    assert predict_classes(torch.tensor([[3.0, 1.0], [0.0, 2.0]])).tolist() == [0, 1]
    assert predict_classes(torch.tensor([[-0.1], [0.2], [5.0]])).tolist() == [0, 1, 1]
    shares = torch.tensor([[0.2], [0.9]])
    assert predict_classes(shares).tolist() == [0, 1], "probabilities"
    assert predict_classes(shares, torch.tensor([[-4.0], [3.0]])).tolist() == [1, 1], "logits, as the others say"
