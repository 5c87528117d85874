import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import clustered, mixing, rand_index, stability, unit_vectors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def groups(count=3, each=12, dims=6, noise=0.05):
    centres = 3 * torch.eye(count, dims).repeat_interleave(each, 0)
    return centres + noise * torch.randn(count * each, dims, generator=generator()), torch.arange(count * each) // each


def test_vectors_by_hand():
    amounts = torch.zeros(3, 2, 4)
    amounts[0, :, :2], amounts[2] = 8, 2
    found = unit_vectors(amounts, (1, 2))
    assert found.units.tolist() == [0, 2], "a unit that paints nothing has no place"
    assert found.values[0].tolist() == [1, 0] and found.values[1].tolist() == pytest.approx([0.5**0.5] * 2)
    clip = unit_vectors(torch.stack([amounts, 0 * amounts]), (1, 2))
    assert clip.values[1].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0]), "frame after frame"


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_vectors_have_length_one_whatever_the_amount(seed, scale):
    amounts = torch.rand(4, 6, 8, generator=generator(seed)).double()
    found = unit_vectors(amounts, (2, 4)).values
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(unit_vectors(amounts * scale, (2, 4)).values, found)


def test_planted_groups_are_found_and_stable():
    vectors, truth = groups()
    assert rand_index(clustered(vectors, 3), truth) == 1
    found = stability(vectors, 3, generator=generator())
    assert found.found.tolist() == [1] * 10, "five seeds, ten pairs"
    assert found.shuffled.mean() < 0.9


def test_a_cloud_is_no_more_stable_than_its_control():
    cloud = torch.randn(60, 8, generator=generator())
    found = stability(cloud, 6, generator=generator())
    assert found.found.mean() < 0.9 and abs(found.found.mean() - found.shuffled.mean()) < 0.35


def test_rand_index_by_its_definition():
    a, b = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = [(i, j) for i in range(6) for j in range(i)]
    both = sum(bool(a[i] == a[j] and b[i] == b[j]) for i, j in pairs)
    in_a, in_b = (sum(bool(x[i] == x[j]) for i, j in pairs) for x in (a, b))
    expected = in_a * in_b / 15
    assert rand_index(a, b) == pytest.approx((both - expected) / ((in_a + in_b) / 2 - expected))
    rng = np.random.default_rng(0)
    drawn = [rand_index(*torch.from_numpy(rng.integers(0, 3, (2, 60)))) for _ in range(200)]
    assert abs(np.mean(drawn)) < 0.02, "chance is 0"


def test_mixing_tells_sources_from_shared_clusters():
    sources = torch.arange(40) % 2
    assert mixing(sources, sources, generator=generator()).found == 1
    across = mixing(torch.arange(40) // 10, sources, generator=generator())
    assert abs(across.found) < 0.1 and across.shuffled.abs().max() < 0.5 and len(across.shuffled) == 20


def test_what_does_not_fit_is_said():
    with pytest.raises(
        ValueError, match=r"vectors are of shape \(2, 3, 4\); wanted \(units, dims\), such as unit_vectors"
    ):
        clustered(torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match="wanted 6 groups of 3 rows"):
        clustered(torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"seeds are \(1, 1\); wanted at least two different ones"):
        stability(torch.rand(9, 2), 2, seeds=(1, 1), generator=generator())
    with pytest.raises(ValueError, match=r"groupings have shapes \(3,\) and \(4,\); wanted"):
        rand_index(torch.zeros(3), torch.zeros(4))
