"""Queries of a canvas of pixels equal reductions of all contributions."""

import dataclasses

import pytest
import torch

from xinc_captum import Canvas, NeuronCanvas, metrics
from xinc_captum.attributions.canvas.canvas import Maps, Regions, Top, Totals, smallest_index
from xinc_captum.inr import FourierMLP, coordinates, fit

SIZE = (5, 7)


def canvas(rule="tangent", budget=None, model=None, size=SIZE, **kwargs) -> Canvas:
    model = model or FourierMLP(hidden=6, seed=1)
    return NeuronCanvas(model, "activation1", rule=rule).canvas(coordinates(size), size, memory_budget=budget, **kwargs)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("budget", [None, 1, 6000])
def test_queries_equal_reductions_of_all_contributions(rule, budget):
    size = (2, 3) if budget == 1 else SIZE  # one pixel at a time takes long and is the same for every pixel
    c = canvas(rule, budget, size=size)
    full = canvas(rule, size=size).to_tensor()
    assert full.shape == (6 + c.slots, 3, *size)
    close = lambda a, b: torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    close(c.to_tensor(), full)
    close(c.totals(), full.abs().sum((2, 3)))
    for unit in range(-1, 6 + c.slots):
        close(c.map(unit), full[unit])
        close(c.map(unit, channel=2), full[unit, 2])
    masks = torch.rand(4, *size) > 0.5
    close(c.regions(masks), torch.einsum("rhw,uchw->ruc", masks.float(), full.abs()))
    close(c.regions(masks, signed=True), torch.einsum("rhw,uchw->ruc", masks.float(), full))
    strength = full[:6].abs().sum(1)
    values, indices = c.top_units(3)
    close(values, strength.topk(3, dim=0).values)
    assert indices.dtype == torch.int8
    close(strength.gather(0, indices.long()), values)
    one = c.top_units(2, pixel=(size[0] - 1, 1))
    assert one.indices.tolist() == indices[:2, -1, 1].tolist()
    close(one.values, values[:2, -1, 1])


def test_several_queries_run_in_one_pass():
    c = canvas(budget=3000)
    masks = torch.ones(1, *SIZE)
    totals, regions, top = c.ask(Totals(), Regions(masks), Top(1, c.units, c.pixels))
    torch.testing.assert_close(totals, regions[0])
    assert top.values.shape == (1, *SIZE)


@pytest.mark.parametrize("size", [(9,), (4, 5), (2, 3, 4)])
def test_signals_of_one_two_and_three_dimensions(size):
    model = FourierMLP(len(size), 2, hidden=4)
    c = NeuronCanvas(model, "activation2").canvas(coordinates(size), size)
    assert c.map(0).shape == (2, *size)
    assert c.top_units(2).values.shape == (2, *size)


def test_target_selects_one_channel():
    c = canvas(target=1)
    assert (c.channels, c.map(0).shape) == (1, (1, *SIZE))
    torch.testing.assert_close(c.map(2)[0], canvas().map(2, channel=1))


def test_xinc_maps_of_inner_layers_have_one_channel():
    model = FourierMLP(hidden=6)
    c = NeuronCanvas(model, "linear2", rule="xinc").canvas(coordinates(SIZE), SIZE, attribute_to_layer_input=True)
    assert c.map(0).shape == (1, *SIZE)


def test_results_do_not_change_with_further_training(found):
    model = FourierMLP(hidden=6, seed=1)
    c = canvas(model=model)
    before = c.totals()
    fit(model, torch.rand(3, *SIZE), steps=3, show_progress=False)
    state = found(model)
    torch.testing.assert_close(c.totals(), before, atol=0, rtol=0)
    assert state.differences(model) == []


def test_canvas_is_frozen():
    c = canvas()
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.units = 3
    assert repr(c) == "Canvas(size=(5, 7), units=6, channels=3, slots=0, rule='Tangent()', layer='activation1')"


def test_under_inference_mode():
    with torch.inference_mode():
        totals = canvas().totals()
    torch.testing.assert_close(totals, canvas().totals())


