"""One table of every public attribution class against every line of the drop-in contract.

A new class adds a row to ``METHODS``; a new promise adds a test. Lines are numbered as in the project's checklist of
what Captum users do with a method.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from captum.robust import AttackComparator, MinParamPerturbation
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xinc_captum import (
    Ablation,
    FeatureAccentuation,
    FeatureActivationMap,
    LatentLink,
    LayerContribution,
    LayerError,
    LinkedUnitVisualization,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    TokenContribution,
    TransINR,
    WeightContribution,
    as_explanation,
    to_hwc,
)
from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.nern import NeRN


class Net(nn.Module):
    """A small classifier with batch norm and an in-place ReLU; ``fc`` is its last Linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(16, 3)

    def forward(self, x, scale=1.0):
        return self.fc(self.flat(self.pool(self.relu(self.norm(self.conv(x)))))) * scale


@dataclass(frozen=True)
class Method:
    """A class of the package, how to build it on a layer, and what it promises."""

    name: str
    make: Callable[..., Any]
    layer: str = "relu"
    kwargs: dict[str, Any] = field(default_factory=dict)
    promises: frozenset[str] = frozenset()
    shape: tuple[int, ...] = ()  # of the answer for two rows and target 1
    unit: int | None = None  # what it explains instead of a target
    dose: tuple[Any, ...] = ("n_steps", 1, 4, 1)  # what Captum varies in perturb: name, least, most, step

    @property
    def perturbed(self):
        """The keywords of a call of ``perturb`` but for the dose."""
        return {k: v for k, v in self.of(1).items() if k != self.dose[0]}

    def of(self, target):
        """The keywords of a call that explains ``target``."""
        chosen = {"target": target} if self.unit is None else {"neuron_selector": self.unit}
        return chosen | self.kwargs

    def on(self, model, layer=None, **kwargs):
        return self.make(model, self.layer if layer is None else layer, **kwargs)


def canvas(rule):
    return lambda model, layer, *args, **kwargs: NeuronCanvas(model, layer, *args, rule=rule, **kwargs)


MIXED, PAIRS = (torch.randn(*size, generator=torch.Generator().manual_seed(0)) for size in ((5, 108), (60, 9)))
PAINT = from_callable(lambda w: (w @ MIXED.to(w)).sigmoid().view(-1, 3, 6, 6), normal_latents(5))


def linked(model, layer, device_ids=None, **kwargs):
    """Of the four channels of the layer's map, to pictures that bend with their latents."""
    r = PAIRS[:, :4].sigmoid()
    link = LatentLink(ridge=0.0).fit(r, PAIRS[:, 4:] + r.sum(1, keepdim=True))
    return LinkedUnitVisualization(model, layer, PAINT, link, device_ids, pool="mean", **kwargs)


def written(mode):
    """Of the neurons that wrote one convolution of the model."""

    def make(model, layer, device_ids=None, **kwargs):
        nern = NeRN(model, [layer], hidden=6, levels=4)
        return WeightContribution(nern, layer, device_ids, mode=mode, **kwargs)

    weights = frozenset({"weights"})
    return Method(f"WeightContribution {mode}", make, layer="conv", promises=weights, shape=(2, 7, 1))


REFERENCE = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


METHODS = [
    Method(
        "LayerContribution",
        LayerContribution,
        promises=frozenset({"layer_shaped", "delta", "backward"}),
        shape=(2, 4, 6, 6),
    ),
    Method(
        "NeuronCanvas tangent", canvas("tangent"), promises=frozenset({"canvas", "delta", "backward"}), shape=(2, 4)
    ),
    Method("NeuronCanvas secant", canvas("secant"), promises=frozenset({"canvas", "delta"}), shape=(2, 5)),
    Method("NeuronCanvas ablation", canvas("ablation"), promises=frozenset({"canvas", "delta"}), shape=(2, 4)),
    Method(
        "NeuronCanvas ablation mean",
        canvas(Ablation("mean")),
        promises=frozenset({"canvas", "delta", "looks at all rows"}),
        shape=(2, 4),
    ),
    Method(
        "NeuronCanvas xinc",
        canvas("xinc"),
        layer="fc",
        kwargs={"attribute_to_layer_input": True},
        promises=frozenset({"canvas", "delta", "unscaled"}),
        shape=(2, 16),
    ),
    Method(
        "FeatureAccentuation",
        lambda model, layer, device_ids=None, **kwargs: FeatureAccentuation(model, **kwargs),
        kwargs={"n_steps": 2},
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks values", "perturb", "no layer"}),
        shape=(2, 3, 6, 6),
    ),
    Method(
        "NeuronFeatureAccentuation",
        NeuronFeatureAccentuation,
        kwargs={"n_steps": 2},
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks values", "perturb", "ignores the output"}),
        shape=(2, 3, 6, 6),
        unit=2,
    ),
    Method(
        "LinkedUnitVisualization",
        linked,
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks once", "perturb", "ignores the output"}),
        shape=(2, 3, 6, 6),
        unit=2,
        dose=("value", 0.0, 1.0, 0.5),
    ),
    Method(
        "FeatureActivationMap",
        lambda model, layer, *args, **kwargs: FeatureActivationMap(model, layer, REFERENCE, *args, **kwargs),
        promises=frozenset({"ignores the output", "images", "checks once", "layer_shaped"}),
        shape=(2, 1, 6, 6),
    ),
    written("gradient"),
    written("integrated"),
    written("removal"),
]
every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def having(promise):
    return pytest.mark.parametrize("method", [m for m in METHODS if promise in m.promises], ids=lambda m: m.name)


