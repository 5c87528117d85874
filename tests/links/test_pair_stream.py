"""Turns are shared out by what is lacking, and what is kept is new, wanted and of the class it was drawn of."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.attributions.linking import Encoder
from xinc_captum.attributions.linking.pair_stream import ANY, PairStream
from xinc_captum.generators import from_callable


def answering(classes=2):
    """A model that answers 1 where the picture's only pixel is above a half, and 0 below."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, classes))
    with torch.no_grad():
        net[1].weight.zero_()[-1] = 2.0
        net[1].bias.zero_()[0] = 1.0
    return Encoder(net.eval(), "1")


class Script:
    """Hands out latents, one pixel each, as written down, and remembers what it was asked for."""

    def __init__(self, *latents):
        self.latents, self.asked = iter(latents), []

    def __call__(self, n, classes, truncation, *, generator):
        self.asked.append(None if classes is None else classes.tolist())
        self.random = generator
        return torch.tensor(next(self.latents)).reshape(n, -1)


def stream(script, wanted, keep_class=True, encoder=None):
    paint = from_callable(lambda w: w.view(-1, 1, 1, 1), script)
    return PairStream(encoder or answering(), paint, wanted, 0.7, torch.Generator(), keep_class)


def test_what_is_kept_by_hand():
    script = Script([0.1, 0.6, 0.7, 0.8], [0.2, 0.1, 0.3, 0.9])
    own = stream(script, {0: 3, 1: 2})
    assert own.step(4) == 2
    assert script.asked == [[0, 0, 0, 1]], "three lack of class 0, two of class 1"
    assert own.lacking == {0: 2, 1: 1}, "0.6 and 0.7 were drawn of class 0 and look like class 1"
    assert own.step(4) == 3
    assert script.asked[1] == [0, 0, 0, 1]
    assert own.lacking == {}, "0.1 came again and was turned away"
    pairs = own.pairs({"seed": 4})
    assert pairs.latents.flatten().tolist() == pytest.approx([0.1, 0.8, 0.2, 0.3, 0.9])
    assert pairs.classes.tolist() == [0, 1, 0, 0, 1]
    assert torch.equal(pairs.representations, pairs.latents)
    assert torch.equal(pairs.logits.argmax(1), pairs.classes)
    assert (own.drawn, pairs.kept, pairs.manifest) == (8, 5 / 8, {"seed": 4})
    assert script.random is own.random


def test_good_ones_beyond_what_was_wanted_count_as_good_and_are_not_kept():
    own = stream(Script([0.1, 0.2, 0.3, 0.9]), {0: 1})
    assert own.step(4) == 1
    pairs = own.pairs({})
    assert (len(pairs), pairs.kept) == (1, 3 / 4)


def test_without_classes_the_answer_is_the_class():
    script = Script([0.9, 0.1])
    own = stream(script, {ANY: 2})
    assert own.step(2) == 2
    assert script.asked == [None]
    assert own.pairs({}).classes.tolist() == [1, 0]


def test_unchecked_pairs_have_the_class_they_were_drawn_of():
    own = stream(Script([0.9, 0.1, 0.2, 0.3]), {0: 2, 5: 2}, keep_class=False)
    assert own.step(4) == 4
    assert own.pairs({}).classes.tolist() == [0, 0, 5, 5], "also classes that the model does not score"


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 12), min_size=1), st.integers(1, 20))
def test_turns_are_in_proportion_to_what_is_lacking(wanted, size):
    own = PairStream(None, None, wanted, 1.0, torch.Generator(), True)
    whole = [c for c, count in wanted.items() for _ in range(count)]
    if not whole:
        assert own.lacking == {}
        return
    turns = own._turns(size)
    assert turns == [whole[place * len(whole) // size] for place in range(size)]
    for c, count in wanted.items():
        assert abs(turns.count(c) - size * count / len(whole)) < 1


def test_what_is_said_when_attempts_run_out():
    checked = stream(Script([0.1, 0.2]), {0: 3, 1: 1})
    checked.step(2)
    assert checked.ran_out().startswith("2 pictures gave 2 of 4 pairs (2 of 3 of class 0, 0 of 1 of class 1), and ")
    assert "Does the model know these pictures? Lower truncation, or raise max_attempts, or see" in checked.ran_out()
    free = stream(Script([0.1, 0.1]), {ANY: 2})
    free.step(2)
    assert free.ran_out() == (
        "2 pictures gave 1 of 2 pairs, and max_attempts allows no more. Raise max_attempts, or see whether latents "
        "repeat (at truncation 0 a class has one)."
    )


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"of shape \(2, 1\), wanted finite \(2, latent_dim\); check_generator"):
        stream(Script([0.1, float("nan")]), {0: 2}).step(2)
    paint = from_callable(lambda w: w.view(-1, 1, 1, 1), lambda n, *_, generator: torch.rand(n + 1, 1))
    with pytest.raises(ValueError, match=r"sampled latents of shape \(3, 1\), wanted finite \(2, latent_dim\)"):
        PairStream(answering(), paint, {0: 2}, 1.0, torch.Generator(), True).step(2)
    with pytest.raises(ValueError, match="class 5 was drawn, but the model scores 2 classes; .* number classes alike"):
        stream(Script([0.1]), {5: 1}).step(1)
