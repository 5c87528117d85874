import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum import LinkedUnitVisualization
from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.sweep import agreement, column, columns, unit_steps, unit_values
from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.store import StoreError


def test_a_sweep_is_saved_in_a_folder(digits, tmp_path):
    result = digits.units.sweep(digits.pictures(2), digits.unit, steps=4)
    place = result.save(tmp_path / "sweep")
    held = load_file(place / "sweep.safetensors")
    assert torch.equal(held["images"], result.images) and torch.equal(held["values"], result.values)
    note = json.loads((place / "manifest.json").read_text())
    assert note["unit"] == digits.unit and note["fidelity"]["rank"] == result.fidelity.rank
    assert note["settings"] == {"mode": "anchored", "direction": "marginal", "values": "quantile", "anchors": False}
    with Image.open(place / "row1.png") as strip:
        assert strip.size == (32, 8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(StoreError):
        result.save(tmp_path / "mine")


def test_contents_of_a_sweep(digits):
    result = digits.units.sweep(digits.pictures(3), digits.unit, [0.0, 1.0, 2.0, 3.0])
    assert result.images.shape == (3, 4, 1, 8, 8) and result.latents.shape == (3, 4, 24)
    assert result.representations.shape == (3, 4, 64) and result.scores.shape == (3, 4, 10)
    with torch.no_grad():
        again = digits.net[:5](result.images.flatten(0, 1)).view(3, 4, 64)
    torch.testing.assert_close(result.representations, again), "every frame is looked at again"
    assert torch.equal(result.response, result.representations[..., digits.unit])


def test_the_units_own_value_leaves_the_image_unchanged(digits):
    x = digits.pictures(1)
    base = digits.units.sweep(x, digits.unit, [0.0])
    again = digits.units.sweep(x, digits.unit, [float(base.own[0])])
    torch.testing.assert_close(again.images[:, 0], base.base, atol=1e-6, rtol=0)


def test_anchors_are_images_of_known_latents(digits):
    latents = digits.generator.sample_latents(4, digits.classes(4), 0.7, generator=torch.Generator().manual_seed(3))
    x = digits.generator.synthesize(latents)
    result = digits.units.sweep(x, digits.unit, latents=latents)
    torch.testing.assert_close(result.base, x)
    assert result.agreement == 1


def planted(link_of):
    """Ten units that a generator draws as ten separate pixels; the link is what the test makes of the pairs."""
    paint = from_callable(lambda w: w.view(-1, 1, 2, 5).sigmoid(), normal_latents(10))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity(), torch.nn.Linear(10, 3))
    w = paint.sample_latents(500, generator=torch.Generator().manual_seed(0))
    r = paint.synthesize(w).flatten(1)
    units = LinkedUnitVisualization(net, "1", paint, LatentLink().fit(r, link_of(w)))
    return units, paint.synthesize(w[:6])


def test_trust_holds_on_planted_units_and_fails_on_a_shuffled_link():
    units, x = planted(lambda w: w)
    assert all(one.trust.verdict == "holds" for one in units.sweeps(x))
    assert str(units.sweep(x, 0).trust).startswith("holds, because re-encoded, it moves most of 10 units")
    units, x = planted(lambda w: w.roll(1, 1))
    verdicts = [one.trust.verdict for one in units.sweeps(x)]
    assert verdicts == ["fails"] * 10, "each pixel is drawn by its neighbour's unit"


def test_trust_is_weak_where_linking_alone_loses_the_inputs(digits):
    noise = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = digits.units.sweep(noise, digits.unit)
    lost = result.agreement <= 0.5
    assert (result.trust.verdict != "holds") if lost else result.trust.verdict == result.fidelity.verdict[0]
    if lost and result.fidelity.verdict[0] != "fails":
        assert "of another class once linked" in result.trust.because


