import pytest
import torch

from xinc_captum.metrics import part_motion, without_affine

pytest.importorskip("skimage.registration")


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


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"before have shape \(1, 1, 8, 8\) and after \(1, 1, 8, 9\)"):
        part_motion(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9), torch.ones(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"expected \(n, 2, H, W\)"):
        without_affine(torch.rand(1, 3, 4, 4))
