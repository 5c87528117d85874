import pytest
import torch

from xinc_captum.visualizers import Spread, spread_curves

H, W = 12, 18


def drawn(g, photo, names=("layer1", "layer2", "layer3", "layer4")):
    def one():
        counts = torch.randint(0, H * W, (2, 7), generator=g)
        running = torch.rand(2, 8, generator=g).cumsum(1) / 9
        needed = torch.randint(0, 7, (2, H, W), generator=g)
        return Spread(counts[0], counts[1], running[0], running[1], needed[0], needed[1])

    return spread_curves({name: one() for name in names}, photo)


def test_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    shows_what_it_was_given(lambda g: drawn(g, photo))


def test_one_layer_is_enough(legible, words, g, photo):
    figure = drawn(g, photo, ("a layer",))
    legible(figure)
    assert "a layer" in words(figure)


def test_what_is_as_by_chance_is_known():
    even, running, map_of = torch.full((4,), 25), torch.linspace(0, 1, 5), torch.ones(10, 10)
    apart, rises = torch.tensor([40, 30, 20, 10]), running.sqrt()
    told = Spread(apart, even, rises, running, map_of, map_of)
    assert told.places and told.few
    by_chance = Spread(even + torch.tensor([5, -5, 0, 0]), even, running**2, running, map_of, map_of)
    assert not by_chance.places, "five of a hundred pixels apart"
    assert not by_chance.few, "below its control: each pixel takes more units, not fewer"


def test_what_does_not_fit_is_said(photo):
    with pytest.raises(ValueError, match=r"maps of needed units are \{\} for a photo"):
        spread_curves({}, photo)
