"""By how much each unit is turned, and where in the latent that leads."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..latent_link import LatentLink

Kind = Literal["marginal", "partial", "within_class"]
Reach = float | Literal["minmax", "quantile"]


def chosen_units(link: LatentLink, units: Tensor | list[int] | range | None) -> Tensor:
    """The units asked for, on the CPU; None: all that live.

    Raises:
        ValueError: none, one out of range, one twice, or a dead one.

    Example:
        >>> r = torch.rand(9, 3)
        >>> chosen_units(LatentLink().fit(r * torch.tensor([1.0, 0.0, 1.0]), r), None)
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


@dataclass(frozen=True, eq=False)
class Steps:
    """Where each unit leads from each base, block by block.

    Attributes:
        link: fitted.
        units: of it, (k,).
        rows: number of bases.
        reach: how far: standard deviations, or the name of the link's bounds.
        kind: of direction.
        representations: of the bases, (rows, units), where ``reach`` is a name.
        null: (v, latent_dim) directions taken instead, each stretched to the length of a unit's own: row i to that of
            unit i modulo k.
    """

    link: LatentLink
    units: Tensor
    rows: int
    reach: Reach
    kind: Kind
    representations: Tensor | None = None
    null: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what does not fit, before any picture is drawn."""
        if isinstance(self.reach, str):
            if self.reach not in ("minmax", "quantile"):
                raise ValueError(
                    f"reach is {self.reach!r}; wanted a number of standard deviations, 'minmax' or 'quantile'."
                )
            wanted, own = (self.rows, len(self.link.alive)), self.representations
            if own is None or own.shape != wanted:
                raise ValueError(
                    f"reach {self.reach!r} sets each unit to a value, so the bases' own representations are needed, "
                    f"{wanted}; got {None if own is None else tuple(own.shape)}."
                )
        elif not self.reach > 0:
            raise ValueError(f"reach is {self.reach}; wanted a positive number of standard deviations.")
        width = self.link.direction(self.units[:1], self.kind).shape[1]
        if self.null is not None and (self.null.dim() != 2 or not len(self.null) or self.null.shape[1] != width):
            raise ValueError(
                f"null has shape {tuple(self.null.shape)}; wanted directions (any number, {width}), as "
                "shuffled_directions() gives them."
            )

    def __len__(self) -> int:
        """How many directions."""
        return len(self.units) if self.null is None else len(self.null)

    def block(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Directions (block, latent_dim), and how far down and up from each base, (block, rows or 1, 2)."""
        units = self.units[torch.arange(begin, end) % len(self.units)]
        moves = self.link.direction(units, self.kind)
        if self.null is not None:
            other = self.null[begin:end].to(moves)
            lengths = other.norm(dim=1, keepdim=True).clamp_min(torch.finfo(moves.dtype).tiny)
            moves = other * moves.norm(dim=1, keepdim=True) / lengths
        if isinstance(self.reach, str):
            own = self._own(units).to(moves)
            return moves, self.link.bounds(units, self.reach).to(moves)[:, None] - own[:, :, None]
        far = self.reach * self.link.r_sd.to(moves)[units]
        return moves, torch.stack([-far, far], 1)[:, None]

    def _own(self, units: Tensor) -> Tensor:
        held = self.representations
        if held is None:  # __post_init__ has seen to it
            raise ValueError("representations of the bases are needed.")
        return held[:, units.to(held.device)].T


def _few(units: Tensor) -> str:
    shown = ", ".join(str(u) for u in units.flatten()[:6].tolist())
    return f"[{shown}{', …' if units.numel() > 6 else ''}]"
