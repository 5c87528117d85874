import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.canvas_layout import CHUNK_BYTES, Layout, planned


def laid(**changes):
    given = {
        "size": (10, 6), "units": 8, "slots": 1, "channels": 3, "frames": 2, "has_frames": True, "pairs": None,
        "dtype": "float16", "band": 4, "units_a_chunk": 5, "rule": "Secant()", "layer": "a",
    }  # fmt: skip
    return Layout(**{**given, **changes})


def test_by_hand():
    layout = laid()
    assert layout.shape == (1, 9, 3, 10, 6, 2) and layout.chunks == (1, 5, 3, 4, 6, 1)
    assert layout.bands == [(f, a, b) for f in (0, 1) for a, b in ((0, 4), (4, 8), (8, 10))]
    assert layout.nbytes == 9 * 3 * 60 * 2 * 2
    assert layout.names == ("layer", "unit", "channel", "y", "x", "frame")
    assert laid(size=(10,)).names[3:] == ("x", "frame")
    assert laid(size=(2, 3, 4)).names[3:] == ("z", "y", "x", "frame")


def test_pairs_have_a_slot_for_each_output():
    assert laid(units=12, pairs=(4, 3)).unit_axis == 15


def test_there_and_back(tmp_path):
    layout = laid(pairs=(2, 4))
    assert Layout.of(layout.attributes(), tmp_path) == layout


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.integers(1, 10**7),
    st.integers(1, 4),
    st.integers(1, 4096),
    st.sampled_from([2, 4]),
)
def test_chunks_are_small_and_never_nothing(size, rows_at_once, channels, unit_axis, itemsize):
    band, units = planned(size, rows_at_once, channels, unit_axis, itemsize)
    assert 1 <= band <= size[0] and 1 <= units <= unit_axis
    assert band == 1 or band * size[1] <= rows_at_once
    one = channels * band * size[1] * itemsize
    assert units * one <= max(CHUNK_BYTES, one)


def test_numbers_of_the_docstring():
    assert planned((100, 50), rows_at_once=1000, channels=3, unit_axis=64, itemsize=4) == (20, 64)
    with pytest.raises(TypeError):
        planned((100, 50))
