import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import (
    MEASURES,
    Measure,
    lab,
    local_entropy,
    part_area,
    part_centroid,
    part_ellipse,
    part_entropy,
    part_lab,
    part_luminance,
    part_means,
    part_motion,
    part_rgb,
    part_smooth_entropy,
    resolve_measures,
    smooth_entropy,
    spearman,
    turn,
    without_affine,
)
from xinc_captum.metrics.parts import of_ellipses, relative


def test_area_and_luminance_are_the_papers(part_table):
    pictures, masks = part_table.pictures, part_table.masks
    area, bright = part_area(pictures, masks)[..., 0] * 64 * 64, part_luminance(pictures, masks)[..., 0] * 85
    for step, part, recorded_area, recorded_luminance in part_table.rows[:, :4]:
        where = int(step), int(part)
        assert area[where].item() == recorded_area
        assert bright[where].item() == pytest.approx(recorded_luminance, rel=1e-12)


def test_changes_are_the_papers(part_table):
    pictures, masks = part_table.pictures, part_table.masks
    area, bright = part_area(pictures, masks)[..., 0], part_luminance(pictures, masks)[..., 0]
    grown = (area[2] - area[0]) / area[0]
    np.testing.assert_allclose(grown[1:], part_table.change[:, 0], rtol=1e-12)
    np.testing.assert_allclose((bright[2] - bright[0])[1:], part_table.change[:, 1], atol=1e-12)


def test_soft_masks_give_weighted_means():
    field = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]]).double()
    assert part_means(field, torch.tensor([[[[0.5, 0.25]]]])).tolist() == [[[1.25 / 0.75, 2 / 0.75]]]


@given(seed=st.integers(0, 99))
def test_shares_of_a_partition_sum_to_one(seed):
    g = torch.Generator().manual_seed(seed)
    pictures, masks = torch.rand(2, 3, 5, 4, generator=g).double(), torch.rand(2, 3, 5, 4, generator=g).double()
    masks = masks / masks.sum(1, keepdim=True)
    share = part_area(pictures, masks)
    torch.testing.assert_close(share.sum(1), torch.ones(2, 1).double())
    torch.testing.assert_close((part_means(pictures, masks) * share).sum(1), pictures.mean((2, 3)))


def test_gradients_reach_pictures_and_masks():
    pictures, masks = torch.rand(2, 3, 3, 3).double().requires_grad_(), torch.rand(2, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(part_luminance, (pictures, masks))


def test_empty_parts_have_an_area_and_no_mean():
    pictures, masks = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert part_area(pictures, masks).item() == 0
    assert part_luminance(pictures, masks).isnan().all()


def test_mismatched_arguments_raise_errors():
    pictures = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"masks have shape \(2, 4, 4\) for images of \(2, 3, 4, 4\); expected"):
        part_area(pictures, torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match="with at least one part"):
        part_luminance(pictures, torch.ones(2, 0, 4, 4))
    with pytest.raises(ValueError, match=r"expected \(2, parts, 4, 4\)"):
        part_means(pictures, torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match="Divide 8-bit values by 255"):
        part_area((pictures * 255).byte(), torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_parts_in_half_precision(dtype):
    fields, masks = torch.rand(1, 2, 300, 300).to(dtype), torch.ones(1, 1, 300, 300)
    found = part_means(fields, masks)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), part_means(fields.float(), masks), atol=0, rtol=torch.finfo(dtype).eps)
    assert part_area(fields, masks).item() == 1


def test_areas_need_weights_in_range():
    with pytest.raises(
        ValueError, match="masks go from 255 to 255; expected bool, or weights in .*divide a 0-255 mask"
    ):
        part_area(torch.rand(1, 1, 2, 2), torch.full((1, 1, 2, 2), 255))


color = pytest.importorskip("skimage.color")


def test_lab_is_scikit_images():
    pictures = torch.rand(3, 3, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    pictures[0, :, 0] = 0.02  # the linear branches
    for ours, picture in zip(lab(pictures), pictures, strict=True):
        theirs = torch.from_numpy(color.rgb2lab(picture.permute(1, 2, 0).numpy())).permute(2, 0, 1)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_gradients_are_finite_at_black_and_right_elsewhere():
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab(black).sum().backward()
    assert black.grad.isfinite().all()
    assert torch.autograd.gradcheck(lab, torch.full((1, 3, 1, 2), 0.4, dtype=torch.float64, requires_grad=True))


def test_colours_of_parts_by_hand():
    red_and_white = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).view(1, 3, 1, 2)
    masks = torch.tensor([[[[1, 0]], [[1, 1]]]])
    assert part_rgb(red_and_white, masks).tolist() == [[[1, 0, 0], [1, 0.5, 0.5]]]
    assert part_lab(red_and_white, masks)[0, 0].tolist() == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


