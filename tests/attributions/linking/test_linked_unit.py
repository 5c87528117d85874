"""LinkedUnitVisualization on digits and on the recorded sweep."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.robust import MinParamPerturbation
from torch import nn

from xinc_captum import LatentLink, LayerError, LinkedUnitVisualization
from xinc_captum.attributions.linking.counterfactuals import Ray
from xinc_captum.attributions.linking.linked_unit import resize_like
from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.store import model_sha256

DATA = np.load(Path(__file__).parents[2] / "data" / "linking.npz")


def test_the_papers_sweep_of_one_unit():
    """Group B of the recorded arrays, through the class: a classifier whose representation is the recorded start."""
    start, painting = torch.tensor(DATA["B_start"]), torch.tensor(DATA["B_P"]).double()
    scale, low = float(start.max() - start.min()) + 2, float(start.min()) - 1
    read, head = nn.Flatten(), nn.Linear(24, 2).double()
    net = nn.Sequential(read, head)
    forward = lambda x: net(x[:, 0, :4, :6] * scale + low)
    paint = from_callable(lambda w: (w @ painting).tanh().view(-1, 3, 8, 8), normal_latents(16), (-1.0, 1.0))
    paint.sample_latents = lambda n, *_, **__: torch.zeros(n, 16, dtype=torch.float64)
    link = LatentLink(ridge=0.0).fit(torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"]))
    units = LinkedUnitVisualization(forward, head, paint, link)
    inputs = ((start - low) / scale).view(1, 1, 4, 6)
    for which, unit in enumerate(DATA["B_units"].tolist()):
        result = units.sweep(
            inputs, unit, "minmax", attribute_to_neuron_input=True, steps=5, mode="replace", direction="partial"
        )
        np.testing.assert_allclose(result.latents[0], DATA["B_ws"][which], atol=1e-9)
        theirs = DATA["B_img_uint8"][which].transpose(0, 3, 1, 2)
        mine = (result.images[0] * 255).numpy()
        assert np.abs(mine - theirs).max() <= 1.001, "they cut the fraction off"
        assert (mine >= theirs - 1e-3).all()


def test_digits_move_the_unit_that_is_named(digits):
    """The default beside the paper's sweep, whose top-1 is low: the figures are printed, and their order asserted."""
    units, inputs = digits.units, digits.pictures(30)
    top = {}
    for name, options in {
        "marginal, anchored, quantile": {},
        "partial, anchored, min-max": {"values": "minmax", "direction": "partial"},
        "partial, replace, min-max (the paper's)": {"values": "minmax", "direction": "partial", "mode": "replace"},
    }.items():
        result = list(units.sweeps(inputs, **options))
        assert len(result) == int(digits.link.alive.sum())
        top[name] = sum(one.fidelity.moves_most for one in result) / len(result)
        rho = sum(one.fidelity.rho for one in result) / len(result)
        print(f"{name}: top-1 {top[name]:.2f}, Spearman {rho:.2f}")
    marginal, partial, paper = top.values()
    assert marginal >= 0.9
    assert partial < 0.5 and paper < 0.5


