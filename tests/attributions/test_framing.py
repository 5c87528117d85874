import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.canvas.framing import Sites, are_frames
from xinc_captum.attributions.canvas.rules import Tail


@pytest.mark.parametrize(
    ("left", "size", "rows", "frames"),
    [
        ((3, 8, 8), (8, 8), 64, True),
        ((8, 8), (8, 8), 2, True),
        ((3,), (8, 8), 64, False),
        ((3,), (3,), 3, False),
        ((1, 9), (9,), 9, True),
        ((9,), (9,), 2, True),
        ((), (4,), 4, False),
    ],
)
def test_frames_are_told_from_pixels(left, size, rows, frames):
    assert are_frames(left, size, rows) is frames


def test_the_last_sites_stay_open():
    opened = []
    sites = Sites(lambda first, last: opened.append((first, last)) or (first, last), keep=2)
    for first in (0, 1, 0, 2, 0, 1):
        sites(first, first + 1)
    assert opened == [(0, 1), (1, 2), (2, 3), (1, 2)]


@pytest.mark.parametrize("rule", ["tangent", "secant", "xinc"])
def test_one_map_after_another_costs_no_forward_pass(decoder, monkeypatch, rule):
    model, t = decoder
    method = NeuronCanvas(model, "blocks.0.0", unit="pair", rule=rule)
    canvas = method.canvas(t, (8, 12), attribute_to_layer_input=True)
    calls, output = [], Tail.output
    monkeypatch.setattr(Tail, "output", lambda self, batch: calls.append(1) or output(self, batch))
    canvas.map((0, 0), frame=1)
    assert calls, "the first map of a frame runs the network"
    calls.clear()
    canvas.map((1, 3), frame=1)
    assert calls == [], "what the frame needs is kept"


@pytest.mark.parametrize(
    ("size", "unit", "text"),
    [
        ((12, 8), "neuron", r"each row of the output has shape \(3, 8, 12\), which ends in \(8, 12\)"),
        ((12, 8), "pair", r"canvas\(\) draws neurons where rows are pixels"),
    ],
)
def test_another_size_is_refused(decoder, size, unit, text):
    model, t = decoder
    with pytest.raises(ValueError, match=text):
        NeuronCanvas(model, "blocks.0.0", unit=unit).canvas(t, size)


def test_frames_of_nan_are_refused(decoder):
    model, t = decoder
    t[1] = float("nan")
    with pytest.raises(ValueError, match="input 0 holds 1 NaN"):
        NeuronCanvas(model, "blocks.0").canvas(t, (8, 12))
    assert torch.isnan(t[1])
