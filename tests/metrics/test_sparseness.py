import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import gini


def test_by_hand():
    maps = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 5.0]], [[0.0, 0.0], [-3.0, 3.0]]])
    assert gini(maps).tolist() == [0.0, 0.75, 0.5]


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_size_sign_and_order_do_not_matter(seed, factor):
    values = torch.rand(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(gini(-factor * values.flip(1)), gini(values))
    differences = (values[:, :, None] - values[:, None]).abs().mean((1, 2)) / (2 * values.mean(1))
    torch.testing.assert_close(gini(values), differences)  # the other definition: half the relative mean difference


def test_nothing_has_no_sparseness():
    assert gini(torch.zeros(1, 4)).isnan().all() and gini(torch.tensor([[1.0, torch.nan]])).isnan().all()


def test_a_single_map_wants_its_row():
    with pytest.raises(ValueError, match=r"maps have shape \(4,\); wanted \(N, …\)"):
        gini(torch.rand(4))
