"""Queries of a canvas of frames equal reductions of attribute()."""

import pytest
import torch

from xinc_captum import Ablation, NeuronCanvas, metrics
from xinc_captum.attributions import FrameCanvas
from xinc_captum.attributions.canvas.canvas import Regions, Top, Totals
from xinc_captum.attributions.canvas.frames import UnitGrid

SIZE = (8, 12)
CASES = [
    (rule, layer, unit)
    for rule in ("tangent", "secant", Ablation("mean"), "xinc")
    for layer, unit in (("blocks.0", "neuron"), ("stem", "neuron"), ("blocks.0.0", "pair"), ("head", "pair"))
    if rule != "xinc" or unit == "pair"
]


def make_canvas(decoder, rule="secant", layer="blocks.0", unit="neuron", **kwargs):
    model, t = decoder
    at_input = rule == "xinc"
    method = NeuronCanvas(model, layer, rule=rule, unit=unit)
    canvas = method.canvas(t, SIZE, attribute_to_layer_input=at_input, **kwargs)
    full = method.attribute(t, attribute_to_layer_input=at_input, target=kwargs.get("target"))
    if full.dim() < (6 if unit == "pair" else 5):
        full = full.unsqueeze(-3)
    return canvas, full


# 200,000 bytes: two frames and three maps at once, so that both are left with a remainder; 20,000: one of each.
BUDGETS = [(*case, budget) for case in CASES for budget in (None, 200_000)] + [
    ("tangent", "blocks.0", "neuron", 20_000)
]


@pytest.mark.parametrize(("rule", "layer", "unit", "budget"), BUDGETS)
def test_queries_equal_reductions_of_all_contributions(decoder, rule, layer, unit, budget):
    c, full = make_canvas(decoder, rule, layer, unit, memory_budget=budget)
    close = lambda a, b: torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert budget is None or rule == "xinc" or (c._rows_at_once < 3 and c._maps_at_once < c.units), "cut both ways"
    assert isinstance(c, FrameCanvas) and (c.frames, c.size, c.channels) == (3, SIZE, full.shape[-3])
    close(c.to_tensor(), full)
    close(c.totals(), full.abs().sum((-1, -2)))
    masks = torch.rand(4, *SIZE)
    own = torch.rand(3, 4, *SIZE)
    for signed in (False, True):
        c_or_abs = full if signed else full.abs()
        close(
            c.regions(masks, signed=signed), torch.einsum("f...hw,rhw->rf...", c_or_abs, masks.double()).movedim(0, 1)
        )
        close(c.regions(own, signed=signed), torch.einsum("f...hw,frhw->rf...", c_or_abs, own.double()).movedim(0, 1))
    units = full[:, : c.pairs[0]].flatten(1, 2) if c.pairs else full[:, : c.units]
    strength = units.abs().sum(2)
    values, indices = c.top_units(2)
    assert indices.dtype == torch.int8
    close(values, strength.topk(2, dim=1).values)
    close(strength.gather(1, indices.long()), values)
    one = c.top_units(2, pixel=(4, 1))
    close(one.values, values[:, :, 4, 1])
    assert one.indices.dtype == torch.int8
    at = (1, 2) if unit == "pair" else (1,)
    close(c.map(at if unit == "pair" else 1), full[(slice(None), *at)])
    close(c.map(at if unit == "pair" else 1, channel=0, frame=-1), full[(2, *at, 0)])
    if c.slots:
        remainder = (c.pairs[0], 1) if unit == "pair" else c.units
        close(c.map(remainder, frame=1), full[(1, *remainder)] if unit == "pair" else full[1, remainder])


@pytest.mark.parametrize(("layer", "unit"), [("blocks.0", "neuron"), ("blocks.0.0", "pair")])
def test_float64_canvases_are_weighted_in_float64(decoder, layer, unit):
    c, full = make_canvas(decoder, layer=layer, unit=unit)
    masks = torch.rand(2, *SIZE, dtype=torch.float64)
    assert full.dtype == torch.float64
    for signed, values in ((False, full.abs()), (True, full)):
        expected = torch.einsum("f...hw,rhw->rf...", values, masks).movedim(0, 1)
        torch.testing.assert_close(c.regions(masks, signed=signed), expected, atol=1e-12, rtol=1e-10)


def test_several_queries_run_in_one_pass(decoder):
    c, _ = make_canvas(decoder, unit="pair", layer="blocks.0.0", memory_budget=30_000)
    totals, regions, top = c.ask(Totals(), Regions(torch.ones(1, *SIZE)), Top(1, c.units, c.pixels))
    torch.testing.assert_close(totals, regions[:, 0])
    assert top.values.shape == (3, 1, *SIZE)


