import json

import pytest
import torch
from safetensors.torch import load_file

from xinc_captum import store
from xinc_captum.cli.explore import explore_command
from xinc_captum.cli.explore_link import reduced
from xinc_captum.cli.failures import UsageError
from xinc_captum.visualizers.explorer.album import album


def test_what_the_link_command_writes(tmp_path, link_folder, story):
    explore_command(link_folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    note = json.loads((link_folder / "manifest.json").read_text())
    parts = page.split("<h2")[1:]
    assert len(parts) == len(note["units"]) == 12
    kept = load_file(link_folder / "explorer.safetensors")
    for part, said, sweep, row in zip(parts, note["units"], story.units.sweeps, story.units.rows, strict=True):
        assert f">unit {said['unit']}<" in part and said["shown_in"] in part
        assert f"{said['verdict']}</strong> because" in part
        film = kept[f"unit_{said['unit']}.frames"]
        torch.testing.assert_close(film[[0, -1]] / 255, sweep.images[row].float(), atol=0.003, rtol=0)
        torch.testing.assert_close(kept[f"unit_{said['unit']}.measured"], sweep.response[row])
        assert part.count("data-frame=") == len(sweep.values) == len(film)
        assert album([film[-1].float() / 255], 100_000).addresses[0] in part
    assert "The link between the two " in page and "What units of tiny_ends:net mean to tiny_ends:draw" in page


def test_frames_are_kept_small(g):
    found = reduced(torch.rand(4, 3, 200, 320, generator=g))
    assert found.shape == (4, 3, 80, 128) and found.dtype == torch.uint8
    assert reduced(torch.full((1, 1, 8, 9), 0.5)).unique().tolist() == [128]


def test_a_link_from_before_there_was_such_a_page(tmp_path):
    with store.bundle(tmp_path / "old", {"variant": "linear", "audit": {}, "units": []}) as work:
        (work / "index.html").write_text("x")
    with pytest.raises(UsageError, match="its own page is .*old/index.html. Run xinc link again to make both anew"):
        explore_command(tmp_path / "old", None)
