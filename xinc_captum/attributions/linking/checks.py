"""What a link refuses, and in which words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .moments import Moments

if TYPE_CHECKING:
    from .encoder import Encoder
    from .latent_link import LatentLink
    from .pairs import Pairs


def checked_pairs(r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Representations (n, units) and latents (n, latent_dim) that go together.

    Raises:
        TypeError: no tensors of floats.
        ValueError: other shapes, or values that are not finite.
    """
    for name, value, columns in (("representations", r, "units"), ("latents", w, "latent_dim")):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} are {kind}; expected a tensor of floats.")
        if value.dim() != 2 or 0 in value.shape:
            raise ValueError(f"{name} have shape {tuple(value.shape)}; expected (n, {columns}), none of them 0.")
    if len(r) != len(w):
        raise ValueError(f"got {len(r)} representations and {len(w)} latents; expected one latent for each.")
    for name, value in (("representations", r), ("latents", w)):
        wrong = (~value.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise ValueError(
                f"{name} hold {len(wrong)} values that are not finite, the first at row {row}, column {column}; leave "
                "such pairs out, and see why the model or the generator made them."
            )
    return r, w


def checked_sizes(r: Tensor, w: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """Pairs of the sizes that the link is of.

    Raises:
        ValueError: other sizes.
    """
    if (r.shape[1], w.shape[1]) != (moments.units, moments.latent_dim):
        raise ValueError(
            f"got pairs of ({r.shape[1]} units, {w.shape[1]} latents); the link is of ({moments.units}, "
            f"{moments.latent_dim})."
        )
    return r, w


def checked_representations(r: Tensor, units: int) -> Tensor:
    """Representations of the size that the link is of.

    Raises:
        TypeError: no floats; the map's weights would be cut to whole numbers with them.
        ValueError: another shape.
    """
    if not isinstance(r, Tensor) or r.dim() != 2 or r.shape[1] != units:
        seen = tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__
        raise ValueError(f"representations have shape {seen}; the link is of {units} units, so it wants (n, {units}).")
    if not r.is_floating_point():
        raise TypeError(f"representations are {r.dtype}; expected a tensor of floats.")
    return r


def checked_classes(classes: Tensor | int | Sequence[int] | None, n: int) -> Tensor | None:
    """Classes as (n,) whole numbers; one number stands for all rows.

    Raises:
        ValueError: another length or kind.
    """
    if classes is None:
        return None
    found = torch.as_tensor(classes)
    if found.dim() == 0:
        found = found.expand(n)
    if found.shape != (n,) or found.is_floating_point() or found.dtype == torch.bool:
        raise ValueError(f"classes are {found.dtype} of shape {tuple(found.shape)}; expected whole numbers, ({n},).")
    return found


def checked_same_kind(first: "LatentLink", second: "LatentLink") -> None:
    """Let links be merged only if their pairs can stand together.

    Raises:
        ValueError: another variant, ridge or reservoir, or classes on one side only.
    """
    if (first.variant, first.ridge) != (second.variant, second.ridge):
        raise ValueError(
            f"got a {second.variant} link with ridge {second.ridge!r} to merge into a {first.variant} link with ridge "
            f"{first.ridge!r}; expected the same."
        )
    first.reservoir.check_alike(second.reservoir)
    seen = [link for link in (first, second) if link.map is not None]
    if len({link.class_means is None for link in seen}) > 1:
        raise ValueError("one link saw classes and the other did not; give them to both or neither.")


def checked_units(units: int | Sequence[int] | Tensor, moments: Moments) -> Tensor:
    """Units as an index, all of them in range and alive.

    Raises:
        IndexError: a unit out of range.
        TypeError: no whole numbers.
        ValueError: no unit, or a dead one.
    """
    index = torch.as_tensor(units)
    if not index.numel():
        raise ValueError("units is empty; give at least one.")
    if index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise TypeError(f"units are {units!r}; expected a whole number or a list of them.")
    index = index.reshape(-1).to(moments.rr.device, torch.long)
    count = moments.units
    outside = ((index < -count) | (index >= count)).nonzero()[:, 0]
    if len(outside):
        raise IndexError(
            f"unit {int(index[outside[0]])} is out of range: the link is of {count} units, so it must lie in "
            f"[{-count}, {count - 1}]."
        )
    index = index % count
    dead = (~moments.alive[index]).nonzero()[:, 0]
    if len(dead):
        unit = int(index[dead[0]])
        raise ValueError(
            f"unit {unit} is dead: it was {float(moments.r_min[unit]):g} in all {moments.n} pairs, so nothing can be "
            "said of it."
        )
    return index


def checked_size(pictures: Tensor, drawn: Tensor, error: RuntimeError) -> None:
    """Pictures (n, C, H, W) that made a model fail, beside what the generator draws.

    Raises:
        ValueError: they are of another size or colour, which is then the likely cause.
    """
    if pictures.shape[1:] != drawn.shape[1:]:
        raise ValueError(
            f"the model cannot take pictures of shape {tuple(pictures.shape[1:])} ({str(error).splitlines()[0]}); the "
            f"generator of the link draws {tuple(drawn.shape[1:])}. Give pictures of that size and colour, or a "
            "preprocess= that makes them so."
        ) from error


def checked_encoder(encoder: "Encoder", pairs: "Pairs", read: Tensor) -> None:
    """What an encoder reads, (n, units), is what pairs are of.

    Raises:
        ValueError: another layer, another side of it, or another number of units.
    """
    said, linked = encoder.describe(), pairs.manifest
    layer, own, side = linked.get("layer"), said["layer"], linked.get("attribute_to_neuron_input")
    other = isinstance(layer, str) and not f".{own}".endswith(f".{layer}") and not f".{layer}".endswith(f".{own}")
    turned = side is not None and bool(side) is not said["attribute_to_neuron_input"]
    if other or turned or read.shape[1] != pairs.representations.shape[1]:
        of = "input" if said["attribute_to_neuron_input"] else "output"
        expected = (
            f", the {'output' if side is False else 'input'} of layer {layer!r}" if isinstance(layer, str) else ""
        )
        raise ValueError(
            f"the encoder reads the {of} of layer {own!r}, {read.shape[1]} units; the pairs are of "
            f"{pairs.representations.shape[1]}{expected}. Give an encoder of the layer and side that they were made of."
        )