@pytest.fixture
def net():
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 6, 6)


def attribute(method, model, x, target=1, **kwargs):
    return method.on(model).attribute(x, **{**method.of(target), **kwargs})


# ---- the answer itself


@every
def test_the_answer_is_plain(method, net, x, found):
    before = found(net)
    answer = attribute(method, net, x)
    assert answer.shape == method.shape
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float32
    assert answer.abs().sum() > 0
    assert before.differences(net) == []
    assert not x.requires_grad


@every
def test_row_by_row_equals_batch(method, net, x):
    if "looks at all rows" in method.promises:
        pytest.skip("a mean over all rows is this method's definition")
    x = torch.rand(5, 3, 6, 6)
    whole = attribute(method, net, x)
    rows = torch.cat([attribute(method, net, x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, rows, atol=1e-6, rtol=1e-5)


@every
def test_chunks_equal_batch(method, net, x):
    x = torch.rand(5, 3, 6, 6)
    small = {"memory_budget": 4000} if "canvas" in method.promises else {"internal_batch_size": 2}
    torch.testing.assert_close(attribute(method, net, x, **small), attribute(method, net, x), atol=1e-6, rtol=1e-5)


@every
def test_the_same_call_gives_the_same_bits(method, net, x):
    assert torch.equal(attribute(method, net, x), attribute(method, net, x))


@every
@pytest.mark.parametrize(
    "target", [1, torch.tensor(1), torch.tensor([1]), [1, 1], torch.tensor([1, 1]), (1,), [(1,), (1,)]], ids=repr
)
def test_every_form_of_target(method, net, x, target):
    if "ignores the output" in method.promises:
        pytest.skip("what it explains is a unit, not an output")
    if "unscaled" in method.promises and target == [(1,), (1,)]:
        pytest.skip("the paper's rule reads targets as channels: a list of tuples is not one")
    torch.testing.assert_close(attribute(method, net, x, target=target), attribute(method, net, x, target=1))


@every
def test_tuple_inputs_and_forward_arguments(method, net, x):
    if "unscaled" in method.promises:
        pytest.skip("the paper's rule stops at the last Linear, before the scale is applied")
    if "images" in method.promises:
        pytest.skip("it takes one tensor of images; forward arguments have a test of their own")
    two = nn.ModuleDict({"net": net})
    forward = lambda a, b, scale, word: two["net"](a + b, scale)
    scale = torch.tensor([[2.0], [3.0]])
    answer = method.make(forward, net.get_submodule(method.layer)).attribute(
        (x, x), target=1, additional_forward_args=(scale, "word"), **method.kwargs
    )
    alone = attribute(method, net, 2 * x)
    torch.testing.assert_close(answer, alone * scale.reshape(2, *[1] * (alone.dim() - 1)), atol=1e-6, rtol=1e-5)


@having("delta")
def test_the_delta_is_one_number_a_row(method, net, x):
    assert method.on(net).has_convergence_delta()
    answer, delta = attribute(method, net, x, return_convergence_delta=True)
    assert delta.shape == (2,)
    torch.testing.assert_close(answer, attribute(method, net, x))
    with torch.no_grad():
        full = net(x)[:, 1]
        silent = net.fc.bias[1].expand(2)  # everything between relu and fc is linear without bias
    complete = method.name in ("NeuronCanvas secant", "NeuronCanvas xinc")
    if "looks at all rows" not in method.promises:
        expected = answer.flatten(1).sum(1) - (full if complete else full - silent)
        torch.testing.assert_close(delta, expected, atol=1e-6, rtol=1e-5)
        assert delta.abs().max() < 1e-5, "a linear tail is complete under every rule"


# ---- lines 1 to 10: Captum's wrappers, metrics and plots


@every
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_line_1_noise_tunnel(method, net, x, kind):
    tunnel = NoiseTunnel(method.on(net))
    answer = tunnel.attribute(
        x,
        nt_type=kind,
        nt_samples=5,
        nt_samples_batch_size=2,
        stdevs=0.1,
        **method.of(1 if "ignores the output" in method.promises else [1, 0]),
    )
    assert answer.shape == method.shape
    assert torch.isfinite(answer).all() and answer.abs().sum() > 0


@having("delta")
def test_line_1_noise_tunnel_with_delta(method, net, x):
    answer, delta = NoiseTunnel(method.on(net)).attribute(
        x, nt_samples=3, stdevs=0.1, target=1, return_convergence_delta=True, **method.kwargs
    )
    assert answer.shape == method.shape
    assert delta.shape == (6,)


@every
def test_line_2_sensitivity(method, net, x):
    score = sensitivity_max(as_explanation(method.on(net)), x, n_perturb_samples=2, **method.of(1))
    assert score.shape == (2,)
    assert (score > 0).all() or ("input_shaped" in method.promises and score.max() > 0), "gradients come in pieces"


@having("input_shaped")
def test_lines_2_and_3_without_an_adapter(method, net, x):
    score = sensitivity_max(method.on(net).attribute, x, n_perturb_samples=2, **method.of(1))
    assert score.shape == (2,) and score.max() > 0
    noise = lambda t: (n := 0.01 * torch.randn_like(t), t - n)
    score = infidelity(net, noise, x, attribute(method, net, x), target=1)
    assert score.shape == (2,) and score.isfinite().all()
    (answer,) = as_explanation(method.on(net))((x,), **method.of(1))
    assert torch.equal(answer, attribute(method, net, x))


def test_line_3_infidelity_on_an_identity_layer(net, x):
    wrapped = nn.Sequential(nn.Identity(), net).eval()
    shares = as_explanation(LayerContribution(wrapped, "0"))(x, target=1)
    noise = lambda t: (n := 0.01 * torch.randn_like(t), t - n)
    score = infidelity(wrapped, noise, x, shares, target=1)
    assert score.shape == (2,)
    random_shares = infidelity(wrapped, noise, x, torch.randn_like(shares), target=1)
    assert score.mean() < random_shares.mean()


@every
def test_line_4_captums_own_plot(method, net, x):
    answer = attribute(method, net, x)
    maps = answer if answer.dim() == 4 else answer[:, :4].reshape(2, 1, 2, 2)
    image = to_hwc(maps[:, :1])
    photo = to_hwc(x)[: image.shape[0], : image.shape[1]]
    figure, _ = viz.visualize_image_attr(image, photo, "blended_heat_map", "all", use_pyplot=False)
    assert figure is not None


@having("layer_shaped")
def test_line_5_interpolate(method, net, x):
    larger = LayerAttribution.interpolate(attribute(method, net, x), (12, 12), "bilinear")
    assert larger.shape == (2, method.shape[1], 12, 12)


def test_line_6_insights_is_gone_from_captum():
    pytest.skip("captum.insights was removed in captum 0.9: there is nothing to plug into")


def explain_function(method):
    """What quantus asks for: (model, inputs, targets) as arrays to input-shaped arrays."""

    def explain(model, inputs, targets, **_):
        wrapped = nn.Sequential(nn.Identity(), model).eval()
        x = torch.as_tensor(inputs, dtype=torch.float32)
        answer = LayerContribution(wrapped, "0").attribute(x, target=torch.as_tensor(targets))
        return answer.sum(1, keepdim=True).numpy()

    return explain


def test_line_7_quantus_metric(net, x):
    quantus = pytest.importorskip("quantus", reason="quantus is an optional peer: pip install quantus")
    metric = quantus.MaxSensitivity(nr_samples=2, disable_warnings=True)
    scores = metric(model=net, x_batch=x.numpy(), y_batch=[1, 0], explain_func=explain_function(None), device="cpu")
    assert len(scores) == 2


def test_line_8_quantus_evaluate(net, x):
    quantus = pytest.importorskip("quantus", reason="quantus is an optional peer: pip install quantus")
    table = quantus.evaluate(
        {"s": quantus.Sparseness(disable_warnings=True)},
        {"ours": explain_function(None)},
        net,
        x.numpy(),
        [1, 0],
        explain_func_kwargs={},
        call_kwargs={"c": {"device": "cpu"}},
    )
    assert "ours" in table


def test_line_9_grad_cams_road(net, x):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="pip install grad-cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets", reason="pip install grad-cam")
    maps = attribute(METHODS[0], net, x).abs().sum(1)
    maps = (maps / maps.amax((1, 2), keepdim=True)).numpy()
    chosen = [targets.ClassifierOutputTarget(1)] * 2
    assert len(road.ROADCombined(percentiles=[20, 50])(x, maps, chosen, net)) == 2


@having("perturb")
def test_line_10_captums_robustness(method, net, x):
    method_ = method.on(net)
    comparator = AttackComparator(net, lambda output: output.max(1).values)
    comparator.add_attack(method_.perturb, "ours", attack_kwargs={method.dose[0]: method.dose[2]} | method.perturbed)
    assert set(comparator.evaluate(x)) == {"Original", "ours"}
    least = MinParamPerturbation(net, method_.perturb, *method.dose, correct_fn=lambda out: out[0, 1] < out[0, 0])
    perturbed, steps = least.evaluate(x[:1], attack_kwargs=method.perturbed)
    assert (perturbed is None) is (steps is None)


# ---- lines 11 to 13: peers that hook the same model


@having("backward")
def test_line_11_under_zennits_rules(method, net, x):
    composites = pytest.importorskip("zennit.composites", reason="zennit is an optional peer: pip install zennit")
    plain = attribute(method, net, x)
    with composites.EpsilonPlus().context(net) as modified:
        changed = attribute(method, modified, x)
    assert changed.shape == plain.shape
    torch.testing.assert_close(attribute(method, net, x), plain)


@every
def test_line_12_beside_a_living_grad_cam(method, net, x):
    cam = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam")
    plain = attribute(method, net, x)
    with cam.GradCAM(net, [net.relu]):
        torch.testing.assert_close(attribute(method, net, x), plain)


@every
def test_line_13_beside_a_living_torchcam(method, net, x):
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is an optional peer: pip install torchcam")
    plain = attribute(method, net, x)
    with methods.GradCAM(net, "relu", input_shape=(3, 6, 6)):
        torch.testing.assert_close(attribute(method, net, x), plain)


# ---- lines 14 to 21: wrappers, dtypes, modes and odd models


@every
def test_line_14_data_parallel(method, net, x):
    plain, parallel = attribute(method, net, x), nn.DataParallel(net)
    torch.testing.assert_close(
        method.make(parallel, net.get_submodule(method.layer)).attribute(x, **method.of(1)), plain
    )
    by_ids = method.make(parallel.forward, net.get_submodule(method.layer), [0])
    torch.testing.assert_close(by_ids.attribute(x, **method.of(1)), plain)


@pytest.mark.cuda
@every
def test_line_14_data_parallel_replicas(method, net, x):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs, so that the model is really replicated")
    net, x = net.to("cuda"), torch.rand(5, 3, 6, 6, device="cuda")
    plain, parallel = attribute(method, net, x), nn.DataParallel(net)
    found = method.make(parallel, net.get_submodule(method.layer)).attribute(x, **method.of(1))
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)


