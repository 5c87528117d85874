import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import LayerError, WeightContribution
from xinc_captum.attributions.nern import NeRN, layer_profile


class Small(nn.Module):
    """Two convolutions of different sizes and a linear head; without biases it is positively homogeneous."""

    def __init__(self, bias):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(4) if bias else nn.Identity()
        self.second = nn.Conv2d(4, 5, 1, bias=bias)
        self.fc = nn.Linear(5, 3, bias=bias)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.fc(torch.relu(self.second(x)).mean((2, 3)))


@pytest.fixture(params=["biases", "bias-free"])
def kind(request):
    return request.param


@pytest.fixture
def nern(kind):
    torch.manual_seed(1)
    made = NeRN(Small(kind == "biases").eval().double(), hidden=8, levels=6, blocks=4)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in made.predictor.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return made


@pytest.fixture
def x():
    return torch.rand(3, 2, 5, 5, dtype=torch.float64)


def answers(nern, x, weights=None):
    """y of class 1 of a really rebuilt network, with some of its weights given."""
    model = nern.rebuild()
    with torch.no_grad():
        for name, weight in (weights or {}).items():
            model.get_parameter(f"{name}.weight").copy_(weight)
        return model(x)[:, 1]


@pytest.mark.parametrize("at", [0, 1, -1])
def test_kernel_mode_equals_the_canvas(nern, at):
    every = WeightContribution(nern, at=at).attribute()
    for part, (name, weight) in zip(every, nern.weights().items(), strict=True):
        alone = WeightContribution(nern, name, at=at).attribute()
        assert torch.equal(alone, part) and alone.is_contiguous() and not alone.requires_grad
        assert (alone.sum(0) - weight.detach()).abs().max() < 1e-10
        chosen = WeightContribution(nern, name, at=at).attribute(neuron_selector=[3, len(alone) - 1])
        torch.testing.assert_close(chosen, alone[[3, -1]], atol=1e-12, rtol=0)
        one = WeightContribution(nern, name, at=at).attribute(neuron_selector=2)
        torch.testing.assert_close(one, alone[2:3], atol=1e-12, rtol=0)


@pytest.mark.parametrize("at", [0, 1, -1])
def test_gradient_sums_to_the_product_of_weights_and_their_gradients(nern, x, at):
    found = WeightContribution(nern, mode="gradient", at=at).attribute(x, target=1)
    model = nern.rebuild()
    for row in range(3):
        model.zero_grad()
        model(x[row : row + 1])[0, 1].backward()
        for column, name in enumerate(("first", "second")):
            p = model.get_parameter(f"{name}.weight")
            assert abs(found[row, :, column].sum() - (p * p.grad).sum()) < 1e-10


@pytest.mark.parametrize("at", [0, 1, -1])
def test_i8_gradient_is_a_finite_difference(nern, x, at):
    found = WeightContribution(nern, mode="gradient", at=at).attribute(x, target=1)
    own, eps = nern.weights(), 1e-5
    for column, name in enumerate(("first", "second")):
        parts = WeightContribution(nern, name, at=at).attribute()
        for unit in (0, 4, len(parts) - 1):
            up, down = (answers(nern, x, {name: own[name] + s * eps * parts[unit]}) for s in (1, -1))
            torch.testing.assert_close(found[:, unit, column], (up - down) / (2 * eps), atol=1e-7, rtol=1e-3)


def test_i9_euler_sums_on_a_bias_free_network_and_only_there(nern, x, kind):
    found = WeightContribution(nern, mode="gradient").attribute(x, target=1).sum(1)
    gap = (found - answers(nern, x)[:, None]).abs()
    assert gap.max() < 1e-10 if kind == "bias-free" else gap.max() > 1e-3


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("at", [1, -1])
def test_i10_integrated_closes_on_the_difference(nern, x, baseline, at):
    method = WeightContribution(nern, mode="integrated", at=at)
    found, delta = method.attribute(x, target=1, baseline=baseline, return_convergence_delta=True)
    own = {name: w.detach() for name, w in nern.weights().items()}
    start = {
        name: w.mean((0, 1), keepdim=True).expand_as(w) if baseline == "mean" else torch.zeros_like(w)
        for name, w in own.items()
    }
    expected = answers(nern, x) - answers(nern, x, start)
    torch.testing.assert_close(delta, found.sum((1, 2)) - expected, atol=1e-10, rtol=0)
    assert (delta.abs() <= 5e-3 * expected.abs()).all()


