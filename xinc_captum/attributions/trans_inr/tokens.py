"""Pictures as rows of tokens, one a patch, whatever their size and however little of them is seen."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...inr.layers import seeded


class PatchTokens(nn.Module):
    r"""One token a patch: its pixels through a Linear, plus a learned vector for its place.

    .. math:: t_p = W\, [x_p, m_p] + b + E_p

    Symbols: x_p the pixels of all C channels of patch p (channel-major), zeros in the padding; m_p, with
    ``pixel_mask``, one number a pixel, 1 where it is seen; E the table of places, (1, dim, rows, columns), drawn
    from N(0, init_std²). For a picture of another size E is interpolated bilinearly between the places' centres.

    Args:
        channels: C.
        size: (H, W) that the table is made for.
        patch: side of a patch in pixels, or its (height, width); patches do not overlap.
        dim: numbers a token.
        padding: pixels of zeros on every side.
        pixel_mask: whether single pixels can be unseen; the mask is then part of what is read.
        init_std: standard deviation of the first table.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: sizes that do not tile, now or of a later picture.

    Example:
        >>> tokens, seen = PatchTokens(1, (8, 8), 2, 24)(torch.rand(5, 1, 8, 12))
        >>> tokens.shape, seen
        (torch.Size([5, 24, 24]), None)

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 3.2;
    interpolated places as in Dosovitskiy et al. (ICLR 2021), sec. 3.2; the mask of pixels is ours.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        patch: int | tuple[int, int],
        dim: int,
        *,
        padding: int = 0,
        pixel_mask: bool = False,
        init_std: float = 0.3,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.patch, self.padding, self.pixel_mask = channels, sides_of(patch), padding, pixel_mask
        rows, columns = self.grid(size)
        height, width = self.patch
        with seeded(seed):
            self.linear = nn.Linear(height * width * (channels + pixel_mask), dim)
            self.places = nn.Parameter(torch.randn(1, dim, rows, columns) * init_std)

    def grid(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of patches in a picture of (H, W) pixels; errors as for :meth:`tiled`."""
        return self.tiled(size, self.patch, self.padding)

    @staticmethod
    def tiled(size: tuple[int, ...], patch: int | tuple[int, int], padding: int) -> tuple[int, int]:
        """Rows and columns of patches in a padded picture of (H, W) pixels.

        Raises:
            ValueError: it does not tile, a patch below 1 or of another form, or a padding below 0.
        """
        sides = sides_of(patch)
        if padding < 0:
            raise ValueError(f"padding is {padding}; wanted at least 0.")
        whole = [side + 2 * padding for side in size]
        if len(size) != 2 or any(side < step or side % step for side, step in zip(whole, sides, strict=True)):
            pairs = zip(whole, sides, strict=False)
            good = tuple(max(round(side / step), 1) * step - 2 * padding for side, step in pairs)
            raise ValueError(
                f"a picture of {tuple(size)} pixels with padding {padding} does not tile into patches of {sides[0]} x "
                f"{sides[1]}; wanted sides that do, such as {good}: crop, pad or resize it."
            )
        return whole[0] // sides[0], whole[1] // sides[1]

    def forward(self, images: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, C, H, W) to tokens (B, patches, dim), row by row, and which of them are seen (None: all).

        Args:
            images: pictures, all of one size.
            seen: bool; of patches, (patches,) or (B, patches); with ``pixel_mask`` of pixels, (H, W) or (B, H, W).
                Values of what is not seen are not looked at.

        Raises:
            ValueError: images of other channels or a size that does not tile, or ``seen`` of another shape or dtype.
        """
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(f"images have shape {tuple(images.shape)}; wanted (N, {self.channels}, H, W).")
        if images.dtype != self.linear.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            kind = self.linear.weight.dtype
            raise ValueError(f"images are {images.dtype} and the weights {kind}; give images.to({kind}), in [0, 1].")
        rows, columns = self.grid(tuple(images.shape[2:]))
        patches = seen = None if seen is None else self.mask(seen, images)
        if seen is not None and self.pixel_mask:
            patches = self._unfolded(seen[:, None].to(images)).any(-1)
        if self.pixel_mask:
            mask = torch.ones_like(images[:, :1]) if seen is None else seen[:, None].to(images)
            images = torch.cat([images.where(mask > 0, 0), mask], 1)
        tokens = self.linear(self._unfolded(images)) + self._placed((rows, columns))
        return tokens, patches

    def _unfolded(self, images: Tensor) -> Tensor:
        return F.unfold(images, self.patch, padding=self.padding, stride=self.patch).mT

    def _placed(self, grid: tuple[int, int]) -> Tensor:
        table: Tensor = self.places
        if tuple(table.shape[2:]) != grid:
            table = F.interpolate(table, grid, mode="bilinear", align_corners=False)
        return table.flatten(2).mT

    def mask(self, seen: Tensor, images: Tensor) -> Tensor:
        """What is seen of each of ``images``: (B, patches), or (B, H, W) with ``pixel_mask``.

        Raises:
            ValueError: ``seen`` of another shape or dtype.
        """
        rows, columns = self.grid(tuple(images.shape[2:]))
        shape = (len(images), *(images.shape[2:] if self.pixel_mask else (rows * columns,)))
        if seen.dtype != torch.bool or tuple(seen.shape) not in (shape, shape[1:]):
            what = "pixels" if self.pixel_mask else "patches; pixel_mask=True makes a model that can miss single pixels"
            raise ValueError(
                f"seen is {seen.dtype} of shape {tuple(seen.shape)}; wanted torch.bool of shape {shape[1:]} or {shape}:"
                f" one for each of the {what}."
            )
        return seen.expand(shape)


def sides_of(patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a patch.

    Raises:
        ValueError: neither a number nor two, or below 1.

    Example:
        >>> sides_of(3), sides_of((2, 5))
        ((3, 3), (2, 5))
    """
    sides = (patch, patch) if isinstance(patch, int) else tuple(patch) if isinstance(patch, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"patch is {patch!r}; wanted a side in pixels, at least 1, or (height, width).")
    return sides[0], sides[1]
