"""A trained network with what it takes to use one: how it wants its images, and what its outputs are called."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..metrics.probability import Probability, class_scores, probabilities

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SHOWN = 8


@dataclass(frozen=True)
class Normalise:
    """Images in [0, 1] as a network wants them: (x − mean) / std for each channel.

    Args:
        mean: one number a channel.
        std: one number a channel.

    Example:
        >>> Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(torch.ones(1, 3, 2, 2)).max()
        tensor(1.)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images, like the input: any float dtype, any device, differentiable.

        Args:
            images: (..., C, H, W).

        Raises:
            ValueError: whole numbers, or another number of channels.
        """
        channels = len(self.mean)
        if images.dim() < 3 or images.shape[-3] != channels or not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; wanted floats in [0, 1] of shape "
                f"(N, {channels}, H, W). read_photo() of xinc_captum.images makes such images of files."
            )
        mean, std = (images.new_tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier; called with images in [0, 1] it gives the logits.

    Args:
        name: what :func:`xinc_captum.zoo.classifier` calls it.
        model: the network, in eval mode.
        preprocess: from images in [0, 1] to what the network takes.
        size: height and width of the images it was trained on.
        labels: one for each column of the model's outputs; a single column is one class.
        probability: what the model's outputs are, as in :func:`xinc_captum.metrics.probabilities`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> colours = Classifier("mean", model, Normalise((0, 0, 0), (1, 1, 1)), 8, ("red", "green", "blue"))
        >>> images = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
        >>> colours.top(images, k=1)
        [[('green', 0.42...)]]
        >>> colours.find("blu")
        2
    """

    name: str
    model: nn.Module = field(repr=False)
    preprocess: Callable[[Tensor], Tensor]
    size: int
    labels: tuple[str, ...] = field(repr=False)
    probability: Probability = field(default="auto", repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) in [0, 1]."""
        logits: Tensor = self.model(self.preprocess(images))
        return logits

    def label(self, index: int) -> str:
        """The name of a class.

        Raises:
            IndexError: there is no such class.
        """
        if not 0 <= index < len(self.labels):
            raise IndexError(f"class {index} is not one of {self.name}; wanted 0 to {len(self.labels) - 1}.")
        return self.labels[index]

    def find(self, text: str) -> int:
        """The class that ``text`` means: its number, its label, or a part that only one label has.

        Upper and lower case are the same, unless that alone tells two labels apart.

        Raises:
            ValueError: no label, or several; the nearest ones are listed with their numbers.
        """
        wanted = text.strip()
        if wanted.removeprefix("-").isdecimal():
            if not 0 <= int(wanted) < len(self.labels):
                raise ValueError(f"class {wanted} is not one of {self.name}; wanted 0 to {len(self.labels) - 1}.")
            return int(wanted)
        low = wanted.casefold()
        folded = [label.casefold() for label in self.labels]
        for fits in (
            [i for i, label in enumerate(self.labels) if label == wanted],
            [i for i, label in enumerate(folded) if label == low],
            [i for i, label in enumerate(folded) if low in label],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise ValueError(
                    f"{text!r} fits {len(fits)} classes of {self.name}: {self._listed(fits)}. Give more of the label, "
                    "or the number."
                )
        close = difflib.get_close_matches(low, dict.fromkeys(folded), n=_SHOWN, cutoff=0.5)
        near = [i for label in close for i, other in enumerate(folded) if other == label]
        hint = f"the nearest are {self._listed(near)}" if near else f"they run from {self._listed([0])} on"
        raise ValueError(f"{text!r} is in no label of {self.name}; {hint}. Give a part of a label, or a number.")

    def _listed(self, indices: list[int]) -> str:
        shown = ", ".join(f"{i} {self.labels[i]!r}" for i in indices[:_SHOWN])
        return shown if len(indices) <= _SHOWN else f"{shown} and {len(indices) - _SHOWN} more"

    def top(self, images: Tensor, k: int = 5) -> list[list[tuple[str, float]]]:
        """The ``k`` likeliest labels of each image with their probabilities, likeliest first.

        The images are taken to the model's device and dtype.

        Args:
            images: (N, 3, H, W) in [0, 1].
            k: how many, if there are as many.

        Raises:
            TypeError: the model returns no tensor.
            ValueError: another shape, values outside [0, 1], fewer than one label asked for, another number of labels
                than outputs, or a regression (``probability="none"``).
        """
        if images.dim() != 4:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; wanted (N, 3, H, W). A single image wants [None]."
            )
        low, high = (float(edge) for edge in images.detach().aminmax()) if images.numel() else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # said so that nan fails
            raise ValueError(
                f"images lie in [{low:.3g}, {high:.3g}]; wanted [0, 1], since {self.name} normalises them itself. "
                "Divide bytes by 255, and clamp what lies a little outside."
            )
        if k < 1:
            raise ValueError(f"k is {k}; wanted at least 1 label.")
        if self.probability == "none":
            raise ValueError(f"{self.name} has probability='none', so its outputs rank no labels; call it instead.")
        if not len(images):
            return []
        with torch.no_grad():
            outputs = class_scores(self(images.to(next(self.model.parameters(), images))), len(images))
        if outputs.shape[1] != len(self.labels):
            raise ValueError(
                f"{self.name} has {len(self.labels)} labels for {outputs.shape[1]} outputs; wanted one label for each "
                "output, in the order of the outputs."
            )
        chances = probabilities(outputs, self.probability)
        values, indices = chances.topk(min(k, chances.shape[1]), dim=1)
        return [
            [(self.labels[i], p) for i, p in zip(row, chance, strict=True)]
            for row, chance in zip(indices.tolist(), values.tolist(), strict=True)
        ]


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 ImageNet labels that ship inside torchvision, in the usual order.

    Example:
        >>> imagenet_labels()[281]
        'tabby'
    """
    from torchvision.models import SqueezeNet1_1_Weights  # type: ignore[import-untyped]  # takes two seconds, so not above

    return tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])
