import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import Ablation, LayerError, NeuronCanvas
from xinc_captum.inr import FourierMLP, Siren, coordinates

RULES = ["tangent", "secant", "ablation", Ablation("mean"), Ablation("resample")]


@given(
    rule=st.sampled_from(RULES),
    rows=st.integers(2, 40),
    budget=st.integers(1, 60_000),
    per_eval=st.integers(1, 7),
    layers=st.integers(2, 4),
)
def test_any_budget_gives_the_same_answer(rule, rows, budget, per_eval, layers):
    model = FourierMLP(hidden=5, layers=layers, seed=0)
    x = torch.rand(rows, 2, generator=torch.Generator().manual_seed(rows))
    canvas = NeuronCanvas(model, "activation1", rule=rule)
    small = canvas.attribute(x, memory_budget=budget, perturbations_per_eval=per_eval)
    torch.testing.assert_close(small, canvas.attribute(x), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_dims_and_channels(dims, channels):
    size = (4, 3, 2)[:dims]
    for model in (
        FourierMLP(dims, channels, hidden=6, layers=4, encoding="nerf", features=3, activation="tanh"),
        Siren(dims, channels, hidden=6, layers=3),
    ):
        x = coordinates(size)
        shares = NeuronCanvas(model, "activation2", rule="secant").attribute(x)
        assert shares.shape == (len(x), 7, channels)
        torch.testing.assert_close(shares.sum(1), model(x).detach(), atol=1e-5, rtol=1e-4)


def test_off_the_training_grid():
    model = FourierMLP(hidden=5)
    canvas = NeuronCanvas(model, "activation1")
    coarse = canvas.canvas(coordinates((5, 5)), (5, 5)).to_tensor()
    fine = canvas.canvas(coordinates((9, 9)), (9, 9)).to_tensor()
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, atol=1e-6, rtol=1e-4)


def test_targets_leave_their_dims():
    model, x = FourierMLP(hidden=5), torch.rand(4, 2)
    canvas = NeuronCanvas(model, "activation1")
    whole = canvas.attribute(x)
    assert torch.allclose(canvas.attribute(x, target=1), whole[..., 1], atol=1e-6)
    per_row = canvas.attribute(x, target=[0, 1, 2, 0])
    assert torch.allclose(per_row, torch.stack([whole[i, :, c] for i, c in enumerate([0, 1, 2, 0])]), atol=1e-6)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_pairs_sum_to_neurons(rule):
    model, x = FourierMLP(hidden=5, layers=4, activation="gelu"), torch.rand(4, 2)
    pairs = NeuronCanvas(model, "linear2", rule=rule, unit="pair").attribute(x, memory_budget=20_000)
    neurons = NeuronCanvas(model, "linear2", rule=rule).attribute(x, attribute_to_layer_input=True)
    if rule == "secant":
        assert pairs.shape == (4, 6, 5, 3)
        torch.testing.assert_close(pairs.sum((1, 2)), model(x).detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pairs.sum(2), neurons, atol=1e-5, rtol=1e-3)
    elif rule == "tangent":
        torch.testing.assert_close(pairs.sum(2), neurons, atol=1e-5, rtol=1e-3)
    else:
        z = model[:4](x)
        changed = z.clone()
        changed[:, 2] -= model.linear2.weight[2, 1] * model[:3](x)[:, 1]
        by_hand = model[4:](z) - model[4:](changed)
        torch.testing.assert_close(pairs[:, 1, 2], by_hand.detach(), atol=1e-6, rtol=1e-4)


def test_deltas_of_every_rule():
    model, x = FourierMLP(hidden=5), torch.rand(4, 2)
    for rule in RULES[:4]:
        answer, delta = NeuronCanvas(model, "activation2", rule=rule).attribute(x, return_convergence_delta=True)
        assert delta.shape == (4,)
        assert delta.abs().max() < 1e-5, "the tail of the last layer is linear: every rule is complete there"
        assert answer.shape[0] == 4


def test_progress_is_silent_where_nobody_looks(capsys):
    NeuronCanvas(FourierMLP(hidden=4), "activation1").attribute(torch.rand(4, 2), show_progress=True)
    assert capsys.readouterr().err == ""