def test_units_in_common_batches_give_the_same_sweeps(digits):
    alive = digits.link.alive.nonzero()[:5, 0].tolist()
    seen = []
    handle = digits.net[0].register_forward_hook(lambda m, a, o: seen.append(len(o)))
    try:
        many = list(digits.units.sweeps(digits.pictures(3), alive, steps=4, internal_batch_size=24))
    finally:
        handle.remove()
    assert max(seen) <= 24 and seen.count(24) == 2, "two units of twelve frames in a batch"
    for unit, one in zip(alive, many, strict=True):
        alone = digits.units.sweep(digits.pictures(3), unit, steps=4)
        torch.testing.assert_close(alone.images, one.images, atol=1e-6, rtol=1e-5)
        assert alone.fidelity.rank == one.fidelity.rank


def test_sweeps_are_generated_lazily(digits):
    seen = []
    handle = digits.net[0].register_forward_hook(lambda m, a, o: seen.append(len(o)))
    try:
        stream = digits.units.sweeps(digits.pictures(3), internal_batch_size=15)
        before = len(seen)
        next(stream)
        assert before <= 2 and len(seen) == before + 1
    finally:
        handle.remove()


def test_replace_starts_from_the_input_and_anchored_from_its_linked_image(digits):
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        r = digits.net[:5](x)[:, digits.unit]
    anchored, replaced = (digits.units.sweep(x, digits.unit, [0.0, 1.0], mode=m) for m in ("anchored", "replace"))
    torch.testing.assert_close(replaced.own, r.double())
    torch.testing.assert_close(anchored.own, anchored.base_representations[:, digits.unit].double())
    step = digits.link.direction([digits.unit])[0].float()
    base = digits.link(digits.net[:5](x).double()).float().detach()
    for result in (anchored, replaced):
        expected = base + (1.0 - result.own.float())[:, None] * step
        torch.testing.assert_close(result.latents[:, 1], expected, atol=1e-5, rtol=1e-5)


def test_agreement_of_a_single_logit_uses_its_sign():
    scores = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]])
    assert agreement(scores, scores) == 1 and agreement(-scores, scores) == 0
    assert agreement(torch.tensor([[0.1], [-0.2], [-4.0], [-3.0]]), scores) == 0.75
    assert agreement(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]])) == 1


DATA = np.load(Path(__file__).parents[2] / "data" / "linking.npz")


