import warnings

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Saliency

from xinc_captum import FeatureAccentuation, FeatureActivationMap, LayerContribution, NeuronFeatureAccentuation
from xinc_captum.comparison import as_maps, grad_cam, quantus_explain_func
from xinc_captum.comparison.measures import faults, maps_of

GIVEN = torch.rand(2, 3, 4, 6)
SIZE = (4, 6)


def test_input_shaped_attributions_are_summed_by_magnitude():
    answer = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    maps = as_maps(answer, GIVEN, SIZE)
    torch.testing.assert_close(maps, answer.detach().abs().sum(1).float())
    assert not maps.requires_grad and maps.dtype == torch.float32


def test_layer_shaped_attributions_are_clamped_and_resized():
    answer = torch.tensor([[[[2.0, -1.0]]]])
    row = [2.0, 1.5, 0.5, 0.0]  # bilinear between 2 at a quarter and 0 at three quarters
    assert as_maps(answer, torch.rand(1, 3, 2, 4), (2, 4)).tolist() == [[row, row]]


def test_maps_keep_their_sign():
    answer = torch.randn(2, 4, 6)
    assert torch.equal(as_maps(answer, GIVEN, SIZE), answer)
    assert torch.equal(as_maps(answer.numpy(), GIVEN, SIZE), answer)


def test_maps_are_resized_to_the_photos():
    assert as_maps(torch.ones(2, 3, 8, 8), torch.rand(2, 3, 8, 8), SIZE).tolist() == torch.full((2, 4, 6), 3.0).tolist()
    assert as_maps(torch.rand(2, 8, 8), torch.rand(2, 3, 8, 8), SIZE).shape == (2, 4, 6)


def test_a_grey_image_is_input_shaped():
    answer = -torch.ones(2, 1, 4, 6)
    assert as_maps(answer, GIVEN[:, :1], SIZE).unique().tolist() == [1.0]


@pytest.mark.parametrize("shape", [(2, 5, 2, 3), (1, 1, 2, 3), (2, 5), (2, 3, 3), (2, 3, 4, 5)])
def test_other_shapes_are_rejected(shape):
    with pytest.raises(
        ValueError,
        match=r"returned shape \(.*\) for inputs of shape \(2, 3, 4, 6\); expected maps .* sum over the units",
    ):
        as_maps(torch.rand(shape), GIVEN, SIZE)


def test_other_types_are_rejected():
    with pytest.raises(TypeError, match="returned a tuple; expected one tensor with a map for each image"):
        as_maps((torch.rand(2, 4, 6),), GIVEN, SIZE)


def test_constant_and_non_finite_maps_are_faults():
    maps = torch.rand(6, 2, 2)
    maps[1], maps[2], maps[3, 0, 0], maps[4, 0, 0] = 0, 7 + 1e-7 * torch.rand(2, 2), np.nan, -np.inf
    assert faults(maps) == ["", "constant", "constant", "not finite", "not finite", ""]


def test_layer_maps_of_input_size_are_clamped():
    net = torch.nn.Sequential(torch.nn.Identity())
    answer, grey = torch.tensor([[[[2.0, -1.0]]]]), torch.zeros(1, 1, 1, 2)
    assert maps_of(LayerGradCam(net, net[0]), answer, grey, (1, 2)).tolist() == [[[2, 0]]]
    assert maps_of(Saliency(net), answer, grey, (1, 2)).tolist() == as_maps(answer, grey, (1, 2)).tolist() == [[[2, 1]]]


