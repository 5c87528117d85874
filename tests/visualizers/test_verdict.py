import pytest

from xinc_captum.visualizers.sheet import Sheet
from xinc_captum.visualizers.verdict import check_verdicts, verdict_line


def test_a_mark_a_word_and_a_reason():
    sheet = Sheet(5)
    bottom = verdict_line(sheet, 0.1, "weak", "of many words, so many that they do not fit into one line of the page")
    words = [t.get_text() for t in sheet.done(bottom).texts]
    assert words[0] == "≈ weak" and words[1].startswith("because of many words") and len(words) == 3


def test_only_known_ones():
    check_verdicts("holds", "weak", "fails")
    with pytest.raises(ValueError, match="verdict 'perhaps' is not known; wanted holds, weak, fails"):
        check_verdicts("holds", "perhaps")