@every
def test_line_15_compiled(method, net, x):
    plain = attribute(method, net, x)
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    torch.testing.assert_close(attribute(method, compiled, x), plain)
    assert torch.compiler.is_compiling() is False


@every
def test_line_16_traced_models_are_refused(method, net, x):
    traced = torch.jit.trace(net, x)
    with pytest.raises(LayerError, match="scripted and traced models run no Python hooks"):
        method.make(traced, traced.get_submodule(method.layer)).attribute(x, **method.of(1))


@every
def test_line_17_double_and_bfloat16(method, net, x):
    plain = attribute(method, net, x)
    double = attribute(method, copy.deepcopy(net).double(), x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, atol=1e-6, rtol=1e-4)
    half = attribute(method, copy.deepcopy(net).bfloat16(), x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0.1)


@every
def test_line_17_autocast_answers_float32(method, net, x):
    with torch.autocast("cpu", torch.bfloat16):
        answer = attribute(method, net, x)
        assert torch.is_autocast_enabled("cpu")
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, attribute(method, net, x), atol=0.05, rtol=0.1)


@every
@pytest.mark.parametrize("kind", ["channels_last", "strided", "expanded"])
def test_line_18_memory_formats(method, net, x, kind):
    plain = attribute(method, net, x)
    other = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "strided": torch.stack([x, x], -1)[..., 0],
        "expanded": x,
    }[kind]
    if kind == "expanded":
        other = x[:1].expand(2, -1, -1, -1)
        plain = attribute(method, net, other.contiguous())
    answer = attribute(method, net, other)
    assert answer.is_contiguous()
    torch.testing.assert_close(answer, plain, atol=1e-6, rtol=1e-5)


