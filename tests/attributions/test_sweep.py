import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum import LinkedUnitVisualization
from xinc_captum.attributions.linking import LatentLink
from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.store import StoreError


def test_a_sweep_saves_itself_whole(digits, tmp_path):
    found = digits.units.sweep(digits.pictures(2), digits.unit, steps=4)
    place = found.save(tmp_path / "sweep")
    held = load_file(place / "sweep.safetensors")
    assert torch.equal(held["images"], found.images) and torch.equal(held["values"], found.values)
    note = json.loads((place / "manifest.json").read_text())
    assert note["unit"] == digits.unit and note["fidelity"]["rank"] == found.fidelity.rank
    assert note["settings"] == {"mode": "anchored", "direction": "marginal", "values": "quantile", "anchors": False}
    with Image.open(place / "row1.png") as strip:
        assert strip.size == (32, 8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(StoreError):
        found.save(tmp_path / "mine")


def test_what_is_in_it(digits):
    found = digits.units.sweep(digits.pictures(3), digits.unit, [0.0, 1.0, 2.0, 3.0])
    assert found.images.shape == (3, 4, 1, 8, 8) and found.latents.shape == (3, 4, 24)
    assert found.representations.shape == (3, 4, 64) and found.scores.shape == (3, 4, 10)
    with torch.no_grad():
        again = digits.net[:5](found.images.flatten(0, 1)).view(3, 4, 64)
    torch.testing.assert_close(found.representations, again), "every frame is looked at again"
    assert torch.equal(found.response, found.representations[..., digits.unit])


def test_the_own_value_leaves_the_picture_as_it_is(digits):
    x = digits.pictures(1)
    base = digits.units.sweep(x, digits.unit, [0.0])
    again = digits.units.sweep(x, digits.unit, [float(base.own[0])])
    torch.testing.assert_close(again.images[:, 0], base.base, atol=1e-6, rtol=0)


def test_anchors_are_pictures_of_known_latents(digits):
    latents = digits.generator.sample_latents(4, digits.classes(4), 0.7, generator=torch.Generator().manual_seed(3))
    x = digits.generator.synthesize(latents)
    found = digits.units.sweep(x, digits.unit, latents=latents)
    torch.testing.assert_close(found.base, x)
    assert found.agreement == 1


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
    found = digits.units.sweep(noise, digits.unit)
    lost = found.agreement <= 0.5
    assert (found.trust.verdict != "holds") if lost else found.trust.verdict == found.fidelity.verdict[0]
    if lost and found.fidelity.verdict[0] != "fails":
        assert "of another class once linked" in found.trust.because
