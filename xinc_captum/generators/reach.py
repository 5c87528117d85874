"""By how much each unit is turned, and where in the latent that leads."""

import copy
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Kind = Literal["marginal", "partial", "within_class"]
Reach = float | Literal["minmax", "quantile"]


class Link(Protocol):
    """What is needed of a fitted :class:`LatentLink`: directions, ranges and which units live."""

    @property
    def alive(self) -> Tensor:
        """(units,), bool."""
        ...

    @property
    def r_sd(self) -> Tensor:
        """(units,), of the representations."""
        ...

    def direction(self, units: Any, kind: Any = "marginal") -> Tensor:
        """(k, latent_dim), change of the latent per unit change of r_u."""
        ...

    def bounds(self, units: Any, kind: Any = "minmax") -> Tensor:
        """(k, 2), lowest and highest value."""
        ...


def chosen_units(link: Link, units: Tensor | list[int] | range | None) -> Tensor:
    """The units asked for, on the CPU; None: all that live.

    Raises:
        ValueError: none, one out of range, one twice, or a dead one.

    Example:
        >>> from types import SimpleNamespace
        >>> chosen_units(SimpleNamespace(alive=torch.tensor([True, False, True])), None)
        tensor([0, 2])
    """
    alive = link.alive.cpu()
    if units is None:
        return alive.nonzero()[:, 0]
    asked = torch.as_tensor(list(units) if not isinstance(units, Tensor) else units).cpu().long()
    if asked.dim() != 1 or not len(asked) or int(asked.min()) < 0 or int(asked.max()) >= len(alive):
        raise ValueError(f"units are {_few(asked)}; wanted some of 0 to {len(alive) - 1}, the link's units.")
    if len(asked.unique()) != len(asked):
        raise ValueError(f"units are {_few(asked)}; one is asked for twice.")
    dead = asked[~alive[asked]]
    if len(dead):
        raise ValueError(
            f"units {_few(dead)} are dead: they never varied when the link was fitted, so it knows no direction for "
            "them. Leave them out, or give units=None for all that live."
        )
    return asked


def steps(
    link: Link,
    units: Tensor,
    rows: int,
    reach: Reach,
    direction: Kind,
    representations: Tensor | None,
    as_long_as: Link | None = None,
) -> tuple[Tensor, Tensor]:
    """Directions (units, latent_dim) and, for each base, how far down and up: (units, rows, 2) or (units, 1, 2).

    Directions are stretched to the lengths of those of ``as_long_as``, if one is given.

    Raises:
        ValueError: a reach that is neither positive nor a name, or representations missing or of another shape.
    """
    moves = link.direction(units, kind=direction)
    if as_long_as is not None:
        if len(as_long_as.alive) != len(link.alive):
            raise ValueError(
                f"the null has {len(link.alive)} units, the link {len(as_long_as.alive)}; fit both on the same pairs."
            )
        wanted = as_long_as.direction(units, kind=direction).norm(dim=1, keepdim=True)
        moves = moves * wanted / moves.norm(dim=1, keepdim=True).clamp_min(torch.finfo(moves.dtype).tiny)
    if isinstance(reach, str):
        if reach not in ("minmax", "quantile"):
            raise ValueError(f"reach is {reach!r}; wanted a number of standard deviations, 'minmax' or 'quantile'.")
        if representations is None or representations.shape != (rows, len(link.alive)):
            shape = None if representations is None else tuple(representations.shape)
            raise ValueError(
                f"reach {reach!r} sets each unit to a value, so the bases' own representations are needed, "
                f"({rows}, {len(link.alive)}); got {shape}."
            )
        own = representations[:, units.to(representations.device)].T.to(moves)
        return moves, link.bounds(units, kind=reach).to(moves)[:, None] - own[:, :, None]
    if not reach > 0:
        raise ValueError(f"reach is {reach}; wanted a positive number of standard deviations.")
    far = reach * link.r_sd[units.to(link.r_sd.device)].to(moves)
    return moves, torch.stack([-far, far], 1)[:, None]


def shuffled_link(
    link: Any,
    representations: Tensor,
    latents: Tensor,
    classes: Tensor | None = None,
    *,
    generator: torch.Generator,
) -> Any:
    """The same link, fitted on pairs whose latents are exchanged (within classes, where classes are given).

    It knows as much of each unit's values and of the latents as the real one, and nothing of what belongs together.

    Args:
        link: any with ``fit(r, w, classes)``, left as it is.
        representations: the pairs that it was fitted on, (n, units).
        latents: likewise, (n, latent_dim).
        classes: (n,), or None.
        generator: of the exchange.

    Returns:
        a fitted copy, to be given to :func:`quantify` as ``null``.

    Example:
        >>> from types import SimpleNamespace
        >>> link = SimpleNamespace(fit=lambda r, w, classes: w)
        >>> kept = shuffled_link(link, torch.zeros(3, 2), torch.eye(3), generator=torch.Generator().manual_seed(0))
        >>> kept is not link
        True
    """
    order = torch.arange(len(latents))
    groups = (
        [order] if classes is None else [(classes.cpu() == label).nonzero()[:, 0] for label in classes.cpu().unique()]
    )
    for rows in groups:
        order[rows] = rows[torch.randperm(len(rows), generator=generator)]
    null = link.blank() if hasattr(link, "blank") else copy.deepcopy(link)
    null.fit(representations, latents[order.to(latents.device)], classes)
    return null


def _few(units: Tensor) -> str:
    shown = ", ".join(str(u) for u in units.flatten()[:6].tolist())
    return f"[{shown}{', …' if units.numel() > 6 else ''}]"
