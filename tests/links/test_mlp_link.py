"""The network bends where a link cannot, and leaves the global random state alone."""

import pytest
import torch

from xinc_captum.links import LatentLink, MLPLink
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
