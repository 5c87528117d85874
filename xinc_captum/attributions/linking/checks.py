"""Input validation of links."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .moments import Moments


def check_pairs(r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return representations (n, units) and latents (n, latent_dim) unchanged if they match.

    Raises:
        TypeError: not float tensors.
        ValueError: other shapes, or values that are not finite.
    """
    for name, value, columns in (("representations", r, "units"), ("latents", w, "latent_dim")):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} are {kind}; expected a float tensor.")
        if value.dim() != 2 or 0 in value.shape:
            raise ValueError(f"{name} have shape {tuple(value.shape)}; expected (n, {columns}), none of them 0.")
    if len(r) != len(w):
        raise ValueError(f"got {len(r)} representations and {len(w)} latents; expected one latent for each.")
    for name, value in (("representations", r), ("latents", w)):
        wrong = (~value.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise ValueError(
                f"{name} hold {len(wrong)} values that are not finite, the first at row {row}, column {column}. Leave "
                "such pairs out, and check the model and the generator that produced them."
            )
    return r, w


def check_sizes(r: Tensor, w: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """Return pairs unchanged if they have the link's sizes.

    Raises:
        ValueError: other sizes.
    """
    if (r.shape[1], w.shape[1]) != (moments.units, moments.latent_dim):
        raise ValueError(
            f"got pairs of ({r.shape[1]} units, {w.shape[1]} latents); the link has ({moments.units} units, "
            f"{moments.latent_dim} latents)."
        )
    return r, w


def check_representations(r: Tensor, units: int) -> Tensor:
    """Return representations unchanged if they have the link's number of units.

    Raises:
        TypeError: not a float tensor; integers would truncate the map's weights.
        ValueError: another shape.
    """
    if not isinstance(r, Tensor) or r.dim() != 2 or r.shape[1] != units:
        shape = tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__
        raise ValueError(f"representations have shape {shape}; the link has {units} units, expected (n, {units}).")
    if not r.is_floating_point():
        raise TypeError(f"representations are {r.dtype}; expected a float tensor.")
    return r


def check_classes(classes: Tensor | int | Sequence[int] | None, n: int) -> Tensor | None:
    """Return classes as (n,) integers; a single number is used for all samples.

    Raises:
        ValueError: another length or kind.
    """
    if classes is None:
        return None
    labels = torch.as_tensor(classes)
    if labels.dim() == 0:
        labels = labels.expand(n)
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"classes are {labels.dtype} of shape {tuple(labels.shape)}; expected integers, ({n},).")
    return labels


def check_units(units: int | Sequence[int] | Tensor, moments: Moments) -> Tensor:
    """Return units as an index from the front; all are in range and alive.

    Raises:
        IndexError: a unit out of range.
        TypeError: not integers.
        ValueError: no unit, or a dead one.
    """
    index = torch.as_tensor(units)
    if not index.numel():
        raise ValueError("units is empty; give at least one.")
    if index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise TypeError(f"units are {units!r}; expected an integer or a list of integers.")
    index = index.reshape(-1).to(moments.rr.device, torch.long)
    count = moments.units
    outside = ((index < -count) | (index >= count)).nonzero()[:, 0]
    if len(outside):
        raise IndexError(
            f"unit {int(index[outside[0]])} is out of range: the link has {count} units; expected a number in "
            f"[{-count}, {count - 1}]."
        )
    index = index % count
    dead = (~moments.alive[index]).nonzero()[:, 0]
    if len(dead):
        unit = int(index[dead[0]])
        raise ValueError(
            f"unit {unit} is dead: its value is {float(moments.r_min[unit]):g} in all {moments.n} pairs, so it has no "
            "direction. Choose a unit for which link.alive is True."
        )
    return index


def check_image_size(images: Tensor, generated: Tensor, error: RuntimeError) -> None:
    """Compare the shape of images on which a model failed with that of the generator's images, (n, C, H, W).

    Raises:
        ValueError: the shapes differ, which is then the likely cause of ``error``.
    """
    if images.shape[1:] != generated.shape[1:]:
        raise ValueError(
            f"the model fails on images of shape {tuple(images.shape[1:])} ({str(error).splitlines()[0]}); the link's "
            f"generator generates {tuple(generated.shape[1:])}. Give images of that size and number of channels, or a "
            "preprocess= that converts them."
        ) from error
