import pytest
import scipy.stats
import torch

from xinc_captum.metrics import association, edges, intensity, opponents


def test_by_hand():
    red, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    red[0] = 1
    assert intensity(red).item() == pytest.approx(0.299) and intensity(white).item() == pytest.approx(1)
    assert intensity(torch.tensor([0.2, 0.6]).view(2, 1, 1)).item() == pytest.approx(0.4)
    assert opponents(white).flatten().tolist() == pytest.approx([1, 0, 0])
    assert opponents(red.roll(2, 0)).flatten().tolist() == pytest.approx([0.114, 0, 1]), "blue"


def test_an_edge_is_where_brightness_steps():
    picture = torch.zeros(3, 6, 8)
    picture[:, :, 4:] = 1
    found = edges(picture)
    assert (found[:, 3:5] > 0.5).all() and (found[:, :3] == 0).all() and (found[:, 5:] == 0).all()
    torch.testing.assert_close(edges(picture.mT), found.T)
    assert found.dtype == torch.float32


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"image is torch.uint8 of shape \(3, 2, 2\).*Divide 8-bit values by 255"):
        intensity(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="image has 1 channels; expected 3 for colours"):
        opponents(torch.zeros(1, 2, 2))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count, g, size=(24, 32)):
    noise = torch.rand(count, *size, generator=g)
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(noise, [3] * 4, mode="circular"), 7, 1)


def test_equals_scipy_and_leaves_constant_units_out():
    g = generator()
    amounts, field = torch.rand(3, 5, 6, generator=g), torch.rand(5, 6, generator=g)
    amounts[2] = 0.5
    found = association(amounts, field, generator=g, repeats=19)
    expected = [scipy.stats.spearmanr(amounts[u].flatten(), field.flatten()).statistic for u in (0, 1)]
    assert found.rho[:2].tolist() == pytest.approx(expected, abs=1e-4) and found.rho[2].isnan()
    assert found.chance[2].isnan() and found.shifted.shape == (19, 3)


def test_the_control_is_the_same_field_elsewhere():
    g = generator()
    amounts = torch.rand(1, 1, 5, generator=g)
    field = torch.rand(1, 5, generator=g)
    found = association(amounts, field, generator=g, repeats=200)
    every = [scipy.stats.spearmanr(amounts.flatten(), field.roll(s, 1).flatten()).statistic for s in range(1, 5)]
    assert {round(v, 6) for v in found.shifted.flatten().tolist()} == {round(v, 6) for v in every}


def test_smooth_coincidences_are_distinguished_from_following():
    """The textbook p-value calls most unrelated smooth maps significant; rolling does not."""
    g = generator(3)
    field, unrelated = smooth(1, g)[0], smooth(60, g)
    found = association(unrelated, field, generator=g)
    textbook = [scipy.stats.spearmanr(m.flatten(), field.flatten()).pvalue for m in unrelated]
    assert sum(p <= 0.05 for p in textbook) > 30
    assert found.below_five_percent < 0.2
    following = association(field + 0.3 * unrelated, field, generator=g)
    assert following.below_five_percent == 1 and following.rho.min() > 0.8
    assert following.chance.max() == pytest.approx(0.01), "1 of 100"


def test_association_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"field has shape \(3, 2\).*expected the image's \(2, 3\), finite and not"):
        association(torch.rand(1, 2, 3), torch.rand(3, 2), generator=generator())
    with pytest.raises(ValueError, match="values from 1 to 1"):
        association(torch.rand(1, 2, 3), torch.ones(2, 3), generator=generator())