def test_integrated_equals_a_hand_computed_one(nern, x):
    """One layer, zero baseline: the contribution of each unit times the mean gradient along the way."""
    found = WeightContribution(nern, "second", mode="integrated").attribute(x[:1], target=1, n_steps=5)
    parts, own = WeightContribution(nern, "second").attribute(), nern.weights()["second"].detach()
    total = torch.zeros_like(own)
    for a in (0.1, 0.3, 0.5, 0.7, 0.9):
        model = nern.rebuild()
        with torch.no_grad():
            model.second.weight.copy_(a * own)
        total += torch.autograd.grad(model(x[:1])[0, 1], model.second.weight)[0] / 5
    torch.testing.assert_close(found[0, :, 0], (parts * total).flatten(1).sum(1), atol=1e-10, rtol=0)


def test_i11_removal_is_a_forward_difference(nern, x):
    own, whole = nern.weights(), answers(nern, x)
    for name in ("first", "second"):
        parts = WeightContribution(nern, name).attribute()
        found, delta = WeightContribution(nern, name, mode="removal").attribute(
            x, target=1, return_convergence_delta=True
        )
        assert (delta == 0).all()
        for unit in range(9):
            expected = whole - answers(nern, x, {name: own[name] - parts[unit]})
            assert (found[:, unit, 0] - expected).abs().max() < 1e-10