def test_grey_pictures_have_no_colour():
    with pytest.raises(ValueError, match="1 channels; expected 3. For grey images, use part_luminance"):
        part_rgb(torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match="expected three channels"):
        part_lab(torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


measure = pytest.importorskip("skimage.measure")


def test_eccentric_ellipses_are_the_papers(part_table):
    """Its ellipses go round outlines, ours have the pixels' moments: they agree where there is an ellipse to speak of."""
    compared = 0
    for step, part, _, _, eccentricity, angle, x, y, _, _ in part_table.ellipses:
        mask = part_table.masks[int(step), int(part)]
        pieces = torch.from_numpy(measure.label(mask.numpy()))
        piece = (pieces == pieces[round(y), round(x)])[None, None]
        found = part_ellipse(part_table.pictures[:1], piece)[0, 0]
        centre = part_centroid(part_table.pictures[:1], piece)[0, 0]
        assert centre.tolist() == pytest.approx([y, x], abs=0.5)
        if eccentricity <= 0.65 or mask.sum() < 60:  # discs of 20 pixels have outlines of a dozen points
            continue
        compared += 1
        assert found[0].item() == pytest.approx(eccentricity, abs=0.02)
        # OpenCV's angle is the short side's
        assert abs(turn(torch.tensor(angle + 90.0), found[1].float()).item()) < 2.1
    assert compared == 6


def test_moments_are_scikit_images():
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        blob = (torch.nn.functional.avg_pool2d(torch.rand(1, 1, 28, 30, generator=g), 9, 1) > 0.5)[0, 0]
        labels = blob.int().numpy()
        if not labels.any():
            continue
        theirs = measure.regionprops(labels)[0]
        found = part_ellipse(torch.zeros(1, 1, *blob.shape).double(), blob[None, None])[0, 0]
        rows, columns = np.nonzero(labels)
        eigen = np.linalg.eigvalsh(np.cov(rows, columns, bias=True))
        assert found[0].item() == pytest.approx(np.sqrt(1 - eigen[0] / eigen[1]), abs=1e-9)
        # theirs runs from the rows' axis, anticlockwise
        assert abs(turn(torch.tensor(90 - np.rad2deg(theirs.orientation)), found[1])) < 1e-6


@given(angle=st.floats(-80, 80), by=st.floats(-60, 60), scale=st.floats(0.2, 1.0))
def test_a_rotated_soft_ellipse_turns_by_the_rotation(angle, by, scale):
    place = torch.cartesian_prod(torch.arange(41.0).double(), torch.arange(41.0).double()) - 20

    def drawn(degrees):
        t = torch.deg2rad(torch.tensor(degrees).double())
        along = place[:, 1] * t.cos() + place[:, 0] * t.sin()
        across = place[:, 0] * t.cos() - place[:, 1] * t.sin()
        return (scale * torch.exp(-((along / 6) ** 2) - (across / 3) ** 2)).view(1, 1, 41, 41)

    first, second = (part_ellipse(drawn(d), drawn(d))[0, 0] for d in (angle, angle + by))
    assert first[0].item() == pytest.approx(np.sqrt(0.75), abs=1e-3)
    assert turn(first[1], second[1]).item() == pytest.approx(by, abs=0.05)
    assert turn(torch.tensor(0.0).double(), first[1]).item() == pytest.approx(angle, abs=0.05)


def test_turn_is_modulo_180_degrees():
    assert turn(torch.tensor([89.0, 0.0, 10.0]), torch.tensor([-89.0, 45.0, 190.0])).tolist() == pytest.approx(
        [2, 45, 0], abs=1e-4
    )


def test_circles_points_and_empty_parts():
    pictures, masks = torch.zeros(1, 1, 5, 5), torch.zeros(1, 3, 5, 5)
    masks[0, 0, 1:4, 1:4], masks[0, 1, 2, 2] = 1, 1
    masks.requires_grad_()
    found = part_ellipse(pictures, masks)
    assert found[0, :2, 0].tolist() == [0, 0] and found[0, 2].isnan().all()
    found[0, :2].sum().backward()
    assert masks.grad[0, :2].isfinite().all(), "a circle's gradient is nothing, not nan"
    assert part_centroid(pictures, masks)[0, 2].isnan().all()


def test_shape_gradients():
    masks = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    pictures = torch.zeros(1, 1, 3, 4).double()
    assert torch.autograd.gradcheck(lambda m: part_ellipse(pictures, m), masks)
    assert torch.autograd.gradcheck(lambda m: part_centroid(pictures, m), masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shape_of_large_parts_in_half_precision(dtype):
    pictures, masks = torch.rand(1, 1, 300, 300), torch.zeros(1, 1, 300, 300)
    masks[..., 100:120, 20:280] = 1
    for measure in (part_centroid, part_ellipse):
        found = measure(pictures.to(dtype), masks)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), measure(pictures, masks), atol=1e-3, rtol=torch.finfo(dtype).eps)