@pytest.mark.parametrize(("method", "least"), [("ray", 0.8), ("latent", 0.95), ("linking_in_style", 0.3)])
def test_digits_flip(digits, method, least):
    target = (digits.classes(40) + 1 + torch.arange(40) // 10) % 10
    result = digits.units.counterfactual(digits.pictures(40), target, method)
    assert result.success >= least
    with torch.no_grad():
        again = digits.net(result.images).argmax(1)
    assert torch.equal(again == target, result.reached), "the flag says what the classifier says"
    assert (result.origin != target).all() and result.head.shape == (40,)


def test_the_shortest_shift_of_digits_is_near_its_bound(digits):
    target = (digits.classes(40) + 3) % 10
    result = digits.units.counterfactual(digits.pictures(40), target, "minimal")
    assert result.head.all() and (result.length <= 1.05 * result.bound).all() and (result.bound > 0).all()
    scores = digits.net[-1]((digits.net[:-1](digits.pictures(40)).double() + result.shift).float())
    assert torch.equal(scores.argmax(1), target)


def test_captum_min_param_perturbation_finds_the_flip(digits):
    unit = int(digits.link.alive.nonzero()[3])
    x = digits.pictures(1)
    with torch.no_grad():
        was = int(digits.net(digits.units.perturb(x, unit, float(digits.link.bounds([unit])[0, 0]))).argmax(1))
    high = float(digits.link.bounds([unit])[0, 1]) * 4
    step = high / 40
    least = MinParamPerturbation(digits.net, digits.units.perturb, "value", 0.0, high, step, mode="linear")
    picture, value = least.evaluate(x, target=was, attack_kwargs={"neuron_selector": unit})
    assert value is not None and value > 0
    with torch.no_grad():
        assert int(digits.net(picture).argmax(1)) != was
        assert int(digits.net(digits.units.perturb(x, unit, value - step)).argmax(1)) == was


def test_perturb_is_a_frame_of_the_sweep(digits):
    x, unit = digits.pictures(3), int(digits.link.alive.nonzero()[0])
    frames = digits.units.sweep(x, unit, [0.5, 1.5]).images
    torch.testing.assert_close(digits.units.perturb(x, unit, 1.5), frames[:, 1])
    (one,) = digits.units.perturb((x,), unit, 1.5)
    torch.testing.assert_close(one, frames[:, 1])


def test_a_change_map_is_the_derivative_of_the_reconstruction(digits):
    x, unit = digits.pictures(3), int(digits.link.alive.nonzero()[0])
    with torch.no_grad():
        r = digits.net[:-1](x).double()
    draw = lambda rep: digits.generator.synthesize(digits.link(rep).float())
    (expected,) = (torch.func.jvp(draw, (r,), (torch.eye(64).double()[unit].expand(3, -1),))[1].abs(),)
    torch.testing.assert_close(digits.units.attribute(x, unit), expected, atol=1e-6, rtol=1e-4)


def test_forward_arguments_are_sliced_with_the_samples(digits):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = digits.net[:-1], digits.net[-1]

        def forward(self, x, scale, word):
            assert word == "word"
            return self.head(self.body(x) * scale)

    link = copy.deepcopy(digits.link)
    link.manifest = {}  # of another model
    units = LinkedUnitVisualization(Scaled().eval(), "head", digits.generator, link)
    x, scale, unit = digits.pictures(4), torch.tensor([[1.0], [0.5], [2.0], [1.0]]), digits.unit
    kwargs = {"attribute_to_neuron_input": True}
    whole = units.sweep(x, unit, [0.0, 1.0], (scale, "word"), **kwargs)
    small = units.sweep(x, unit, [0.0, 1.0], (scale, "word"), internal_batch_size=3, **kwargs)
    torch.testing.assert_close(whole.representations, small.representations)
    for row in range(4):
        alone = units.sweep(x[row : row + 1], unit, [0.0, 1.0], (scale[row : row + 1], "word"), **kwargs)
        torch.testing.assert_close(alone.images[0], whole.images[row])
        torch.testing.assert_close(alone.representations[0], whole.representations[row], atol=1e-4, rtol=1e-3)


def test_model_and_generator_are_restored(digits, found):
    calls = {
        "sweep": lambda: digits.units.sweep(digits.pictures(2), digits.unit),
        "perturb": lambda: digits.units.perturb(digits.pictures(2), digits.unit, 1.0),
        "counterfactual": lambda: digits.units.counterfactual(digits.pictures(2), 3, "latent"),
    }
    for call in calls.values():
        before = [(found(m), m) for m in (digits.net, digits.generator, digits.link)]
        call()
        assert all(state.differences(module) == [] for state, module in before)


def test_the_model_is_restored_between_results_of_sweeps(digits, found):
    before = found(digits.net)
    stream = digits.units.sweeps(digits.pictures(2), internal_batch_size=20)
    first, second = next(stream), next(stream)
    assert before.differences(digits.net) == [] and first.unit < second.unit
    torch.testing.assert_close(second.images, digits.units.sweep(digits.pictures(2), second.unit).images)


def test_methods_with_options(digits):
    result = digits.units.counterfactual(digits.pictures(6), 3, Ray(top=8, halvings=2), confidence=0.6)
    assert ((result.shift != 0).sum(1) <= 8).all() and (result.sparsity <= 8.001).all()
    assert (result.confidence[result.reached] >= 0.6).all()
    assert result.method["name"] == "Ray" and result.method["top"] == 8


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda u, x, k: u.sweep(x, 64),
            IndexError,
            r"neuron_selector 64 is out of range: the linked dims are \(64,\)",
        ),
        (lambda u, x, k: u.sweep(x, [1, 2]), TypeError, "is a list of 2; give one unit here, and a list to sweeps"),
        (lambda u, x, k: u.sweeps(x, []), ValueError, "neuron_selectors is empty"),
        (
            lambda u, x, k: u.sweeps(x, [k], "foo"),
            ValueError,
            "values is 'foo'; expected numbers, or the span 'quantile'",
        ),
        (lambda u, x, k: u.sweeps(x, [k], [0.0, float("nan")]), ValueError, "1 of them not finite"),
        (lambda u, x, k: u.sweeps(x, values=torch.tensor(1.0)), ValueError, r"values have shape \(\)"),
        (lambda u, x, k: u.sweeps(x, steps=1), ValueError, "steps is 1; expected at least 2"),
        (
            lambda u, x, k: u.sweep(x, 0, mode="both"),
            ValueError,
            "mode is 'both'; expected one of 'anchored', 'replace'",
        ),
        (lambda u, x, k: u.sweep(x, 0, direction="up"), ValueError, "direction is 'up'; expected one of 'marginal'"),
        (
            lambda u, x, k: u.sweep(x, k, latents=torch.zeros(1, 24)),
            ValueError,
            r"expected finite numbers \(3, 24\), one latent per sample",
        ),
        (
            lambda u, x, k: u.sweep(x, k, mode="replace", latents=torch.zeros(3, 24)),
            ValueError,
            "latents= are anchors, and mode 'replace'",
        ),
        (lambda u, x, k: u.sweep(x * 9, 0), ValueError, r"images lie in .*expected \[0, 1\]"),
        (lambda u, x, k: u.perturb(x, k, float("nan")), ValueError, "1 of them not finite"),
        (
            lambda u, x, k: u.counterfactual(x, 10),
            ValueError,
            "target 10 is not a class of this model; expected 0 to 9",
        ),
        (lambda u, x, k: u.counterfactual(x, [1, 2]), ValueError, "target has 2 classes for 3 samples"),
        (lambda u, x, k: u.counterfactual(x, 1.0), ValueError, "expected a class, an integer, or one per sample"),
        (
            lambda u, x, k: u.counterfactual(x, "8"),
            ValueError,
            "target is '8'; expected a class, an integer, or one",
        ),
        (lambda u, x, k: u.counterfactual(x, [[1], [2, 3]]), ValueError, "expected a class, an integer"),
        (
            lambda u, x, k: u.counterfactual(torch.rand(2, 1, 28, 28), 8),
            ValueError,
            r"the model fails on images of shape \(1, 28, 28\) .* the link's generator generates \(1, 8, 8\)\. Give",
        ),
        (lambda u, x, k: u.sweep(x.expand(-1, 3, -1, -1), k), ValueError, r"fails on images of shape \(3, 8, 8\)"),
        (lambda u, x, k: u.counterfactual(x, 1, origin=1), ValueError, "sample 0: origin and target are both 1"),
        (lambda u, x, k: u.counterfactual(x, 1, "walk"), ValueError, "method is 'walk'; expected one of 'ray'"),
        (lambda u, x, k: u.counterfactual(x, 1, Ray), ValueError, "with options, such as Ray"),
        (lambda u, x, k: u.counterfactual(x, 1, confidence=1.0), ValueError, r"confidence is 1\.0; expected"),
        (lambda u, x, k: u.attribute(x, 0, internal_batch_size=0), ValueError, "internal_batch_size is 0"),
    ],
)
def test_invalid_calls_raise(digits, call, error, text):
    with pytest.raises(error, match=text):
        call(digits.units, digits.pictures(3), digits.unit)


