import math

import pytest
import torch

from xinc_captum.attributions.nern import (
    KernelCanvas,
    NeRN,
    embedding_levels,
    error_map,
    filter_ranking,
    layer_profile,
    reconstruction_loss,
    with_noise,
    without_filters,
)
from xinc_captum.metrics.statistics import spearman

LAYERS = ["stem", "wide", "depthwise", "point"]


def test_i13_root_mean_square_error_is_the_loss(mixed):
    nern = NeRN(mixed.double(), hidden=6)
    errors = [error_map(nern, name).error for name in LAYERS]
    total = sum(e.square().sum() for e in errors) / sum(e.numel() for e in errors)
    loss = reconstruction_loss(list(nern.weights().values()), list(nern.target_weights().values()))
    assert abs(total.sqrt() - loss) < 1e-10


@pytest.mark.parametrize("layer", range(4))
def test_magnitudes_equal_the_recorded_ones(arrays, recorded_nern, layer):
    found = error_map(recorded_nern, f"conv{layer + 1}").kernel_magnitude
    torch.testing.assert_close(found.flatten(), arrays[f"norms/layer{layer}"], atol=1e-6, rtol=0)


def test_relative_errors_and_correlation(mixed):
    nern = NeRN(mixed, hidden=6)
    found = error_map(nern, "stem")
    w, e = mixed.stem.weight.detach(), mixed.stem.weight.detach() - nern.weights()["stem"].detach()
    torch.testing.assert_close(found.error, e)
    assert found.kernel_error[2, 1].item() == pytest.approx((e[2, 1].norm() / w[2, 1].norm()).item(), rel=1e-5)
    assert found.filter_error[3].item() == pytest.approx((e[3].norm() / w[3].norm()).item(), rel=1e-5)
    torch.testing.assert_close(found.kernel_magnitude, w.flatten(2).norm(dim=2))
    torch.testing.assert_close(found.filter_magnitude, w.flatten(1).norm(dim=1))
    expected = spearman(found.kernel_error.view(1, -1), found.kernel_magnitude.view(1, -1)).values
    assert found.correlation == pytest.approx(expected.item())


def test_untrained_network_has_larger_relative_errors_for_small_kernels(mixed):
    assert error_map(NeRN(mixed, hidden=6), "wide").correlation < -0.3


def test_zero_kernels_have_infinite_errors(mixed):
    with torch.no_grad():
        mixed.point.weight[0, 0] = 0
        nern = NeRN(mixed, hidden=6)
        found = error_map(nern, "point")
        assert found.kernel_error[0, 0].item() == math.inf and math.isfinite(found.correlation)
        mixed.point.weight.copy_(nern.weights()["point"])
    again = error_map(nern, "point")
    assert (again.error == 0).all() and math.isnan(again.correlation)


def test_layer_profile_shares_and_sums(mixed, make_drawn):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=4))
    with torch.no_grad():
        nern.predictor.output.weight[:, 3] = 0  # writes nothing
    found = layer_profile(nern)
    assert found.layers == ("stem", "wide", "depthwise", "point")
    assert found.share.shape == found.signed.shape == (10, 4)
    totals = torch.stack([w.detach().sum() for w in nern.weights().values()])
    assert (found.signed.sum(0) - totals).abs().max() < 1e-10
    off = found.share.sum(1) == 0
    assert off[3] and ((found.share.sum(1) - 1).abs()[~off] < 1e-12).all()
    by_hand = torch.stack([KernelCanvas(nern, name).to_tensor()[5].abs().sum() for name in found.layers])
    torch.testing.assert_close(found.share[5], by_hand / by_hand.sum().clamp_min(1e-300))


@pytest.mark.parametrize(("fusion", "groups"), [("concat", 3), ("sum", 1)])
def test_level_contributions_and_bias_sum_to_the_weight(mixed, make_drawn, fusion, groups):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=5, fusion=fusion))
    found = embedding_levels(nern, "stem")
    assert found.parts.shape == (groups, 5, 4, 2, 5, 5)
    assert (found.parts.sum((0, 1)) + found.bias - nern.weights()["stem"].detach()).abs().max() < 1e-10


def test_unused_level_has_no_contribution(mixed, make_drawn):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=5))
    with torch.no_grad():
        nern.predictor.linear1.weight.view(9, 3, 5, 2)[:, 2, 4] = 0  # the channel's slowest
    parts = embedding_levels(nern, "wide").parts
    silent = (parts.flatten(2).abs().sum(2) == 0).nonzero().tolist()
    assert silent == [[2, 4]]


def test_filter_rankings(mixed):
    nern = NeRN(mixed, hidden=6)
    every = {(layer.name, f) for layer in nern.layers for f in range(layer.shape[0])}
    rankings = {by: filter_ranking(nern, by) for by in ("error", "magnitude", "random")}
    assert all(len(r) == len(every) and set(r) == every for r in rankings.values())
    errors = [error_map(nern, name).filter_error[f].item() for name, f in rankings["error"]]
    assert errors == sorted(errors, reverse=True)
    for name in ("stem", "point"):
        within = [f for layer, f in rankings["magnitude"] if layer == name]
        assert within == error_map(nern, name).filter_magnitude.argsort().tolist()
    assert filter_ranking(nern, "random", seed=1) != rankings["random"] == filter_ranking(nern, "random")


def test_ranking_by_magnitude_is_relative_to_the_layer(mixed):
    before = filter_ranking(NeRN(mixed, hidden=6), "magnitude")
    with torch.no_grad():
        mixed.wide.weight.mul_(1000)
    assert filter_ranking(NeRN(mixed, hidden=6), "magnitude") == before


def test_without_filters_zeroes_filters(mixed, found):
    x, before = torch.rand(2, 2, 6, 6), found(mixed)
    model = without_filters(mixed, [("stem", 1), ("point", 0)])
    assert before.differences(mixed) == []
    assert (model.stem.weight[1] == 0).all() and model.stem.bias[1] == 0 and (model.point.weight[0] == 0).all()
    assert torch.equal(model.stem.weight[0], mixed.stem.weight[0])
    assert (model.point(torch.rand(1, 6, 2, 2))[:, 0] == 0).all() and not torch.equal(model(x), mixed(x))
    assert torch.equal(without_filters(mixed, [])(x), mixed(x))


def test_unknown_ranking_is_refused(mixed):
    with pytest.raises(ValueError, match="by is 'size'; expected one of 'error', 'magnitude', 'random'"):
        filter_ranking(NeRN(mixed, hidden=4), "size")


def test_noise_has_the_requested_size_in_the_requested_layers(mixed, found):
    before = found(mixed)
    model = with_noise(mixed, 0.3, ["stem", "point"])
    assert before.differences(mixed) == []
    for name in ("stem", "point"):
        own, noisy = (m.get_submodule(name).weight for m in (mixed, model))
        assert ((noisy - own).norm() / own.norm()).item() == pytest.approx(0.3, rel=1e-5)
    assert torch.equal(model.wide.weight, mixed.wide.weight)
    same, other = with_noise(mixed, 0.3, ["stem"]), with_noise(mixed, 0.3, ["stem"], seed=1)
    assert torch.equal(same.stem.weight, model.stem.weight) and not torch.equal(other.stem.weight, model.stem.weight)
    assert torch.equal(with_noise(mixed, 0.0).stem.weight, mixed.stem.weight)


def test_negative_noise_is_refused(mixed):
    with pytest.raises(ValueError, match="relative is -1; expected at least 0"):
        with_noise(mixed, -1)
