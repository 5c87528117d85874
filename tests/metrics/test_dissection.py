import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import LayerError
from xinc_captum.metrics import (
    Concepts,
    ablate,
    concept_overlap,
    correspondence,
    dissect,
    part_area,
    region_agreement,
    region_use,
)


def painter():
    """A generator: latents 0 to 3 lay out four blobs in feature units, of which 0 and 1 paint red, 2 and 3 blue."""
    net = nn.Sequential(nn.Linear(4, 4 * 64, bias=False), nn.Unflatten(1, (4, 8, 8)), nn.ReLU(), nn.Conv2d(4, 3, 1))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net[0].weight.zero_()
        for unit in range(4):
            places = torch.randperm(64, generator=g)[:10]
            net[0].weight[unit * 64 + places, unit] = 1.0
        net[3].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])[:, :, None, None])
        net[3].bias.zero_()
    return net


def colours(pictures):
    return torch.stack([pictures[:, 0] > 0.5, pictures[:, 2] > 0.5], 1)


def test_ablating_units_of_a_generator_changes_their_parts():
    net, g = painter(), torch.Generator().manual_seed(1)
    latents = torch.rand(30, 4, generator=g).round() * 2
    masks = colours(net(latents))
    found = dissect(net, "2", latents, masks, generator=g, quantile=0.9)
    assert found.units_for(0).units.sort().values.tolist() == [0, 1]
    assert found.units_for(1).units.sort().values.tolist() == [2, 3]
    fallen = ablate(net, "2", latents, [0, 2, [0, 1]], lambda p: part_area(p, colours(p))[..., 0], batch_size=7)
    areas = part_area(net(latents), masks)[..., 0].mean(0).double()
    assert fallen[0, 0] > 0 and fallen[0, 1] == 0 and fallen[1, 0] == 0 and fallen[1, 1] > 0
    torch.testing.assert_close(fallen[2], torch.stack([areas[0], torch.tensor(0.0).double()]))


def test_units_of_a_classifier():
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
        )
    pictures = torch.rand(9, 3, 8, 8, generator=g)
    masks = pictures[:, :1] > 0.7
    state = torch.get_rng_state()
    found = dissect(model, model[1], pictures, masks, generator=torch.Generator().manual_seed(3), batch_size=4)
    direct = concept_overlap(model[:2](pictures), masks, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found.iou, direct.iou)
    fallen = ablate(model, "1", pictures, [3], lambda y: y, value=0.5)
    held = model[:2](pictures)
    held[:, 3] = 0.5
    torch.testing.assert_close(fallen[0].float(), (model(pictures) - model[2:](held)).mean(0))
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters()) and not model[1]._forward_hooks


def test_rows_without_a_score_do_not_count():
    model = nn.Sequential(nn.Identity())
    inputs = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
    fallen = ablate(model, "0", inputs, [1], lambda y: torch.where(y[:, :1] > 0, y, torch.nan))
    assert fallen.tolist() == [[0.0, 2.0]]


def test_mismatched_arguments_raise_errors():
    net, latents = painter(), torch.rand(4, 4)
    g = torch.Generator()
    with pytest.raises(LayerError, match=r"layer '0' returns \(4, 256\); expected maps"):
        dissect(net, "0", latents, torch.ones(4, 1, 8, 8), generator=g)
    with pytest.raises(ValueError, match=r"units are \[4\]; expected some of 0 to 3"):
        ablate(net, "2", latents, [4], lambda p: p.flatten(1))
    with pytest.raises(
        ValueError, match=r"score returned \(4, 3, 8, 8\) for 4 inputs; expected a tensor \(4, scores\)"
    ):
        ablate(net, "2", latents, [0], lambda p: p)
    with pytest.raises(ValueError, match="got 4 inputs and 0 entries of units"):
        ablate(net, "2", latents, [], lambda p: p.flatten(1))
    assert not net[2]._forward_hooks