@pytest.mark.parametrize(("target", "channels"), [(1, 1), ((slice(0, 2),), 2)])
def test_target_selects_channels(decoder, target, channels):
    c, full = make_canvas(decoder, target=target)
    assert c.channels == channels
    torch.testing.assert_close(c.to_tensor(), full)


def test_signed_regions_compute_no_maps(decoder, monkeypatch):
    c, _ = make_canvas(decoder, layer="blocks.0.0", unit="pair")
    from xinc_captum.attributions.canvas.rules import kernels

    def refuse(*_):
        raise AssertionError("a map was drawn")

    monkeypatch.setattr(kernels, "pairs_by_jvp", refuse)
    assert c.regions(torch.ones(2, *SIZE), signed=True).shape == (3, 2, 4, 16, 3)
    with pytest.raises(AssertionError, match="a map was drawn"):
        c.regions(torch.ones(2, *SIZE))


def test_results_do_not_change_with_further_training(decoder, found):
    model, _ = decoder
    c, _ = make_canvas(decoder)
    before, state = c.map(0), found(model)
    torch.testing.assert_close(c.map(0), before, atol=0, rtol=0)
    assert state.differences(model) == []
    with torch.no_grad():
        model.head.weight.add_(1)
    torch.testing.assert_close(c.totals()[:, 0], before.abs().sum((-1, -2)))


@pytest.mark.parametrize(
    ("unit", "call", "error", "text"),
    [
        ("neuron", lambda c: c.map(5), IndexError, "unit 5 is out of range: this canvas has 5 units, 0 to 4"),
        ("neuron", lambda c: c.map((0, 1)), TypeError, "expected a number, because this canvas was made with unit=\"neu"),
        ("pair", lambda c: c.map(3), TypeError, r"expected a tuple \(in, out\), because this canvas was made with"),
        ("pair", lambda c: c.map((4, 0)), IndexError, r"unit \(4, 0\) is out of range.*\(in, out\) of \(4, 16\)"),
        ("neuron", lambda c: c.map(0, channel=3), IndexError, "channel 3 is out of range: this canvas has 3 channels"),
        ("neuron", lambda c: c.map(0, frame=3), IndexError, "frame 3 is out of range: this canvas has 3 frames"),
        ("neuron", lambda c: c.top_units(5), ValueError, "k is 5; expected between 1 and the 4 units"),
        ("neuron", lambda c: c.top_units(1, pixel=(8, 0)), IndexError, "is outside the image"),
        ("neuron", lambda c: c.regions(torch.ones(2, 12, 8)), ValueError, r"expected \(regions, 8, 12\) for all frames"),
        ("neuron", lambda c: c.regions(torch.ones(2, 1, 8, 12)), ValueError, r"or \(3, regions, 8, 12\) with masks"),
    ],
)  # fmt: skip
def test_invalid_arguments_raise(decoder, unit, call, error, text):
    c, _ = make_canvas(decoder, layer="blocks.0.0" if unit == "pair" else "blocks.0", unit=unit)
    with pytest.raises(error, match=text):
        call(c)


@pytest.mark.parametrize(("layer", "unit"), [("blocks.0", "neuron"), ("blocks.0.0", "pair")])
def test_share_and_pooled_equal_the_metrics(decoder, layer, unit):
    c, full = make_canvas(decoder, layer=layer, unit=unit)
    units = full[:, : c.pairs[0]].flatten(1, 2) if c.pairs else full[:, : c.units]
    amounts = metrics.magnitudes(units.flatten(0, 1)).unflatten(0, units.shape[:2])
    masks = torch.rand(2, *SIZE)
    each = torch.stack([metrics.share(a, masks) for a in amounts])
    torch.testing.assert_close(c.share(masks), each, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(c.share(), torch.stack([metrics.share(a) for a in amounts]), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(c.pooled((2, 3)), metrics.pool_cells(amounts, (2, 3)), atol=1e-6, rtol=1e-4)


def test_pairs_are_computed_by_output_and_stored_by_input():
    grid = UnitGrid(units=6, remainders=1, pairs=(2, 3))
    keys = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert (grid.keys, grid.shape) == (keys, (3, 3))
    visited = torch.tensor([[10.0 * i + o] for i, o in keys])
    joined = grid.join(Totals(), [visited[:4], visited[4:]])
    assert joined[..., 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert grid.without_remainder(joined[None]).flatten().tolist() == [0, 1, 2, 10, 11, 12]
    assert grid.key((-1, 0)) == (2, 0)
    assert [grid.key_at(unit) for unit in (0, 2, 3)] == [(0, 0), (0, 2), (1, 0)], "in · outs + out"


def test_unit_grid_with_remainder():
    grid = UnitGrid(units=2, remainders=1, pairs=None)
    assert (grid.keys, grid.shape, grid.key(-1), grid.index([0, 2])) == ([0, 1, 2], (3,), 2, ([0, 2],))
    assert grid.key_at(1) == 1
