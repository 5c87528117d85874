import io
import sys

import matplotlib
import torch

from xinc_captum.visualizers import figure


def test_pyplots_global_state_stays_untouched():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure.new_figure(2, 2)
    assert plt.get_fignums() == before
    assert "matplotlib.pyplot" in sys.modules, "captum imports it; we draw without it"


def test_the_scale_is_shared_symmetric_and_never_zero():
    assert figure.limit_of(torch.tensor([-4.0, 1.0]), 1.0) == 4.0
    assert figure.limit_of(torch.zeros(3)) == 1.0
    large = torch.zeros(3 << 20)
    large[::7] = 2.0
    assert figure.limit_of(large) == 2.0


def test_headings_leave_room():
    drawn = figure.new_figure(4, 2)
    figure.heading(drawn, "Title", "how to read it")
    assert drawn.get_layout_engine().get()["rect"][3] < 0.75
    assert [t.get_text() for t in drawn.texts] == ["Title", "how to read it"]


def test_photos_of_any_channels():
    drawn = figure.new_figure(2, 2)
    axes = drawn.subplots(1, 3)
    for axis, channels in zip(axes, (1, 3, 5), strict=True):
        figure.draw_photo(axis, torch.rand(channels, 4, 4) * 3 - 1)
        image = axis.get_images()[0].get_array()
        assert image.min() >= 0 and image.max() <= 1


def test_letters_of_a_pdf_are_truetype():
    drawn = figure.new_figure(2, 2, 150)
    drawn.text(0.1, 0.5, "Grad-CAM")
    before = matplotlib.rcParams["pdf.fonttype"]
    file = io.BytesIO()
    drawn.savefig(file, format="pdf")
    assert b"/CIDFontType2" in file.getvalue() and b"/Type3" not in file.getvalue()
    assert matplotlib.rcParams["pdf.fonttype"] == before and drawn.dpi == 150
