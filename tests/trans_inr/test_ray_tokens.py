import math

import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.trans_inr import RayTokens, camera_rays
from xinc_captum.zoo.balls import orbit


def made(**arguments):
    whole = {"size": (4, 8), "patch": 4, "dim": 6, "width": 10, "count": 2, "extent": 2.0, "seed": 0} | arguments
    return RayTokens(**whole).double()


def test_a_token_by_hand():
    tokens = made()
    views = torch.rand(1, 1, 3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pose = torch.tensor([[1.0, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 4]], dtype=torch.float64)
    found = tokens(views, pose[None, None], 8.0)
    assert found.shape == (1, 2, 6)
    # the second patch's middle is 2 pixels right of the picture's
    way = torch.tensor([2 / 8, 0.0, -1.0], dtype=torch.float64)
    way = way / way.norm()
    moment = torch.tensor([0 * way[2] - 4 * 0, 4 * way[0] - 0.5 * way[2], 0.0], dtype=torch.float64) / 2
    ray = torch.cat([way, moment])
    angles = (ray[:, None] * torch.tensor([1.0, 2.0], dtype=torch.float64)).flatten()
    patch = (1 - views[0, 0, :, :, 4:]).flatten()
    x = torch.cat([patch, ray, angles.cos(), angles.sin()])
    torch.testing.assert_close(found[0, 1], tokens.out(F.gelu(tokens.hidden(x))), atol=1e-6, rtol=0)


def test_rays_go_through_the_middles_of_patches():
    _, directions = camera_rays(orbit(3), 8.0, (8, 8))
    _, coarse = camera_rays(orbit(3), 2.0, (2, 2))
    four = directions.unflatten(1, (2, 4)).unflatten(3, (2, 4)).mean((2, 4))
    torch.testing.assert_close(coarse, four)


def test_where_on_the_ray_a_camera_stands_means_nothing():
    tokens = made(size=(4, 4), count=3)
    views, pose = torch.rand(1, 1, 3, 4, 4).double(), orbit(5)[2].double()
    nearer = pose.clone()
    nearer[:, 3] *= 0.25  # the only ray goes along the camera's axis
    first, second = (tokens(views, p[None, None], 8.0) for p in (pose, nearer))
    torch.testing.assert_close(first, second, atol=1e-7, rtol=0)


def test_units_of_length_mean_nothing():
    views, poses = torch.rand(1, 2, 3, 4, 8).double(), orbit(2).double()
    larger = poses.clone()
    larger[..., 3] *= 10
    torch.testing.assert_close(
        made()(views, poses[None], 8.0), made(extent=20.0)(views, larger[None], 8.0), atol=1e-7, rtol=0
    )


def test_sizes_that_do_not_tile():
    with pytest.raises(ValueError, match=r"a picture of \(8, 9\) pixels with padding 0 does not tile"):
        made(size=(8, 9))
    assert math.isclose(made(count=5).encoding.highest, 16.0)
