from dataclasses import replace

import torch

from xinc_captum.cli.kept import Kept, kept_of, said_of
from xinc_captum.cli.starts import drawn, starts_called


def test_the_distance_by_hand(linked):
    starts = starts_called(linked.ends, [], 4, 0.7, 0)
    r = linked.ends.encoder()(starts.pictures).double()
    drawn_again = linked.ends.draw(linked.link(r).float())
    seen = linked.ends.encoder()(drawn_again).double()
    expected = ((seen - r) / linked.link.r_sd).square().mean(1).sqrt()
    found = kept_of(linked, starts)
    torch.testing.assert_close(torch.tensor([one.distance for one in found]), expected.float(), atol=1e-3, rtol=1e-3)
    assert [one.before for one in found] == ["upper", "lower", "left", "middle"]
    assert [one.after for one in found] == [linked.ends.label(c) for c in linked.ends.answers(drawn_again).argmax(1)]


def test_what_the_generator_cannot_draw_is_far_from_what_it_draws(linked):
    starts = replace(
        starts_called(linked.ends, [], 1, 0.7, 0),
        pictures=(torch.arange(8) % 2).float().expand(1, 1, 8, 8),
        names=("bars",),
    )
    near = max(one.distance for one in kept_of(linked, starts_called(linked.ends, [], 4, 0.7, 0)))
    assert kept_of(linked, starts)[0].distance > 2 * near


def test_the_scale_is_that_of_unrelated_pictures(linked):
    """Of two pictures that have nothing to do with one another the distance is about √2, of one and the mean 1."""
    r = linked.ends.encoder()(drawn(linked.ends, 200, 0.7, 3)).double()
    away = ((r - r.mean(0)) / linked.link.r_sd).square().mean(1).sqrt()
    assert 0.8 < float(away.square().mean().sqrt()) < 1.2


def test_doubts_in_words():
    assert Kept("a", 0.99, "8", "8").doubt == ""
    assert Kept("a", 0.5, "8", "2").doubt == (
        "a: the link draws another picture of it, 0.50 away and answered 2, not 8; the frames are of that picture"
    )
    assert "1.30 away and answered 8, as it is; the frames" in Kept("a", 1.3, "8", "8").doubt
    said = said_of([Kept("a", 0.25, "8", "8"), Kept("b", 1.3, "8", "8")])
    assert "0.25 to 1.30 standard deviations of a unit apart" in said and said.endswith("b: the link draws another "
        "picture of it, 1.30 away and answered 8, as it is; the frames are of that picture.")  # fmt: skip
    assert Kept("a", 0.123456, "8", "2").to_dict() == {"name": "a", "distance": 0.1235, "before": "8", "after": "2"}
