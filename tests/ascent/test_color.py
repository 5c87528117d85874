import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.accentuation.color import decorrelate, matrix, recorrelate


def test_by_hand():
    one = torch.zeros(1, 3, 1, 1)
    one[0, 1] = 2  # the second axis is red against blue
    assert recorrelate(one).flatten().tolist() == pytest.approx([0.38965056, 0, -0.38965056])


def test_the_recorded_matrix_and_its_inverse(recorded):
    logits = torch.logit(recorded["seed_image"])
    assert torch.equal(matrix(logits), recorded["color_matrix"])
    eye = torch.eye(3)[:, :, None, None]
    torch.testing.assert_close(decorrelate(eye)[:, :, 0, 0], recorded["color_matrix_inv"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(decorrelate(logits), recorded["color_decorrelated"], atol=1e-5, rtol=0)
    torch.testing.assert_close(recorrelate(recorded["color_decorrelated"]), logits, atol=1e-5, rtol=0)


def test_equals_lucents_matrix():
    color = pytest.importorskip("lucent.optvis.param.color", reason="pip install torch-lucent")
    theirs = torch.from_numpy(color.color_correlation_normalized.T.copy())
    torch.testing.assert_close(matrix(theirs), theirs, atol=1e-6, rtol=0)
    values = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(recorrelate(values), color._linear_decorrelate_color(values), atol=1e-6, rtol=0)


@given(channels=st.integers(1, 7), seed=st.integers(0, 99))
def test_round_trip_at_any_number_of_channels(channels, seed):
    values = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(recorrelate(decorrelate(values)), values, atol=1e-5, rtol=1e-5)
    assert (recorrelate(values) is values) is (channels != 3), "only three channels are colours"


def test_doubles_stay_doubles():
    values = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(decorrelate(recorrelate(values)), values, atol=1e-13, rtol=1e-13)
