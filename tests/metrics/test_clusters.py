import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import (
    cluster_mixing,
    cluster_rows,
    edges,
    opponents,
    rand_index,
    stability,
    umap_positions,
    unit_responses,
    unit_vectors,
    verdict,
    what_dominates,
)
from xinc_captum.metrics.clusters import Explained
from xinc_captum.zoo.videos import Sprite, sprite_clip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def groups(count=3, each=12, dims=6, noise=0.05):
    centres = 3 * torch.eye(count, dims).repeat_interleave(each, 0)
    return centres + noise * torch.randn(count * each, dims, generator=generator()), torch.arange(count * each) // each


def test_vectors_by_hand():
    amounts = torch.zeros(3, 2, 4)
    amounts[0, :, :2], amounts[2] = 8, 2
    found = unit_vectors(amounts, (1, 2))
    assert found.units.tolist() == [0, 2], "a unit that paints nothing has no place"
    assert found.values[0].tolist() == [1, 0] and found.values[1].tolist() == pytest.approx([0.5**0.5] * 2)
    clip = unit_vectors(torch.stack([amounts, 0 * amounts]), (1, 2))
    assert clip.values[1].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0]), "frame after frame"


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_vectors_have_length_one_whatever_the_amount(seed, scale):
    amounts = torch.rand(4, 6, 8, generator=generator(seed)).double()
    found = unit_vectors(amounts, (2, 4)).values
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(unit_vectors(amounts * scale, (2, 4)).values, found)


def test_planted_groups_are_found_and_stable():
    vectors, truth = groups()
    assert rand_index(cluster_rows(vectors, 3), truth) == 1
    found = stability(vectors, 3, generator=generator())
    assert found.observed.tolist() == [1] * 10, "five seeds, ten pairs"
    assert found.shuffled.mean() < 0.9


def test_a_cloud_is_no_more_stable_than_its_control():
    cloud = torch.randn(60, 8, generator=generator())
    found = stability(cloud, 6, generator=generator())
    assert found.observed.mean() < 0.9 and abs(found.observed.mean() - found.shuffled.mean()) < 0.35


def test_rand_index_by_its_definition():
    a, b = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = [(i, j) for i in range(6) for j in range(i)]
    both = sum(bool(a[i] == a[j] and b[i] == b[j]) for i, j in pairs)
    in_a, in_b = (sum(bool(x[i] == x[j]) for i, j in pairs) for x in (a, b))
    expected = in_a * in_b / 15
    assert rand_index(a, b) == pytest.approx((both - expected) / ((in_a + in_b) / 2 - expected))
    rng = np.random.default_rng(0)
    drawn = [rand_index(*torch.from_numpy(rng.integers(0, 3, (2, 60)))) for _ in range(200)]
    assert abs(np.mean(drawn)) < 0.02, "chance is 0"


def test_mixing_distinguishes_sources_from_shared_clusters():
    sources = torch.arange(40) % 2
    assert cluster_mixing(sources, sources, generator=generator()).observed == 1
    across = cluster_mixing(torch.arange(40) // 10, sources, generator=generator())
    assert abs(across.observed) < 0.1 and across.shuffled.abs().max() < 0.5 and len(across.shuffled) == 20


def test_mismatched_arguments_raise_errors():
    with pytest.raises(
        ValueError, match=r"vectors are of shape \(2, 3, 4\); expected \(units, dims\), such as unit_vectors"
    ):
        cluster_rows(torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match="got 6 groups for 3 rows"):
        cluster_rows(torch.rand(3, 4))
    with pytest.raises(ValueError, match=r"seeds are \(1, 1\); expected at least two different ones"):
        stability(torch.rand(9, 2), 2, seeds=(1, 1), generator=generator())
    with pytest.raises(ValueError, match=r"groupings have shapes \(3,\) and \(4,\); expected"):
        rand_index(torch.zeros(3), torch.zeros(4))


RUN = """
import torch, numpy
from xinc_captum.metrics import umap_positions
near = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.1
vectors = torch.cat([near, near + 9])
before = numpy.random.get_state()[1].copy(), torch.get_rng_state()
first = umap_positions(vectors, neighbors=3, seed=3)
assert (numpy.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
assert first.shape == (12, 2) and first.dtype == torch.float32 and first.isfinite().all()
gap = (first[:6].mean(0) - first[6:].mean(0)).norm()
assert gap > 2 * first[:6].std(0).norm(), "groups stay apart"
print("fine")
"""


def test_umap_separates_groups():
    """umap itself, in a process of its own in which numba does not spend half a minute on compiling."""
    settings = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", RUN], capture_output=True, text=True, env=settings)
    assert done.stdout.strip() == "fine", done.stderr


def test_embedding_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"vectors have shape \(5, 2\) for 15 neighbours; expected .* more units than"):
        umap_positions(torch.rand(5, 2))


def test_a_missing_umap_raises_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"a UMAP layout needs umap.*pip install 'xinc-captum\[analysis\]'"):
        umap_positions(torch.rand(30, 2))