@pytest.mark.cuda
@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_queries_on_a_gpu(rule):
    model, size = FourierMLP(hidden=6, seed=1), (9, 11)
    plain = NeuronCanvas(model, "activation1", rule=rule).canvas(coordinates(size), size)
    there = NeuronCanvas(model.cuda(), "activation1", rule=rule).canvas(coordinates(size, device="cuda"), size)
    masks = torch.rand(3, *size) > 0.5
    for ours, theirs in (
        (there.totals(), plain.totals()),
        (there.map(2), plain.map(2)),
        (there.regions(masks.cuda()), plain.regions(masks)),
        (there.top_units(2).values, plain.top_units(2).values),
    ):
        assert ours.device.type == "cuda"
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.map(6), IndexError, "unit 6 is out of range: this canvas has 6 units, 0 to 5"),
        (lambda c: c.map(0, channel=3), IndexError, "channel 3 is out of range: this canvas has 3 channels"),
        (lambda c: c.top_units(0), ValueError, "k is 0; expected between 1 and the 6 units"),
        (
            lambda c: c.top_units(1, pixel=(5, 0)),
            IndexError,
            r"pixel \(5, 0\) is outside the image of size \(5, 7\)",
        ),
        (lambda c: c.top_units(1, pixel=(0,)), IndexError, "is outside the image"),
        (
            lambda c: c.regions(torch.ones(2, 7, 5)),
            ValueError,
            r"masks have shape \(2, 7, 5\); expected \(regions, 5, 7\)",
        ),
    ],
)
def test_invalid_arguments_raise(call, error, text):
    with pytest.raises(error, match=text):
        call(canvas())


def test_share_and_pooled_equal_the_metrics():
    model = FourierMLP(hidden=6, seed=0)
    canvas = NeuronCanvas(model, "activation1", rule="secant").canvas(
        coordinates((9, 14)), (9, 14), memory_budget=20_000
    )
    amounts = metrics.magnitudes(canvas.to_tensor()[: canvas.units])
    masks = torch.rand(3, 9, 14)
    near = {"rtol": 1e-4, "atol": 1e-7}
    torch.testing.assert_close(canvas.share(masks), metrics.share(amounts, masks), **near)
    torch.testing.assert_close(canvas.share(), metrics.share(amounts), **near)
    torch.testing.assert_close(canvas.pooled((2, 5)), metrics.pool_cells(amounts, (2, 5)), **near)
    with pytest.raises(ValueError, match=r"grid is \(10, 2\) for an image of \(9, 14\)"):
        canvas.pooled((10, 2))
    sound = NeuronCanvas(FourierMLP(in_features=1, hidden=4, seed=0), "activation1").canvas(coordinates((20,)), (20,))
    with pytest.raises(ValueError, match=r"the image has size \(20,\); expected \(H, W\) for a grid"):
        sound.pooled()


PART = torch.tensor([[[1.0], [-2.0]], [[3.0], [0.5]], [[-1.0], [4.0]]])  # (3 rows, 2 units, 1 channel)


def run_query(query):
    query.add(0, PART[:2])
    query.add(2, PART[2:])
    return query.result((3,))


def test_query_results_by_hand():
    assert run_query(Totals()).tolist() == [[5.0], [6.5]]
    masks = torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert run_query(Regions(masks)).tolist() == [[[4.0], [2.5]], [[1.0], [4.0]]]
    assert run_query(Regions(masks, signed=True)).tolist() == [[[4.0], [-1.5]], [[-1.0], [4.0]]]
    assert run_query(Maps(3)).tolist() == [[[1.0, 3.0, -1.0]], [[-2.0, 0.5, 4.0]]]
    top = run_query(Top(1, 2, 3))
    assert top.values.tolist() == [[2.0, 3.0, 4.0]]
    assert top.indices.tolist() == [[1, 0, 1]]
    assert run_query(Top(1, 1, 3)).indices.tolist() == [[0, 0, 0]], "what stands behind the units is left out"


def test_8_bit_masks_raise():
    with pytest.raises(
        ValueError, match=r"masks go from 0 to 255; expected bool, or weights in \[0, 1\]: divide 8-bit"
    ):
        Regions(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    with pytest.raises(ValueError, match="masks go from -1 to 1"):
        Regions(torch.tensor([[[-1.0, 1.0]]]))


@pytest.mark.parametrize("query", [Totals(), Regions(torch.ones(1, 3)), Maps(3), Top(1, 2, 3)])
def test_query_without_data_raises(query):
    with pytest.raises(RuntimeError, match="this query has no data"):
        query.result((3,))


def test_smallest_index_is_narrow_and_signed():
    assert [smallest_index(n) for n in (128, 129, 32768, 32769)] == [torch.int8, torch.int16, torch.int16, torch.int32]
    assert smallest_index(1 << 32) == torch.int64
