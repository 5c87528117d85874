"""A site answers for any unit what the rule answers for all."""

import pytest
import torch

from xinc_captum import Ablation, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.site import Asked
from xinc_captum.batch import Batch

RULES = {"tangent": Tangent(), "secant": Secant()}


def site_and_whole(decoder, rule, pairs):
    model, t = decoder
    layer = model.blocks[0][0]
    tail, batch = Tail(model, layer, at_input=pairs), Batch.of(t)
    whole = NeuronCanvas(model, layer, rule=rule, unit="pair" if pairs else "neuron").attribute(t)
    return rule.site(tail, batch, pairs, 2), whole


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_neurons_and_their_slot(decoder, rule):
    site, whole = site_and_whole(decoder, rule, pairs=False)
    units = [3, 0, 16] if rule.slots else [3, 0]
    torch.testing.assert_close(site.maps(units), whole[:, units])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_pairs_and_their_slots(decoder, rule):
    site, whole = site_and_whole(decoder, rule, pairs=True)
    pairs = [(1, 5), (0, 0), *([(3, 2), (3, 5)] if rule.slots else [])]
    torch.testing.assert_close(site.maps(pairs), torch.stack([whole[:, i, o] for i, o in pairs], 1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("pairs", [False, True])
def test_sums_by_adjoint_are_sums_of_maps(decoder, rule, pairs):
    site, whole = site_and_whole(decoder, rule, pairs)
    assert site.by_adjoint
    weights = torch.rand(2, 3, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(site.sums(weights), torch.einsum("nfchw,f...chw->nf...", weights, whole))


def test_a_rule_without_a_short_cut_is_asked_anew(decoder):
    site, whole = site_and_whole(decoder, Ablation(), pairs=False)
    assert isinstance(site, Asked) and not site.by_adjoint
    torch.testing.assert_close(site.maps([2, 1]), whole[:, [2, 1]])
    with pytest.raises(NotImplementedError, match="adds up maps"):
        site.sums(torch.ones(1, 3, 3, 8, 12, dtype=torch.float64))
