"""Conv1d and Conv3d targets, and networks that mix kernels of one, two and three dims."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from xinc_captum import LayerError
from xinc_captum.attributions.nern import (
    Convolution,
    KernelCanvas,
    NeRN,
    WeightContribution,
    compress,
    convolutions,
    crop,
    embedding_levels,
    error_map,
    filter_ranking,
    layer_profile,
    quantize,
    smoothness_loss,
    uncrop,
    with_noise,
    without_filters,
)


class Signal(nn.Module):
    """Three Conv1d of 9, 5 and 1 numbers, one of them grouped, with batch norm and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 6, 9, padding=4)
        self.norm = nn.BatchNorm1d(6)
        self.grouped = nn.Conv1d(6, 6, 5, padding=2, groups=2)
        self.point = nn.Conv1d(6, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.fc(torch.relu(self.point(torch.relu(self.grouped(x)))).mean(2))


class Video(nn.Module):
    """Kernels of 3x3x3, 3x1x1 and 1x3x3."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 4, 3, padding=1)
        self.time = nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
        self.space = nn.Conv3d(4, 3, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x):
        return self.space(torch.relu(self.time(torch.relu(self.stem(x))))).mean((2, 3, 4))


class Several(nn.Module):
    """A Conv3d of 2x3x3, a Conv2d of 3x3 and a Conv1d of 5."""

    def __init__(self):
        super().__init__()
        self.volume = nn.Conv3d(1, 3, (2, 3, 3), padding=(0, 1, 1))
        self.plane = nn.Conv2d(3, 4, 3, padding=1)
        self.line = nn.Conv1d(4, 3, 5, padding=2)

    def forward(self, x):
        x = torch.relu(self.volume(x)).mean(2)
        return self.line(torch.relu(self.plane(x)).mean(2)).mean(2)


TARGETS = {"signal": (Signal, (2, 12)), "video": (Video, (1, 4, 5, 5)), "several": (Several, (1, 4, 6, 6))}
PREDICTED = {"signal": (9,), "video": (3, 3, 3), "several": (2, 3, 5)}
# The kernels in the middle of the predicted ones, written by hand.
CUTS = {
    "signal": {
        "stem": lambda p: p,
        "grouped": lambda p: p[..., 2:7],
        "point": lambda p: p[..., 4:5],
    },
    "video": {
        "stem": lambda p: p,
        "time": lambda p: p[..., :, 1:2, 1:2],
        "space": lambda p: p[..., 1:2, :, :],
    },
    "several": {
        "volume": lambda p: p[..., :, :, 1:4],
        "plane": lambda p: p[..., 0, :, 1:4],
        "line": lambda p: p[..., 0, 1, :],
    },
}


@pytest.fixture(params=list(TARGETS))
def name(request):
    return request.param


@pytest.fixture
def target(name):
    torch.manual_seed(7)
    return TARGETS[name][0]().double().eval()


@pytest.fixture
def nern(target, make_drawn):
    return make_drawn(NeRN(target, hidden=9, levels=4, blocks=4))


@pytest.fixture
def images(name):
    return torch.rand(3, *TARGETS[name][1], dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def scaled_weights(nern, name, scale):
    """Generated weights whose last hidden activations are multiplied by ``scale``, without code of the package."""
    *hidden, output = [m for m in nern.predictor if isinstance(m, nn.Linear)]
    weights = {}
    for layer in convolutions(nern.target):
        rows = nern.embedded(layer)
        for linear in hidden:
            rows = torch.relu(rows @ linear.weight.T + linear.bias)
        predicted = ((rows * scale) @ output.weight.T + output.bias).reshape(-1, *PREDICTED[name])
        cut = CUTS[name][layer.name](predicted)
        weights[f"{layer.name}.weight"] = cut.reshape(layer.shape)
    return weights


def test_predicted_size_is_the_largest_of_each_dim(nern, name, target):
    assert nern.predicted_size == PREDICTED[name]
    expected = scaled_weights(nern, name, torch.ones(9, dtype=torch.float64))
    for layer, weight in nern.weights().items():
        assert weight.shape == target.get_submodule(layer).weight.shape
        torch.testing.assert_close(weight, expected[f"{layer}.weight"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", ["center", "average", "max"])
@pytest.mark.parametrize("at", [0, 2, -1])
def test_contributions_add_up_to_the_weights(target, make_drawn, how, at):
    nern = make_drawn(NeRN(target, hidden=9, levels=4, blocks=4, crop=how))
    for layer in nern.layers:
        canvas = KernelCanvas(nern, layer, at)
        whole = canvas.to_tensor()
        assert tuple(whole.shape) == canvas.shape == (canvas.units + 1, *layer.shape)
        torch.testing.assert_close(whole.sum(0), nern.weights()[layer.name].detach(), atol=1e-10, rtol=0)
        torch.testing.assert_close(canvas.totals(), whole.flatten(1).sum(1), atol=1e-10, rtol=0)
        gradients = torch.randn(2, *layer.shape, dtype=torch.float64)
        expected = gradients.flatten(1) @ whole.flatten(1).T
        torch.testing.assert_close(canvas.project(gradients), expected, atol=1e-10, rtol=0)


def test_weight_contributions_equal_autograd(nern, name, target, images):
    """A factor on each neuron's activation: its derivative is the gradient mode, its removal a forward difference."""
    layers = [layer.name for layer in nern.layers]
    gradient = WeightContribution(nern, mode="gradient").attribute(images, target=1)
    kernels = WeightContribution(nern).attribute()
    removal = WeightContribution(nern, layers[0], mode="removal").attribute(images, target=1)
    ones = torch.ones(9, dtype=torch.float64)
    fixed = {key: weight.detach() for key, weight in scaled_weights(nern, name, ones).items()}
    for column, layer in enumerate(layers):
        key = f"{layer}.weight"

        def outputs(scale, key=key):
            return functional_call(target, fixed | {key: scaled_weights(nern, name, scale)[key]}, (images,))[:, 1]

        expected = torch.autograd.functional.jacobian(outputs, ones)
        torch.testing.assert_close(gradient[:, :-1, column], expected, atol=1e-6, rtol=0)
        assert expected.abs().max() > 1e-3
        of_neurons = torch.autograd.functional.jacobian(lambda a, key=key: scaled_weights(nern, name, a)[key], ones)
        torch.testing.assert_close(kernels[column][:-1], of_neurons.movedim(-1, 0), atol=1e-6, rtol=0)
        if column == 0:
            without = torch.stack([outputs(ones - torch.eye(9, dtype=ones.dtype)[i]).detach() for i in range(9)], 1)
            torch.testing.assert_close(removal[:, :-1, 0], outputs(ones).detach()[:, None] - without, atol=1e-6, rtol=0)


@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_contributions_add_up_to_the_change_of_the_output(nern, name, target, images, baseline):
    method = WeightContribution(nern, mode="integrated")
    parts, delta = method.attribute(images, target=1, baseline=baseline, n_steps=200, return_convergence_delta=True)
    start = {
        f"{layer}.weight": torch.zeros_like(w) if baseline == "zero" else w.mean((0, 1), keepdim=True).expand_as(w)
        for layer, w in nern.weights().items()
    }
    with torch.no_grad():
        change = (nern.rebuild()(images) - functional_call(target, start, (images,)))[:, 1]
    torch.testing.assert_close(parts.sum((1, 2)) - delta, change, atol=1e-10, rtol=0)
    assert delta.abs().max() < 0.02 * change.abs().max()


def test_rebuilt_network_has_the_reported_error(name):
    """The reported error and loss are distances between the rebuilt weights and the target's."""
    torch.manual_seed(7)
    target = TARGETS[name][0]().requires_grad_(False)
    nern = NeRN(target, hidden=64, levels=10)
    before = nern.relative_error()
    fit = nern.fit(steps=200, validation=0, show_progress=False)
    rebuilt = nern.rebuild()
    pairs = [
        (target.get_parameter(f"{one.name}.weight"), rebuilt.get_parameter(f"{one.name}.weight")) for one in nern.layers
    ]
    error = sum((a - b).double().square().sum() for a, b in pairs)
    total = sum(a.double().square().sum() for a, _ in pairs)
    assert fit.kept.relative_error == pytest.approx(float((error / total) ** 0.5), rel=1e-5)
    assert fit.kept.relative_error < 0.05 and before > 0.5
    assert fit.losses[-1, 0] < 0.05 * fit.losses[0, 0]


def test_fit_with_images_compares_features_and_logits(name, tmp_path):
    torch.manual_seed(7)
    target, images = TARGETS[name][0]().eval(), torch.rand(12, *TARGETS[name][1])
    nern = NeRN(target, hidden=8)
    fit = nern.fit(images, steps=3, show_progress=False)
    assert (
        (fit.losses[:, :2] > 0).all()
        and (fit.losses[:, 2] != 0).all()
        and fit.report.judged_on == "1 held-out pictures"
    )
    loaded = NeRN.load(nern.save(tmp_path / "a.safetensors"), TARGETS[name][0]())
    assert loaded.predicted_size == PREDICTED[name] and loaded.layers == nern.layers
    for layer, weight in nern.weights().items():
        assert torch.equal(loaded.weights()[layer], weight)
    assert torch.equal(loaded.rebuild().eval()(images), nern.rebuild()(images))
    assert fit.report.represented == sum(layer.weights for layer in convolutions(target))
    assert compress(nern).relative_error == pytest.approx(fit.kept.relative_error, rel=0.1)
    assert nern.fit("noise", noise_shape=TARGETS[name][1], steps=1, show_progress=False).steps == 1


def test_analyses_have_the_shapes_of_the_weights(nern, target):
    first = nern.layers[0]
    levels = embedding_levels(nern, first.name)
    assert levels.parts.shape == (3, 4, *first.shape)
    total = levels.parts.sum((0, 1)) + levels.bias
    torch.testing.assert_close(total, nern.weights()[first.name].detach(), atol=1e-10, rtol=0)
    found = error_map(nern, first.name)
    difference = target.get_parameter(f"{first.name}.weight") - nern.weights()[first.name]
    assert torch.equal(found.error, difference.detach()) and found.kernel_error.shape == first.shape[:2]
    profile = layer_profile(nern)
    sums = torch.stack([weight.sum() for weight in nern.weights().values()]).detach()
    torch.testing.assert_close(profile.signed.sum(0), sums, atol=1e-10, rtol=0)
    ranking = filter_ranking(nern)
    pruned = without_filters(target, ranking[:2])
    assert all(not pruned.get_parameter(f"{layer}.weight")[f].any() for layer, f in ranking[:2])
    assert quantize(target).relative_error < 0.01 and torch.isfinite(smoothness_loss(target))
    noisy = with_noise(target.requires_grad_(False), 0.25).get_parameter(f"{first.name}.weight") - target.get_parameter(
        f"{first.name}.weight"
    )
    assert float(noisy.norm() / target.get_parameter(f"{first.name}.weight").norm()) == pytest.approx(0.25)


def test_batch_norms_of_the_represented_dims_are_compared():
    torch.manual_seed(0)
    net = Signal().eval()
    nern = NeRN(net, ["stem"], hidden=8)
    x = torch.rand(6, 2, 12)
    options = {"steps": 1, "validation": 0, "show_progress": False}
    default = nern.fit(x, **options).losses
    named = NeRN(net, ["stem"], hidden=8).fit(x, feature_layers=["norm"], **options).losses
    assert torch.equal(default, named)


@pytest.mark.parametrize("how", ["center", "average", "max"])
@pytest.mark.parametrize(
    ("sides", "size"), [((7,), (3,)), ((4,), (1,)), ((3, 4, 5), (1, 4, 2)), ((2, 2, 2), (1, 2, 1))]
)
def test_uncrop_is_the_gradient_of_crop(how, sides, size):
    torch.manual_seed(0)
    p = torch.randn(6, *sides, dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, *size, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((crop(p, size, how) * g).sum(), p)
    torch.testing.assert_close(uncrop(g, sides, how, chosen_by=p), gradient, atol=1e-12, rtol=0)


def test_crops_equal_hand_computed_values():
    line = torch.tensor([[5.0, 1.0, 2.0, 9.0, 3.0]])
    assert crop(line, (3,)).tolist() == [[1, 2, 9]]
    assert crop(line, (2,), "max").tolist() == [[9, 9]]
    assert crop(line, (4,), "average").tolist() == [[3, 1.5, 5.5, 6]]
    cube = torch.arange(27.0).view(1, 3, 3, 3)
    assert crop(cube, (1, 1, 1)).item() == 13 and crop(cube, (3, 1, 1)).flatten().tolist() == [4, 13, 22]
    assert crop(cube, (1, 2, 2), "max").flatten().tolist() == [22, 23, 25, 26]
    assert crop(cube, (2, 1, 1), "average").flatten().tolist() == [8.5, 17.5]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(LayerError, match=r"the predicted 5 cannot be cut out of it: 'stem' 9. Take kernel_size=9, or"):
        NeRN(Signal(), kernel_size=5)
    text = r"the predicted 1x3x3 .*: 'stem' 3x3x3, 'time' 3x1x1. Take kernel_size=\(3, 3, 3\), or leave"
    with pytest.raises(LayerError, match=text):
        NeRN(Video(), kernel_size=(1, 3, 3))
    with pytest.raises(ValueError, match=r"kernel_size is \(3, 3\); expected at least 1, or 3 such sides, or None"):
        NeRN(Video(), kernel_size=(3, 3))
    assert NeRN(Video(), ["space"], kernel_size=(2, 3, 3)).kernel_size == (2, 3, 3)
    with pytest.raises(
        ValueError, match=r"size is \(1, 1\) and predicted has shape \(3, 3\); expected one to three sides"
    ):
        crop(torch.zeros(3, 3), (1, 1))
    assert convolutions(Signal())[1] == Convolution("grouped", (6, 3, 5))
