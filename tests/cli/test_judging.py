from dataclasses import replace

import torch

from xinc_captum.cli.judging import BASES, Judged, judging
from xinc_captum.cli.starts import drawn


def test_units_are_judged_in_the_pictures_of_the_links_next_seed(ends, story):
    pictures = judging(ends, 0.7, 0)
    assert len(pictures) == BASES and torch.equal(pictures, drawn(ends, BASES, 0.7, 1))
    assert torch.equal(pictures, story.units.bases)


def test_the_verdict_is_of_the_judges_but_weak_where_the_shown_pictures_are_lost(ends, story):
    method = ends.method(story.link)
    shown = method.sweep(drawn(ends, 2, 0.7, 5), 0, attribute_to_neuron_input=True)
    fails, holds = (replace(shown.fidelity, places=torch.full((200,), place), rank=place) for place in (9, 1))
    assert Judged(shown, holds).trust.verdict == "holds" and Judged(shown, fails).trust.verdict == "fails"
    lost = Judged(replace(shown, agreement=0.5), holds).trust
    assert lost.verdict == "weak" and lost.because.startswith("50% of the inputs are of another class once linked")