@every
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_line_19_modes(method, net, x, mode):
    plain = attribute(method, net, x)
    with mode():
        again = attribute(method, net, torch.rand_like(x).copy_(x))
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
    torch.testing.assert_close(again, plain)


@every
def test_line_19_a_model_made_under_inference_mode(method, net, x):
    plain = attribute(method, net, x)
    with torch.inference_mode():
        there = copy.deepcopy(net)
    torch.testing.assert_close(attribute(method, there, x), plain)


@every
def test_line_19_frozen_and_graded_parameters(method, net, x, found):
    plain = attribute(method, net, x)
    net(x).sum().backward()
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    before = found(net)
    torch.testing.assert_close(attribute(method, net, x), plain)
    assert before.differences(net) == []


@every
def test_line_20_function_around_the_model_and_output_fn(method, net, x):
    plain = attribute(method, net, x)
    wrapped = method.make(lambda x: net(x), net.get_submodule(method.layer))
    torch.testing.assert_close(wrapped.attribute(x, **method.of(1)), plain)
    if "ignores the output" in method.promises:
        return
    for pack, pick in ((lambda y: {"y": y}, lambda o: o["y"]), (lambda y: (y, 1), lambda o: o[0])):
        picked = method.make(lambda x, p=pack: p(net(x)), method.layer, output_fn=pick)
        torch.testing.assert_close(picked.attribute(x, **method.of(1)), plain)
        if "unscaled" not in method.promises:
            with pytest.raises(TypeError, match=r"wanted a tensor; say which tensor to explain with\s+output_fn="):
                method.make(lambda x, p=pack: p(net(x)), method.layer).attribute(x, **method.of(1))