X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)).numpy()
Y = np.array([0, 1, 2, 1])
MASKS = (torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1)) > 0.5).numpy()
METRICS = {
    "MaxSensitivity": {"nr_samples": 2},
    "AvgSensitivity": {"nr_samples": 2},
    "LocalLipschitzEstimate": {"nr_samples": 2},
    "FaithfulnessCorrelation": {"nr_runs": 4, "subset_size": 20},
    "PixelFlipping": {"features_in_step": 24},
    "Selectivity": {"patch_size": 4},
    "Sparseness": {},
    "Complexity": {},
    "RandomLogit": {"num_classes": 3},
    "PointingGame": {},
    "RelevanceMassAccuracy": {},
    "TopKIntersection": {"k": 20},
}
MAPS = {
    "accentuation": (lambda model: FeatureAccentuation(model), {"n_steps": 2}),
    "activation map": (lambda model: FeatureActivationMap(model, "relu", torch.from_numpy(X[:3])), {}),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", MAPS)
def test_quantus_metrics_accept_the_maps(conv, found, metric, name):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed (pip install '.[peers]')")
    make, arguments = MAPS[name]
    conv.requires_grad_(True)
    before = found(conv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Quantus' own remarks
        measure = getattr(quantus, metric)(disable_warnings=True, **METRICS[metric])
        scores = measure(
            model=conv,
            x_batch=X,
            y_batch=Y,
            s_batch=MASKS,
            explain_func=quantus_explain_func(make, **arguments),
            device="cpu",
        )
    assert np.isfinite(np.asarray([np.mean(list(s.values()) if isinstance(s, dict) else s) for s in scores])).all()
    assert len(scores) in {4, 1} or metric == "LocalLipschitzEstimate"
    assert [d for d in before.differences(conv) if "rng" not in d] == []


def test_randomised_copies_need_a_function(conv):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed (pip install '.[peers]')")
    measure = quantus.MPRT(disable_warnings=True, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = measure(model=conv, x_batch=X, y_batch=Y, explain_func=quantus_explain_func(Saliency), device="cpu")
        with pytest.raises(ValueError, match="passes another Conv than the one that this Saliency was made with"):
            measure(model=conv, x_batch=X, y_batch=Y, explain_func=quantus_explain_func(Saliency(conv)), device="cpu")
    assert np.mean([np.mean(v) for v in scores.values()]) < 0.99, "other weights, other maps"


def test_quantus_shapes_and_signs(conv):
    with torch.no_grad():
        by_hand = (
            Saliency(conv).attribute(torch.from_numpy(X), torch.from_numpy(Y), abs=False).sum(1, keepdim=True).numpy()
        )
    signed = quantus_explain_func(lambda model: Saliency(model), abs=False)(conv, X, Y, device="cpu")
    assert np.array_equal(signed, by_hand) and (signed < 0).any()
    assert quantus_explain_func(lambda m: LayerContribution(m, "conv"))  # made, not yet called
    coarse = quantus_explain_func(MAPS["activation map"][0])(conv, X, Y)
    assert coarse.shape == (4, 1, 12, 12)
    unit = quantus_explain_func(lambda m: NeuronFeatureAccentuation(m, "relu"), neuron_selector=2, n_steps=2)
    assert unit(conv, X, Y).shape == (4, 1, 12, 12)
    assert quantus_explain_func(Saliency)(conv.double(), X, Y).dtype == np.float32


def test_road_of_pytorch_grad_cam_accepts_the_maps(conv):
    """pytorch-grad-cam wants finished maps in [0, 1], (N, H, W)."""
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed (pip install '.[peers]')")
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from xinc_captum.comparison import as_maps

    photos = torch.from_numpy(X)
    maps = as_maps(FeatureAccentuation(conv).attribute(photos, torch.from_numpy(Y), n_steps=2), photos, (12, 12))
    maps = (maps / maps.amax((1, 2), keepdim=True)).numpy()
    targets = [ClassifierOutputTarget(int(y)) for y in Y]
    scores = ROADCombined(percentiles=[20, 50, 80])(photos, maps, targets, conv)
    assert np.shape(scores) == (4,) and np.isfinite(scores).all()
    assert grad_cam(conv, "conv")(photos, 1).shape == (4, 1, 12, 12), "the model is in order afterwards"


def test_a_given_target_replaces_that_of_quantus(conv):
    one = quantus_explain_func(lambda model: FeatureActivationMap(model, "relu", torch.from_numpy(X[:1])), target=0)
    own = FeatureActivationMap(conv, "relu", torch.from_numpy(X[:1])).attribute(torch.from_numpy(X))
    np.testing.assert_allclose(one(conv, X, Y), as_maps(own, torch.from_numpy(X), (12, 12))[:, None].numpy())


def test_layer_maps_of_grey_images_for_quantus():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(576, 3))
    answer = quantus_explain_func(LayerGradCam(net, net[0]))(net, X[:, :1], Y)
    raw = LayerGradCam(net, net[0]).attribute(torch.from_numpy(X[:, :1]), target=torch.from_numpy(Y))
    assert (raw < 0).any()
    np.testing.assert_allclose(answer, raw.relu().detach().numpy())
