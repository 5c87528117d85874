import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics.trust import (
    OFF_PATH,
    ON_PATH,
    Trust,
    high_frequency_energy,
    judged,
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
    row = judged(**evidence)
    assert row.verdict == verdict
    assert re.search(because, row.because)
    assert all(getattr(row, name) == value for name, value in evidence.items())


def test_the_worst_row_speaks_for_all():
    rows = [judged(path=0.8, natural=0.7), judged(transfer=-1.0), judged()]
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
    with pytest.raises(ValueError, match="got 1 natural image; a comparison among them wants at least 2"):
        leave_one_out([torch.rand(1, 4)])


def test_a_planted_circuit_is_off_the_path():
    """Natural images come through channels 0-3; the image made to fool comes through 4-7."""
    dice = torch.Generator().manual_seed(0)
    natural = torch.cat([1 + 0.7 * torch.randn(5, 4, generator=dice), 0.1 * torch.rand(5, 4)], 1)
    fooled = torch.cat([0.1 * torch.rand(1, 4), 1 + 0.1 * torch.rand(1, 4)], 1)
    base = float(leave_one_out([natural]).median())
    assert 0.3 < base < 0.9, "alike, and not all the same"
    assert judged(path=float(path_similarity([fooled], [natural])), natural=base).verdict == "fails"
    assert judged(path=float(path_similarity([natural[:1]], [natural])), natural=base).verdict == "holds"


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


@pytest.mark.parametrize("name", ["path", "natural", "kept", "gained", "transfer"])
def test_evidence_that_is_not_a_number_does_not_hold(name):
    found = judged(**{"path": 0.8, "natural": 0.7, "kept": 0.8, "gained": 1.0, "transfer": 1.0, name: float("nan")})
    assert found.verdict == "fails" and found.because == "some of the evidence is not a number"
