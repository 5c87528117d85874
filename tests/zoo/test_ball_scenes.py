import math

import pytest
import torch

from xinc_captum.attributions.trans_inr import camera_rays
from xinc_captum.zoo.ball_scenes import LIGHT, ball_scenes, orbit


def test_orbit_cameras_face_the_origin():
    poses = orbit(6, radius=3.0, height=0.4)
    turns, places = poses[..., :3], poses[..., 3]
    torch.testing.assert_close(turns.mT @ turns, torch.eye(3).expand(6, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(6))
    torch.testing.assert_close(places, 3 * turns[..., 2], msg="it looks along its own -z, at the origin")
    torch.testing.assert_close(places[:, 1], torch.full((6,), 3 * math.sin(0.4)))
    torch.testing.assert_close((places[0] - places[1]).norm(), torch.tensor(3 * math.cos(0.4)))  # a hexagon's side


def test_visible_points_lie_on_the_balls():
    found = ball_scenes(6, orbit(4), balls=2, seed=3)
    origins, directions = camera_rays(found.poses, found.focal, (16, 16))
    points = origins + found.depths.nan_to_num(posinf=0)[..., None] * directions
    away = (points[..., None, :] - found.centres[:, None, None, None]).norm(dim=-1) - found.radii[:, None, None, None]
    there = found.ball_indices >= 0
    assert torch.equal(there, found.depths.isfinite()) and 0.05 < there.float().mean() < 0.4
    own = away.gather(-1, found.ball_indices.clamp_min(0)[..., None])[..., 0]
    assert own[there].abs().max() < 1e-4, "the ball said to be seen is met"
    assert set(found.ball_indices.unique().tolist()) == {-1, 0, 1}
    steps = torch.linspace(0, 1, 200)[:, None, None, None, None, None]
    before = origins + steps * (points - origins)  # nothing stands before it
    clear = (before[..., None, :] - found.centres[:, None, None, None]).norm(dim=-1)
    assert (clear - found.radii[:, None, None, None])[:, there].min() > -1e-2


def test_images_are_white_outside_the_balls_and_coloured_inside():
    found = ball_scenes(8, orbit(3), (12, 20), 18.0, seed=1)
    assert found.views.shape == (8, 3, 3, 12, 20) and found.ball_indices.shape == (8, 3, 12, 20)
    assert found.views.min() >= 0 and found.views.max() <= 1
    empty = (found.views == 1).all(2)
    assert (found.ball_indices[empty] < 0).all()
    middle = (
        torch.nn.functional.max_pool2d((found.ball_indices < 0).float().flatten(0, 1), 3, 1, 1).reshape(8, 3, 12, 20)
        == 0
    )
    ratio = (found.views / found.colours.reshape(8, 1, 3, 1, 1)).movedim(2, -1)[middle]
    assert len(ratio) > 20, "pixels all of whose neighbours show the ball"
    torch.testing.assert_close(ratio, ratio[:, :1].expand(-1, 3), msg="its colour, darker or lighter")
    assert 0.65 - 1e-4 < ratio.min() < 0.75 and 0.9 < ratio.max() < 1 + 1e-4
    assert torch.tensor(LIGHT).norm() == pytest.approx(1, abs=1e-3)


def test_scenes_depend_on_the_seed_and_not_on_the_cameras():
    state = torch.get_rng_state()
    first, again = ball_scenes(3, orbit(4), seed=5), ball_scenes(3, orbit(4), seed=5)
    assert torch.equal(first.views, again.views) and torch.equal(torch.get_rng_state(), state)
    other = ball_scenes(3, orbit(8)[::2].expand(3, -1, -1, -1), seed=5)
    torch.testing.assert_close(other.views, first.views, msg="scenes do not depend on the cameras")
    assert not torch.equal(first.centres, ball_scenes(3, orbit(4), seed=6).centres)


def test_impossible_requests():
    for arguments in ({"scenes": 0}, {"balls": 0}, {"poses": orbit(2)[0]}, {"poses": orbit(2).expand(4, -1, -1, -1)}):
        whole = {"scenes": 2, "poses": orbit(2)} | arguments
        with pytest.raises(ValueError, match=r"got .* scenes, .* balls and poses of shape .*; expected at least one"):
            ball_scenes(**whole)
