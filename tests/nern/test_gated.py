import pytest
import torch

from xinc_captum.attributions.nern import GatedPass, KernelPredictor


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


def test_the_pass_is_the_predictors(run):
    predictor, rows, seen = run
    torch.testing.assert_close(seen.predicted, predictor(rows).detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_i1_i2_neurons_and_bias_are_the_output(run, at):
    _, _, seen = run
    assert (seen.contributions(at).sum(0) + seen.bias(at) - seen.predicted).abs().max() < 1e-10


def test_by_hand():
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
def test_pulled_and_carried_are_transposes_and_single_units_agree(run, at):
    _, _, seen = run
    width = seen.hidden(at).shape[1]
    g, v = torch.randn(11, 9, dtype=torch.float64), torch.randn(11, width, dtype=torch.float64)
    assert abs((seen.carried(v, at) * g).sum() - (v * seen.pulled(g, at)).sum()) < 1e-10
    every = seen.contributions(at)
    for unit in (0, width - 1):
        torch.testing.assert_close(seen.contribution(unit, at), every[unit], atol=1e-12, rtol=0)


def test_pulled_is_autograds(run):
    predictor, rows, seen = run
    g = torch.randn(11, 9, dtype=torch.float64)
    x = rows.clone().requires_grad_()
    (wanted,) = torch.autograd.grad((predictor(x) * g).sum(), x)
    torch.testing.assert_close(seen.pulled(g, 0), wanted, atol=1e-12, rtol=0)


def test_i14_a_neuron_that_is_off_wrote_nothing(run):
    _, _, seen = run
    assert (seen.hidden(2)[:, 2] == 0).all()
    assert (seen.contributions(2)[2] == 0).all() and (seen.contributions(1).abs().sum((1, 2)) > 0).any()
