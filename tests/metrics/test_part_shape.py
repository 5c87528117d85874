import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import part_centroid, part_ellipse, turn

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


def test_gradients():
    masks = torch.rand(1, 2, 3, 4, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    pictures = torch.zeros(1, 1, 3, 4).double()
    assert torch.autograd.gradcheck(lambda m: part_ellipse(pictures, m), masks)
    assert torch.autograd.gradcheck(lambda m: part_centroid(pictures, m), masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_parts_in_half_precision(dtype):
    pictures, masks = torch.rand(1, 1, 300, 300), torch.zeros(1, 1, 300, 300)
    masks[..., 100:120, 20:280] = 1
    for measure in (part_centroid, part_ellipse):
        found = measure(pictures.to(dtype), masks)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), measure(pictures, masks), atol=1e-3, rtol=torch.finfo(dtype).eps)
