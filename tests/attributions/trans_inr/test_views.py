import math

import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.trans_inr import (
    RayTokens,
    RayTransINR,
    TransINR,
    Weights,
    camera_rays,
    mean_psnr,
    ray_colours,
    ray_depths,
    run_networks,
)
from xinc_captum.inr import HypoNet
from xinc_captum.zoo.ball_scenes import ball_scenes, orbit


def made(**arguments):
    whole = {"size": (4, 8), "patch": 4, "dim": 6, "width": 10, "count": 2, "extent": 2.0, "seed": 0} | arguments
    return RayTokens(**whole).double()


def test_token_equals_a_hand_computed_one():
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


def test_rays_go_through_the_centres_of_patches():
    _, directions = camera_rays(orbit(3), 8.0, (8, 8))
    _, coarse = camera_rays(orbit(3), 2.0, (2, 2))
    four = directions.unflatten(1, (2, 4)).unflatten(3, (2, 4)).mean((2, 4))
    torch.testing.assert_close(coarse, four)


def test_position_along_the_ray_has_no_effect():
    tokens = made(size=(4, 4), count=3)
    views, pose = torch.rand(1, 1, 3, 4, 4).double(), orbit(5)[2].double()
    nearer = pose.clone()
    nearer[:, 3] *= 0.25  # the only ray goes along the camera's axis
    first, second = (tokens(views, p[None, None], 8.0) for p in (pose, nearer))
    torch.testing.assert_close(first, second, atol=1e-7, rtol=0)


def test_unit_of_length_has_no_effect():
    views, poses = torch.rand(1, 2, 3, 4, 8).double(), orbit(2).double()
    larger = poses.clone()
    larger[..., 3] *= 10
    torch.testing.assert_close(
        made()(views, poses[None], 8.0), made(extent=20.0)(views, larger[None], 8.0), atol=1e-7, rtol=0
    )


def test_sizes_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match=r"an image of \(8, 9\) pixels with padding 0 does not tile"):
        made(size=(8, 9))
    assert math.isclose(made(count=5).encoding.highest, 16.0)


def small(**arguments):
    return RayTransINR(
        **{"size": (8, 8), "patch": 4, "samples": 8, "dim": 16, "depth": 1, "ff": 16, "hidden": 8, "layers": 3,
           "count": 3, "groups": 4, "seed": 0, **arguments}
    )  # fmt: skip


def poses(count):
    """Cameras on a circle of radius 4 that look at its middle."""
    found = []
    for k in range(count):
        s, c = math.sin(2 * math.pi * k / count), math.cos(2 * math.pi * k / count)
        found.append([[c, 0, s, 4 * s], [0, 1, 0, 0], [-s, 0, c, 4 * c]])
    return torch.tensor(found)


def scenes(count, views):
    """A dark ball of another grey in each scene, seen from all around."""
    origins, directions = camera_rays(poses(views), 8.0, (8, 8))
    depths = ray_depths(32, 2.0, 6.0, origins)
    points = origins[..., None, :] + depths[:, None] * directions[..., None, :]
    inside = (points.norm(dim=-1, keepdim=True) < 1).float()
    pictures = []
    for k in range(count):
        grey = torch.full_like(points, -4.0 + 6.0 * k / count)
        pictures.append(ray_colours(torch.cat([grey, 30 * inside - 15], -1), depths).permute(0, 3, 1, 2))
    return torch.stack(pictures), poses(views).expand(count, -1, -1, -1)


