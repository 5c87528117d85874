import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import share_explained, verdict, what_dominates
from xinc_captum.metrics.explained import Explained


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    labels = torch.tensor([0, 0, 1, 1])
    assert share_explained(torch.tensor([1.0, 3.0, 5.0, 7.0]), labels) == pytest.approx(16 / 20)
    both = torch.tensor([[1.0, 0.0], [3.0, 1.0], [5.0, 0.0], [7.0, 1.0]])
    assert share_explained(both, labels) == pytest.approx(0.4), "the mean over dims"
    flat = torch.cat([both, torch.full((4, 1), 0.3)], 1)
    assert share_explained(flat, labels) == pytest.approx(0.4), (
        "a dim that does not vary explains nothing and hides nothing"
    )
    assert share_explained(torch.full((4,), 0.1), labels) != share_explained(both, labels)
    assert str(share_explained(torch.full((4,), 0.1), labels)) == "nan"


@given(seed=st.integers(0, 999), clusters=st.integers(1, 5))
def test_within_and_between_make_the_whole(seed, clusters):
    g = generator(seed)
    response, labels = torch.randn(20, generator=g).double(), torch.randint(clusters, (20,), generator=g)
    within = sum(((r := response[labels == k]) - r.mean()).square().sum() for k in labels.unique())
    whole = (response - response.mean()).square().sum()
    assert share_explained(response, labels) == pytest.approx(float(1 - within / whole), abs=1e-9)


def case(motion, edge, count=120):
    """Four clusters; how far apart their means are for motion and for edges."""
    g = generator(4)
    labels = torch.arange(count) % 4
    means = labels.double() - 1.5
    noise = torch.randn(2, count, generator=g).double()
    return {"motion": (motion * means + noise[0])[:, None], "edge": (edge * means + noise[1])[:, None]}, labels


def test_one_cluster_explains_nothing_and_is_refused():
    responses, labels = case(1.0, 1.0)
    with pytest.raises(ValueError, match="units with responses are in one cluster; wanted at least two"):
        what_dominates(responses, labels * 0, generator=generator())


@pytest.mark.parametrize(
    ("motion", "edge", "begins", "says"),
    [
        (3.0, 0.5, "supported here: clusters explain", "of edge, the next"),
        (0.0, 0.0, "not supported here: clusters explain", "of the draws"),
        (0.0, 3.0, "not supported here: clusters explain", "of the draws"),
        (1.0, 3.0, "not supported here: clusters explain", "it leads in 0 % of the samples"),
        (2.0, 2.0, "not supported here: clusters explain", "of edge; it leads in"),
    ],
)
def test_verdicts_of_planted_clusters(motion, edge, begins, says):
    found = what_dominates(*case(motion, edge), generator=generator())
    said = verdict(found)
    assert said.startswith(begins) and says in said


def test_the_control_is_what_any_labels_explain():
    found = what_dominates(*case(0, 0), generator=generator())["motion"]
    assert float(found.shuffled.mean()) == pytest.approx(3 / 119, abs=0.01), "(clusters - 1) / (units - 1)"
    assert found.chance > 0.05 and abs(found.above) < 0.08
    assert len(found.shuffled) == len(found.resampled) == 200


def test_units_without_a_response_are_left_out_of_all():
    responses, labels = case(3, 1)
    holes = {name: r.clone() for name, r in responses.items()}
    holes["motion"][:10] = torch.nan
    found = what_dominates(holes, labels, generator=generator())
    assert found["edge"].share == pytest.approx(share_explained(responses["edge"][10:], labels[10:]))


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"response has shape \(3,\) and labels \(4,\); wanted finite"):
        share_explained(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"motion has shape \(3, 1\) and labels \(4,\)"):
        what_dominates({"motion": torch.zeros(3)}, torch.zeros(4), generator=generator())
    with pytest.raises(ValueError, match="0 of 4 units have all responses; wanted at least 3"):
        what_dominates({"motion": torch.full((4,), torch.nan)}, torch.zeros(4), generator=generator())
    one = Explained(0.5, torch.zeros(3), torch.zeros(3))
    with pytest.raises(KeyError, match="'motion' and another response to compare it with; got edge"):
        verdict({"edge": one})
    with pytest.raises(KeyError, match="another response"):
        verdict({"motion": one})
