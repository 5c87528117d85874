"""The measures of parts by name, each with what a change of it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .part_colour import part_lab, part_rgb
from .part_means import part_area, part_luminance
from .part_motion import part_motion
from .part_shape import part_centroid, part_ellipse, turn
from .part_texture import part_entropy, part_smooth_entropy


def difference(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """After - before.

    Example:
        >>> difference(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(2.0))
        tensor(2.)
    """
    return after - before


def relative(before: Tensor, after: Tensor, base: Tensor) -> Tensor:
    """(after - before) / base, as the paper counts areas; a base of 0 divides by 1.

    Example:
        >>> relative(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(2.0))
        tensor(1.)
    """
    return (after - before) / base.where(base != 0, 1.0)


def of_ellipses(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """Differences of eccentricities, the first column, and :func:`turn` of orientations, the second.

    Example:
        >>> of_ellipses(torch.tensor([0.5, 89.0]), torch.tensor([0.75, -89.0]), torch.zeros(2)).round(decimals=2)
        tensor([0.2500, 2.0000])
    """
    turned = turn(before[..., 1], after[..., 1])
    return torch.stack([after[..., 0] - before[..., 0], turned], -1)


@dataclass(frozen=True)
class Measure:
    """Numbers of each part of one picture.

    Attributes:
        columns: their names.
        of: pictures (n, C, H, W) and masks (n, parts, H, W) to (n, parts, columns); nan where a part has none.
        change: values before, after and at the base, (…, columns) each, to the change between before and after.
        smooth: whether gradients pass through ``of``, and first differences therefore say something.
    """

    columns: tuple[str, ...]
    of: Callable[[Tensor, Tensor], Tensor]
    change: Callable[[Tensor, Tensor, Tensor], Tensor] = difference
    smooth: bool = True


@dataclass(frozen=True)
class Movement:
    """Numbers of each part between two pictures.

    Attributes:
        columns: their names.
        between: pictures before and after, (n, C, H, W) each, and masks (n, parts, H, W) of those before, to
            (n, parts, columns).
    """

    columns: tuple[str, ...]
    between: Callable[[Tensor, Tensor, Tensor], Tensor]


MEASURES: dict[str, Measure | Movement] = {
    "area": Measure(("area",), part_area, relative),
    "luminance": Measure(("luminance",), part_luminance),
    "rgb": Measure(("red", "green", "blue"), part_rgb),
    "lab": Measure(("lightness", "green_red", "blue_yellow"), part_lab),
    "centroid": Measure(("row", "column"), part_centroid),
    "ellipse": Measure(("eccentricity", "orientation"), part_ellipse, of_ellipses),
    "smooth_entropy": Measure(("smooth_entropy",), part_smooth_entropy),
    "entropy": Measure(("entropy",), part_entropy, smooth=False),
    "motion": Movement(("down", "right", "speed"), part_motion),
}
"""Everything that can be asked for by name."""


def chosen(measures: Sequence[str | Measure | Movement]) -> list[Measure | Movement]:
    """The measures themselves, where some are given by name.

    Args:
        measures: keys of :data:`MEASURES`, or measures of one's own.

    Raises:
        ValueError: no measure, one that is unknown, or two columns of one name.

    Example:
        >>> [m.columns for m in chosen(["area", "ellipse"])]
        [('area',), ('eccentricity', 'orientation')]
    """
    if isinstance(measures, str) or not measures:
        raise ValueError(f"measures is {measures!r}; wanted a list of them, such as ['area', 'luminance'].")
    found = []
    for measure in measures:
        if isinstance(measure, str) and measure not in MEASURES:
            raise ValueError(f"measure {measure!r} is unknown; there are {', '.join(MEASURES)}, or a Measure of yours.")
        found.append(MEASURES[measure] if isinstance(measure, str) else measure)
    names = [column for measure in found for column in measure.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"column {twice[0]!r} comes from two of the measures; leave one out, or name it otherwise.")
    return found
