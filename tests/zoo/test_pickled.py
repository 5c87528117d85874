import datetime
import os
import pickle

import numpy as np
import pytest

from xinc_captum.zoo import AssetError
from xinc_captum.zoo.pickled import ALLOWED, read_arrays


def written(tmp_path, content):
    (tmp_path / "arrays.pkl").write_bytes(content)
    return tmp_path / "arrays.pkl"


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_in_plain_containers(tmp_path, protocol):
    arrays = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3)], "b": (np.ones(2, np.float64), 3, "text", None)}
    read = read_arrays(written(tmp_path, pickle.dumps(arrays, protocol=protocol)))
    np.testing.assert_array_equal(read["a"][0], arrays["a"][0])
    assert read["a"][0].dtype == np.float32
    np.testing.assert_array_equal(read["b"][0], [1, 1])
    assert read["b"][1:] == (3, "text", None)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_spellings_of_numpy(tmp_path, module):
    content = pickle.dumps(np.arange(3, dtype=np.float32), protocol=3)
    content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    content = content.replace(b"numpy.core.multiarray", module)
    assert module in content
    np.testing.assert_array_equal(read_arrays(written(tmp_path, content)), [0, 1, 2])


class Evil:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system|nt.system"), (eval, "__builtin__.eval|builtins.eval"), (np.load, "numpy.load")],
)
def test_nothing_else_is_called(tmp_path, protocol, function, name):
    canary = tmp_path / "canary"
    evil = {"weights": [np.zeros(1), Evil(function, f"open({str(canary)!r}, 'w')")]}
    if protocol < 3:  # numpy's arrays ask for _codecs.encode there
        evil["weights"].pop(0)
    with pytest.raises(AssetError, match=rf"asks for ({name}).*wanted plain containers of numpy arrays.*not loaded"):
        read_arrays(written(tmp_path, pickle.dumps(evil, protocol=protocol)))
    assert not canary.exists()


@pytest.mark.parametrize(
    "thing", [datetime.date(2024, 1, 1), np.float32(1), {1, 2}.__class__, np.random.default_rng(0)]
)
def test_harmless_others_are_refused_too(tmp_path, thing):
    with pytest.raises(AssetError, match="wanted plain containers of numpy arrays"):
        read_arrays(written(tmp_path, pickle.dumps(thing)))


def test_objects_hidden_in_an_array_are_refused(tmp_path):
    hidden = np.array([Evil(os.getcwd)], dtype=object)
    with pytest.raises(AssetError, match="asks for posix.getcwd"):
        read_arrays(written(tmp_path, pickle.dumps(hidden)))


def test_a_torn_or_foreign_file(tmp_path):
    whole = pickle.dumps(np.arange(100.0))
    for content in (whole[:40], b"", b"no pickle"):
        with pytest.raises(AssetError, match=r"arrays.pkl is no whole pickle .*from its source again"):
            read_arrays(written(tmp_path, content))


def test_the_list_is_as_short_as_can_be():
    assert {name for _, name in ALLOWED} == {"_reconstruct", "ndarray", "dtype"}
    assert {module for module, _ in ALLOWED} == {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}
