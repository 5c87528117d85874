import copy

import pytest
import torch

from xinc_captum import LayerError
from xinc_captum.attributions.nern import GatedPass, KernelCanvas, KernelPredictor, NeRN, order_kernels
from xinc_captum.attributions.nern.kernels import LayerOrder

LAYERS = ["stem", "wide", "depthwise", "point"]


@pytest.fixture
def nern(mixed, make_drawn):
    return make_drawn(NeRN(mixed.double(), hidden=9, levels=4, blocks=4))


@pytest.mark.parametrize("how", ["center", "average", "max"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("at", [0, 2, -1])
def test_i1_i2_neurons_and_bias_sum_to_the_weight(mixed, make_drawn, how, layer, at):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=4, blocks=4, crop=how))
    canvas = KernelCanvas(nern, layer, at)
    whole = canvas.to_tensor()
    assert tuple(whole.shape) == canvas.shape == (canvas.units + 1, *mixed.get_submodule(layer).weight.shape)
    assert (whole.sum(0) - nern.weights()[layer].detach()).abs().max() < 1e-10
    assert not whole.requires_grad and whole[:-1].abs().sum() > 0


def test_memory_budget_does_not_change_the_result(nern):
    small = KernelCanvas(nern, "stem", 1, memory_budget=20_000)
    large = KernelCanvas(nern, "stem", 1)
    assert len(list(small.passes())) > 2 and len(list(large.passes())) == 1
    g = torch.randn(2, 4, 2, 5, 5, dtype=torch.float64)
    for ask in (
        lambda c: c.to_tensor(),
        lambda c: c.totals(),
        lambda c: c.magnitudes(),
        lambda c: c.bias(),
        lambda c: c.unit(3),
        lambda c: c.project(g),
    ):
        found, expected = ask(small), ask(large)  # from float32 rows of the embedding, which round by their place
        bound = 4 * torch.finfo(torch.float32).eps * float(expected.abs().max())
        torch.testing.assert_close(found, expected, atol=bound, rtol=0)


@pytest.mark.parametrize("how", ["center", "average", "max"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_queries_agree_with_the_full_canvas(mixed, make_drawn, how, at):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=4, blocks=4, crop=how))
    for layer in LAYERS:
        canvas = KernelCanvas(nern, layer, at)
        whole = canvas.to_tensor()
        same = lambda a, b: torch.testing.assert_close(a, b, atol=1e-10, rtol=0)
        same(canvas.totals(), whole.flatten(1).sum(1))
        same(canvas.magnitudes(), whole.flatten(1).abs().sum(1))
        same(canvas.bias(), whole[-1])
        same(canvas.unit(4), whole[4])
        same(canvas.unit(canvas.units), whole[-1])
        same(canvas.unit(-1), whole[-1])
        same(canvas.to_tensor([-2, -1]), whole[-2:])
        same(canvas.to_tensor([2, canvas.units, 0]), whole[[2, -1, 0]])
        same(canvas.to_tensor(slice(1, 6, 2)), whole[1:6:2])
        g = torch.randn(3, *whole.shape[1:], dtype=torch.float64)
        same(canvas.project(g), g.flatten(1) @ whole.flatten(1).T)


def test_i3_the_same_weights_under_other_coordinates(mixed, make_drawn):
    """Give two kernels each other's coordinates: their canvases change places, and nothing else does."""
    own = make_drawn(NeRN(mixed.double(), ["point"], hidden=7, kernel_size=3))
    path = order_kernels(mixed.point.weight).kernels.clone()
    path[[3, 8]] = path[[8, 3]]
    other = NeRN(mixed, ["point"], hidden=7, kernel_size=3, orders=[LayerOrder(kernels=path)])
    other.predictor.load_state_dict(own.predictor.state_dict())
    a, b = (KernelCanvas(n, "point").to_tensor().flatten(1) for n in (own, other))
    swapped = a.clone()
    swapped[:, path[[3, 8]]] = a[:, path[[8, 3]]]
    torch.testing.assert_close(b, swapped, atol=1e-12, rtol=0)  # other rows of one product in float64
    assert (a - b).abs().max() > 1e-6
    torch.testing.assert_close(other.weights()["point"].detach().flatten(), swapped.sum(0), atol=1e-12, rtol=0)


