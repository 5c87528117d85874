import json
import shutil
import sys

import pytest
import torch

from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.linked import described, linked_called

CPU = torch.device("cpu")


@pytest.fixture
def copy(link_folder, tmp_path):
    """A copy of the link, to damage."""
    return shutil.copytree(link_folder, tmp_path / "copy")


def rewrite(folder, change):
    path = folder / "manifest.json"
    note = json.loads(path.read_text())
    change(note)
    path.write_text(json.dumps(note))


def test_the_manifest_describes_the_ends(ends, tiny, link_folder):
    assert described(ends) == {"model": f"{tiny}:net", "generator": f"{tiny}:draw", "layer": "2"}
    assert json.loads((link_folder / "manifest.json").read_text())["ends"] == described(ends)


def test_a_link_is_found_again_with_its_ends_and_verdict(linked, link_folder):
    note = json.loads((link_folder / "manifest.json").read_text())
    assert described(linked.ends) == note["ends"] and linked.ends.shape == (1, 8, 8)
    assert (linked.trust, linked.truncation) == (note["trust"], 0.7)
    latents = linked.ends.generator.latent_mean(torch.arange(4))
    seen = linked.ends.encoder().read(linked.ends.draw(latents))
    torch.testing.assert_close(linked.link(seen.representations, torch.arange(4)), latents, atol=0.2, rtol=0.1)


def test_an_older_manifest_lacks_verdict_and_truncation(copy):
    rewrite(copy, lambda note: (note.pop("trust"), note.pop("truncation")))
    found = linked_called(copy, CPU)
    assert (found.trust, found.truncation) == ("unknown", 0.7)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none is not a folder; wanted one that xinc link wrote\."):
        linked_called(tmp_path / "none", CPU)


@pytest.mark.parametrize(
    "manifest", [None, "{", "[]", '{"trust": "holds"}', '{"ends": 3}', '{"ends": {"model": "a", "generator": "b"}}']
)
def test_folders_that_hold_no_link(tmp_path, manifest):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    says = r"holds no link; wanted a folder that xinc link wrote, with manifest\.json and link\.safetensors\."
    with pytest.raises(UsageError, match=says):
        linked_called(tmp_path, CPU)


def test_a_folder_whose_link_was_lost(copy):
    (copy / "link.safetensors").unlink()
    with pytest.raises(UsageError, match=r"the link in .*copy cannot be used: .*link\.safetensors"):
        linked_called(copy, CPU)


def test_a_pickle_in_the_place_of_the_link_is_never_opened(copy):
    torch.save({"weight": torch.ones(2)}, copy / "link.safetensors")
    with pytest.raises(UsageError, match=r"the link in .* cannot be used: .*pickle"):
        linked_called(copy, CPU)


def test_ends_that_are_gone_are_said(copy):
    rewrite(copy, lambda note: note["ends"].update(generator="nobody"))
    with pytest.raises(UsageError, match="generator 'nobody' is not in the zoo"):
        linked_called(copy, CPU)


def test_ends_whose_weights_have_changed_since_are_said_to_have(copy, tiny, linked):
    module = sys.modules[tiny]
    make = module.net
    assert linked_called(copy, CPU).trust == linked.trust
    try:
        module.net = lambda: changed(make())
        found = linked_called(copy, CPU)
    finally:
        module.net = make
    assert found.trust.startswith(f"{linked.trust}; but the network given has other weights")
    with pytest.warns(UserWarning, match="the network given has other weights"):
        found.ends.method(found.link)


def changed(classifier):
    with torch.no_grad():
        classifier.model[1].bias += 0.5
    return classifier