def test_what_cannot_be_asked():
    model, x = FourierMLP(hidden=5), torch.rand(6, 2)
    canvas = NeuronCanvas(model, "activation1")
    for call, error, text in [
        (lambda: NeuronCanvas(model, "activation1", unit="edge"), ValueError, "unit is 'edge'; wanted \"neuron\" or"),
        (lambda: canvas.attribute(x, neuron_selector=5), IndexError, r"neuron_selector 5 is out of range.*\[-5, 4\]"),
        (
            lambda: canvas.attribute(x, neuron_selector=0, return_convergence_delta=True),
            ValueError,
            "neuron_selector=None",
        ),
        (lambda: canvas.attribute(x, memory_budget=0), ValueError, "memory_budget is 0; wanted a positive number"),
        (lambda: canvas.attribute(x, perturbations_per_eval=0), ValueError, "perturbations_per_eval is 0"),
        (lambda: canvas.canvas(x, (2, 2)), ValueError, r"size=\(2, 2\) has 4 pixels, but the inputs have 6 rows"),
        (lambda: NeuronCanvas(model, "activation1", unit="pair").attribute(x), LayerError, "is a ReLU; pairs"),
        (
            lambda: NeuronCanvas(model, "linear2", unit="pair").canvas(x, (2, 3)),
            ValueError,
            "canvas\\(\\) draws neurons",
        ),
    ]:
        with pytest.raises(error, match=text):
            call()
    pairs = NeuronCanvas(model, "linear2", unit="pair")
    with pytest.raises(IndexError, match=r"\(5, 0\) is out of range: the layer has 5 inputs and 5 outputs"):
        pairs.attribute(x, neuron_selector=(5, 0))
    with pytest.raises(TypeError, match=r"wanted a tuple \(in, out\)"):
        pairs.attribute(x, neuron_selector=3)


def test_a_layer_behind_a_detach_is_named():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, 3), nn.Linear(2, 1)

        def forward(self, x):
            self.first(x)
            return self.last(x)

    with pytest.raises(LayerError, match="the output does not depend on layer 'first'"):
        NeuronCanvas(Cut(), "first").attribute(torch.rand(2, 2))


def test_integer_inputs_reach_models_that_take_them():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    tokens = torch.tensor([[0, 1], [2, 3], [4, 0]])
    shares = NeuronCanvas(model, "1", rule="secant").attribute(tokens)
    torch.testing.assert_close(shares.sum(1), model(tokens).detach())


@pytest.mark.parametrize("broken", ["input", "weight", "later weight"])
def test_a_canvas_of_nan_is_refused(broken):
    model, x = FourierMLP(hidden=5), coordinates((2, 3))
    with torch.no_grad():
        if broken == "input":
            x[3, 0] = float("inf")
        elif broken == "weight":
            model.linear2.weight[0, 0] = float("nan")
        else:
            model.output.weight[0, 0] = float("nan")
    texts = {
        "input": "input 0 holds 1 NaN or infinite",
        "weight": "parameter 'weight' holds NaN",
        "later weight": "first pixel",
    }
    layer = "linear2" if broken == "weight" else "activation1"
    with pytest.raises(ValueError, match=texts[broken]):
        NeuronCanvas(model, layer).canvas(x, (2, 3))


def test_a_delta_before_an_in_place_operation():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    for rule in RULES[:4]:
        _, delta = NeuronCanvas(model, "0", rule=rule).attribute(torch.rand(5, 3), return_convergence_delta=True)
        assert delta.shape == (5,)


def test_units_are_stacked_into_one_forward_while_they_fit():
    model, calls = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 200)), []
    model.register_forward_hook(lambda _m, _a, output: calls.append(len(output)))
    NeuronCanvas(model, "1", rule="ablation").attribute(torch.rand(2, 8))
    assert max(calls) == 128, "64 units of 2 rows in one forward"
    calls.clear()
    NeuronCanvas(model, "1", rule="ablation").attribute(torch.rand(2, 8), perturbations_per_eval=3)
    assert max(calls) == 6


def test_rows_that_share_statistics_are_neither_cut_nor_stacked():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 30))
    x = torch.rand(6, 3)
    with pytest.warns(UserWarning, match="training mode"):
        shares = NeuronCanvas(model, "0", rule="ablation").attribute(x)
        alone = NeuronCanvas(model, "0", rule="ablation").attribute(x, perturbations_per_eval=1)
    torch.testing.assert_close(shares, alone)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_totals_of_half_precision_do_not_overflow(rule):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).half()
    with torch.no_grad():
        model[2].weight.fill_(100.0)
        model[0].bias.fill_(5.0)
    x = coordinates((64, 64), dtype=torch.float16)
    totals = NeuronCanvas(model, "1", rule=rule).canvas(x, (64, 64)).totals()
    assert totals.dtype == torch.float32
    assert torch.isfinite(totals).all()
    assert totals.max() > 1e6


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_any_budget_gives_the_same_frames(decoder, rule, unit):
    model, t = decoder
    canvas = NeuronCanvas(model, "blocks.0.0", rule=rule, unit=unit)
    torch.testing.assert_close(canvas.attribute(t, memory_budget=20_000), canvas.attribute(t), atol=1e-12, rtol=1e-9)