class Reused(nn.Module):
    """XINC's own network shares one activation object like this."""

    def __init__(self):
        super().__init__()
        self.linear1, self.linear2, self.fc = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.fc(self.relu(self.linear2(self.relu(self.linear1(x)))))


@every
def test_line_21_a_layer_that_runs_twice(method):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    if "weights" in method.promises:
        pytest.skip("it looks at weights, which may be used more than once")
    model, rows = Reused(), torch.rand(2, 1, 1, 2) if "images" in method.promises else torch.rand(2, 2)
    if method.layer == "fc":
        model.fc = model.linear2 = nn.Linear(4, 4)
    with pytest.raises(
        LayerError, match=f"layer '{'linear2' if method.layer == 'fc' else 'relu'}' runs more than once"
    ):
        method.make(model, model.get_submodule(method.layer)).attribute(rows, **method.of(1))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every
def test_line_21_in_place_and_functional_operations_after_the_layer(method, net, x):
    if method.layer == "fc":
        pytest.skip("the paper's rule looks at nothing after its Linear")
    if "images" in method.promises:
        pytest.skip("it takes images, and its answer does not lie at a layer")
    if "weights" in method.promises:
        pytest.skip("this model has no convolutions; nothing of it is hooked")

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.relu = nn.Linear(2, 4), nn.Tanh()

        def forward(self, x, in_place=True):
            a = self.relu(self.net(x))
            a = a.mul_(2).relu_() if in_place else torch.relu(a * 2)
            return nn.functional.softplus(a)[:, :3]

    model, rows = InPlace(), torch.rand(2, 2)
    assert_close = torch.testing.assert_close
    assert_close(
        attribute(method, model, rows),
        attribute(method, model, rows, additional_forward_args=False),
        atol=1e-6,
        rtol=1e-5,
    )


# ---- left as found, whatever happens


class Broken(Exception):
    pass


@every
@pytest.mark.parametrize("where", ["conv", "norm", "relu", "pool", "flat", "fc"])
@pytest.mark.parametrize("fault", [Broken, KeyboardInterrupt])
def test_left_as_found_when_any_submodule_raises(method, net, x, found, where, fault):
    net.norm.train()
    net(x).sum().backward()
    net.conv.weight.requires_grad_(False)

    def raising(*_):
        raise fault

    handle = net.get_submodule(where).register_forward_hook(raising)
    before = found(net)
    with pytest.raises(fault), pytest.warns(UserWarning, match="in training mode"):
        attribute(method, net, x)
    assert before.differences(net) == []
    assert list(net.get_submodule(where)._forward_hooks) == [handle.id]


@every
def test_left_as_found_in_training_mode(method, net, x, found):
    net.train()
    before = found(net)
    with pytest.warns(UserWarning, match="BatchNorm2d 'norm' is in training mode"):
        if method.name == "NeuronCanvas secant":
            attribute(method, nn.Sequential(net, nn.Dropout(0.0).eval()) and net, x)
        else:
            attribute(method, net, x)
    assert before.differences(net) == []


@every
@pytest.mark.parametrize(
    ("layer", "text"),
    [("fcc", "did you mean 'fc'"), (nn.Linear(1, 1), "is not part of the model")],
    ids=["wrong name", "foreign module"],
)
def test_wrong_layers(method, net, layer, text):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    with pytest.raises(LayerError, match=text):
        method.make(net, layer)


@every
def test_a_layer_that_never_runs(method, net, x):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    if "weights" in method.promises:
        net.idle = nn.Conv2d(3, 3, 3)
        with pytest.raises(LayerError, match="does not depend on the weights of 'idle': the layer never ran"):
            method.on(net, "idle").attribute(x, **method.of(1))
        return
    net.idle = nn.Linear(16, 3)
    if method.layer == "fc":
        with pytest.raises(LayerError, match="layer 'idle' never ran"):
            method.on(net, "idle").attribute(x, target=None, **method.kwargs)
    else:
        with pytest.raises(LayerError, match="layer 'idle' never ran"):
            method.on(net, "idle").attribute(x, **method.of(1))


@every
@pytest.mark.parametrize("target", [3, (0, 1), [0], "cat"])
def test_impossible_targets(method, net, x, target, found):
    if "ignores the output" in method.promises:
        pytest.skip("what it explains is a unit, not an output")
    before = found(net)
    with pytest.raises(ValueError, match="target"):
        attribute(method, net, x, target=target)
    assert before.differences(net) == []


@every
def test_empty_batch(method, net):
    with pytest.raises(ValueError, match="no rows to explain"):
        attribute(method, net, torch.zeros(0, 3, 6, 6))


@every
def test_a_row_of_nan_stays_alone(method, net, x):
    if "looks at all rows" in method.promises:
        pytest.skip("a mean over all rows is this method's definition")
    plain = attribute(method, net, x)
    spoilt = x.clone()
    spoilt[1] = float("nan")
    if "refuses nan" in method.promises:
        with pytest.raises(ValueError, match="images hold NaN"):
            attribute(method, net, spoilt)
        return
    answer = attribute(method, net, spoilt)
    torch.testing.assert_close(answer[0], plain[0])
    assert answer[1].isnan().any()


