import pytest
import torch

from xinc_captum.metrics import Concepts, concept_overlap


def world(n=24, units=60, planted=10, seed=0):
    """Two concepts of about a tenth of the picture at random places; some units are active where the first one is."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    places = torch.randint(2, 14, (n, 2, 2, 1, 1), generator=g)
    masks = (rows - places[:, :, 0]) ** 2 + (columns - places[:, :, 1]) ** 2 <= 9
    noise = torch.nn.functional.avg_pool2d(torch.randn(n, units, 10, 10, generator=g), 3, 1)
    signal = torch.nn.functional.avg_pool2d(masks[:, :1].float(), 2)
    noise[:, :planted] = noise[:, :planted] + signal
    return noise, masks, g


def test_planted_units_are_found_and_others_are_not():
    activations, masks, g = world()
    found = concept_overlap(activations, masks, generator=g, quantile=0.9)
    kept = found.units_for(0)
    hits = (kept.units < 10).float()
    assert hits.mean() >= 0.9 and hits.sum() == 10, "precision and recall"
    assert (kept.iou.diff() <= 0).all() and (kept.q <= 0.05).all()
    assert len(found.units_for(1).units) <= 1
    assert (found.iou[:10, 0] > 3 * found.shuffled[:10, 0]).all()


def test_chance_is_chance():
    """Units that follow no concept: even p-values, and no query finds more than its rate allows."""
    p, any_found = [], []
    for seed in range(12):
        activations, masks, g = world(n=12, units=40, planted=0, seed=seed)
        found = concept_overlap(activations, masks, generator=g, quantile=0.9)
        p.append(found.p.flatten())
        any_found.append(bool((found.q <= 0.2).any()))
    values = torch.cat(p)
    for level in (0.05, 0.2, 0.5):
        assert (values <= level).double().mean().item() == pytest.approx(level, rel=0.4)
    assert sum(any_found) <= 6


def test_places_alone_are_no_evidence():
    """A concept that is always in the middle, and a unit that always looks there."""
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(20, 1, 12, 12)
    masks[:, :, 4:8, 4:8] = torch.rand(20, 1, 4, 4, generator=g).round()
    masks[:, :, 5, 5] = 1
    looks = torch.zeros(20, 3, 12, 12)
    looks[:, :, 4:8, 4:8] = 1
    found = concept_overlap(looks + 0.1 * torch.rand(20, 3, 12, 12, generator=g), masks, generator=g, quantile=0.89)
    assert (found.iou > 0.3).all() and (found.p > 0.01).all() and not len(found.units_for(0).units)


def test_overlap_by_hand():
    activations = torch.zeros(3, 2, 2, 2)
    activations[:, 0, 0, 0] = 1.0
    activations[:, 1] = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    masks = torch.zeros(3, 1, 2, 2)
    masks[:, :, 0] = 1
    found = concept_overlap(activations, masks, generator=torch.Generator(), quantile=0.5)
    assert found.iou[:, 0].tolist() == [0.5, 1] and found.thresholds.tolist() == [0, 2.5]


@pytest.mark.parametrize("top", [0.1, 0.7, 6.0])
def test_units_that_are_constant_or_saturated_are_never_above_their_largest_value(top):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(8, 1, 15, 15, generator=generator) > 0.7
    activations = torch.full((8, 2, 7, 7), top)
    activations[:, 1, 0, 0] = 0.0  # as ReLU6 does: most places have the largest value
    found = concept_overlap(activations, masks, generator=generator, quantile=0.9)
    assert found.iou.tolist() == [[0.0], [0.0]] and found.p.tolist() == [[1.0], [1.0]]


def test_what_does_not_fit_is_said():
    activations, masks, g = world(n=4, units=2, planted=0)
    with pytest.raises(ValueError, match=r"masks \(4, 16, 16\); wanted \(n, units, h, w\)"):
        concept_overlap(activations, masks[:, 0], generator=g)
    with pytest.raises(ValueError, match="at least 3"):
        concept_overlap(activations[:2], masks[:2], generator=g)
    with pytest.raises(ValueError, match="a concept is there or not"):
        concept_overlap(activations, masks * 0.5, generator=g)
    with pytest.raises(ValueError, match="concept 1 is in none of the pictures"):
        concept_overlap(activations, masks & torch.tensor([True, False])[:, None, None], generator=g)
    with pytest.raises(ValueError, match="quantile is 1 with 20 repeats"):
        concept_overlap(activations, masks, generator=g, quantile=1)
    with pytest.raises(ValueError, match="concept is 2; there are 0 to 1"):
        concept_overlap(activations, masks, generator=g).units_for(2)


def test_the_concepts_of_many_units_are_said_in_one_line():
    iou = torch.zeros(100, 3)
    iou[4, 1], iou[0] = 0.25, float("nan")
    assert repr(Concepts(iou, iou, iou, iou[:, 0], iou)) == "Concepts(100 units, 3 concepts, highest overlap 0.25)"


def test_activations_that_are_not_finite_are_refused():
    activations = torch.rand(4, 2, 3, 3)
    activations[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="activations hold nan or infinity"):
        concept_overlap(activations, torch.rand(4, 1, 3, 3) > 0.5, generator=torch.Generator().manual_seed(0))
