import pytest
import torch

from xinc_captum.visualizers.explorer import explore_accentuations


def write(tmp_path, photo=(3, 4, 6), images=(2, 3, 4, 6), **words):
    given = {"titles": ["a", "b"], "title": "T"} | words
    return explore_accentuations(tmp_path / "page.html", torch.rand(photo), torch.rand(images), **given).read_text()


def test_words_are_escaped_and_masks_may_be_missing(tmp_path):
    page = write(tmp_path, photo=(1, 4, 6), titles=["<a>", "b"], verdicts=[("holds", "of <this>"), ("weak", "of that")])
    assert "&lt;a&gt;" in page and "<a>" not in page and "of &lt;this&gt;" in page
    assert 'class="only"' not in page and page.count('class="opacity"') == 2


@pytest.mark.parametrize(
    "wrong", [{"photo": (3, 4, 5)}, {"photo": (3, 3, 4, 6)}, {"titles": ["a"]}, {"notes": ["a"]}, {"images": (3, 4, 6)}]
)
def test_what_does_not_fit(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"wanted \(N, C, H, W\) of the photo's size, one photo or N, and N of each"):
        write(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_verdict(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write(tmp_path, verdicts=[("fine", "x"), ("holds", "y")])
