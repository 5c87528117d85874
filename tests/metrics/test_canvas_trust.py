import pytest
import torch

from xinc_captum.metrics.canvas_trust import CanvasTrust, ablation_agreement, judged_canvas


def test_the_agreement_by_hand():
    """Ranks 1 2 3 4 against 2 1 3 4: 1 − 6·2 / (4·15)."""
    shares, missing = torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([[2.0, 1.0], [5.0, 9.0]])
    assert ablation_agreement(shares, missing) == pytest.approx(0.8)
    assert ablation_agreement(-shares, missing) == pytest.approx(-0.8), "signs count"


def test_other_outputs_are_compared_by_magnitude():
    shares, missing = torch.tensor([[[-3.0, 1.0]], [[0.0, 2.0]]]), torch.tensor([[[1.0, 1], [-2, 0]], [[0, 1], [0, 1]]])
    assert ablation_agreement(shares, missing) == 1.0, "3 1 0 2 beside 3 1 0 2"


def test_what_is_level_on_one_side_agrees_with_nothing_and_on_both_says_nothing():
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
def test_verdicts(evidence, verdict, because):
    found = judged_canvas(**evidence)
    assert isinstance(found, CanvasTrust) and found.verdict == verdict and because in found.because
    assert str(found) == f"{verdict}, because {found.because}"
    assert (found.agreement, found.gap) == (evidence.get("agreement"), found.gap)
