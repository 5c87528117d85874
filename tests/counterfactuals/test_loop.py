import torch


def test_round_and_round(plane, rows):
    _, loop, seen = plane
    r = rows[0]
    shown = loop.shown(loop.latents(r, torch.arange(6)), torch.arange(6))
    torch.testing.assert_close(shown.representations, r)
    assert shown.pictures.shape == (6, 1, 1, 2)
    assert seen[-2:] == [4, 2], "no more than the limit at once"


def test_rows_are_taken_and_put(plane, rows):
    _, loop, _ = plane
    shown = loop.shown(loop.latents(rows[0], torch.arange(6)), torch.arange(6))
    index = torch.tensor([4, 1])
    swapped = shown.put(index, shown.take(index.flip(0)))
    assert torch.equal(swapped.latents[4], shown.latents[1]) and torch.equal(swapped.scores[1], shown.scores[4])
    assert torch.equal(swapped.pictures[0], shown.pictures[0])
    assert len(shown.take(torch.tensor([True, False] * 3)).scores) == 3


def test_the_generator_gets_its_own_kind_of_latents(plane, rows):
    _, loop, _ = plane
    kinds = []
    paint = loop.generator.synthesize
    loop.generator.synthesize = lambda w: (kinds.append(w.dtype), paint(w))[1]
    loop.draw(torch.zeros(1, 2))
    loop.shown(loop.latents(rows[0].float(), torch.arange(6)), torch.arange(6))
    assert set(kinds) == {torch.float64}
