import math

import pytest
import torch

from xinc_captum.attributions.nern import NeRN, error_map, reconstruction_loss
from xinc_captum.metrics.rank import spearman

LAYERS = ["stem", "wide", "depthwise", "point"]


def test_i13_root_mean_square_is_the_loss(mixed):
    nern = NeRN(mixed.double(), hidden=6)
    errors = [error_map(nern, name).error for name in LAYERS]
    total = sum(e.square().sum() for e in errors) / sum(e.numel() for e in errors)
    loss = reconstruction_loss(list(nern.weights().values()), list(nern.target_weights().values()))
    assert abs(total.sqrt() - loss) < 1e-10


@pytest.mark.parametrize("layer", range(4))
def test_magnitudes_as_recorded(arrays, recorded_nern, layer):
    found = error_map(recorded_nern, f"conv{layer + 1}").kernel_magnitude
    torch.testing.assert_close(found.flatten(), arrays[f"norms/layer{layer}"], atol=1e-6, rtol=0)


def test_relative_errors_and_their_control(mixed):
    nern = NeRN(mixed, hidden=6)
    found = error_map(nern, "stem")
    w, e = mixed.stem.weight.detach(), mixed.stem.weight.detach() - nern.weights()["stem"].detach()
    torch.testing.assert_close(found.error, e)
    assert found.kernel_error[2, 1].item() == pytest.approx((e[2, 1].norm() / w[2, 1].norm()).item(), rel=1e-5)
    assert found.filter_error[3].item() == pytest.approx((e[3].norm() / w[3].norm()).item(), rel=1e-5)
    torch.testing.assert_close(found.kernel_magnitude, w.flatten(2).norm(dim=2))
    torch.testing.assert_close(found.filter_magnitude, w.flatten(1).norm(dim=1))
    wanted = spearman(found.kernel_error.view(1, -1), found.kernel_magnitude.view(1, -1)).values
    assert found.correlation == pytest.approx(wanted.item())


def test_an_untrained_network_misses_small_kernels_by_more_of_their_size(mixed):
    assert error_map(NeRN(mixed, hidden=6), "wide").correlation < -0.3


def test_dead_kernels(mixed):
    with torch.no_grad():
        mixed.point.weight[0, 0] = 0
        nern = NeRN(mixed, hidden=6)
        found = error_map(nern, "point")
        assert found.kernel_error[0, 0].item() == math.inf and math.isfinite(found.correlation)
        mixed.point.weight.copy_(nern.weights()["point"])
    again = error_map(nern, "point")
    assert (again.error == 0).all() and math.isnan(again.correlation)
