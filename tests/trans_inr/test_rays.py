import pytest
import torch

from xinc_captum.attributions.trans_inr import Weights, camera_rays, painted, ray_colours, ray_depths
from xinc_captum.inr import HypoNet


def test_recorded_rays(recorded):
    (focal,) = recorded["rays/focal"].unique().tolist()
    origins, directions = camera_rays(recorded["rays/poses"], focal, (4, 5))
    torch.testing.assert_close(origins, recorded["rays/o"])
    torch.testing.assert_close(directions, recorded["rays/d"], atol=1e-6, rtol=1e-6)


def field(recorded):
    """Encoding and weights of the recorded radiance fields."""
    layers = [recorded[f"nerf/params/{name}"] for name in ("wb0", "wb1", "rgb_density_fc")]
    weights = Weights(tuple(wb[:, :-1].mT for wb in layers), tuple(wb[:, -1][:, None] for wb in layers))
    return HypoNet(3, 4, hidden=12, layers=3, count=4, highest=256.0, unit=1.0).encoding, weights


def test_recorded_fields(recorded):
    encode, weights = field(recorded)
    raw = painted(encode(recorded["nerf/points"]), weights)
    torch.testing.assert_close(raw, recorded["nerf/output"], atol=1e-5, rtol=1e-5)


def test_recorded_pictures(recorded):
    encode, weights = field(recorded)
    depths = ray_depths(9, 2.0, 6.0, recorded["rays/o"])
    points = recorded["rays/o"][..., None, :] + depths[:, None] * recorded["rays/d"][..., None, :]
    raw = painted(encode(points.flatten(1, 4)), weights).reshape(*points.shape[:-1], 4)
    torch.testing.assert_close(ray_colours(raw, depths), recorded["render/rgb"], atol=1e-5, rtol=1e-5)


def test_known_answers():
    """An opaque black sample hides what is behind; half of the light passes where σ δ = ln 2."""
    black, white = [-50.0] * 3, [50.0] * 3
    depths = torch.tensor([1.0, 2.0])
    assert ray_colours(torch.tensor([[*black, 99.0], [*white, 99.0]]), depths).tolist() == pytest.approx([0.0] * 3)
    assert ray_colours(torch.tensor([[*black, 0.6931472], [*white, -1.0]]), depths).tolist() == pytest.approx([0.5] * 3)
    pose = torch.tensor([[0.0, 0.0, 1.0, 5.0], [0.0, 1.0, 0.0, 6.0], [-1.0, 0.0, 0.0, 7.0]])  # looks along -x
    origins, directions = camera_rays(pose, 2.0, (2, 2))
    assert origins[1, 0].tolist() == [5.0, 6.0, 7.0]
    assert directions[0, 0].tolist() == [-1.0, 0.25, 0.25] and directions[1, 1].tolist() == [-1.0, -0.25, -0.25]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: camera_rays(torch.eye(3), 1.0, (2, 2)), r"poses have shape \(3, 3\) and focal is 1.0; wanted"),
        (lambda: camera_rays(torch.eye(3, 4), 0.0, (2, 2)), "focal is 0.0; wanted"),
        (
            lambda: ray_colours(torch.rand(2, 3, 4), torch.rand(2)),
            r"raw has shape \(2, 3, 4\) and depths \(2,\); wanted",
        ),
    ],
)
def test_impossible_shapes(call, text):
    with pytest.raises(ValueError, match=text):
        call()
