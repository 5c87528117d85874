"""Each planted failure is named, and a sound link holds."""

import pytest

from xinc_captum.metrics import judged_link
from xinc_captum.metrics.bootstrap import Interval


def near(value, half=0.02):
    return Interval(value, value - half, value + half)


SOUND = {
    "r2": near(0.9),
    "r2_within": near(0.7),
    "shuffled": -0.02,
    "generated": near(0.99),
    "real": near(0.9),
    "cycle": 0.9,
}


def test_a_sound_link_holds():
    said = str(judged_link(**SOUND))
    assert said.startswith("holds, because it explains 0.70 [0.68, 0.72] of the latents within classes, shuffled -0.02")


def test_few_pairs_are_a_reason_but_no_doubt_of_their_own():
    assert judged_link(**SOUND, pairs=20, units=69) == judged_link(**SOUND)
    assert judged_link(**SOUND | {"real": None}, pairs=70, units=69) == judged_link(**SOUND | {"real": None})


@pytest.mark.parametrize(
    ("change", "verdict", "text"),
    [
        ({"r2_within": near(float("nan"))}, "fails", "within classes it explains nothing"),
        ({"r2_within": near(0.01)}, "fails", "within classes it explains nothing"),
        ({"r2_within": near(0.12), "shuffled": 0.11}, "fails", "whatever R² says (0.90 [0.88, 0.92])"),
        ({"leaked": 0.3}, "fails", "30% of the held-out pairs were in the fit"),
        ({"real": near(0.3)}, "fails", "only 0.30 [0.28, 0.32] of real pictures keep their class"),
        ({"r2_within": near(0.35)}, "weak", "explains only 0.35"),
        ({"r2_within": near(0.5), "shuffled": 0.2}, "weak", "within classes, shuffled 0.20"),
        ({"real": near(0.6)}, "weak", "0.60 [0.58, 0.62] of real pictures keep their class"),
        ({"real": None}, "weak", "no real pictures were looked at"),
        ({"shuffled": None}, "weak", "no fitted pairs were given"),
        ({"classes": 1}, "weak", "all held-out pairs are of one class, so that keeping it says nothing"),
        (
            {"classes": 1, "r2_within": near(0.35)},
            "weak",
            "it explains only 0.35 [0.33, 0.37] of the latents, shuffled",
        ),
        (
            {"classes": 1, "r2_within": near(0.01)},
            "fails",
            "it explains nothing (R² 0.01 [-0.01, 0.03], shuffled -0.02)",
        ),
        ({"r2_within": None}, "weak", "nothing varies within the classes of the held-out pairs (is there but one of"),
        (
            {"real": None, "pairs": 69, "units": 69},
            "weak",
            "a map of 69 live units was fitted to only 69 pairs; no real",
        ),
        ({"real": near(0.3), "pairs": 20, "units": 69}, "fails", "keep their class; a map of 69 live units"),
        ({"cycle": 0.2}, "weak", "gives back 0.20 of the representation"),
    ],
)
def test_what_is_wrong_is_said(change, verdict, text):
    said = judged_link(**SOUND | change)
    assert said.verdict == verdict
    assert text in said.because