def test_entropy_is_the_papers(part_table):
    maps = local_entropy(part_table.pictures)[:, 0]
    assert (maps - part_table.entropy).abs().max() < 1e-5
    means = part_entropy(part_table.pictures, part_table.masks)[..., 0]
    for step, part, mean in part_table.rows[:, [0, 1, 4]]:
        assert means[int(step), int(part)].item() == pytest.approx(mean, abs=1e-4)
    np.testing.assert_allclose((means[2] - means[0])[1:], part_table.change[:, 2], atol=1e-4)


@pytest.mark.own_kernels("a value exactly halfway has to stay there, and a mean of one channel is that channel")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_halfway_between_two_greys_round_as_in_scikit_image(dtype, channels):
    """Every grey value of k + 1/2 of 255, as a file of 9 bits or a mean of two 8-bit pictures has them."""
    rank, morphology = pytest.importorskip("skimage.filters.rank"), pytest.importorskip("skimage.morphology")
    color, util = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.util")
    halves = (torch.randint(0, 255, (2, 1, 24, 24)) + 0.5) / 255
    mixed = halves.to(dtype).expand(-1, channels, -1, -1).clone()
    mixed[1] = ((torch.randint(0, 511, (channels, 24, 24)) / 2) / 255).to(dtype)
    for picture, found in zip(mixed, local_entropy(mixed, radius=2), strict=True):
        shown = picture.permute(1, 2, 0).contiguous().numpy()
        grey = color.rgb2gray(shown) if channels == 3 else shown[..., 0]
        expected = rank.entropy(util.img_as_ubyte(grey.clip(0, 1)), morphology.disk(2))
        np.testing.assert_array_equal(found[0].numpy(), expected.astype(np.float32))


def test_entropy_of_half_precision_and_of_nan():
    pictures = torch.rand(2, 3, 9, 9).bfloat16()
    assert torch.equal(local_entropy(pictures), local_entropy(pictures.float()))
    pictures[0, 1, 2, 3] = torch.nan
    assert local_entropy(pictures).flatten(1).isnan().all(1).tolist() == [True, False]


def test_smooth_entropy_by_hand():
    checks = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    maps = smooth_entropy(checks[None, None].double(), radius=1, levels=2)
    here, there = np.array([1, 6, 1, 0]) / 8, np.array([0, 1, 6, 1]) / 8  # black and white over the levels -1 to 2
    shares = 0.2 * here + 0.8 * there  # four of five neighbours differ
    assert maps[0, 0, 2, 2].item() == pytest.approx(-(shares * np.log2(shares)).sum())


def test_smooth_entropy_of_parts_is_the_mean_over_their_pixels():
    pictures, masks = torch.rand(2, 3, 7, 8), torch.rand(2, 2, 7, 8) > 0.5
    masks[1, 1] = False
    fields, found = smooth_entropy(pictures), part_smooth_entropy(pictures, masks)
    for row, part in ((0, 0), (0, 1), (1, 0)):
        assert found[row, part].item() == pytest.approx(fields[row, 0][masks[row, part]].mean().item(), rel=1e-5)
    assert found[1, 1].isnan().all(), "an empty part"


def test_even_greys_all_have_about_a_bit():
    greys = torch.linspace(0, 1, 41).view(-1, 1, 1, 1).expand(-1, 1, 3, 3)
    found = smooth_entropy(greys)
    assert found.min() > 0.99 and found.max() < 1.07


def test_smooth_entropy_ranks_as_the_exact_does_and_has_gradients():
    g = torch.Generator().manual_seed(0)
    contrast = torch.linspace(0.02, 1, 16).view(-1, 1, 1, 1)
    pictures = (0.5 + contrast * (torch.rand(16, 1, 24, 24, generator=g) - 0.5)).double()
    rough, exact = smooth_entropy(pictures).mean((1, 2, 3)), local_entropy(pictures).mean((1, 2, 3))
    assert spearman(rough[None], exact[None].double()).values.item() > 0.95
    flat = torch.rand(1, 3, 4, 4, generator=g).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: smooth_entropy(x, radius=1, levels=3), flat)


