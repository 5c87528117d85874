"""Lines 1 to 6 and 10: Captum's own wrappers, metrics, plots and attacks take every class."""

import pytest
import torch
from captum.attr import LayerAttribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from captum.robust import AttackComparator, MinParamPerturbation
from contract.methods import attribute, every, having
from torch import nn

from xinc_captum import LayerContribution, as_explanation, to_hwc


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


@having("perturb")
def test_line_10_captums_robustness(method, net, x):
    method_ = method.on(net)
    comparator = AttackComparator(net, lambda output: output.max(1).values)
    comparator.add_attack(method_.perturb, "ours", attack_kwargs={method.dose[0]: method.dose[2]} | method.perturbed)
    assert set(comparator.evaluate(x)) == {"Original", "ours"}
    least = MinParamPerturbation(net, method_.perturb, *method.dose, correct_fn=lambda out: out[0, 1] < out[0, 0])
    perturbed, steps = least.evaluate(x[:1], attack_kwargs=method.perturbed)
    assert (perturbed is None) is (steps is None)
