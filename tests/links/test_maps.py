"""Each name makes its map, which has not taken the first chunk in yet."""

from typing import get_args

import pytest
import torch

from xinc_captum.attributions.linking.maps import KINDS, Variant, new_map


def test_there_is_a_map_for_every_name():
    assert tuple(KINDS) == get_args(Variant)


@pytest.mark.parametrize("variant", KINDS)
def test_a_new_map_has_seen_nothing(variant):
    r, w = torch.rand(20, 4), torch.rand(20, 3)
    own = new_map(variant, r, w, 0.5, features=6, seed=2)
    assert type(own) is KINDS[variant]
    assert (own.moments.n, own.moments.units, own.moments.latent_dim) == (0, 4, 3)
    own.add(r, w, torch.arange(20) % 2)
    assert own.moments.n == 20
    assert set(own.solve()[1].values()) == {0.5}


def test_features_and_seed_reach_the_map_that_has_them():
    r, w = torch.rand(20, 4), torch.rand(20, 3)
    first, again, other = (new_map("fourier_features", r, w, 0.5, features=6, seed=s) for s in (2, 2, 3))
    assert first.features(r).shape == (20, 6)
    assert torch.equal(first.phases, again.phases)
    assert not torch.equal(first.phases, other.phases)