def test_planted_units_respond_to_their_feature():
    photo = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(1))
    photo = torch.nn.functional.interpolate(photo[None], size=(24, 36), mode="bicubic")[0].clamp(0, 1)
    clip = sprite_clip(photo, (Sprite(5, (10, 8), (0, 4)),), 5)
    noise = torch.rand(5, 1, 24, 36, generator=torch.Generator().manual_seed(2))
    bright, red, _ = torch.stack([opponents(frame) for frame in clip.frames]).unbind(1)
    units = {
        "mover": clip.masks.float() * noise,
        "bright": bright[:, None],
        "red": red[:, None] - red.min(),
        "edge": torch.stack([edges(frame) for frame in clip.frames])[:, None],
        "corner": torch.zeros(5, 1, 24, 36).index_fill(3, torch.arange(30, 36), 1.0),
        "nothing": torch.zeros(5, 1, 24, 36),
    }
    found = unit_responses(torch.cat(list(units.values()), 1), clip.frames, clip.flow)
    names = list(units)
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "motion": (6, 2), "colour": (6, 3), "edge": (6, 1), "position": (6, 2)
    }  # fmt: skip
    assert names[int(found["motion"][:5, 1].nan_to_num().argmax())] == "mover"
    assert found["colour"][names.index("bright"), 0] == pytest.approx(1, abs=1e-6)
    assert found["colour"][names.index("red"), 1] == pytest.approx(1, abs=1e-6)
    assert found["edge"][names.index("edge"), 0] == pytest.approx(1, abs=1e-6)
    corner = found["position"][names.index("corner")].tolist()
    assert corner == pytest.approx([0.5, 32.5 / 35])
    assert all(v[names.index("nothing")].isnan().all() for v in found.values())


def test_still_clips_have_no_motion():
    frames = torch.rand(1, 3, 6, 8).expand(3, 3, 6, 8)
    found = unit_responses(torch.rand(3, 4, 6, 8), frames, torch.zeros(2, 2, 6, 8))
    assert found["motion"].isnan().all() and found["colour"].isfinite().all()


def test_responses_mismatched_arguments_raise_errors():
    message = (
        r"flow has shape .*expected \(3, 3, 6, 8\) and \(2, 2, 6, 8\)|and flow \(3, 2, 6, 8\) .*expected \(3, 3, 6, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        unit_responses(torch.rand(3, 4, 6, 8), torch.rand(3, 3, 6, 8), torch.rand(3, 2, 6, 8))
    with pytest.raises(ValueError, match="magnitudes have 1 frame"):
        unit_responses(torch.rand(1, 4, 6, 8), torch.rand(1, 3, 6, 8), torch.rand(0, 2, 6, 8))


def share_explained(response, labels):
    return what_dominates({"response": response}, labels, generator=generator(), repeats=2)["response"].share


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


@given(seed=st.integers(0, 999), clusters=st.integers(2, 5))
def test_variance_within_and_between_sums_to_the_total(seed, clusters):
    g = generator(seed)
    response, labels = torch.randn(20, generator=g).double(), torch.randint(clusters, (20,), generator=g)
    labels[:2] = torch.arange(2)
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


def test_a_single_cluster_is_refused():
    responses, labels = case(1.0, 1.0)
    with pytest.raises(ValueError, match="units with responses are in one cluster; expected at least two"):
        what_dominates(responses, labels * 0, generator=generator())


@pytest.mark.parametrize(
    ("motion", "edge", "begins", "says"),
    [
        (3.0, 0.5, "supported here: clusters explain", "of edge, the second highest"),
        (0.0, 0.0, "not supported here: clusters explain", "of the draws"),
        (0.0, 3.0, "not supported here: clusters explain", "of the draws"),
        (1.0, 3.0, "not supported here: clusters explain", "motion is highest in only 0 % of the bootstrap samples"),
        (2.0, 2.0, "not supported here: clusters explain", "of edge; motion is highest in only"),
    ],
)
def test_verdicts_of_planted_clusters(motion, edge, begins, says):
    found = what_dominates(*case(motion, edge), generator=generator())
    said = verdict(found)
    assert said.startswith(begins) and says in said


def test_the_control_equals_the_share_of_random_labels():
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


def test_explained_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"motion has shape \(3, 1\) and labels \(4,\)"):
        what_dominates({"motion": torch.zeros(3)}, torch.zeros(4), generator=generator())
    with pytest.raises(ValueError, match="0 of 4 units have all responses; expected at least 3"):
        what_dominates({"motion": torch.full((4,), torch.nan)}, torch.zeros(4), generator=generator())
    one = Explained(0.5, torch.zeros(3), torch.zeros(3))
    with pytest.raises(KeyError, match="expected 'motion' and another response to compare it with; got edge"):
        verdict({"edge": one})
    with pytest.raises(KeyError, match="another response"):
        verdict({"motion": one})
