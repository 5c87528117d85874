"""The class ImageModel: a network with its preprocessing, labels and default layer."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .batch import output_tensor
from .images import centre_crop
from .metrics.statistics import Probability, class_scores, probabilities

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_LISTED = 8
DEFAULT_SIZE = 224  # of models whose input size is not known


@dataclass(frozen=True)
class Normalise:
    """Normalisation of images in [0, 1]: (x − mean) / std for each channel.

    The values are those of ``torchvision.transforms.v2.Normalize``, bit-identical. That class imports the compiler of
    torch, which takes seconds, and repeats a grey image to as many channels as the mean has; this one does neither.

    Args:
        mean: one number per channel.
        std: one number per channel.

    Example:
        >>> Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(torch.ones(1, 3, 2, 2)).max()
        tensor(1.)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised images (..., C, H, W), or raise ValueError for integers or another number of channels."""
        channels = len(self.mean)
        if images.dim() < 3 or images.shape[-3] != channels or not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats in [0, 1] of shape (N, "
                f"{channels}, H, W). read_photo() of xinc_captum.images makes such images of files."
            )
        mean, std = (images.new_tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class ResizeAndNormalise(Normalise):
    """Normalisation of images in [0, 1], after resizing where a model takes one input size only; differentiable.

    Images of another size are resized to ``size`` by an antialiased filter, which changes their aspect ratio if it
    differs. A bicubic filter may leave [0, 1] by a few percent.

    Args:
        mean: one number per channel.
        std: one number per channel.
        size: height and width of the model's input; None accepts every size.
        interpolation: "bilinear" or "bicubic".

    Example:
        >>> preprocess = ResizeAndNormalise((0.5,) * 3, (0.5,) * 3, (8, 8), "bicubic")
        >>> preprocess(torch.ones(2, 3, 30, 20)).shape
        torch.Size([2, 3, 8, 8])
    """

    size: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised images (N, C, H, W); ValueError as of :class:`Normalise`."""
        normalised = super().__call__(images)  # first, because it checks the images; the two operations commute
        if self.size is None or tuple(images.shape[-2:]) == self.size:
            return normalised
        batch = normalised if normalised.dim() == 4 else normalised[None]
        resized = nn.functional.interpolate(batch, self.size, mode=self.interpolation, antialias=True)
        return resized if normalised.dim() == 4 else resized[0]


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A network of images; called with images in [0, 1] it returns the network's output as one tensor.

    Args:
        name: its name in messages and on pages, for example that of :func:`xinc_captum.models.load_model`.
        model: the network, in eval mode.
        preprocess: from images in [0, 1] to the network's input.
        size: height and width of the images it was trained on; None if they are not known.
        labels: one for each column of the model's outputs; a single column is one class.
        probability: what the model's outputs are, as in :func:`xinc_captum.metrics.probabilities`.
        layer: dotted name of the default layer: the last convolutional map, or the last tokens with a gradient.
        tokens: how that layer arranges tokens, as text; empty if it is a map.
        crop: fraction of a photo's shorter side that :meth:`prepare` keeps, in (0, 1].
        source: where the network, its weights and its preprocessing were found, as text.
        output_fn: maps the network's output to the tensor to use; None uses :func:`~xinc_captum.batch.output_tensor`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> colours = ImageModel("mean", model, Normalise((0, 0, 0), (1, 1, 1)), 8, ("red", "green", "blue"))
        >>> images = colours.prepare(torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1).expand(3, 20, 30))
        >>> colours.top(images, k=1)
        [[('green', 0.42...)]]
        >>> colours.find("blu")
        2
    """

    name: str
    model: nn.Module = field(repr=False)
    preprocess: Callable[[Tensor], Tensor]
    size: int | None
    labels: tuple[str, ...] = field(repr=False)
    probability: Probability = field(default="auto", repr=False)
    layer: str | None = field(default=None, repr=False)
    tokens: str = field(default="", repr=False)
    crop: float = field(default=0.875, repr=False)
    source: str = field(default="", repr=False)
    output_fn: Callable[[Any], Tensor] | None = field(default=None, repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the outputs, usually logits (N, classes), of images (N, C, H, W) in [0, 1].

        Raises:
            TypeError: the network returns no tensor, or several and the choice is not clear; give ``output_fn``.
        """
        output = self.model(self.preprocess(images))
        return output_tensor(output, len(images)) if self.output_fn is None else self.output_fn(output)

    @property
    def channels(self) -> int | None:
        """Number of channels of the images, or None if the preprocessing does not define it."""
        return len(self.preprocess.mean) if isinstance(self.preprocess, Normalise) else None

    def to(self, device: torch.device | str | None) -> "ImageModel":
        """Move the network to a device, in place as ``torch.nn.Module.to`` does; None leaves it. Return this object."""
        if device is not None:
            self.model.to(device)
        return self

    def prepare(self, photo: Tensor) -> Tensor:
        """Return a photo as images of this model: (N, C, size, size) in [0, 1], on the model's device.

        The central square is cut out and resized as in :func:`xinc_captum.images.centre_crop`, with :attr:`crop`.
        Grey is repeated, or colour averaged, to the model's channels. Without ``size`` the photo keeps its size.

        Args:
            photo: (C, H, W) or (N, C, H, W) floats in [0, 1]; ValueError for anything else.
        """
        images = photo if photo.dim() == 4 else photo[None]
        if self.size is not None:
            images = centre_crop(images, self.size, self.crop)
        if self.channels is not None and images.shape[1] != self.channels:
            images = images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return images.to(next(self.model.parameters(), images))

    def label(self, index: int) -> str:
        """Return the name of a class, or raise IndexError."""
        if not 0 <= index < len(self.labels):
            raise IndexError(f"class {index} is not one of {self.name}; expected 0 to {len(self.labels) - 1}.")
        return self.labels[index]

    def find(self, text: str) -> int:
        """Return the class that ``text`` names by its number, its label, or a part of exactly one label.

        Case is ignored, unless two labels differ by case alone.

        Raises:
            ValueError: no label fits, or several do; the nearest ones are listed with their numbers.
        """
        name = text.strip()
        if name.removeprefix("-").isdecimal():
            if not 0 <= int(name) < len(self.labels):
                raise ValueError(f"class {name} is not one of {self.name}; expected 0 to {len(self.labels) - 1}.")
            return int(name)
        low = name.casefold()
        folded = [label.casefold() for label in self.labels]
        for fits in (
            [i for i, label in enumerate(self.labels) if label == name],
            [i for i, label in enumerate(folded) if label == low],
            [i for i, label in enumerate(folded) if low in label],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise ValueError(
                    f"{text!r} fits {len(fits)} classes of {self.name}: {self._list_names(fits)}. Give more of the "
                    "label, or the number."
                )
        close = difflib.get_close_matches(low, dict.fromkeys(folded), n=_MAX_LISTED, cutoff=0.5)
        near = [i for label in close for i, other in enumerate(folded) if other == label]
        hint = f"the nearest are {self._list_names(near)}" if near else f"they run from {self._list_names([0])} on"
        raise ValueError(f"{text!r} is in no label of {self.name}; {hint}. Give a part of a label, or a number.")

    def _list_names(self, indices: list[int]) -> str:
        names = ", ".join(f"{i} {self.labels[i]!r}" for i in indices[:_MAX_LISTED])
        return names if len(indices) <= _MAX_LISTED else f"{names} and {len(indices) - _MAX_LISTED} more"

    def top(self, images: Tensor, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the ``k`` most likely labels of each image (N, 3, H, W) in [0, 1], with their probabilities.

        Raises:
            TypeError: the model returns no tensor.
            ValueError: another shape, values outside [0, 1], k below 1, another number of labels than outputs, or a
                regression (``probability="none"``).
        """
        if images.dim() != 4:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (N, 3, H, W). For a single image, give image[None]."
            )
        low, high = (float(edge) for edge in images.detach().aminmax()) if images.numel() else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # negated, so that nan raises too
            raise ValueError(
                f"images lie in [{low:.3g}, {high:.3g}]; expected [0, 1], since {self.name} normalises them itself. "
                "Divide bytes by 255, and clamp values a little outside."
            )
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1 label.")
        if self.probability == "none":
            raise ValueError(f"{self.name} has probability='none', so its outputs rank no labels; call it instead.")
        if not len(images):
            return []
        with torch.no_grad():
            outputs = class_scores(self(images.to(next(self.model.parameters(), images))), len(images))
        if outputs.shape[1] != len(self.labels):
            raise ValueError(
                f"{self.name} has {len(self.labels)} labels for {outputs.shape[1]} outputs; expected one label for "
                "each output, in the order of the outputs."
            )
        chances = probabilities(outputs, self.probability)
        values, indices = chances.topk(min(k, chances.shape[1]), dim=1)
        return [
            [(self.labels[i], p) for i, p in zip(row, chance, strict=True)]
            for row, chance in zip(indices.tolist(), values.tolist(), strict=True)
        ]


def zero_image(model: ImageModel | nn.Module, size: int | None = None) -> Tensor:
    """Return one black image, (1, C, size, size), of the model's dtype and on its device."""
    known, channels = (model.size, model.channels) if isinstance(model, ImageModel) else (None, None)
    side = size or known or DEFAULT_SIZE
    network = model.model if isinstance(model, ImageModel) else model
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, channels or 3, side, side, dtype=like.dtype, device=like.device)