def test_copies_are_equal(nern):
    again = copy.deepcopy(KernelCanvas(nern, "wide"))
    assert torch.equal(again.totals(), KernelCanvas(nern, "wide").totals())


def test_invalid_arguments_are_refused(nern):
    with pytest.raises(ValueError, match=r"at is 4; expected 0 \(the embedding\), 1 to 3 .* or −1"):
        KernelCanvas(nern, "stem", 4)
    with pytest.raises(ValueError, match=r"memory_budget is 100 bytes; expected at least [\d,]+, for one kernel"):
        KernelCanvas(nern, "stem", memory_budget=100)
    canvas = KernelCanvas(nern, "stem")
    for call in (lambda: canvas.unit(10), lambda: canvas.unit(-11), lambda: canvas.to_tensor([0, 10])):
        with pytest.raises(ValueError, match=r"there is no unit (10|-11); expected 0 to 9 .the bias"):
            call()
    with pytest.raises(LayerError, match="did you mean 'stem'"):
        KernelCanvas(nern, "stam")


@pytest.fixture
def run():
    torch.manual_seed(2)
    predictor = KernelPredictor(6, 7, 4, 3, seed=1).double()
    with torch.no_grad():
        for p in predictor.parameters():
            p.mul_(3)
        predictor.linear2.bias[2] = -100.0  # never on
    rows = torch.randn(11, 6, dtype=torch.float64)
    with torch.no_grad():
        return predictor, rows, GatedPass(predictor, rows)


def test_pass_equals_the_predictor(run):
    predictor, rows, seen = run
    torch.testing.assert_close(seen.predicted, predictor(rows).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_i1_i2_neurons_and_bias_sum_to_the_output(run, at):
    _, _, seen = run
    assert (seen.contributions(at).sum(0) + seen.bias(at) - seen.predicted).abs().max() < 1e-10


def test_contributions_equal_hand_computed_ones():
    predictor = KernelPredictor(1, 2, 2, 1)
    with torch.no_grad():
        predictor.linear1.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        predictor.linear1.bias.copy_(torch.tensor([0.5, 0.5]))
        predictor.output.weight.copy_(torch.tensor([[2.0, 10.0]]))
        predictor.output.bias.fill_(3.0)
        seen = GatedPass(predictor, torch.tensor([[4.0]]))
        assert seen.predicted.tolist() == [[12.0]]
        assert seen.contributions(1)[:, 0, 0].tolist() == [9.0, 0.0] and seen.bias(1).item() == 3.0
        assert seen.contributions(0)[:, 0, 0].tolist() == [8.0] and seen.bias(0).item() == 4.0


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_pull_and_push_are_transposes_and_single_units_agree(run, at):
    _, _, seen = run
    width = seen.hidden(at).shape[1]
    g, v = torch.randn(11, 9, dtype=torch.float64), torch.randn(11, width, dtype=torch.float64)
    assert abs((seen.push(v, at) * g).sum() - (v * seen.pull(g, at)).sum()) < 1e-10
    every = seen.contributions(at)
    for unit in (0, width - 1):
        torch.testing.assert_close(seen.contribution(unit, at), every[unit], atol=1e-12, rtol=0)


def test_pull_equals_autograd(run):
    predictor, rows, seen = run
    g = torch.randn(11, 9, dtype=torch.float64)
    x = rows.clone().requires_grad_()
    (expected,) = torch.autograd.grad((predictor(x) * g).sum(), x)
    torch.testing.assert_close(seen.pull(g, 0), expected, atol=1e-12, rtol=0)


def test_i14_inactive_neuron_has_no_contribution(run):
    _, _, seen = run
    assert (seen.hidden(2)[:, 2] == 0).all()
    assert (seen.contributions(2)[2] == 0).all() and (seen.contributions(1).abs().sum((1, 2)) > 0).any()
