"""No public class keeps tensors or hooks in memory after its result is dropped."""

import warnings

import pytest
from contract.calls import every_call
from contract.storages import count_storages

CALLS = {}


def call_of(name):
    if not CALLS:
        CALLS.update(every_call())
    return CALLS[name]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two steps on random weights arrive nowhere
        yield


@pytest.mark.parametrize("name", list(every_call()))
def test_no_tensor_of_a_call_outlives_it(name):
    if name == "open_canvas":
        pytest.importorskip("zarr", reason="pip install '.[store]'")
    call = call_of(name)
    call()  # what is made once only, such as matrices of bounded caches
    stay, made = count_storages(call)
    assert made > 0
    assert stay == 0, f"{stay} of {made} storages stay"