@pytest.fixture(scope="module")
def link():
    return LatentLink(ridge=0.0).fit(torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"]), torch.arange(400) % 3)


@pytest.fixture(scope="module")
def start():
    return torch.tensor(DATA["B_start"])[None]


@pytest.mark.parametrize("which", range(3))
def test_the_papers_tuning_of_one_unit(link, start, which):
    unit = int(DATA["B_units"][which])
    values = torch.linspace(float(DATA["B_lo"][unit]), float(DATA["B_hi"][unit]), 5, dtype=torch.float64)
    np.testing.assert_allclose(DATA["B_rs"][which][:, unit], values, atol=1e-12)
    latents = unit_steps(link, start, unit, values, anchor=link(start), start=start[:, unit], direction="partial")
    np.testing.assert_allclose(latents[0], DATA["B_ws"][which], atol=1e-10)


def test_the_span_equals_that_of_the_papers_pairs(link):
    ends = link.bounds(range(24))
    np.testing.assert_allclose(ends[:, 0], DATA["B_lo"])
    np.testing.assert_allclose(ends[:, 1], DATA["B_hi"])


@pytest.mark.parametrize("direction", ["marginal", "within_class"])
def test_steps_are_straight_from_the_anchor(link, start, direction):
    anchor, own, values = torch.randn(1, 16, dtype=torch.float64), torch.tensor([0.3]), torch.tensor([0.3, 1.3, 2.3])
    result = unit_steps(link, start, 4, values, anchor=anchor, start=own, direction=direction)[0]
    torch.testing.assert_close(result[0], anchor[0])
    torch.testing.assert_close(result[2] - result[0], 2 * link.direction([4], direction)[0], rtol=1e-6, atol=1e-7)


def test_partial_steps_follow_a_non_linear_link(start):
    r, w = torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"])
    link = LatentLink("fourier_features", features=64).fit(r, w)
    moved = start.clone()
    moved[:, 2] += 0.5
    anchor, own = torch.zeros(1, 16, dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    result = unit_steps(link, start, 2, torch.tensor([1.5]), anchor=anchor, start=own, direction="partial")
    torch.testing.assert_close(result[0], link(moved) - link(start))


def test_per_class_links_use_the_class_of_the_sample():
    r, w, classes = torch.tensor(DATA["A_r"]), torch.tensor(DATA["A_w"]), torch.arange(400) % 2
    link = LatentLink("per_class").fit(r, w, classes)
    some = r[:3]
    own, values, of = some[:, 1], torch.tensor([0.0, 1.0]), torch.tensor([1, 0, 1])
    result = unit_steps(link, some, 1, values, anchor=link(some, of), start=own, direction="partial", classes=of)
    for row in range(3):
        step = link.direction([1], "partial", class_=int(of[row]))[0]
        torch.testing.assert_close(result[row, 1] - result[row, 0], step)


@pytest.mark.parametrize("span", ["quantile", "minmax", "sd"])
def test_values_over_a_span(link, span):
    values = unit_values(link, 3, span, 7)
    low, high = link.bounds([3], span)[0]
    assert values.dtype == torch.float64 and len(values) == 7
    torch.testing.assert_close(values, torch.linspace(float(low), float(high), 7, dtype=torch.float64))
    assert torch.equal(unit_values(link, 3, [1, 2.5]), torch.tensor([1, 2.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("values", "steps", "text"),
    [
        ("all", 5, "values is 'all'; expected numbers, or the span"),
        ("minmax", 1, "steps is 1; expected at least 2"),
        ([], 5, r"values have shape \(0,\)"),
        ([[1.0]], 5, r"values have shape \(1, 1\)"),
        ([1.0, float("nan")], 5, "1 of them not finite"),
    ],
)
def test_invalid_values_raise(link, values, steps, text):
    with pytest.raises(ValueError, match=text):
        unit_values(link, 0, values, steps)


ALIVE = torch.ones(24, dtype=torch.bool)


def test_ints_are_columns_and_tuples_index_the_layer():
    assert columns(5, (2, 3, 4), ALIVE) == [5]
    assert columns(-1, (24,), ALIVE) == [23]
    assert columns((1, 2, 3), (2, 3, 4), ALIVE) == [23]
    assert columns((1, slice(None), 0), (2, 3, 4), ALIVE) == [12, 16, 20]
    assert columns((7,), (24, 9, 9), ALIVE) == [7], "a pooled map has lost its places"
    assert column((0, 1, 1), (2, 3, 4), ALIVE) == 5


@pytest.mark.parametrize(
    ("selector", "error", "text"),
    [
        (24, IndexError, r"neuron_selector 24 is out of range: the linked dims are \(24,\)"),
        ((0, 3, 0), IndexError, r"out of range: the linked dims are \(2, 3, 4\), so expected 3 to be in \[-3, 2\]"),
        ((1, 1), IndexError, r"has 2 entries; the linked dims are \(2, 3, 4\)"),
        ((slice(1, 1), 0, 0), IndexError, "selects no unit"),
        (True, TypeError, "is a bool; expected an int"),
        (lambda a: a, TypeError, "is a function; expected an int"),
        (slice(0, 2), TypeError, "is a slice; expected an int"),
        ([1, 2], TypeError, "is a list of 2; give one unit here"),
        ((0, 0, slice(None)), ValueError, "selects 4 units, but a value is set for one"),
    ],
)
def test_invalid_selectors_raise(selector, error, text):
    with pytest.raises(error, match=text):
        column(selector, (2, 3, 4), ALIVE)


def test_dead_units_raise():
    with pytest.raises(ValueError, match="unit 3 is dead: it does not vary"):
        columns(3, (24,), ALIVE & (torch.arange(24) != 3))
