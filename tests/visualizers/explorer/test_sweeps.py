import pytest
import torch

from xinc_captum.visualizers.explorer import Strip, explore_sweeps

NAN = float("nan")


def write(tmp_path, strips, rows=("a",)):
    return explore_sweeps(tmp_path / "page.html", strips, rows=list(rows), title="T").read_text()


def test_places_on_the_line_and_what_was_not_measured(tmp_path):
    strip = Strip(torch.tensor([-1.0, 1.0]), torch.rand(1, 2, 3, 4, 4), torch.tensor([[NAN, 3.0]]))
    page = write(tmp_path, {"unit <7>": strip}, rows=["<row>"])
    assert "unit &lt;7&gt;" in page and "&lt;row&gt;" in page and "<row>" not in page
    assert "set −1.0" in page and "measured –" in page and "measured 3.0" in page
    places = [part.split("%")[0] for part in page.split('style="left: ')[1:]]
    assert places == ["0.0", "50.0", "100.0"], (
        "-1, 1 and 3 on a line from -1 to 3, and no dot for what was not measured"
    )
    assert "without a verdict" in page
    far = Strip(torch.tensor([-1.0, torch.inf]), strip.images, torch.tensor([[3.0, -torch.inf]]))
    page = write(tmp_path, {"unit": far}, rows=["row"])
    places = [part.split("%")[0] for part in page.split('style="left: ')[1:]]
    assert places == ["0.0", "100.0"], "nor for what is nowhere on it"


def test_rows_and_verdicts_of_each_unit(tmp_path):
    strip = Strip(torch.tensor([0.0, 1.0]), torch.rand(1, 2, 1, 4, 4), torch.zeros(1, 2))
    path = explore_sweeps(
        tmp_path / "page.html", {"u": strip, "v": strip}, rows={"u": ["drawn: 3"], "v": ["drawn: 8"]}, title="T",
        verdicts={"v": ("fails", "of <that>")}, remark="The link holds.",
    )  # fmt: skip
    one, other = path.read_text().split("<h2")[1:]
    assert "drawn: 3" in one and "drawn: 8" in other
    assert "✗ fails</strong> because of &lt;that&gt;." in other and "because" not in one
    assert "said below its name. The link holds." in path.read_text()


def test_large_frames_stay_below_the_limit_and_are_all_there(tmp_path, g):
    images = torch.rand(2, 5, 3, 400, 500, generator=g)
    strips = {f"unit {i}": Strip(torch.arange(5.0), images, torch.zeros(2, 5)) for i in range(3)}
    page = write(tmp_path, strips, rows=["a", "b"])
    assert 3_000_000 < len(page) < 5_000_000 and page.count('<img src="data:image/jpeg') == 30
    assert "reduced from 500 x 400 to" in page


def test_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="there are no strips"):
        write(tmp_path, {})
    strip = Strip(torch.zeros(2), torch.rand(1, 3, 3, 4, 4), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"u: 2 values, images \(1, 3, 3, 4, 4\), measured \(1, 3\) and 1 names"):
        write(tmp_path, {"u": strip})
    with pytest.raises(ValueError, match=r"wanted \(S,\), \(N, S, C, H, W\), \(N, S\) and N"):
        write(tmp_path, {"u": strip._replace(values=torch.zeros(3))}, rows=["a", "b"])
