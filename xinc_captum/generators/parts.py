"""Where the parts of a generated picture are: told by a function of the picture, or fixed."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..metrics.part_means import check_parts
from .protocol import Generator, pictures_in_unit_range


class Parts(Protocol):
    """Draws pictures and says where their parts are; :class:`PictureParts` and :class:`FeatureParts` do."""

    @property
    def names(self) -> tuple[str, ...]:
        """One for each part."""
        ...

    def draw(self, generator: Generator, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (n, C, H, W) in [0, 1] and masks (n, parts, H, W) of latents (n, latent_dim)."""
        ...


class PictureParts:
    """Parts that a function of the picture finds, or that are at the same place in every picture.

    Args:
        masks: a function from pictures (n, C, H, W) in [0, 1] to masks (n, parts, H, W), bool or weights in [0, 1]; or
            the masks themselves, (parts, H, W), for all pictures. None: the whole picture is the one part.
        names: one for each part.

    Raises:
        ValueError: no names, names that repeat, or fixed masks of another number or shape, or with an empty one.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> generator = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> bright = PictureParts(lambda pictures: torch.cat([pictures, 1 - pictures], 1), ["ink", "paper"])
        >>> bright.draw(generator, torch.zeros(3, 4))[1].shape
        torch.Size([3, 2, 2, 2])
    """

    def __init__(
        self, masks: Callable[[Tensor], Tensor] | Tensor | None = None, names: Sequence[str] = ("picture",)
    ) -> None:
        self.names = tuple(names)
        self._masks = masks
        check_names(self.names)
        if isinstance(masks, Tensor):
            if masks.dim() != 3 or len(masks) != len(self.names):
                raise ValueError(
                    f"masks have shape {tuple(masks.shape)} for the parts {', '.join(self.names)}; wanted "
                    f"({len(self.names)}, H, W)."
                )
            empty = [name for name, mask in zip(self.names, masks, strict=True) if not bool(mask.any())]
            if empty:
                raise ValueError(f"the mask of {empty[0]!r} is empty; leave the part out.")
        elif masks is None and len(self.names) != 1:
            raise ValueError(f"names are {self.names} but no masks are given; the whole picture is one part.")

    def draw(self, generator: Generator, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and masks of latents.

        Raises:
            ValueError: masks that do not match the pictures or the names.
        """
        pictures = pictures_in_unit_range(generator, latents)
        if self._masks is None:
            return pictures, torch.ones_like(pictures[:, :1])
        if isinstance(self._masks, Tensor):
            masks = self._masks.to(pictures.device).expand(len(pictures), -1, -1, -1)
        else:
            masks = self._masks(pictures)
        check_parts(pictures, masks)
        if masks.shape[1] != len(self.names):
            raise ValueError(f"the masks have {masks.shape[1]} parts, the names are {', '.join(self.names)}.")
        return pictures, masks


def check_names(names: tuple[str, ...]) -> None:
    """Refuse parts without names of their own."""
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"names are {names}; wanted a different word for each part.")
