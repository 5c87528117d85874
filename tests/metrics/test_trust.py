"""Verdicts: each planted failure is named, and sound results hold."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import judge_link
from xinc_captum.metrics.statistics import Interval
from xinc_captum.metrics.trust import (
    OFF_PATH,
    ON_PATH,
    CanvasTrust,
    Trust,
    ablation_agreement,
    high_frequency_energy,
    judge_accentuation,
    judge_canvas,
    leave_one_out,
    path_similarity,
    path_vector,
)


@pytest.mark.parametrize(
    ("evidence", "verdict", "because"),
    [
        (
            {"path": 0.8, "natural": 0.7},
            "holds",
            r"its path .* is that of natural images \(similarity 0.80, theirs 0.70",
        ),
        ({"path": 0.8, "natural": 0.7, "transfer": 1.5}, "holds", r"; a second model sees it too \(\+1.5\)"),
        (
            {"path": (OFF_PATH + ON_PATH) / 2, "natural": 1.0},
            "weak",
            "its path through the layers differs from that of natural images",
        ),
        ({"path": 0.3, "natural": 0.7}, "fails", "its path through the layers is not that of natural images"),
        ({"path": 0.3, "natural": 0.7, "transfer": 9.0}, "weak", r"though a second model sees it \(\+9"),
        (
            {"path": 0.1, "kept": 0.8, "natural": 0.7},
            "holds",
            r"is that of its own photo \(similarity 0.80; 0.10 to natural images, theirs 0.70\)",
        ),
        (
            {"path": 0.96, "natural": 0.95, "transfer": 2.0},
            "weak",
            r"all natural images take one path .*is the network",
        ),
        ({"path": 0.8, "natural": 0.7, "gained": 0.0}, "weak", "nothing was gained, so there is nothing to judge"),
        ({"path": 0.8, "natural": 0.7, "gained": -0.1}, "fails", r"the score went the other way \(-0.1\)"),
        (
            {"path": 0.8, "natural": 0.7, "gained": 20.0, "transfer": 0.5},
            "weak",
            r"a second model hardly sees it \(\+0.5 beside \+20\)",
        ),
        ({"path": 0.2, "natural": 0.1}, "weak", r"the natural images do not agree on a path themselves .*0.10"),
        ({}, "weak", "no natural images were given to compare its path through the layers with"),
        ({"transfer": -0.5}, "fails", r"a second model does not see it \(its score changed by -0.5\)"),
        ({"path": 0.8, "natural": 0.7, "high_frequency": 0.6}, "fails", "60% of the change is finer than four pixels"),
        (
            {"path": 0.1, "natural": 0.7, "transfer": 0},
            "fails",
            "not that of natural images .*; a second model does not",
        ),
    ],
)
def test_verdicts(evidence, verdict, because):
    row = judge_accentuation(**evidence)
    assert row.verdict == verdict
    assert re.search(because, row.because)
    assert all(getattr(row, name) == value for name, value in evidence.items())


def test_the_verdict_of_a_batch_is_that_of_its_worst_sample():
    rows = [judge_accentuation(path=0.8, natural=0.7), judge_accentuation(transfer=-1.0), judge_accentuation()]
    trust = Trust.of(rows)
    assert trust.verdict == "fails" and trust.because == rows[1].because and trust.rows == tuple(rows)
    assert str(trust) == f"fails, because {rows[1].because}"
    assert Trust.of(rows[:1]).verdict == "holds"


def test_path_vectors_sum_over_positions():
    a, g = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(path_vector(a, g), (a * g).sum((2, 3)))
    tokens = lambda t: t.flatten(2).mT
    torch.testing.assert_close(path_vector(tokens(a), tokens(g)), (a * g).sum((2, 3)))
    torch.testing.assert_close(path_vector(a[..., 0, 0], g[..., 0, 0]), (a * g)[..., 0, 0])
    assert path_vector(a.bfloat16(), g.bfloat16()).dtype == torch.float32


@given(layers=st.integers(1, 3), rows=st.integers(1, 4), seed=st.integers(0, 99))
def test_similarity_is_numpys_correlation(layers, rows, seed):
    rng = np.random.default_rng(seed)
    paths = [rng.normal(size=(rows, 4 + layer)).astype(np.float32) for layer in range(layers)]
    natural = [rng.normal(size=(3, 4 + layer)).astype(np.float32) for layer in range(layers)]
    tensors = [[torch.from_numpy(a) for a in side] for side in (paths, natural)]
    alike = [n / np.linalg.norm(n, axis=1, keepdims=True) for n in natural]  # each image counts as much
    expected = [
        np.mean([np.corrcoef(p[r], n.mean(0))[0, 1] for p, n in zip(paths, alike, strict=True)]) for r in range(rows)
    ]
    assert path_similarity(*tensors).tolist() == pytest.approx(expected, abs=1e-5)
    without = [np.mean([np.corrcoef(n[m], np.delete(n, m, 0).mean(0))[0, 1] for n in alike]) for m in range(3)]
    assert leave_one_out(tensors[1]).tolist() == pytest.approx(without, abs=1e-5)


def test_a_flat_path_is_like_none():
    assert path_similarity([torch.ones(1, 4)], [torch.rand(2, 4)]).tolist() == [0]
    with pytest.raises(ValueError, match="got 1 natural image; expected at least 2 to compare"):
        leave_one_out([torch.rand(1, 4)])


def test_a_planted_circuit_is_off_the_path():
    """Natural images come through channels 0-3; the image made to fool comes through 4-7."""
    dice = torch.Generator().manual_seed(0)
    natural = torch.cat([1 + 0.7 * torch.randn(5, 4, generator=dice), 0.1 * torch.rand(5, 4)], 1)
    fooled = torch.cat([0.1 * torch.rand(1, 4), 1 + 0.1 * torch.rand(1, 4)], 1)
    base = float(leave_one_out([natural]).median())
    assert 0.3 < base < 0.9, "alike, and not all the same"
    assert judge_accentuation(path=float(path_similarity([fooled], [natural])), natural=base).verdict == "fails"
    assert judge_accentuation(path=float(path_similarity([natural[:1]], [natural])), natural=base).verdict == "holds"


@pytest.mark.parametrize("size", [(32, 32), (33, 20)])
def test_energy_of_waves(size):
    """A wave of 2.5 pixels a cycle is finer than four, one of 8 is not; half and half is the half."""
    column = torch.arange(40.0).expand(1, 1, 40, 40)
    fine, coarse = torch.cos(2 * torch.pi * column / 2.5), torch.cos(2 * torch.pi * column / 8)
    assert float(high_frequency_energy(fine)) == pytest.approx(1, abs=1e-4)
    assert float(high_frequency_energy(coarse)) == pytest.approx(0, abs=1e-4)
    assert float(high_frequency_energy(fine + coarse)) == pytest.approx(0.5, abs=1e-4)
    white = high_frequency_energy(torch.randn(1, 3, *size))
    assert 0.7 < float(white) < 0.9, "1 - π/16 of white noise"
    assert high_frequency_energy(torch.zeros(2, 3, *size)).isnan().all()


@pytest.mark.parametrize("name", ["path", "kept", "natural", "transfer", "gained"])
def test_nan_evidence_never_holds(name):
    sound = {"path": 0.8, "kept": 0.8, "natural": 0.7, "transfer": 2.0, "gained": 3.0}
    assert judge_accentuation(**sound).verdict == "holds"
    found = judge_accentuation(**sound | {name: float("nan")})
    assert found.verdict == "fails" and found.because == "some of the evidence is not a number"
    unchanged = judge_accentuation(path=0.8, natural=0.7, gained=0.0, high_frequency=float("nan"))
    assert unchanged.verdict == "weak" and "nothing was gained" in unchanged.because


def test_paths_of_half_precision_do_not_overflow():
    large = torch.full((1, 2, 4, 4), 300.0)
    assert torch.equal(path_vector(large.half(), large.half()), path_vector(large, large))


def test_the_agreement_by_hand():
    """Ranks 1 2 3 4 against 2 1 3 4: 1 − 6·2 / (4·15)."""
    shares, missing = torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([[2.0, 1.0], [5.0, 9.0]])
    assert ablation_agreement(shares, missing) == pytest.approx(0.8)
    assert ablation_agreement(-shares, missing) == pytest.approx(-0.8), "signs count"


def test_other_outputs_are_compared_by_magnitude():
    shares, missing = torch.tensor([[[-3.0, 1.0]], [[0.0, 2.0]]]), torch.tensor([[[1.0, 1], [-2, 0]], [[0, 1], [0, 1]]])
    assert ablation_agreement(shares, missing) == 1.0, "3 1 0 2 beside 3 1 0 2"


def test_a_constant_side_gives_zero_and_two_constant_sides_give_none():
    level, slope = torch.ones(2, 3), torch.arange(6.0).view(2, 3)
    assert ablation_agreement(level, slope) == ablation_agreement(slope, level) == 0.0
    assert ablation_agreement(level, 2 * level) is None


@pytest.mark.parametrize(
    ("evidence", "verdict", "because"),
    [
        ({"agreement": 0.8}, "holds", "it ranks units and places as setting them to zero does (ρ 0.80)"),
        ({"agreement": 0.9, "gap": 1e-6}, "holds", "(ρ 0.90), and its parts add up to the output"),
        ({"agreement": 0.7}, "weak", "only roughly as setting them to zero does (ρ 0.70)"),
        ({"agreement": 0.2, "gap": 0.0}, "fails", "unlike what setting them to zero does (ρ 0.20), though its parts"),
        ({"agreement": -0.9}, "fails", "(ρ -0.90)"),
        ({"agreement": 1.0, "gap": 0.5}, "fails", "its parts miss the output by 0.5 of it"),
        ({"agreement": 1.0, "gap": float("nan")}, "fails", "miss the output by nan"),
        ({}, "weak", "neither it nor setting units to zero tells units and places apart"),
    ],
)
def test_canvas_trust_verdicts(evidence, verdict, because):
    found = judge_canvas(**evidence)
    assert isinstance(found, CanvasTrust) and found.verdict == verdict and because in found.because
    assert str(found) == f"{verdict}, because {found.because}"
    assert (found.agreement, found.gap) == (evidence.get("agreement"), found.gap)


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
    said = str(judge_link(**SOUND))
    assert said.startswith("holds, because it explains 0.70 [0.68, 0.72] of the latents within classes, shuffled -0.02")


def test_few_repeated_pairs_do_not_weaken_the_verdict():
    assert judge_link(**SOUND, duplicates=0.04) == judge_link(**SOUND)


def test_few_pairs_are_a_reason_but_no_doubt_of_their_own():
    assert judge_link(**SOUND, pairs=20, units=69) == judge_link(**SOUND)
    assert judge_link(**SOUND | {"real": None}, pairs=70, units=69) == judge_link(**SOUND | {"real": None})


def test_five_percent_of_repeated_pairs_do_not_weaken_the_verdict():
    assert judge_link(**SOUND, duplicates=0.05, held_out_duplicates=0.05) == judge_link(**SOUND)


@pytest.mark.parametrize(
    ("change", "verdict", "text"),
    [
        ({"r2_within": near(float("nan"))}, "fails", "within classes it explains nothing"),
        ({"r2_within": near(0.01)}, "fails", "within classes it explains nothing"),
        ({"r2_within": near(0.12), "shuffled": 0.11}, "fails", "whatever R² says (0.90 [0.88, 0.92])"),
        ({"leaked": 0.3}, "fails", "30% of the held-out pairs were in the fit"),
        ({"duplicates": 0.24}, "weak", "24% of the fitted pairs repeat others, so that it was fitted to fewer"),
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
        ({"duplicates": 0.24}, "weak", "24% of the fitted pairs repeat others, so that it was fitted to fewer than"),
        ({"held_out_duplicates": 0.1}, "weak", "10% of the held-out pairs repeat others; intervals are too"),
        (
            {"duplicates": 0.3, "pairs": 98, "units": 69},
            "weak",
            "fitted to only 98 pairs, 30% of them repeated; 30% of",
        ),
        ({"duplicates": 0.3, "leaked": 0.3}, "fails", "30% of the held-out pairs were in the fit"),
        ({"cycle": 0.2}, "weak", "gives back 0.20 of the representation"),
    ],
)
def test_each_fault_is_named_in_the_reason(change, verdict, text):
    said = judge_link(**SOUND | change)
    assert said.verdict == verdict
    assert text in said.because


@pytest.mark.parametrize("name", ["r2_within", "generated", "real", "cycle"])
def test_link_trust_nan_evidence_never_holds(name):
    nan = float("nan")
    assert judge_link(**SOUND | {name: nan if name == "cycle" else Interval(nan, nan, nan)}).verdict != "holds"
