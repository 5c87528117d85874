import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.canvas.canvas_layout import CHUNK_BYTES, DTYPES, Layout, by_bands, by_units, checked


def laid(**changes):
    given = {
        "size": (10, 6), "units": 8, "slots": 1, "channels": 3, "frames": 2, "pairs": None,
        "dtype": "float16", "band": 4, "units_a_block": 6, "units_a_chunk": 3, "rule": "Secant()", "layer": "a",
    }  # fmt: skip
    return Layout(**{**given, **changes})


def test_by_hand():
    layout = laid()
    assert layout.shape == (1, 9, 3, 10, 6, 2) and layout.chunk == (1, 3, 3, 4, 6, 1)
    rows, units = ((0, 4), (4, 8), (8, 10)), ((0, 6), (6, 9))
    assert layout.blocks == [(f, *u, *r) for f in (0, 1) for u in units for r in rows]
    assert layout.nbytes == 9 * 3 * 60 * 2 * 2
    assert layout.names == ("layer", "unit", "channel", "y", "x", "frame")
    assert laid(size=(10,)).names[3:] == ("x", "frame")
    assert laid(size=(2, 3, 4)).names[3:] == ("z", "y", "x", "frame")


def test_pairs_have_a_slot_for_each_output():
    assert laid(units=12, pairs=(4, 3)).unit_axis == 15


def test_there_and_back(tmp_path):
    layout = laid(pairs=(2, 4))
    assert Layout.of(layout.attributes(), tmp_path) == layout


PICTURE = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(PICTURE, st.integers(1, 10**7), st.integers(1, 4), st.integers(1, 4096), st.sampled_from(["float16", "float32"]))
def test_bands_keep_to_the_pixels_and_chunks_are_small(size, pixels, channels, count, dtype):
    plan = by_bands(size, pixels, channels, count, dtype)
    assert 1 <= plan["band"] <= size[0] and plan["units_a_block"] == count and 1 <= plan["units_a_chunk"] <= count
    assert plan["band"] == 1 or plan["band"] * size[1] <= pixels
    one = channels * plan["band"] * size[1] * DTYPES[dtype]
    assert plan["units_a_chunk"] * one <= max(CHUNK_BYTES, one)


@given(PICTURE, st.integers(0, 10**5), st.integers(1, 4), st.integers(1, 4096), st.sampled_from(["float16", "float32"]))
def test_blocks_of_maps_are_whole_chunks(size, maps, channels, count, dtype):
    plan = by_units(size, maps, channels, count, dtype)
    assert plan["band"] == size[0] and 1 <= plan["units_a_chunk"] <= plan["units_a_block"] <= max(1, min(maps, count))
    assert plan["units_a_block"] % plan["units_a_chunk"] == 0
    one = channels * size[0] * size[1] * DTYPES[dtype]
    assert plan["units_a_chunk"] * one <= max(CHUNK_BYTES, one)


def test_what_is_no_precision():
    with pytest.raises(ValueError, match="dtype is 'int8'; wanted 'float32' or 'float16'"):
        checked("int8")
