from contextlib import nullcontext

import pytest
import torch
from torch import nn

from xinc_captum import LayerError, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions import FrameCanvas
from xinc_captum.attributions.canvas.drawing import draw, drawn_together, plan
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP, coordinates

SIZE = (4, 5)


def of(model, name, x):
    return Tail(model, model.get_submodule(name)), Batch.of(x)


def test_a_canvas_by_hand(hand_net):
    """x=(2,1) → a=(3,4): unit 0 paints 5·3 and 0·3, unit 1 paints −1·4 and 2·4."""
    net, x = hand_net
    canvas = draw(Tangent(), *of(net, "1", x.repeat(6, 1)), (2, 3), False, nullcontext, place="1")
    assert (canvas.size, canvas.units, canvas.channels, canvas.slots) == ((2, 3), 2, 2, 0)
    assert (canvas.rule, canvas.layer) == ("Tangent()", "1")
    assert canvas.map(0).flatten(1).unique(dim=1).tolist() == [[15.0], [0.0]]
    assert canvas.map(1).flatten(1).unique(dim=1).tolist() == [[-4.0], [8.0]]
    slot = draw(Secant(), *of(net, "1", x.repeat(6, 1)), (2, 3), False, nullcontext)
    assert slot.slots == 1 and slot.map(2)[:, 0, 0].tolist() == [7.0, -1.0], "the biases"


def test_rows_are_cut_to_the_budget():
    tail, batch = of(FourierMLP(hidden=6), "activation1", coordinates(SIZE))
    roomy, tight = (plan(Tangent(), tail, batch, False, budget, None) for budget in (None, 1))
    assert (roomy.rows, tight.rows) == (20, 1) and roomy.units >= tight.units == 1
    some = plan(Tangent(), tail, batch, False, 6000, 3)
    assert 1 < some.rows < 20 and some.units == 3
    assert some.footprint.activation.shape[1] == 6


@pytest.mark.parametrize("budget", [None, 1])
def test_rows_that_see_one_another_are_cut_only_when_asked(budget):
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    planned = plan(Tangent(), *of(model, "0", coordinates(SIZE)), False, budget, None)
    assert planned.rows == (20 if budget is None else 1) and planned.units == 1


def test_rows_that_are_pictures_become_frames(decoder):
    model, t = decoder
    canvas = draw(Tangent(), *of(model, "blocks.0", t), (8, 12), False, nullcontext, place="blocks.0")
    assert isinstance(canvas, FrameCanvas) and (canvas.frames, canvas.layer) == (3, "blocks.0")


def test_several_layers_share_one_copy_of_the_parameters():
    model = FourierMLP(hidden=6, seed=0)
    methods = [NeuronCanvas(model, name) for name in ("activation1", "activation2")]
    first, second = drawn_together(methods, coordinates(SIZE), SIZE, None, None, False, None, None, False)
    assert (first.layer, second.layer) == ("activation1", "activation2")
    before = second.totals()
    torch.testing.assert_close(before, methods[1].canvas(coordinates(SIZE), SIZE).totals())
    nn.init.zeros_(model.output.weight)
    torch.testing.assert_close(second.totals(), before, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("size", "pairs", "given", "error", "text"),
    [
        ((4, 6), False, {}, ValueError, r"size=\(4, 6\) has 24 pixels, but the inputs have 20 rows.*it is \(3,\) here"),
        (SIZE, True, {}, ValueError, r"draws neurons where rows are pixels.*a row of it is \(3,\) here"),
        (SIZE, False, {"per_eval": 0}, ValueError, "perturbations_per_eval is 0; wanted at least 1"),
        (SIZE, False, {"budget": 0}, ValueError, "memory_budget is 0; wanted a positive number of bytes"),
    ],
)
def test_what_does_not_fit_is_said(size, pairs, given, error, text):
    tail, batch = of(FourierMLP(hidden=6), "activation1", coordinates(SIZE))
    with pytest.raises(error, match=text):
        draw(Tangent(), tail, batch, size, pairs, nullcontext, **given)


def test_frames_of_another_size_are_told_theirs(decoder):
    model, t = decoder
    with pytest.raises(
        ValueError, match=r"size=\(9, 9\), but each row .* has shape \(3, 8, 12\), which ends in \(8, 12\)"
    ):
        draw(Tangent(), *of(model, "blocks.0", t), (9, 9), False, nullcontext)


def test_rows_that_are_not_finite_are_refused():
    x = coordinates(SIZE)
    x[3] = torch.inf
    with pytest.raises(ValueError, match="input 0 holds"):
        draw(Tangent(), *of(FourierMLP(hidden=6), "activation1", x), SIZE, False, nullcontext)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 1))
    with pytest.raises(LayerError, match="does not depend on layer|never r"):
        model.forward = lambda x: model[1](x)
        draw(Tangent(), *of(model, "0", coordinates(SIZE)), SIZE, False, nullcontext)
