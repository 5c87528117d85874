import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.nern import greedy_paths, order_kernels
from xinc_captum.attributions.nern.permutation import LayerOrder, pack, unpack

KINDS = ["cross-filter", "in-filter", "none"]


@pytest.mark.parametrize("layer", range(4))
def test_orders_equal_the_recorded_ones(arrays, recorded, layer):
    weight = getattr(recorded, f"conv{layer + 1}").weight
    rows = arrays[f"embed/local/layer{layer}"]
    if (
        layer == 2
    ):  # kernels of one number: many tie, and rounding orders them, so that only the embedded rows are compared
        for kind, name in (("in-filter", "infilter"), ("cross-filter", "crossfilter")):
            found, expected = (
                rows[order_kernels(weight, kind).ranks(weight.shape)],
                arrays[f"embed/{name}/layer{layer}"],
            )
            assert torch.equal(found.unique(dim=0), expected.unique(dim=0))
        return
    assert torch.equal(order_kernels(weight).kernels, arrays[f"perm/crossfilter/layer{layer}"])
    within = order_kernels(weight, "in-filter")
    assert torch.equal(within.filters, arrays[f"perm/infilter/filters/layer{layer}"])
    assert torch.equal(within.channels, arrays[f"perm/infilter/channels/layer{layer}"])
    for kind, name in (("in-filter", "infilter"), ("cross-filter", "crossfilter")):
        assert torch.equal(rows[order_kernels(weight, kind).ranks(weight.shape)], arrays[f"embed/{name}/layer{layer}"])


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_objective_equals_the_recorded_one(arrays, recorded, layer):
    weight = getattr(recorded, f"conv{layer + 1}").weight.detach().flatten(0, 1).flatten(1)
    unit = weight / weight.norm(dim=1, keepdim=True)
    for name, path in (("identity", torch.arange(len(unit))), ("crossfilter", ordered_path(recorded, layer))):
        along = unit[path]
        found = 1 - (along[1:] * along[:-1]).mean()
        torch.testing.assert_close(found, arrays[f"perm/path_objective/{name}/layer{layer}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_path_of_the_recorded_similarities(arrays, recorded, layer):
    """Each kernel goes on to the one that the released code finds most alike, among those that are left."""
    alike, path = arrays[f"perm/sim_all/layer{layer}"].clone().fill_diagonal_(-2), ordered_path(recorded, layer)
    for here, there in itertools.pairwise(path):
        alike[:, here] = -2
        assert alike[here, there] >= alike[here].max() - 1e-6


def test_recorded_similarities_of_single_numbers(arrays, recorded):
    """What "in-filter" compares 1x1 kernels by."""
    values = recorded.conv3.weight.detach().flatten()
    unit = values / values.norm()
    expected = arrays["perm/sim_all/layer2"]
    torch.testing.assert_close(-(unit[:, None] - unit).square(), expected, atol=1e-6, rtol=0)


def ordered_path(recorded, layer):
    return order_kernels(getattr(recorded, f"conv{layer + 1}").weight).kernels


def one_by_one(rows):
    path, closed = [0], torch.zeros(len(rows))
    for _ in range(len(rows) - 1):
        closed[path[-1]] = -torch.inf
        path.append(int((rows @ rows[path[-1]] + closed).argmax()))
    return path


def test_removing_visited_rows_does_not_change_the_path():
    rows = torch.randint(-2, 3, (2, 700, 3)).float()  # many ties, exact in float32
    found = greedy_paths(rows)
    assert found[0].tolist() == one_by_one(rows[0])
    assert found[1].tolist() == one_by_one(rows[1])


@given(f=st.integers(1, 5), c=st.integers(1, 5), k=st.integers(1, 3), kind=st.sampled_from(KINDS))
def test_every_coordinate_belongs_to_one_kernel(f, c, k, kind):
    weight = torch.randn(f, c, k, k, generator=torch.Generator().manual_seed(f * c + k))
    order = order_kernels(weight, kind)
    assert sorted(order.ranks(weight.shape).tolist()) == list(range(f * c))
    again = unpack(pack(order), weight.shape, kind)
    assert torch.equal(again.ranks(weight.shape), order.ranks(weight.shape))


def test_dead_kernels_and_one_channel():
    assert order_kernels(torch.zeros(3, 1, 3, 3)).ranks((3, 1)).tolist() == [0, 1, 2]
    assert order_kernels(torch.zeros(3, 1, 1, 1), "in-filter").ranks((3, 1)).tolist() == [0, 1, 2]
    assert order_kernels(torch.randn(1, 1, 3, 3), "in-filter").channels.tolist() == [[0]]


def test_packed_bytes_are_counted():
    assert len(pack(order_kernels(torch.randn(10, 10, 3, 3)))) == 88  # 100 indices of 7 bits
    assert len(pack(order_kernels(torch.randn(10, 10, 3, 3), "in-filter"))) == 55  # 110 of 4
    assert pack(LayerOrder()) is None


def test_damaged_bytes_are_refused():
    packed = pack(order_kernels(torch.randn(4, 4, 3, 3)))
    with pytest.raises(ValueError, match=r"8 bytes of a permutation do not fit kernels of shape \(5, 4, 3, 3\)"):
        unpack(packed, (5, 4, 3, 3), "cross-filter")
    with pytest.raises(ValueError, match=r"a permutation of kernels of shape \(4, 4, 3, 3\) contains duplicates"):
        unpack(torch.zeros_like(packed), (4, 4, 3, 3), "cross-filter")
    with pytest.raises(ValueError, match="permutation is 'cross'; expected one of 'cross-filter', 'in-filter', 'none'"):
        order_kernels(torch.zeros(1, 1, 3, 3), "cross")


def test_four_thousand_kernels_are_fast():
    weight = torch.randn(64, 64, 3, 3)
    start = time.process_time()
    order_kernels(weight)
    assert time.process_time() - start < 5  # .15 s; a list of pairs takes 3 s at this size and grows with its square
