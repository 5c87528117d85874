"""The pictures a NeRN is distilled on: a tensor's, a loader's, or noise; the same after a resumption."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from .recipe import Recipe


def checked(images: Tensor) -> Tensor:
    """Images that a network can be shown.

    Raises:
        TypeError: no float tensor.
        ValueError: none, or NaN or infinite values.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images are {kind}; wanted a float tensor (n, …) as the target takes it.")
    if images.dim() < 2 or images.numel() == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; wanted (n, …), at least one image.")
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise ValueError(f"images hold NaN or infinite values in {bad} of {len(images)}; leave those images out.")
    return images


def held_out(images: Any, validation: Tensor | float, recipe: Recipe) -> tuple[Any, Tensor | None]:
    """What to train on, and what only to look at: given images, a share of a tensor, or noise of another seed."""
    if isinstance(images, Tensor):
        checked(images)
    if isinstance(validation, Tensor):
        return images, checked(validation)
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}; wanted images, or a share of them in [0, 1).")
    if isinstance(images, str) and images == "noise" and validation > 0:
        return images, _noise(recipe, torch.Generator().manual_seed(recipe.seed + 1))
    count = round(len(images) * validation) if isinstance(images, Tensor) else 0
    if count == 0:
        return images, None
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(recipe.seed)).to(images.device)
    return images[order[count:].sort().values], images[order[:count].sort().values]


def batches(images: Tensor | Iterable[Any] | str | None, recipe: Recipe) -> Iterator[Tensor | None]:
    """One batch a step, for ever; None where there are no images.

    Raises:
        TypeError: something else than a tensor, a loader, "noise" or None.
        ValueError: an unknown word, noise without a shape, or a loader that is empty or can be read only once.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    if images is None:
        return _nothing()
    if isinstance(images, Tensor):
        return _of_tensor(images, recipe.batch_size, generator)
    if isinstance(images, str):
        if images != "noise":
            raise ValueError(f"images is {images!r}; wanted a tensor, a loader, 'noise' or None.")
        _noise(recipe, torch.Generator().manual_seed(0))  # complain now, not in the first step
        return _noises(recipe, generator)
    if not isinstance(images, Iterable):
        raise TypeError(f"images is a {type(images).__name__}; wanted a tensor, a loader, 'noise' or None.")
    return _of_loader(images)


def _nothing() -> Iterator[None]:
    while True:
        yield None


def _of_tensor(images: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Every image once before any comes again."""
    left = torch.empty(0, dtype=torch.long)
    size = min(size, len(images))
    while True:
        if len(left) < size:
            left = torch.cat([left, torch.randperm(len(images), generator=generator)])
        yield images[left[:size].to(images.device)]
        left = left[size:]


def _of_loader(loader: Iterable[Any]) -> Iterator[Tensor]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield checked(batch[0] if isinstance(batch, list | tuple) else batch)
        if empty:
            raise ValueError(
                "the loader of images is empty, or gave its batches once and has no more; give a DataLoader, a list or "
                "another iterable that can be read again."
            )


def _noises(recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield _noise(recipe, generator)


def _noise(recipe: Recipe, generator: torch.Generator) -> Tensor:
    if recipe.noise_shape is None:
        raise ValueError("images='noise' needs noise_shape=, the shape of one image, for example (3, 32, 32).")
    low, high = recipe.noise_range
    shape = (recipe.batch_size, *recipe.noise_shape)
    # A range of its own for each picture. Independent values of one range are all alike to a network that pools: it
    # gives every such picture nearly the same answer, and then there is nothing to learn from the answers.
    ends = torch.rand(2, recipe.batch_size, *[1] * len(recipe.noise_shape), generator=generator) * (high - low) + low
    bottom, top = ends.amin(0), ends.amax(0)
    return bottom + (top - bottom) * torch.rand(shape, generator=generator)
