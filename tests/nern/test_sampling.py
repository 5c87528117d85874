import pytest
import torch

from xinc_captum.attributions.nern import sampled_kernels


def test_uniform_without_replacement():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(2000):
        index = sampled_kernels(torch.arange(10.0), 3, generator, by_norm=0.0)
        assert len(index) == 3 and torch.equal(index, index.sort().values.unique())
        counts[index] += 1
    assert (counts / 2000 - 0.3).abs().max() < 0.05


def test_by_norm():
    generator = torch.Generator().manual_seed(0)
    norms = torch.tensor([0.0, 1.0, 2.0, 7.0])
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[sampled_kernels(norms, 1, generator, by_norm=1.0)] += 1
    torch.testing.assert_close(counts / 4000, norms / 10, atol=0.03, rtol=0)
    assert len(sampled_kernels(norms, 50, generator, by_norm=1.0)) == 3, "with replacement, each once; never a dead one"


def test_dead_networks_are_drawn_uniformly():
    assert len(sampled_kernels(torch.zeros(5), 2, torch.Generator().manual_seed(0), by_norm=1.0)) == 2


def test_the_generator_ends_at_the_same_place_whatever_the_coin_says():
    ends = []
    for count in (0.2, 0.2):
        generator = torch.Generator().manual_seed(3)
        sampled_kernels(torch.ones(9), 4, generator, by_norm=count)
        ends.append(generator.get_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize(("count", "share"), [(0, 0.2), (3, 1.5)])
def test_errors(count, share):
    with pytest.raises(ValueError, match=f"count is {count} and by_norm is {share}; wanted at least 1 kernel"):
        sampled_kernels(torch.ones(4), count, torch.Generator(), by_norm=share)
