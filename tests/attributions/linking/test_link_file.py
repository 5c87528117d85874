"""A saved link comes back with everything it knew, and nothing else is taken for one."""

import pytest
import torch
from rounding import assert_equal_but_for_rounding

from xinc_captum.attributions.linking import LatentLink


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(60) % 2
    r = torch.rand(60, 5, generator=generator) + classes[:, None]
    return r, torch.sin(r @ torch.randn(5, 3, generator=generator)), classes


@pytest.mark.parametrize("variant", ["linear", "per_class", "fourier_features"])
@pytest.mark.parametrize("ridge", ["gcv", "held_out", 0.5])
def test_a_link_comes_back_whole(variant, ridge, pairs, tmp_path):
    r, w, classes = pairs
    note = {"layer": "fc", "preprocess": "to 224 pixels", "truncation": 0.7, "classes": [0, 1]}
    link = LatentLink(variant, ridge, features=9, reservoir=20, seed=4).fit(r, w, classes, manifest=note)
    link.save(tmp_path / "link.safetensors")
    again = LatentLink.load(tmp_path / "link.safetensors")
    tensors, others = link.map.state_dict(), again.map.state_dict()
    assert tensors.keys() == others.keys() and all(torch.equal(others[k], tensors[k]) for k in tensors)
    assert all(others[k].stride() == tensors[k].stride() for k in tensors), "products round by the layout"
    assert_equal_but_for_rounding(again(r, classes), link(r, classes), terms=9 + 5)  # features and units; in float64
    assert (again.manifest, again.ridges, again.settings) == (note, link.ridges, link.settings)
    assert str(again.report) == str(link.report)
    for kind in ("minmax", "quantile", "sd"):
        assert torch.equal(again.bounds([0, 4], kind), link.bounds([0, 4], kind))
    torch.testing.assert_close(again.direction(1, "within_class"), link.direction(1, "within_class"))
    torch.testing.assert_close(again.leave_one_out(r, w, classes), link.leave_one_out(r, w, classes))
    for one in (again, link):
        one.partial_fit(r + 0.1, w, classes)
    torch.testing.assert_close(again(r, classes), link(r, classes))


def test_equal_links_are_equal_bytes(pairs, tmp_path):
    for name in "ab":
        LatentLink().fit(*pairs).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_header_whose_length_looks_like_a_pickle_is_still_read(pairs, tmp_path):
    path, first = tmp_path / "link", set()
    for extra in range(256):
        LatentLink().fit(*pairs, manifest={"layer": "x" * extra}).save(path)
        first.add(path.read_bytes()[0])
        assert LatentLink.load(path).manifest == {"layer": "x" * extra}
        if 0x80 in first:
            break
    assert 0x80 in first


def test_nothing_is_left_of_a_save_that_failed(tmp_path):
    with pytest.raises(ValueError, match="has seen no pairs"):
        LatentLink().save(tmp_path / "link")
    assert not list(tmp_path.iterdir())