# ---- the object itself


@every
def test_names_copies_and_types(method, net, x):
    built = method.on(net)
    assert built.get_name() == "".join(f" {c}" if c.isupper() else c for c in type(built).__name__).strip()
    if "input_shaped" not in method.promises:
        assert built.multiplies_by_inputs is True
    assert hasattr(type(built).attribute, "__wrapped__")
    torch.testing.assert_close(copy.deepcopy(built).attribute(x, **method.of(1)), attribute(method, net, x))


class Syncs(TorchDispatchMode):
    """Counts what would make a GPU wait: scalars read back, nonzero, indexing by a mask."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "item"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@every
def test_hot_paths_never_wait_for_the_device(method, net, x):
    with Syncs() as mode:
        torch.ones(1).item()
    assert mode.seen, "the counter must be able to count"
    if "checks values" in method.promises:  # once, at the border; no step of the ascent waits
        counts = []
        for steps in (2, 7):
            with Syncs() as mode:
                attribute(method, net, x, n_steps=steps, transforms=())
            counts.append(len(mode.seen))
        assert counts[0] == counts[1]
        return
    if "checks once" in method.promises:  # the border and the generator's range, however many rows there are
        counts = []
        for rows in (x[:1], x.repeat(4, 1, 1, 1)):
            with Syncs() as mode:
                attribute(method, net, rows)
            counts.append(len(mode.seen))
        assert counts[0] == counts[1]
        return
    with Syncs() as mode:
        attribute(method, net, x)
    assert mode.seen == []


@pytest.mark.cuda
@every
def test_cuda_equals_cpu(method, net, x, found):
    plain = attribute(method, net, x)
    there = copy.deepcopy(net).cuda()
    before = found(there)
    answer = attribute(method, there, x.cuda())
    assert answer.device.type == "cuda"
    torch.testing.assert_close(answer.cpu(), plain, atol=1e-4, rtol=1e-3)
    assert before.differences(there) == []


# ---- rows that are frames: the same promises on a convolutional decoder


def decoder_canvas(rule, layer, unit="neuron", at_input=False):
    return Method(
        f"{rule if isinstance(rule, str) else 'mean ablation'} {unit}s at {layer}",
        lambda model, layer_=layer, **kwargs: NeuronCanvas(model, layer_, rule=rule, unit=unit, **kwargs),
        layer=layer,
        kwargs={"attribute_to_layer_input": True} if at_input else {},
    )


FRAMES = [
    *(decoder_canvas(r, "blocks.0") for r in ("tangent", "secant", "ablation", Ablation("mean"))),
    *(decoder_canvas(r, "blocks.1.0", "pair") for r in ("tangent", "secant", "ablation")),
    decoder_canvas("xinc", "blocks.0.0", "pair", at_input=True),
    decoder_canvas("xinc", "head", at_input=True),
]
frames = pytest.mark.parametrize("method", FRAMES, ids=lambda m: m.name)


def draw(method, model, t, **kwargs):
    return method.make(model).attribute(t, **method.kwargs, **kwargs)


@frames
def test_frames_answers_are_plain(method, decoder, found):
    model, t = decoder
    before = found(model)
    answer = draw(method, model, t)
    assert answer.shape[0] == 3 and answer.shape[-2:] == (8, 12)
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float64
    assert answer.abs().sum() > 0
    assert torch.equal(draw(method, model, t), answer)
    assert before.differences(model) == []


@frames
def test_frames_one_by_one_in_chunks_and_wrapped(method, decoder):
    model, t = decoder
    whole = draw(method, model, t)
    close = lambda a: torch.testing.assert_close(a, whole, atol=1e-12, rtol=1e-9)
    if "mean" not in method.name:
        close(torch.cat([draw(method, model, t[i : i + 1]) for i in range(3)]))
    close(
        draw(method, model, t, memory_budget=4000, **({} if "pair" in method.name else {"perturbations_per_eval": 2}))
    )
    close(method.make(lambda x: model(x), model.get_submodule(method.layer)).attribute(t, **method.kwargs))
    close(
        method.make(lambda x: {"y": model(x)}, model.get_submodule(method.layer), output_fn=lambda o: o["y"]).attribute(
            t, **method.kwargs
        )
    )
    close(draw(method, torch.compile(model, backend="eager"), t))
    with torch.inference_mode():
        close(draw(method, model, t))


@frames
def test_frames_in_other_dtypes(method, decoder):
    model, t = decoder
    plain = draw(method, model, t)
    single = draw(method, copy.deepcopy(model).float(), t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), plain, atol=1e-6, rtol=1e-4)
    half = draw(method, copy.deepcopy(model).bfloat16(), t.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), plain, atol=0.05, rtol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draw(method, copy.deepcopy(model).float(), t.float())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), plain, atol=0.05, rtol=0.1)


@frames
@pytest.mark.parametrize("where", ["stem", "blocks.0.1", "head"])
def test_frames_left_as_found_when_any_submodule_raises(method, decoder, found, where):
    model, t = decoder

    def raising(*_):
        raise Broken

    model.get_submodule(where).register_forward_hook(raising)
    before = found(model)
    with pytest.raises(Broken):
        draw(method, model, t)
    assert before.differences(model) == []


@frames
def test_frames_never_wait_for_the_device(method, decoder):
    model, t = decoder
    with Syncs() as mode:
        draw(method, model, t)
    assert mode.seen == []


@pytest.mark.cuda
@frames
def test_frames_on_a_gpu(method, decoder):
    model, t = decoder
    plain = draw(method, model, t)
    there = draw(method, copy.deepcopy(model).cuda(), t.cuda())
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), plain, atol=1e-9, rtol=1e-6)


# ---- rows that are pictures with networks of their own: the same promises on a Trans-INR

TOKENS = ["token", "modulation", "patch", "composed"]
tokens = pytest.mark.parametrize("level", TOKENS)


@pytest.fixture
def writer():
    """Small, and with means that are not those of the pictures it is asked about."""
    model = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0)
    model.mean_image.uniform_(generator=torch.Generator().manual_seed(1))
    for mean in model.mean_modulations:
        mean.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    return model.eval()


def told(level, model, x, target=1, **kwargs):
    method = TokenContribution(model, "patch" if level == "composed" else level)
    call = method.composed if level == "composed" else method.attribute
    return call(x, target=target, **{"n_steps": 2, **kwargs})


SHAPES = {"token": (2, 4, 6, 6), "modulation": (2, 10, 6, 6), "patch": (2, 5, 6, 6), "composed": (2, 4, 9, 6, 6)}


@tokens
def test_tokens_answers_are_plain(level, writer, x, found):
    before = found(writer)
    answer = told(level, writer, x)
    assert answer.shape == SHAPES[level]
    assert answer.is_contiguous() and not answer.requires_grad and answer.dtype == torch.float32
    assert answer.abs().sum() > 0
    assert torch.equal(told(level, writer, x), answer)
    assert before.differences(writer) == [] and not x.requires_grad


@tokens
def test_tokens_row_by_row_and_in_chunks(level, writer):
    x = torch.rand(5, 3, 6, 6)
    whole = told(level, writer, x)
    close = lambda a: torch.testing.assert_close(a, whole, atol=1e-6, rtol=1e-5)
    close(torch.cat([told(level, writer, x[i : i + 1]) for i in range(5)]))
    close(told(level, writer, x, internal_batch_size=2))
    close(told(level, writer, (x,)))


@tokens
@pytest.mark.parametrize(
    "target", [1, torch.tensor(1), torch.tensor([1]), [1, 1], torch.tensor([1, 1]), (1,), [(1,), (1,)]], ids=repr
)
def test_tokens_every_form_of_target(level, writer, x, target):
    torch.testing.assert_close(told(level, writer, x, target), told(level, writer, x))


@tokens
def test_tokens_targets_are_channels_rows_or_pixels(level, writer, x):
    whole = told(level, writer, x, None)
    assert whole.shape == (*SHAPES[level][:-2], 3, 6, 6)
    torch.testing.assert_close(told(level, writer, x, 2), whole[..., 2, :, :])
    torch.testing.assert_close(
        told(level, writer, x, [2, 0]), torch.stack([whole[0, ..., 2, :, :], whole[1, ..., 0, :, :]])
    )
    torch.testing.assert_close(told(level, writer, x, (2, 3, 4)), whole[..., 2, 3, 4])
    for wrong in (3, [0], [0, 3], torch.tensor([0, 3]), "cat"):
        with pytest.raises(ValueError, match="target"):
            told(level, writer, x, wrong)


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_delta(level, writer, x):
    assert TokenContribution(writer, level).has_convergence_delta()
    answer, delta = told(level, writer, x, return_convergence_delta=True)
    with torch.no_grad():
        drawn = writer(x)[:, 1]
    torch.testing.assert_close(delta, (answer.sum(1) - drawn).flatten(1).sum(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", TOKENS[:3])
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_tokens_line_1_noise_tunnel(level, writer, x, kind):
    tunnel = NoiseTunnel(TokenContribution(writer, level))
    few = {} if level == "token" else {"n_steps": 2}
    answer = tunnel.attribute(
        x.clamp(0.3, 0.7), nt_type=kind, nt_samples=5, nt_samples_batch_size=2, stdevs=0.02, target=[1, 0], **few
    )
    assert answer.shape == SHAPES[level] and torch.isfinite(answer).all() and answer.abs().sum() > 0


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_line_2_sensitivity(level, writer, x):
    explain = as_explanation(TokenContribution(writer, level))
    few = {} if level == "token" else {"n_steps": 2}
    score = sensitivity_max(explain, x.clamp(0.1, 0.9), n_perturb_samples=2, target=1, **few)
    assert score.shape == (2,) and (score > 0).all()


@tokens
def test_tokens_lines_14_and_15_parallel_and_compiled(level, writer, x):
    plain = told(level, writer, x)
    torch.testing.assert_close(told(level, nn.DataParallel(writer), x), plain)
    compiled = torch.compile(writer, backend="eager")
    compiled(x)
    torch.testing.assert_close(told(level, compiled, x), plain)
    if level != "composed":
        by_ids = TokenContribution(nn.DataParallel(writer), level, [0])
        torch.testing.assert_close(by_ids.attribute(x, 1, n_steps=2), plain)


@tokens
def test_tokens_line_16_traced_models_are_refused(level, writer, x):
    with pytest.raises(LayerError, match="scripted and traced models have no weights to take apart"):
        told(level, torch.jit.trace(writer, x), x)


@tokens
def test_tokens_line_17_dtypes(level, writer, x):
    plain = told(level, writer, x, n_steps=16)
    double = told(level, copy.deepcopy(writer).double(), x.double(), n_steps=16)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), plain, atol=1e-5, rtol=1e-4)
    half = told(level, copy.deepcopy(writer).bfloat16(), x.bfloat16(), n_steps=16)
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        mixed = told(level, writer, x, n_steps=16)
        assert torch.is_autocast_enabled("cpu")
    assert mixed.dtype == torch.float32
    for other in (half.float(), mixed):  # rounding flips gates, so a pixel may jump; the whole may not
        assert (other - plain).abs().sum() < 0.1 * plain.abs().sum()


@tokens
@pytest.mark.parametrize("kind", ["channels_last", "strided", "expanded"])
def test_tokens_line_18_memory_formats(level, writer, x, kind):
    other = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "strided": torch.stack([x, x], -1)[..., 0],
        "expanded": x[:1].expand(2, -1, -1, -1),
    }[kind]
    answer = told(level, writer, other)
    assert answer.is_contiguous()
    torch.testing.assert_close(answer, told(level, writer, other.contiguous()), atol=1e-6, rtol=1e-5)


@tokens
def test_tokens_line_19_modes(level, writer, x, found):
    plain = told(level, writer, x)
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            again = told(level, writer, torch.rand_like(x).copy_(x))
            assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
        torch.testing.assert_close(again, plain)
    with torch.inference_mode():
        there = copy.deepcopy(writer)
    torch.testing.assert_close(told(level, there, x), plain)
    writer(x).sum().backward()
    writer.requires_grad_(False)
    writer.writer.base.output.requires_grad_(True)
    before = found(writer)
    torch.testing.assert_close(told(level, writer, x), plain)
    assert before.differences(writer) == []


@tokens
@pytest.mark.parametrize("where", ["tokens", "writer.encoder.blocks.0.attention", "writer.heads.1"])
@pytest.mark.parametrize("fault", [Broken, KeyboardInterrupt])
def test_tokens_left_as_found_when_any_submodule_raises(level, writer, x, found, where, fault):
    writer.train()
    writer(x).sum().backward()

    def raising(*_):
        raise fault

    handle = writer.get_submodule(where).register_forward_hook(raising)
    before = found(writer)
    with pytest.raises(fault):
        told(level, writer, x)
    assert before.differences(writer) == []
    assert list(writer.get_submodule(where)._forward_hooks) == [handle.id]


@tokens
def test_tokens_empty_and_spoilt_batches(level, writer, x):
    with pytest.raises(ValueError, match="no rows to explain"):
        told(level, writer, torch.zeros(0, 3, 6, 6))
    x[1] = float("nan")
    with pytest.raises(ValueError, match="images hold NaN"):
        told(level, writer, x)


@pytest.mark.parametrize("level", TOKENS[:3])
def test_tokens_names_copies_and_types(level, writer, x):
    built = TokenContribution(writer, level)
    assert built.get_name() == "Token Contribution" and built.multiplies_by_inputs is True
    assert hasattr(TokenContribution.attribute, "__wrapped__")
    torch.testing.assert_close(copy.deepcopy(built).attribute(x, n_steps=2), built.attribute(x, n_steps=2))


@tokens
def test_tokens_hot_paths_never_wait_for_the_device(level, writer, x):
    counts = []
    for rows, steps in ((x[:1], 2), (x.repeat(3, 1, 1, 1), 2), (x, 5)):
        with Syncs() as mode:
            method = TokenContribution(writer, "patch" if level == "composed" else level)
            (method.composed if level == "composed" else method.attribute)(rows, n_steps=steps)
        counts.append(len(mode.seen))
    assert counts[0] == counts[1] == counts[2], "the images are looked at once, at the border"


@pytest.mark.cuda
@tokens
def test_tokens_on_a_gpu(level, writer, x, found):
    plain = told(level, writer, x)
    there = copy.deepcopy(writer).cuda()
    before = found(there)
    answer = told(level, there, x.cuda())
    assert answer.device.type == "cuda"
    torch.testing.assert_close(answer.cpu(), plain, atol=1e-4, rtol=1e-3)
    assert before.differences(there) == []
