"""Controls that keep what is uninteresting and break what is asked about."""

import torch
from torch import Tensor


def shuffled_units(amounts: Tensor, generator: torch.Generator) -> Tensor:
    """At every pixel, the same amounts handed to other units: nobody has a place of their own any more.

    Args:
        amounts: (units, *size).
        generator: on the amounts' device.

    Returns:
        (units, *size); each pixel keeps its values.

    Example:
        >>> shuffled_units(torch.tensor([[1.0], [2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffled(amounts, 0, generator)


def shuffled_pixels(amounts: Tensor, generator: torch.Generator) -> Tensor:
    """For every unit, the same amounts at other pixels: units no longer meet at the places where they met.

    Args:
        amounts: (units, *size).
        generator: on the amounts' device.

    Returns:
        (units, *size); each unit keeps its values.

    Example:
        >>> shuffled_pixels(torch.tensor([[1.0, 2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffled(amounts.flatten(1), 1, generator).view_as(amounts)


def shifts(size: tuple[int, ...], repeats: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Random offsets, none of them zero: what leaves the picture on one side comes back on the other.

    Rolling keeps areas, shapes and smoothness and breaks only the place, which random pixels would not.

    Raises:
        ValueError: a picture of one pixel, or no repeats.

    Example:
        >>> shifts((1, 2), 2, torch.Generator())
        [(0, 1), (0, 1)]
    """
    pixels = torch.Size(size).numel()
    if pixels < 2 or repeats < 1:
        raise ValueError(f"got {pixels} pixel(s) and {repeats} repeats; a shifted control wants at least 2 and 1.")
    flat = torch.randint(1, pixels, (repeats,), generator=generator, device=generator.device)
    return list(zip(*(axis.tolist() for axis in torch.unravel_index(flat, size)), strict=True))


def shuffled_within(rows: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
    """The same rows, each class's handed round among its members: nothing is left but the class.

    Args:
        rows: (n, columns).
        classes: (n,).
        generator: decides who gets whose.

    Returns:
        (n, columns); each class keeps its rows.

    Raises:
        ValueError: not one class a row.

    Example:
        >>> shuffled_within(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), torch.Generator())
        tensor([[1.],
                [2.]])
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; wanted one a row.")
    order = torch.arange(len(rows))
    for c in classes.unique().cpu():
        own = (classes.cpu() == c).nonzero()[:, 0]
        keys = torch.rand(len(own), generator=generator, device=generator.device).cpu()
        order[own] = own[keys.argsort()]
    return rows[order.to(rows.device)]


def _shuffled(values: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Along one dim, in an order of its own for every place on the others."""
    keys = torch.rand(values.shape, generator=generator, device=generator.device)
    return values.gather(dim, keys.argsort(dim).to(values.device))
