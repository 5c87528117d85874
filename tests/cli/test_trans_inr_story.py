import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR, mean_psnr
from xinc_captum.cli.trans_inr_model import Written
from xinc_captum.cli.trans_inr_story import explained, masks_of, picture_of, story_of, telling


def written(count, channels=1):
    g = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, 8, 8, generator=g)
    model = TransINR(channels, (8, 8), 4, hidden=4, dim=16, heads=2, ff=16, count=2, groups=4, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    return Written(model, "fit", images, tuple(map(str, range(count))), "seen", None)


@pytest.fixture(scope="module")
def story():
    return story_of(written(11, 3), "noise", 0)


def test_shown_pictures_are_spread_over_all(story):
    assert story.rows[0] == 0 and story.rows[-1] == 10 and len(story.rows) == 8
    torch.testing.assert_close(story.shown, story.written.images[list(story.rows)])
    assert len(explained(story)) == 4 and len(masks_of(story)) == 4


def test_decibels_are_of_what_they_say(story):
    images, model = story.written.images, story.written.model
    with torch.no_grad():
        drawn = mean_psnr(model(images), images)
    flat = mean_psnr(images.mean(0).expand_as(images), images)
    (mean, n), (own, m), (more, k), (scratch, _) = story.decibels.values()
    assert (n, m, k) == (11, 11, 8)
    assert mean == pytest.approx(flat, abs=1e-4) and own == pytest.approx(drawn, abs=1e-4)
    assert more > sum(story.drawn["as drawn by the written network"][1]) / 8, "steps help"
    assert scratch == pytest.approx(sum(story.drawn["10 steps from random weights"][1]) / 8)


def test_networks_draw_what_is_shown(story):
    pictures, decibels = story.drawn["as drawn by the written network"]
    with torch.no_grad():
        torch.testing.assert_close(pictures, story.written.model(story.shown), atol=1e-5, rtol=0)
    torch.testing.assert_close(picture_of(story.networks[2], (8, 8)), pictures[2])
    assert decibels[1] == pytest.approx(mean_psnr(pictures[1:2], story.shown[1:2]))


def test_parts_add_up_and_say_by_how_much_not(story):
    with torch.no_grad():
        drawn = story.written.model(explained(story))
    assert story.token.values.shape == (4, 5, 3, 8, 8) and story.token.gap < 1e-5
    assert story.modulation.values.shape == (4, 4 + 4 + 3 + 1, 3, 8, 8)
    for parts in (story.token, story.modulation, story.patch):
        missed = (parts.values.sum(1) - drawn[: len(parts.values)]).abs().sum()
        change = (drawn[: len(parts.values)] - parts.values[:, -1]).abs().sum()
        assert parts.gap == pytest.approx(float(missed / change), rel=1e-3, abs=1e-9)
    assert story.modulation.gap < 0.2 and story.patch.gap < 0.2


def test_the_route_is_of_the_strongest_patches(story):
    amounts = story.patch.values[0, :-1].abs().sum((1, 2, 3))
    assert story.route.patches == tuple(amounts.argsort(descending=True)[:3].tolist())
    torch.testing.assert_close(
        story.route.values.sum(1), story.patch.values[0, list(story.route.patches)], atol=1e-5, rtol=0
    )
    assert story.route.gap < 1e-4


def test_neurons_are_compared_with_their_controls(story):
    assert list(story.found) == [
        "written by the transformer",
        "random starts, 100 steps each",
        "written before any fit",
    ]
    assert story.neurons.shape == (8, 4, 3, 8, 8) and story.layer == "linear2"
    assert story.found["written by the transformer"].retrieval > story.found["random starts, 100 steps each"].retrieval


def test_a_single_picture_has_nothing_to_be_compared_with():
    alone = written(2)
    one = Written(alone.model, "m", alone.images[:1], ("0",), "seen", None)
    story = story_of(one, "one", 0)
    assert not story.found and len(story.shown) == len(story.patch.values) == 1


def test_those_that_tell_pictures_apart():
    maps = torch.zeros(2, 4, 1, 2, 2)
    maps[:, 0] = 9.0  # large, and always the same
    maps[0, 2], maps[1, 1] = 2.0, 1.0
    maps[:, 3] = torch.tensor([10.0, 6.0])[:, None, None, None]  # differs as much as entry 2, in a large background
    assert telling(maps, 4) == [2, 1, 3, 0]
    assert telling(maps[:1], 2) == [3, 0]