def test_generated_fields_agree_with_the_model(tmp_path):
    model, (views, cameras) = small(), scenes(3, 4)
    drawn = model(views[:, :2], cameras[:, :2], cameras[:, 2:], 8.0)
    assert drawn.shape == (3, 2, 3, 8, 8)
    fields = model.generate(views[:, :2], cameras[:, :2], 8.0)
    origins, directions = camera_rays(cameras[0, 2], 8.0, (8, 8))
    depths = ray_depths(8, 2.0, 6.0, origins)
    points = origins[..., None, :] + depths[:, None] * directions[..., None, :]
    for field, picture in zip(fields, drawn, strict=True):
        torch.testing.assert_close(ray_colours(field(points), depths).permute(2, 0, 1), picture[0])
    model.save(tmp_path / "model")
    again = RayTransINR.load(tmp_path / "model")
    assert torch.equal(again(views[:, :2], cameras[:, :2], cameras[:, 2:], 8.0), drawn)
    with pytest.raises(ValueError, match="model holds a RayTransINR; expected a TransINR"):
        TransINR.load(tmp_path / "model")


def test_order_of_views_has_no_effect():
    model, (views, cameras) = small().double(), scenes(2, 4)
    first = model(views[:, :2], cameras[:, :2], cameras[:, 3:], 8.0)
    second = model(views[:, [1, 0]], cameras[:, [1, 0]], cameras[:, 3:], 8.0)
    torch.testing.assert_close(first, second, atol=1e-10, rtol=0)


def test_fit_converges_and_is_validated(tmp_path):
    model, (views, cameras) = small(), scenes(8, 4)
    held_out = torch.tensor([1, 3, 5, 7])  # every other grey
    order = torch.cat([torch.tensor([0, 2, 4, 6]), held_out])
    settings = {"validation": 4, "batch_size": 4, "rays": 32, "warmup": 5, "lr": 1e-2, "show_progress": False}
    settings |= {"steps": 60, "every": 20, "checkpoint": tmp_path / "run.pt"}
    result = model.fit(views[order], cameras, 8.0, **settings)
    assert [step for step, _ in result.validation] == [20, 40, 60] and result.psnr > result.validation[0][1] + 0.5
    with torch.no_grad():
        drawn = model(views[held_out, :1], cameras[:4, :1], cameras[:4, -1:], 8.0)
    assert result.psnr == pytest.approx(mean_psnr(drawn, views[held_out, -1:]), abs=1e-4)
    again = small(seed=5)
    repeated = again.fit(views[order], cameras, 8.0, **settings)
    assert (repeated.resumed_at, repeated.curve) == (60, result.curve)
    assert torch.equal(again.writer.tokens, model.writer.tokens)


def test_few_scenes_are_overfitted():
    known = ball_scenes(4, orbit(2), (8, 8), 11.0)
    settings = {"near": 2.5, "far": 5.5, "dim": 32, "ff": 64, "hidden": 16, "count": 4}
    model = small(**settings)
    model.fit(known.views, known.poses, known.focal, steps=250, batch_size=4, warmup=10, lr=5e-3, show_progress=False)
    with torch.no_grad():
        drawn = model(known.views[:, :1], known.poses[:, :1], known.poses[:, 1:], known.focal)
        astray = model(known.views[[1, 2, 3, 0], :1], known.poses[:, :1], known.poses[:, 1:], known.focal)
    expected = known.views[:, 1:]
    mean = mean_psnr(expected.mean(0).expand_as(expected), expected)
    assert mean_psnr(drawn, expected) > mean + 5, "well above the mean of the very views that are expected"
    assert mean_psnr(astray, expected) < mean, "another scene's view does not help"


def test_number_of_support_views_may_be_random(monkeypatch):
    model, (views, cameras) = small(), scenes(4, 5)
    counts, weights = [], model.weights
    monkeypatch.setattr(model, "weights", lambda *given: counts.append(given[0].shape[1]) or weights(*given))
    result = model.fit(views, cameras, 8.0, support=(2, 4), validation=1, steps=20, show_progress=False)
    assert counts[-1] == 2, "the validation uses the fewest views"
    assert set(counts[:-1]) == {2, 3, 4} and result.steps == 20


