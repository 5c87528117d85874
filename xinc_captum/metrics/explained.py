"""What clusters are about: how much of each response they explain, and whether one dominates."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .amounts import wide


class Explained(NamedTuple):
    """One response's share of variance that clusters explain.

    Attributes:
        share: η², 0 to 1.
        shuffled: the same with shuffled labels, (repeats,).
        resampled: ``share`` minus the mean of ``shuffled`` over bootstrap samples of the units, (repeats,).
    """

    share: float
    shuffled: Tensor
    resampled: Tensor

    @property
    def above(self) -> float:
        """The share minus what shuffled labels explain on average: any labels explain a little."""
        return self.share - float(self.shuffled.mean())

    @property
    def chance(self) -> float:
        """How often shuffled labels do as well: (1 + hits) / (1 + repeats)."""
        return (1 + int((self.shuffled >= self.share).sum())) / (1 + len(self.shuffled))


def share_explained(response: Tensor, labels: Tensor) -> float:
    r"""The share of a response's variance that lies between clusters.

    .. math:: \eta^2 = \mathrm{mean}_d \; \frac{\Sigma_k\, n_k (\bar r_{k,d} - \bar r_d)^2}
              {\Sigma_u\, (r_{u,d} - \bar r_d)^2}

    Symbols: r the response of unit u in dim d, k the clusters of n_k units. Dims that do not vary are left out.

    Args:
        response: (units, dims), or (units,).
        labels: (units,), integers.

    Returns:
        0 to 1; nan where nothing varies.

    Raises:
        ValueError: shapes that do not match, or a response that is not finite.

    Example:
        >>> share_explained(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 1, 1]))
        1.0

    Source: the correlation ratio of Pearson (1905).
    """
    rows = response if response.dim() == 2 else response[:, None]
    if labels.dim() != 1 or len(rows) != len(labels) or not rows.isfinite().all():
        raise ValueError(
            f"response has shape {tuple(response.shape)} and labels {tuple(labels.shape)}; wanted finite (units, dims) "
            "and (units,). Leave units without a response out of both."
        )
    return _share(wide(rows), _members(labels.to(rows.device)))


def what_dominates(
    responses: Mapping[str, Tensor], labels: Tensor, *, generator: torch.Generator, repeats: int = 200
) -> dict[str, Explained]:
    """The share that clusters explain of each response, against shuffled labels, with bootstrap samples of the units.

    Units without a response (nan) in any of them are left out of all, so that all are about the same units.

    Args:
        responses: by name, (units, dims), for example of :func:`unit_responses`.
        labels: (units,), clusters of the same units: where vectors left some out, index responses by their ``units``.
        generator: of the shuffles and samples.
        repeats: of both.

    Raises:
        ValueError: shapes that do not match, fewer than three units with all responses, or a single cluster.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> found = what_dominates({"motion": labels * 1.0}, labels, generator=torch.Generator().manual_seed(0))
        >>> found["motion"].share
        1.0

    Source: the paper's claim that clusters are dominated by motion (Padmanabhan et al., CVPR 2024), made a number.
    """
    rows = {name: wide(r if r.dim() == 2 else r[:, None]) for name, r in responses.items()}
    for name, row in rows.items():
        if labels.dim() != 1 or len(row) != len(labels):
            raise ValueError(
                f"{name} has shape {tuple(row.shape)} and labels {tuple(labels.shape)}; wanted (units, dims) and "
                "(units,)."
            )
    kept = torch.stack([row.isfinite().all(1) for row in rows.values()]).all(0)
    count = int(kept.sum())
    if count < 3:
        raise ValueError(f"{count} of {len(labels)} units have all responses; wanted at least 3.")
    rows = {name: row[kept] for name, row in rows.items()}
    device = generator.device
    member = _members(labels.to(kept.device)[kept])
    if member.shape[1] < 2:
        raise ValueError(f"all {count} units with responses are in one cluster; wanted at least two to tell apart.")
    orders = [torch.randperm(count, generator=generator, device=device).to(kept.device) for _ in range(repeats)]
    draws = [torch.randint(count, (count,), generator=generator, device=device).to(kept.device) for _ in range(repeats)]
    found = {}
    for name, row in rows.items():
        shuffled = torch.tensor([_share(row, member[order]) for order in orders], dtype=torch.float64)
        # a bootstrap sample repeats units, which any labels explain better: its own chance level is taken off
        resampled = [
            _share(row[d], member[d]) - _share(row[d], member[d][o]) for d, o in zip(draws, orders, strict=True)
        ]
        found[name] = Explained(_share(row, member), shuffled, torch.tensor(resampled, dtype=torch.float64))
    return found


def verdict(found: Mapping[str, Explained], name: str = "motion") -> str:
    """Whether clusters are dominated by one response: "supported here", or "not supported here", and why.

    Supported means: shuffled labels explain as much of it in at most 5 % of the cases, and in at least 95 % of the
    bootstrap samples of the units it is explained better than each other response.

    Raises:
        KeyError: no such response, or no other one to compare it with.

    Example:
        >>> some, none = torch.full((99,), 0.8), torch.full((99,), 0.1)
        >>> verdict({"motion": Explained(0.9, none, some), "edge": Explained(0.3, none, none)})
        'supported here: clusters explain 90 % of motion (10 % by chance) and 30 % of edge, the next'
    """
    others = [other for other in found if other != name]
    if name not in found or not others:
        raise KeyError(f"{name!r} and another response to compare it with; got {', '.join(found) or 'nothing'}")
    mine = found[name]
    best = max(others, key=lambda other: found[other].above)
    said = f"clusters explain {mine.share:.0%} of {name} ({float(mine.shuffled.mean()):.0%} by chance)"
    said = said.replace("%", " %")
    if not mine.chance <= 0.05:
        return f"not supported here: {said}, which shuffled labels reach in {100 * mine.chance:.0f} % of the draws"
    ahead = (mine.resampled > torch.stack([found[other].resampled for other in others]).amax(0)).double().mean()
    compared = f"{found[best].share:.0%} of {best}".replace("%", " %")
    if float(ahead) < 0.95:
        return f"not supported here: {said}, but {compared}; it leads in {100 * float(ahead):.0f} % of the samples"
    return f"supported here: {said} and {compared}, the next"


def _members(labels: Tensor) -> Tensor:
    """(units, clusters), 1 where a unit belongs."""
    return wide(labels[:, None] == labels.unique())


def _share(rows: Tensor, member: Tensor) -> float:
    centred = rows - rows.mean(0)
    total = centred.square().sum(0)
    means = (member.T @ centred) / member.sum(0).clamp_min(1)[:, None]
    between = (member.sum(0)[:, None] * means.square()).sum(0)
    varies = total > 1e-20 * len(rows) * rows.abs().amax(0).square().clamp_min(1e-300)
    return float((between[varies] / total[varies]).mean()) if varies.any() else float("nan")