def test_sweeps_checks_the_direction_of_every_unit_at_the_call():
    classes = torch.arange(60) % 2
    r, w = torch.stack([torch.rand(60), classes.float()], 1), torch.rand(60, 4)
    generator = from_callable(lambda w: w.sigmoid().view(-1, 1, 2, 2), normal_latents(4))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    units = LinkedUnitVisualization(net, "1", generator, LatentLink().fit(r, w, classes))
    with pytest.raises(ValueError, match="unit 1 does not vary within any class; use kind='marginal'"):
        units.sweeps(torch.rand(2, 1, 2, 2), [0, 1], direction="within_class")


def test_dead_units_are_named(digits):
    dead = int((~digits.link.alive).nonzero()[0])
    with pytest.raises(ValueError, match=f"unit {dead} is dead: it does not vary over the pairs"):
        digits.units.sweep(digits.pictures(1), dead)
    with pytest.raises(ValueError, match=f"unit {dead} is dead"):
        digits.units.attribute(digits.pictures(1), dead)


def test_mismatched_layer_link_and_generator_raise(digits):
    x = digits.pictures(2)
    build = lambda **kw: LinkedUnitVisualization(
        digits.net, kw.get("layer", "5"), kw.get("generator", digits.generator), kw.get("link", digits.link)
    )
    other = from_callable(lambda w: w.sigmoid().view(-1, 1, 2, 2), normal_latents(4))
    with pytest.raises(
        ValueError, match=r"the link returns latents of 24 numbers, but the generator samples .*\(1, 4\)"
    ):
        build(generator=other).sweep(x, digits.unit)
    with pytest.raises(LayerError, match="layer '1' is not the linked one: the link was fitted to the layer '5'"):
        build(layer="1").sweep(x, digits.unit)
    with pytest.raises(LayerError, match="fitted to the input of layer '5', but attribute_to_neuron_input is False"):
        build().sweep(x, digits.unit, attribute_to_neuron_input=False)
    bare = LatentLink().fit(torch.rand(90, 5), torch.rand(90, 24))
    with pytest.raises(
        ValueError,
        match=r"layer '1' has 64 units .* at its output, but the link has 5. .* attribute_to_neuron_input= \(T",
    ):
        build(layer="1", link=bare).sweep(x, 1)
    wide = from_callable(lambda w: 3 * w.sigmoid()[:, :1].view(-1, 1, 1, 1).expand(-1, 1, 8, 8), normal_latents(24))
    with pytest.raises(ValueError, match=r"but its image_range is \[0, 1\]"):
        build(generator=wide).sweep(x, digits.unit)
    flat = from_callable(lambda w: w.sigmoid(), normal_latents(24))
    with pytest.raises(ValueError, match=r"the generator returned torch.float32 of shape \(2, 24\) for 2 latents"):
        build(generator=flat).sweep(x, digits.unit)


