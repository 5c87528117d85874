"""The network bends where a link cannot, and leaves the global random state alone."""

import pytest
import torch

from xinc_captum.attributions.linking import LatentLink, MLPLink
from xinc_captum.metrics import r2


def test_it_beats_a_line_on_a_curve_and_repeats_itself():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(600, 3, generator=generator)
    r[:, 2] = 4.0
    w = torch.stack([r[:, 0] * r[:, 1], r[:, 0].square()], 1)
    state = torch.get_rng_state()
    link = MLPLink(64, seed=1).fit(r[:500], w[:500])
    assert torch.equal(torch.get_rng_state(), state)
    assert float(r2(w[500:], link(r[500:]))) > 0.8
    assert float(LatentLink().fit(r[:500], w[:500]).score(r[500:], w[500:])) < 0.3
    assert torch.equal(MLPLink(64, seed=1).fit(r[:500], w[:500])(r), link(r))
    assert not any(p.requires_grad for p in link.parameters())


def test_what_it_refuses():
    with pytest.raises(ValueError, match="hidden is 0"):
        MLPLink(0)
    with pytest.raises(ValueError, match="has seen no pairs"):
        MLPLink()(torch.rand(2, 3))


def test_constant_units_and_means_that_are_large_beside_their_deviation():
    generator = torch.Generator().manual_seed(0)
    r = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    w = r[:, :2] * 2 - 1
    plain = MLPLink(16).fit(r, w, epochs=20)(r)
    shifted = r + torch.tensor([1e8, 0.0, 0.0], dtype=torch.float64)  # float32 has no digits left for these
    torch.testing.assert_close(MLPLink(16).fit(shifted, w, epochs=20)(shifted), plain, rtol=0, atol=1e-3)
