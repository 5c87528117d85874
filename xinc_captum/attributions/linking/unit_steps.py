"""Latents in which one unit takes the values it is told."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .latent_link import LatentLink

Direction = Literal["marginal", "partial", "within_class"]
Span = Literal["quantile", "minmax", "sd"]
Values = Tensor | Sequence[float] | Span


def unit_steps(
    link: LatentLink,
    r: Tensor,
    unit: int,
    values: Tensor,
    *,
    anchor: Tensor,
    own: Tensor,
    direction: Direction = "marginal",
    classes: Tensor | None = None,
) -> Tensor:
    r"""Latents on the way from an anchor along which a unit should take each value.

    .. math:: w_{ns} = a_n + (v_s - o_n)\, d_u, \qquad
        \text{partial: } w_{ns} = a_n + \mathrm{link}(r_n + (v_s - o_n) e_u) - \mathrm{link}(r_n)

    Symbols: a the anchor, o the unit's value there, d_u the link's direction. The paper sets r_u := v and leaves all
    other units as they are: that is ``direction="partial"`` with a = link(r) and o = r_u. The picture seldom follows:
    it has fewer degrees of freedom than there are units, and the others, which stay, say the opposite. The marginal
    direction lets the others go along as they do in the generator's own pictures.

    Args:
        link: a fitted link.
        r: representations, (n, units).
        unit: u.
        values: v, (S,).
        anchor: latents, (n, latent_dim).
        own: (n,).
        direction: one of three, see :meth:`LatentLink.direction`.
        classes: of the rows, (n,), where the link wants them.

    Returns:
        (n, S, latent_dim), in the anchor's dtype.

    Example:
        >>> r = torch.rand(50, 3)
        >>> link = LatentLink(ridge=0.0).fit(r, r @ torch.rand(3, 2))
        >>> w = link(r[:4])
        >>> unit_steps(link, r[:4], 0, torch.tensor([0.0, 1.0]), anchor=w, own=r[:4, 0]).shape
        torch.Size([4, 2, 2])

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865), tuning of one unit.
    """
    away = values.to(own)[None] - own[:, None]
    if direction != "partial":
        return anchor[:, None] + away.to(anchor)[..., None] * link.direction([unit], direction)[0].to(anchor)
    rows = r[:, None].repeat(1, len(values), 1)
    rows[..., unit] += away.to(r)
    many = None if classes is None else classes.repeat_interleave(len(values))
    linked: Tensor = link(rows.flatten(0, 1), many).unflatten(0, away.shape)
    base: Tensor = link(r, classes)
    return linked.to(anchor) + (anchor - base.to(anchor))[:, None]


def unit_values(link: LatentLink, unit: int, values: Values, steps: int = 5) -> Tensor:
    """The values a unit is to take, (S,) float64: those given, or ``steps`` of them over a span that the link knows.

    Args:
        link: a fitted link.
        unit: which.
        values: numbers, or the span ``"quantile"``, ``"minmax"`` or ``"sd"`` (:meth:`LatentLink.bounds`).
        steps: how many over a span.

    Raises:
        ValueError: no values, values that are not finite, an unknown span, or fewer than two steps.
    """
    if isinstance(values, str):
        if values not in get_args(Span):
            raise ValueError(f"values is {values!r}; wanted numbers, or the span 'quantile', 'minmax' or 'sd'.")
        if steps < 2:
            raise ValueError(f"steps is {steps}; wanted at least 2, from one end of the span to the other.")
        low, high = link.bounds([unit], values)[0].tolist()
        return torch.linspace(low, high, steps, dtype=torch.float64)
    given = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if given.dim() != 1 or not given.numel() or not given.isfinite().all():
        raise ValueError(
            f"values have shape {tuple(given.shape)}, {int((~given.isfinite()).sum())} of them not finite; wanted "
            "finite numbers, (S,), or the span 'quantile', 'minmax' or 'sd'."
        )
    return given