def test_i11_removal_from_several_layers_is_divided_among_them(nern, x):
    method, units, x = WeightContribution(nern, mode="removal"), [0, 3, 4, 8], x[:2]
    found, delta = method.attribute(x, target=1, neuron_selector=units, return_convergence_delta=True)
    own, parts = nern.weights(), dict(zip(nern.weights(), WeightContribution(nern).attribute(), strict=True))
    expected = torch.stack(
        [
            answers(nern, x) - answers(nern, x, {name: own[name] - part[unit] for name, part in parts.items()})
            for unit in units
        ],
        1,
    )
    torch.testing.assert_close(found.sum(2) - delta, expected, atol=1e-10, rtol=0)
    assert (
        delta.abs().sum() / expected.abs().sum()
    ) < 2e-2  # 1e-3, or 5e-3 where rounding orders tied kernels otherwise
    some = method.attribute(x, target=1, neuron_selector=slice(3, 5))
    torch.testing.assert_close(some, found[:, 1:3], atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", ["gradient", "integrated", "removal"])
def test_i14_inactive_neuron_has_no_contribution(nern, x, mode):
    with torch.no_grad():
        nern.predictor.linear3.bias[5] = -1e6
    assert (WeightContribution(nern, "first").attribute()[5] == 0).all()
    found = WeightContribution(nern, mode=mode).attribute(x, target=1, n_steps=4)
    assert (found[:, 5] == 0).all() and (found.abs().sum((0, 2)) > 0).sum() > 1


@pytest.mark.parametrize("crop", ["average", "max"])
def test_other_crops(kind, x, crop):
    torch.manual_seed(3)
    nern = NeRN(Small(kind == "biases").eval().double(), hidden=8, levels=6, crop=crop)
    found = WeightContribution(nern, mode="gradient").attribute(x, target=1)
    model = nern.rebuild()
    model(x[:1])[0, 1].backward()
    for column, name in enumerate(("first", "second")):
        p = model.get_parameter(f"{name}.weight")
        assert abs(found[0, :, column].sum() - (p * p.grad).sum()) < 1e-10


def test_other_represented_layers_are_generated(nern, x):
    """Explaining one layer asks about the rebuilt network, not about one that is rebuilt in part."""
    both = WeightContribution(nern, mode="gradient").attribute(x, target=1)
    one = WeightContribution(nern, ["second"], mode="gradient").attribute(x, target=1)
    torch.testing.assert_close(one, both[:, :, 1:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", ["gradient", "integrated", "removal"])
def test_targets_and_selections(nern, x, mode):
    method = WeightContribution(nern, "second", mode=mode)
    whole = method.attribute(x, target=[1, 0, 1], n_steps=3)
    torch.testing.assert_close(method.attribute(x[1:2], target=0, n_steps=3), whole[1:2], atol=1e-12, rtol=0)
    torch.testing.assert_close(method.attribute(x, target=[1, 0, 1], n_steps=3, neuron_selector=-1), whole[:, -1:])
    torch.testing.assert_close(
        method.attribute(x, target=[1, 0, 1], n_steps=3, internal_batch_size=2), whole, atol=1e-12, rtol=0
    )


def test_sums_agree_with_the_layer_profile(nern):
    profile = layer_profile(nern)
    for column, part in enumerate(WeightContribution(nern).attribute()):
        torch.testing.assert_close(part.flatten(1).sum(1), profile.signed[:, column], atol=1e-10, rtol=0)


@pytest.mark.parametrize("selector", [torch.tensor(2), torch.tensor([2]), np.int64(2), [np.int64(2)]], ids=str)
def test_integers_of_every_kind_select_neurons(nern, selector):
    method = WeightContribution(nern, "first")
    torch.testing.assert_close(method.attribute(neuron_selector=selector), method.attribute()[[2]])


def test_target_is_restored(nern, x, found):
    nern.target(x).sum().backward()
    before = found(nern.target)
    for mode in ("gradient", "integrated", "removal"):
        WeightContribution(nern, mode=mode).attribute(x, target=1, n_steps=2)
    assert before.differences(nern.target) == []
    assert all(p.grad is None for p in nern.predictor.parameters())


@pytest.mark.parametrize(
    ("kwargs", "call", "error", "text"),
    [
        ({"mode": "erased"}, {}, ValueError, "mode is 'erased'; expected one of 'kernel', 'gradient'"),
        ({"layer": []}, {}, ValueError, "layer is an empty list"),
        ({"layer": 0}, {}, TypeError, "layer must be a torch.nn.Module or a dotted name, got int"),
        ({"layer": ["first", "first"]}, {}, ValueError, "layers are 'first', 'first'; expected each layer once"),
        (
            {"layer": "fc"},
            {},
            LayerError,
            "layer 'fc' is a Linear that this NeRN does not represent; expected one of 'first'",
        ),
        (
            {},
            {"inputs": torch.rand(1, 2, 5, 5)},
            ValueError,
            "mode 'kernel' does not depend on images",
        ),
        ({"mode": "gradient"}, {}, ValueError, "mode 'gradient' explains outputs for images; give inputs"),
        ({}, {"neuron_selector": 9}, ValueError, "neuron_selector 9 does not fit 8 neurons and the bias, number 8"),
        ({}, {"neuron_selector": "a"}, ValueError, "neuron_selector 'a' does not fit"),
        ({}, {"neuron_selector": torch.arange(9) < 2}, ValueError, r"of integers, such as mask.nonzero\(\)\[:, 0\]"),
        ({}, {"neuron_selector": np.arange(9) < 2}, ValueError, "neuron_selector .* does not fit"),
        ({}, {"neuron_selector": True}, ValueError, "neuron_selector True does not fit"),
        ({}, {"neuron_selector": [1.7]}, ValueError, r"neuron_selector \[1.7\] does not fit"),
        ({}, {"return_convergence_delta": True}, ValueError, "mode 'kernel' has no known sum"),
        (
            {"mode": "integrated"},
            {"n_steps": 0},
            ValueError,
            "n_steps is 0; expected at least 1",
        ),
        ({"mode": "integrated"}, {"baseline": "one"}, ValueError, "baseline is 'one'; expected 'zero' or 'mean'"),
    ],
)
def test_invalid_arguments_are_refused(nern, kwargs, call, error, text):
    with pytest.raises(error, match=text):
        WeightContribution(nern, **kwargs).attribute(**call)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="nern is a Linear; expected a NeRN"):
        WeightContribution(nn.Linear(1, 1))


def test_layers_must_run(nern, x):
    nern.target.forward = lambda x: nern.target.fc(nern.target.first(x).mean((2, 3)).repeat(1, 2)[:, :5])
    with pytest.raises(LayerError, match="does not depend on the weights of 'second': the layer did not run"):
        WeightContribution(nern, mode="gradient").attribute(x, target=1)


def test_parameters_must_be_finite():
    torch.manual_seed(0)
    target = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    nern, x = NeRN(target, hidden=3), torch.rand(2, 1, 5, 5)
    with torch.no_grad():
        target[0].weight[0, 0, 0, 0] = float("nan")  # the NeRN's weights stand in its place
    WeightContribution(nern, mode="removal").attribute(x, target=0)
    with torch.no_grad():
        target[4].weight[0, 0] = float("inf")
    for mode in ("gradient", "integrated", "removal"):
        with pytest.raises(ValueError, match="the parameter 4.weight of this Sequential holds NaN or infinite values"):
            WeightContribution(nern, mode=mode).attribute(x, target=0)
    WeightContribution(nern).attribute()
    with torch.no_grad():
        next(nern.predictor.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="the parameter .* of this .* holds NaN or infinite values"):
        WeightContribution(nern).attribute()