def test_invalid_arguments_are_refused():
    model, (views, cameras) = small(), scenes(2, 3)
    with pytest.raises(
        ValueError, match=r"views have shape \(2, 3, 3, 8, 8\) and poses \(2, 2, 3, 4\); expected \(B, V, 3, 8, 8"
    ):
        model.generate(views, cameras[:, :2], 8.0)
    for wrong in ({"support": 3}, {"support": 0}, {"support": (2, 1)}, {"support": (1, 3)}, {"validation": 2}):
        with pytest.raises(
            ValueError, match="2 scenes of 3 views, .* expected at least one training scene, and one view more"
        ):
            model.fit(views, cameras, 8.0, steps=1, **wrong)
    with pytest.raises(ValueError, match="images hold NaN"):
        model.fit(views / 0 * 0, cameras, 8.0, steps=1)
    with pytest.raises(ValueError, match=r"an image of \(8, 9\) pixels with padding 0 does not tile"):
        small(size=(8, 9))
    for wrong in ({"near": 6.0, "far": 2.0}, {"samples": 1}):
        with pytest.raises(ValueError, match=r"near, far and samples are .*; expected 0 < near < far, and 2 or more"):
            small(**wrong)


def test_patches_of_views_are_square_and_heads_may_have_any_width():
    with pytest.raises(ValueError, match=r"patch is \(2, 4\); expected one number, such as 4: .* pixels are square"):
        RayTransINR((8, 8), (2, 4))
    model = RayTransINR((8, 8), patch=4, dim=10, heads=3, head_dim=2, seed=0)
    assert model.config["head_dim"] == 2
    assert model.writer.encoder.blocks[0].attention.query.weight.shape == (6, 10)
    with torch.no_grad():
        model.writer.tokens[0, 0] = float("inf")
    with pytest.raises(ValueError, match="writer.tokens of this RayTransINR holds NaN"):
        model.generate(torch.rand(1, 1, 3, 8, 8), torch.eye(3, 4).expand(1, 1, 3, 4), 8.0)


def test_rays_equal_the_recorded_ones(recorded):
    (focal,) = recorded["rays/focal"].unique().tolist()
    origins, directions = camera_rays(recorded["rays/poses"], focal, (4, 5))
    torch.testing.assert_close(origins, recorded["rays/o"])
    torch.testing.assert_close(directions, recorded["rays/d"], atol=1e-6, rtol=1e-6)


def field(recorded):
    """Encoding and weights of the recorded radiance fields."""
    layers = [recorded[f"nerf/params/{name}"] for name in ("wb0", "wb1", "rgb_density_fc")]
    weights = Weights(tuple(wb[:, :-1].mT for wb in layers), tuple(wb[:, -1][:, None] for wb in layers))
    return HypoNet(3, 4, hidden=12, layers=3, count=4, highest=256.0, unit=1.0).encoding, weights


def test_fields_equal_the_recorded_ones(recorded):
    encode, weights = field(recorded)
    raw = run_networks(encode(recorded["nerf/points"]), weights)
    torch.testing.assert_close(raw, recorded["nerf/output"], atol=1e-5, rtol=1e-5)


def test_images_equal_the_recorded_ones(recorded):
    encode, weights = field(recorded)
    depths = ray_depths(9, 2.0, 6.0, recorded["rays/o"])
    points = recorded["rays/o"][..., None, :] + depths[:, None] * recorded["rays/d"][..., None, :]
    raw = run_networks(encode(points.flatten(1, 4)), weights).reshape(*points.shape[:-1], 4)
    torch.testing.assert_close(ray_colours(raw, depths), recorded["render/rgb"], atol=1e-5, rtol=1e-5)


def test_hand_computed_values():
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
        (lambda: camera_rays(torch.eye(3), 1.0, (2, 2)), r"poses have shape \(3, 3\) and focal is 1.0; expected"),
        (lambda: camera_rays(torch.eye(3, 4), 0.0, (2, 2)), "focal is 0.0; expected"),
        (
            lambda: ray_colours(torch.rand(2, 3, 4), torch.rand(2)),
            r"raw has shape \(2, 3, 4\) and depths \(2,\); expected",
        ),
    ],
)
def test_invalid_shapes_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