def test_another_model_or_generator_gives_a_warning(digits):
    link, net, generator = (copy.deepcopy(part) for part in (digits.link, digits.net, digits.generator))
    link.manifest |= {"model_sha256": model_sha256(net), "generator_sha256": model_sha256(generator)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinkedUnitVisualization(net, "5", generator, link)
    with torch.no_grad():
        net[1].bias[0] += 1
        generator.mean.add_(0.1)
    with pytest.warns(UserWarning, match="the network given has other weights") as told:
        LinkedUnitVisualization(net, "5", digits.generator, link)
    assert told[0].filename == __file__, "the warning is at the caller's line"
    with pytest.warns(UserWarning, match="the generator given has other weights"):
        LinkedUnitVisualization(digits.net, "5", generator, link)


NET = nn.Sequential(nn.Flatten(), nn.Identity())


class Untraceable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("nobody asked for this")


def units(paint):
    r = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).double()
    return LinkedUnitVisualization(NET, "1", paint, LatentLink(ridge=0.0).fit(r, 3 * r))


def painted(draw, **kw):
    paint = from_callable(lambda w: draw(w).view(-1, 1, 2, 2), lambda n, *_, **__: torch.zeros(n, 4).double(), **kw)
    return units(paint)


def test_by_hand():
    """Each unit draws one pixel, σ(3 r): its derivative is 3 σ (1 − σ) there and nothing elsewhere."""
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    for method in (
        painted(torch.sigmoid),
        painted(Untraceable.apply),
        painted(lambda w: w.detach().sigmoid(), differentiable=False),
    ):
        result = method.attribute(x, 1)
        s = (3 * x[:, 0, 0, 1]).sigmoid()
        torch.testing.assert_close(result[:, 0, 0, 1], 3 * s * (1 - s), rtol=1e-3, atol=0)
        assert result.flatten(1)[:, [0, 2, 3]].abs().max() < 1e-9


def test_slices_raise_units_together():
    x, method = torch.rand(2, 1, 2, 2, dtype=torch.float64), painted(torch.sigmoid)
    both = method.attribute(x, (slice(1, 3),))
    torch.testing.assert_close(both, method.attribute(x, 1) + method.attribute(x, 2))


def test_attribute_marginal_is_the_derivative_of_the_sweep():
    x, method = torch.rand(2, 1, 2, 2, dtype=torch.float64), painted(torch.sigmoid)
    result = method.attribute(x, 1, direction="marginal")
    r, h = x.flatten(1), 1e-4
    for row in range(2):
        ends = [float(r[row, 1]) - h, float(r[row, 1]) + h]
        frames = method.sweep(x[row : row + 1], 1, ends, mode="replace").images[0]
        torch.testing.assert_close(result[row], (frames[1] - frames[0]).abs() / (2 * h), rtol=1e-3, atol=1e-6)


def test_resize_like():
    pictures = torch.rand(2, 3, 8, 8)
    same = resize_like(pictures, torch.zeros(2, 3, 8, 8))
    assert torch.equal(same, pictures)
    grey = resize_like(pictures, torch.zeros(2, 1, 16, 16, dtype=torch.float64))
    assert grey.shape == (2, 1, 16, 16) and grey.dtype == torch.float64
    torch.testing.assert_close(grey.mean().float(), pictures.mean(), rtol=0.05, atol=0)
    assert resize_like(pictures[:, :1], torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