class Last(nn.Module):
    """Maps (n, h, w, units) of a picture."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU())

    def forward(self, x):
        return self.block(x.permute(0, 2, 3, 1)).mean((1, 2))


def test_units_on_the_last_axis():
    net, x = Last(), torch.rand(6, 3, 8, 8)
    first = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    first[0].weight.data = net.block[0].weight.data[:, :, None, None]
    masks = x[:, :1] > 0.8
    for axis in (None, -1):
        seed = lambda: torch.Generator().manual_seed(0)
        found = dissect(net, "block", x, masks, generator=seed(), unit_axis=axis)
        torch.testing.assert_close(found.iou, dissect(first, "1", x, masks, generator=seed()).iou)
        fell = ablate(net, "block", x, [2, [0, 1]], lambda y: y, unit_axis=axis)
        y = net(x).double().mean(0)
        by_hand = torch.stack([y * (torch.arange(4) == 2), y * (torch.arange(4) < 2)])
        torch.testing.assert_close(fell, by_hand.detach(), atol=1e-6, rtol=1e-5)


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


def test_concepts_mismatched_arguments_raise_errors():
    activations, masks, g = world(n=4, units=2, planted=0)
    with pytest.raises(ValueError, match=r"masks \(4, 16, 16\); expected \(n, units, h, w\)"):
        concept_overlap(activations, masks[:, 0], generator=g)
    with pytest.raises(ValueError, match="at least 3"):
        concept_overlap(activations[:2], masks[:2], generator=g)
    with pytest.raises(ValueError, match="expected 0 or 1"):
        concept_overlap(activations, masks * 0.5, generator=g)
    with pytest.raises(ValueError, match="concept 1 is in none of the images"):
        concept_overlap(activations, masks & torch.tensor([True, False])[:, None, None], generator=g)
    with pytest.raises(ValueError, match="quantile is 1 with 20 repeats"):
        concept_overlap(activations, masks, generator=g, quantile=1)
    with pytest.raises(ValueError, match="concept is 2; expected 0 to 1"):
        concept_overlap(activations, masks, generator=g).units_for(2)


def test_the_repr_of_concepts_is_one_line():
    iou = torch.zeros(100, 3)
    iou[4, 1], iou[0] = 0.25, float("nan")
    assert repr(Concepts(iou, iou, iou, iou[:, 0], iou)) == "Concepts(100 units, 3 concepts, highest overlap 0.25)"


def test_activations_that_are_not_finite_are_refused():
    activations = torch.rand(4, 2, 3, 3)
    activations[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="activations hold nan or infinity"):
        concept_overlap(activations, torch.rand(4, 1, 3, 3) > 0.5, generator=torch.Generator().manual_seed(0))


def test_correspondence_equals_hand_computed_values():
    """Neurons 0 and 1 paint alike in both pictures, 2 and 3 have changed places: half are found, both ways."""
    first = torch.eye(4)
    second = 3 * torch.eye(4)[[0, 1, 3, 2]]
    found = correspondence(torch.stack([first, second]))
    assert (found.retrieval, found.chance, found.queries, found.silent) == (0.5, 0.25, 8, 0)
    assert found.same == pytest.approx(0.5)
    assert found.other == pytest.approx(2 / 4 / 3), "two of four rows have one other like themselves among three"


def test_neurons_without_contributions_are_not_compared_and_not_retrieved():
    maps = torch.eye(3).repeat(2, 1, 1)
    maps[1, 2] = 0.0
    found = correspondence(maps)
    assert (found.queries, found.silent) == (5, 1)
    assert found.retrieval == pytest.approx(4 / 5), "neuron 2 of the first picture finds nobody"


def test_correspondence_is_nan_if_all_neurons_are_silent():
    found = correspondence(torch.zeros(2, 3, 4))
    assert (found.queries, found.silent, found.chance) == (0, 6, 1 / 3)
    assert all(math.isnan(one) for one in (found.retrieval, found.same, found.other))


def test_ties_do_not_count_as_retrieved():
    assert correspondence(torch.ones(2, 3, 4)).retrieval == 0.0


def test_maps_of_opposite_sign_do_not_correspond():
    maps = torch.eye(3)
    found = correspondence(torch.stack([maps, -maps]))
    assert found.same == -1.0 and found.retrieval == 0.0


@given(st.integers(0, 1000))
def test_retrieval_of_random_maps_is_at_chance(seed):
    maps = torch.randn(6, 16, 30, generator=torch.Generator().manual_seed(seed))
    found = correspondence(maps)
    assert found.retrieval < 0.25 and abs(found.same) < 0.15 and found.queries == 6 * 5 * 16
    doubled = correspondence(maps * torch.rand(6, 16, 1) + 0.0)
    assert doubled.retrieval == pytest.approx(found.retrieval, abs=1e-9), "lengths mean nothing"


def test_shares_of_regions():
    """Neuron 0 paints 1 everywhere, neuron 1 paints -3 in the left column only: shares 1/4, 3/4 and 1, 0."""
    maps = torch.zeros(2, 2, 1, 2, 2)
    maps[:, 0] = 1.0
    maps[:, 1, :, :, 0] = -3.0
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    use = region_use(maps, masks)
    assert use.tolist() == [[[0.25, 0.75], [1.0, 0.0]]] * 2
    swapped = region_use(maps, torch.stack([masks, masks.flip(0)]))
    assert torch.equal(swapped[1], use[1].flip(0)) and torch.equal(swapped[0], use[0])


def test_agreement_is_spearmans_mean_over_pairs():
    use = torch.tensor([[[0.1, 0.2, 0.7]], [[0.2, 0.3, 0.5]], [[0.5, 0.3, 0.2]]])
    assert region_agreement(use).tolist() == pytest.approx([-1 / 3])  # 1, -1 and -1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: correspondence(torch.ones(1, 3, 4)),
            r"canvases have shape \(1, 3, 4\); expected \(images, neurons, \*im",
        ),
        (lambda: correspondence(torch.full((2, 3, 4), float("nan"))), "canvases hold NaN or infinity"),
        (
            lambda: region_use(torch.ones(2, 3, 4, 4), torch.ones(1, 4, 4)),
            r"canvases have shape \(2, 3, 4, 4\) and masks",
        ),
        (lambda: region_use(torch.ones(2, 3, 1, 4, 4), torch.ones(3, 1, 4, 4)), r"masks \(3, 1, 4, 4\); expected"),
        (
            lambda: region_agreement(torch.ones(1, 2, 3)),
            r"use has shape \(1, 2, 3\); expected \(images, regions, neurons",
        ),
    ],
)
def test_impossible_shapes(call, text):
    with pytest.raises(ValueError, match=text):
        call()
