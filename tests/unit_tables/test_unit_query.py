import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import quantify, screen, shuffled_directions
from xinc_captum.attributions.linking.unit_tables.unit_query import Found, discoveries


def test_units_that_lead_to_the_left_part_alone_are_found(planted):
    g = torch.Generator().manual_seed(0)
    null = shuffled_directions(planted.representations, planted.latents, range(200), repeats=2, generator=g)
    table = quantify(
        planted.generator, planted.link, planted.latents[:3], parts=planted.parts, measures=["luminance"], null=null
    )
    found = table.where("left", "luminance", only=True)
    hits = torch.isin(found.units, planted.to_left).float()
    assert hits.mean() >= 0.9, "precision"
    assert hits.sum() >= 27, "recall"
    assert found.asked == 200 and (found.q <= 0.05).all() and (found.p >= 1 / 401).all()
    assert (found.strength.diff() <= 0).all() and (found.change > 0).float().mean() > 0.9
    assert not torch.isin(table.where("right", "luminance", only=True).units, planted.to_left).any()
    assert not len(table.where("left", "luminance", only=True, sign="down").units)


def test_shuffled_units_are_not(planted):
    """Units that say nothing about the latents: p-values are even, and few queries find any."""
    values, any_found = [], []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        noise = torch.randn(600, 150, generator=g)
        latents = planted.latents[:600]
        null = shuffled_directions(noise, latents, range(150), repeats=4, generator=g)
        settings = {"parts": planted.parts, "measures": ["luminance"], "null": null}
        table = screen(planted.generator, LatentLink().fit(noise, latents), latents[:3], **settings)
        values.append(table.where("left", "luminance", fdr=1.0).p)
        any_found.append(float(len(table.where("left", "luminance", only=True, fdr=0.2).units) > 0))
    p = torch.cat(values)
    assert len(p) == 20 * 150
    for level in (0.02, 0.1, 0.5):
        assert (p <= level).double().mean().item() == pytest.approx(level, rel=0.3)
    assert sum(any_found) / 20 <= 0.4, "where nothing is true, a rate of .2 is the chance of any discovery"


def test_by_hand():
    null = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [1.0, -0.1], [-1.0, -0.1]])
    change = torch.tensor([[3.0, 0.0], [-2.0, 0.01], [3.0, 0.9], [0.5, 0.0]])
    settings = {"part": 0, "leak": 0.5, "fdr": 0.5}
    found = discoveries(torch.arange(4), change, null, others=[1], sign="either", **settings)
    assert found.units.tolist() == [0, 1, 3], "no unit of the null leaves the other part alone; unit 2 neither"
    assert found.strength.tolist() == [3, 2, 0.5]
    assert found.p.tolist() == [0.2] * 3 and found.q.tolist() == pytest.approx([4 * 0.2 / 3] * 3)
    assert discoveries(torch.arange(4), change, null, others=[], sign="either", **settings).units.tolist() == [0, 2, 1]
    assert discoveries(torch.arange(4), change, null, others=[], sign="up", **settings).units.tolist() == [0, 2]
    wide = {**settings, "fdr": 1.0}
    assert discoveries(torch.arange(4), change, null, others=[], sign="down", **wide).units.tolist() == [1]


def test_what_does_not_fit_is_said():
    one = torch.ones(2, 1)
    with pytest.raises(ValueError, match="sign is 'left', leak 0.5 and fdr 0.05"):
        discoveries(torch.arange(2), one, one, 0, [], leak=0.5, sign="left", fdr=0.05)
    with pytest.raises(ValueError, match="the null changes this measure of this part not at all"):
        discoveries(torch.arange(2), one, one * 0, 0, [], leak=0.5, sign="up", fdr=0.05)


def test_what_was_found_is_said_in_one_line():
    of = lambda n: Found(torch.arange(n) + 3, *(torch.zeros(n) for _ in range(4)), asked=99)
    assert [repr(of(n)) for n in (0, 2)] == ["Found(none of 99 units)", "Found(2 of 99 units: 3, 4)"]
    assert repr(of(40)) == "Found(40 of 99 units: 3, 4, 5, 6, 7, 8, 9, 10, …)"