def test_texture_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match="expected at least 2"):
        smooth_entropy(torch.rand(1, 1, 2, 2), levels=1)
    with pytest.raises(ValueError, match="torch.uint8"):
        local_entropy(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def texture(size=64):
    g = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.avg_pool2d(torch.rand(1, 3, size + 2, size + 2, generator=g), 3, 1)
    return (noise - noise.min()) / (noise.max() - noise.min())


def test_a_part_that_moves_by_itself_is_found_within_a_moving_picture():
    before = texture()
    whole = before.roll((1, 0), (2, 3))
    after, masks = whole.clone(), torch.zeros(1, 2, 64, 64)
    after[..., 16:40, 18:42] = whole[..., 16:40, 16:40]  # two pixels more to the right
    masks[:, 0, 17:38, 18:37], masks[:, 1, 4:12, 4:44] = 1, 1
    (down, right, speed), still = part_motion(before, after, masks)[0]
    assert right.item() == pytest.approx(2, abs=0.3) and abs(down) < 0.1 and speed >= right
    assert still.abs().max() < 0.1, "the motion of the whole is no part's"


def test_affine_motion_is_removed_and_the_rest_is_kept():
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    affine = torch.stack([0.1 * rows - 0.2 * columns + 1, 0.3 * rows - 2])[None]
    assert without_affine(affine).abs().max() < 1e-4
    moved = affine.clone()
    moved[..., :3, :3] += 4
    left = without_affine(moved)
    assert left[..., :3, :3].mean().item() == pytest.approx(4, abs=0.1) and left[..., 4:, 4:].abs().max() < 0.1


def test_motion_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"before have shape \(1, 1, 8, 8\) and after \(1, 1, 8, 9\)"):
        part_motion(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9), torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"expected \(n, 2, H, W\)"):
        without_affine(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("name", MEASURES)
def test_each_gives_its_columns(name):
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 3, 16, 16)
    masks[:, 0, 2:9, 3:6], masks[:, 1] = 1, 0.5
    measure = MEASURES[name]
    values = measure.of(pictures, masks) if isinstance(measure, Measure) else measure.between(pictures, pictures, masks)
    assert values.shape == (2, 3, len(measure.columns))
    assert values[:, :2].isfinite().all() and (name == "area" or values[:, 2].isnan().all()), "the third is empty"


@pytest.mark.parametrize("name", [n for n, m in MEASURES.items() if isinstance(m, Measure) and m.smooth])
def test_gradients_of_smooth_measures_equal_finite_differences(name):
    g = torch.Generator().manual_seed(1)
    pictures, masks = torch.rand(1, 3, 12, 12, generator=g).double(), torch.rand(1, 1, 12, 12, generator=g).double()
    step = [1e-6 * torch.randn(t.shape, generator=g).double() for t in (pictures, masks)]
    leaves = [t.clone().requires_grad_() for t in (pictures, masks)]
    measure = MEASURES[name]
    for column in range(len(measure.columns)):
        value = measure.of(*leaves)[0, 0, column]
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        expected = sum((s * d).sum() for s, d in zip(slopes, step, strict=True) if s is not None)
        after, before = (
            measure.of(*(t + sign * d for t, d in zip((pictures, masks), step, strict=True))) for sign in (1, -1)
        )
        assert float((after - before)[0, 0, column] / 2) == pytest.approx(float(expected), rel=1e-3, abs=1e-11)


def test_changes():
    before, after, base = torch.tensor([0.2, 0.0]), torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.0])
    torch.testing.assert_close(relative(before, after, base), torch.tensor([0.5, 0.1]))
    assert of_ellipses(torch.tensor([0.1, 80.0]), torch.tensor([0.2, -80.0]), base).tolist() == pytest.approx([0.1, 20])


def test_unknown_measures_raise_errors():
    with pytest.raises(ValueError, match="measure 'size' is unknown; expected one of area, luminance"):
        resolve_measures(["area", "size"])
    with pytest.raises(ValueError, match="column 'area' comes from two"):
        resolve_measures(["area", "area"])
    with pytest.raises(ValueError, match=r"measures is 'area'; expected a list"):
        resolve_measures("area")
    with pytest.raises(ValueError, match="expected a list"):
        resolve_measures([])
