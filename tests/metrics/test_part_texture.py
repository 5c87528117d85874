import numpy as np
import pytest
import torch

from xinc_captum.metrics import local_entropy, part_entropy, part_smooth_entropy, smooth_entropy, spearman

pytest.importorskip("skimage.filters.rank")


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


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match="expected at least 2"):
        smooth_entropy(torch.rand(1, 1, 2, 2), levels=1)
    with pytest.raises(ValueError, match="torch.uint8"):
        local_entropy(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
