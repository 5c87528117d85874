"""What both classes owe whatever happens: clear errors, and everything left as found."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation import Ball, FeatureDistance, Phase, Pixel, accentuate

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (X * 5 - 2, ValueError, r"images lie in \[-\d.*\]; expected \[0, 1\].*preprocess="),
        (X * torch.nan, ValueError, "images hold NaN or infinity"),
        (X[0], ValueError, r"images have shape \(3, 12, 12\): expected \(N, C, H, W\)"),
        (X[:0], ValueError, "no rows to explain"),
        ((X * 255).byte(), ValueError, "images are torch.uint8; expected floats"),
        ([X], TypeError, "inputs are a list; expected one tensor of images"),
        ((X, X), TypeError, "inputs are a tuple; expected one tensor"),
        (X[:, :1], ValueError, r"the model refuses images of shape \(2, 1, 12, 12\): .*3 channels, but got 1"),
        (X.double(), ValueError, r"the model refuses images of shape \(2, 3, 12, 12\): .*dtype"),
    ],
    ids=lambda v: str(v)[:20] if isinstance(v, str) else "",
)
def test_images_that_cannot_be(conv, found, images, error, text):
    before = found(conv)
    with pytest.raises(error, match=text):
        FeatureAccentuation(conv).attribute(images, target=1)
    assert before.differences(conv) == []


def test_a_dead_unit_is_named(conv):
    with torch.no_grad():
        conv.norm.weight[2], conv.norm.bias[2] = 0, -1
    text = r"ReLU:2 does not respond: its gradient is zero everywhere in image 0, 1 \(a dead or saturated unit\)"
    with pytest.raises(ValueError, match=text):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, 2)
    with pytest.raises(ValueError, match=r"in image 1 \("):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, [1, 2], internal_batch_size=1)
    assert NeuronFeatureAccentuation(conv, "conv").attribute(X, 2, n_steps=1).sum() > 0, "as the text advises"


def test_layers_that_run_twice_or_never(conv):
    conv.idle = nn.ReLU()
    twice = nn.Sequential(conv.conv, conv.relu, nn.Conv2d(4, 4, 1), conv.relu)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        NeuronFeatureAccentuation(conv, "idle").attribute(X, 0)
    with pytest.raises(LayerError, match="layer '1' runs more than once"):
        NeuronFeatureAccentuation(twice, "1").attribute(X, 0)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        FeatureAccentuation(conv).attribute(X, target=1, regularizer=FeatureDistance("idle"))


@pytest.mark.parametrize("selector", [None, True, "cat", 9, (9, 0, 0), [0, 1, 2], torch.ones(3)], ids=repr)
def test_impossible_units(conv, found, selector):
    before = found(conv)
    with pytest.raises((ValueError, TypeError, IndexError), match="neuron_selector|direction|objective"):
        NeuronFeatureAccentuation(conv, "relu").attribute(X, selector)
    assert before.differences(conv) == []


def test_a_model_in_training_mode_is_warned_of_and_left(conv, found):
    conv.train()
    before = found(conv)
    with pytest.warns(UserWarning, match="BatchNorm2d 'norm' is in training mode"):
        FeatureAccentuation(conv).accentuate(X, target=1, n_steps=2)
    assert before.differences(conv) == []


@pytest.mark.parametrize("where", ["conv", "relu", "fc"])
@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("pass_", [0, 3, 5])
def test_left_as_found_when_the_model_fails(conv, found, where, fault, pass_):
    conv(X).sum().backward()
    conv.conv.weight.requires_grad_(False)
    passes = []

    def raising(*_):
        passes.append(1)
        if len(passes) > pass_:
            raise fault("mine")

    handle = conv.get_submodule(where).register_forward_hook(raising)
    before = found(conv)
    with pytest.raises((fault, ValueError), match="mine"):
        FeatureAccentuation(conv).attribute(X, target=1, n_steps=1)
    assert before.differences(conv) == []
    assert list(conv.get_submodule(where)._forward_hooks) == [handle.id]


@pytest.mark.parametrize("options", [{}, {"regularizer": Ball(0.1)}, {"contrast": 2}, {"dose": 0.01}], ids=str)
@pytest.mark.parametrize("size", [(6, 6), (65, 65), (9, 20)], ids=str)
def test_the_hygiene_table(conv, found, options, size):
    """User hooks, flags, .grad, buffers and random states; any size."""
    conv(torch.rand(2, 3, 8, 8)).sum().backward()
    conv.fc.weight.requires_grad_(False)
    called = []
    conv.relu.register_forward_hook(lambda *_: called.append(1))
    before = found(conv)
    x = torch.rand(2, 3, *size)
    untouched = x.clone()
    state = found(conv).rng
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = FeatureAccentuation(conv).accentuate(x, target=1, n_steps=2, **options)
        before.rng = state
        assert answer.trust.verdict in ("holds", "weak", "fails")
    assert before.differences(conv) == []
    assert called and torch.equal(x, untouched) and not x.requires_grad
    assert not answer.images.requires_grad and not answer.masks.requires_grad


def test_the_other_models_are_left_as_found_too(conv, found):
    other = copy.deepcopy(conv).train()
    other(X).sum().backward()
    before = found(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = FeatureAccentuation(conv).accentuate(X, target=1, n_steps=2, contrast=other, transfer=other)
        assert answer.trust.rows[0].transfer is not None
    assert before.differences(other) == []


@pytest.mark.parametrize("dose", [None, [0.5, -0.5]])
def test_ctrl_c_returns_what_there_is(smooth, found, dose):
    before = found(smooth)

    def interrupt(step, images, scores):
        if step == 3:
            raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"optimizer": torch.optim.Adam, "transforms": (), "regularizer": FeatureDistance(weight=0.01)}
        answer = FeatureAccentuation(smooth).accentuate(
            X, target=1, dose=dose, on_step=interrupt, n_steps=9, lr=0.05, **options
        )
    assert answer.interrupted and answer.steps == 3 and answer.scores.shape == answer.distances.shape == (3, 2)
    way = torch.tensor([1.0, 1.0 if dose is None else -1.0])
    assert ((answer.after - answer.before) * way > 0).all()
    assert before.differences(smooth) == []


def test_ctrl_c_before_the_first_step_is_raised(smooth, found):
    before = found(smooth)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureAccentuation(smooth).attribute(X, target=1, on_step=interrupt)
    assert before.differences(smooth) == []


def test_ctrl_c_while_a_later_chunk_is_set_up_keeps_the_first(smooth, found):
    before = found(smooth)
    calls = []

    def model(x):
        calls.append(len(x))
        if len(calls) == at:
            raise KeyboardInterrupt
        return smooth(x)

    at, options = 0, {"target": 1, "n_steps": 2, "internal_batch_size": 1, "transforms": (), "regularizer": None}
    FeatureAccentuation(model).accentuate(X[:1], **options)
    at, _ = len(calls) + 1, calls.clear()
    answer = FeatureAccentuation(model).accentuate(X, **options)
    assert answer.interrupted
    assert torch.equal(answer.images[1], X[1]) and not torch.equal(answer.images[0], X[0])
    assert answer.after[0] > answer.before[0] and answer.after[1] == answer.before[1]
    assert before.differences(smooth) == []


def test_ctrl_c_ends_all_chunks(smooth):
    seen = []

    def interrupt(step, images, scores):
        seen.append(step)
        if step == 2:
            raise KeyboardInterrupt

    answer = FeatureAccentuation(smooth).accentuate(
        torch.rand(3, 3, 12, 12), target=1, n_steps=9, on_step=interrupt, internal_batch_size=1
    )
    assert answer.interrupted and answer.images.shape[0] == 3
    assert seen == [0, 1, 2], "the rows that had not begun are not begun"


def test_on_step_sees_and_ends(smooth):
    seen = []
    answer = FeatureAccentuation(smooth).accentuate(
        X,
        target=1,
        n_steps=9,
        on_step=lambda step, images, scores: seen.append((step, images.shape, scores.shape)) or step == 2,
    )
    assert seen == [(step, X.shape, (2,)) for step in range(3)]
    assert answer.steps == 2 and not answer.interrupted and len(answer.scores) == 3


@pytest.mark.parametrize("parameterization", [None, Pixel(), Phase()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_wide_and_narrow_floats(smooth, dtype, parameterization):
    options = {} if parameterization is None else {"parameterization": parameterization}
    net, x = copy.deepcopy(smooth).to(dtype), X.to(dtype)
    answer = FeatureAccentuation(net).accentuate(x, target=1, n_steps=3, **options)
    assert answer.images.dtype == answer.masks.dtype == answer.seeds.dtype == dtype
    plain = FeatureAccentuation(smooth).accentuate(x.float(), target=1, n_steps=3, **options)
    close = {"atol": 1e-3, "rtol": 0} if dtype == torch.float64 else {"atol": 0.1, "rtol": 0}
    torch.testing.assert_close(answer.images.float(), plain.images, **close)
    assert torch.equal(FeatureAccentuation(net).perturb(x, target=1, dose=0), x)


def test_autocast_only_reaches_the_model(smooth):
    first = []
    with torch.autocast("cpu", torch.bfloat16):
        answer = FeatureAccentuation(smooth).accentuate(
            X, target=1, n_steps=3, on_step=lambda step, images, scores: first.append(images)
        )
    assert answer.images.dtype == answer.masks.dtype == torch.float32
    assert (first[0] - X).abs().max() < 1e-6
    moved = first[1] - X
    steps = moved[moved != 0].abs()
    assert len(steps) > 0.99 * moved.numel() and steps.unique().numel() > 0.5 * steps.numel(), "not rounded to 8 bits"


def test_additional_arguments_reach_every_pass(conv):
    scale = torch.tensor([[2.0], [3.0]])
    options = {"n_steps": 2, "regularizer": FeatureDistance("relu"), "contrast": 2}
    method = FeatureAccentuation(conv)
    answer = method.accentuate(X, target=1, additional_forward_args=scale, **options)
    rows = [
        method.accentuate(X[i : i + 1], target=1, additional_forward_args=(scale[i : i + 1],), **options)
        for i in range(2)
    ]
    torch.testing.assert_close(answer.images, torch.cat([row.images for row in rows]), atol=1e-5, rtol=0)
    torch.testing.assert_close(answer.before, (conv(X, scale)[:, 1] - conv(X, scale)[:, 2]).detach())


def test_a_bar_moves_with_every_step(smooth, monkeypatch):
    shown = []

    def bar(steps, what, *, show):
        for step in steps:
            shown.append((what, show, step))
            yield step

    monkeypatch.setattr(accentuate, "progress", bar)
    FeatureAccentuation(smooth).attribute(X, target=1, n_steps=2, show_progress=True)
    assert shown == [("ascent", True, 0), ("ascent", True, 1)]
    FeatureAccentuation(smooth).attribute(X, target=1, n_steps=1)
    assert shown[2:] == [("ascent", False, 0)]


def test_what_would_be_ignored_is_refused(smooth):
    method = FeatureAccentuation(smooth)
    with pytest.raises(
        ValueError, match=r"inputs and shape=\(1, 3, 8, 8\) are both given; shape is for pictures from n"
    ):
        method.accentuate(X, 1, shape=(1, 3, 8, 8))
    for name in ("dose", "activation"):
        with pytest.raises(ValueError, match=f"{name}= says how far to go from an image, and inputs is None"):
            method.accentuate(None, 1, shape=(1, 3, 8, 8), **{name: 1.0})


def test_a_model_that_answers_nan(smooth, found):
    before = found(smooth)
    with pytest.raises(FloatingPointError, match="the score's gradient is NaN or infinite in image 0; look for NaN"):
        FeatureAccentuation(lambda x: smooth(x) * torch.nan).accentuate(X, 1, n_steps=2)
    assert before.differences(smooth) == []


@pytest.mark.parametrize("selector", [torch.tensor([2, 0]), [np.int64(2), torch.tensor(0)]], ids=["tensor", "numpy"])
def test_selectors_that_are_no_plain_ints(smooth, selector):
    method = NeuronFeatureAccentuation(smooth, "1")
    options = {"n_steps": 2, "regularizer": None}
    plain = method.accentuate(X, [2, 0], **options)
    assert torch.equal(method.accentuate(X, selector, **options).images, plain.images)
