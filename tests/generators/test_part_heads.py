import pytest
import torch
from torch import nn
from torch.nn import functional as F

from xinc_captum.generators import FewShotHead, ProjectionHead
from xinc_captum.generators.features import stacked


def maps():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 3, 3, generator=g), torch.randn(2, 4, 6, 6, generator=g)]


def test_the_papers_head_has_the_papers_weights():
    with torch.device("meta"):
        head = FewShotHead([13588], parts=10)
    assert [m.dilation for m in head.layers if isinstance(m, nn.Conv2d)] == [(d, d) for d in (1, 2, 1, 2, 1)]
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == 15.8
    assert isinstance(head.layers[-1], nn.Conv2d), "the last one has no activation"


def test_it_sees_all_features_at_the_pictures_size():
    head = FewShotHead([5, 4], 3, widths=(6,), dilations=(2, 1))
    logits = head(maps(), (6, 6))
    first, last = (m for m in head.layers if isinstance(m, nn.Conv2d))
    by_hand = last(F.leaky_relu(first(stacked(maps(), (6, 6))), 0.2))
    assert torch.equal(logits, by_hand) and logits.shape == (2, 3, 6, 6)


def test_projecting_before_upsampling_is_projecting_after():
    head = ProjectionHead([5, 4], 3, width=7, dilations=(1, 2))
    weight = torch.cat([p.weight for p in head.projections], 1)
    bias = sum(p.bias for p in head.projections)
    after = head.layers(F.conv2d(stacked(maps(), (12, 12)), weight, bias))
    torch.testing.assert_close(head(maps(), (12, 12)), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FewShotHead, ProjectionHead])
def test_seeds_make_weights_and_nothing_else(kind):
    state = torch.get_rng_state()
    one, same, other = (kind([2], 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    first = [next(iter(h.parameters())) for h in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="1 widths and 1 dilations; wanted one dilation more"):
        FewShotHead([2], 2, widths=(4,), dilations=(1,))
    with pytest.raises(ValueError, match="at least two parts"):
        ProjectionHead([2], 1)
    with pytest.raises(ValueError, match="channels of at least one map"):
        FewShotHead([], 2)
    with pytest.raises(ValueError, match="dilations is empty"):
        ProjectionHead([2], 2, dilations=())
    with pytest.raises(ValueError, match=r"the maps have \(4, 5\) channels; this head was made for \(5, 4\)"):
        ProjectionHead([5, 4], 2)(maps()[::-1], (6, 6))
