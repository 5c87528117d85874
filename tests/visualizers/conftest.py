"""What every picture owes its reader."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg


@pytest.fixture
def legible():
    """A check that nothing in a figure lies over anything else, or outside of it."""

    def check(figure, *, across=0.96, down=0.8, slack=0):
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [t.get_window_extent(renderer) for t in figure.texts]
        boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
        width, height = figure.canvas.get_width_height()
        for i, box in enumerate(boxes):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + slack and box.y1 <= height
            assert not any(box.shrunk(across, down).overlaps(other.shrunk(across, down)) for other in boxes[:i])

    return check
