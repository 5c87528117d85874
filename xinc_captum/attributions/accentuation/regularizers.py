"""What keeps an accentuated image near its seed: distance in a layer's features, or a ball in pixel space."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .reading import Layer


@dataclass(frozen=True)
class FeatureDistance:
    r"""Distance to the seed's activations at a layer, subtracted from the score.

    .. math:: d(a, a^0) = \mathrm{mean}_{hw}\Bigl(\sqrt{\textstyle\sum_c (a_{chw} - a^0_{chw})^2 + \epsilon^2} -
        \epsilon\Bigr), \quad \epsilon = s \cdot \mathrm{mean}_{hw} \lVert a^0_{hw} \rVert

    Symbols: a, a⁰ the activations of candidate and seed in the same view, s ``smooth``. The total to raise is
    f - weight · B · d, where B = Σ|∂f/∂p| / Σ|∂d/∂p| is measured at a small fixed perturbation of the seed, row by
    row. At the seed itself d has gradient zero, where the plain norm has the direction of rounding noise.

    Args:
        layer: whose activations are compared; None picks one early in the model that the images reach
            (``early_layer``).
        weight: 0 is no regulariser; 1 weighs score and distance alike.
        smooth: s; 0 is the original's plain norm.
        balance: a number fixes B instead of measuring it.

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), the regulariser; there s = 0 and B is measured
    at the seed.
    """

    layer: Layer | None = None
    weight: float = 1.0
    smooth: float = 0.01
    balance: float | None = None

    def __post_init__(self) -> None:
        if self.weight < 0 or self.smooth < 0:
            raise ValueError(
                f"FeatureDistance(weight={self.weight:g}, smooth={self.smooth:g}): wanted both at least 0."
            )

    def distance(self, candidate: Tensor, seed: Tensor, *, unit_axis: int | None = None) -> Tensor:
        """One d for each row of two activations: (rows,), float32 or wider.

        Args:
            candidate: (rows, units), or with places too.
            seed: likewise.
            unit_axis: which axis holds the units. None is the last of three axes, (rows, tokens, units), and axis 1
                otherwise; an accentuation gives the one that it determined for the layer.
        """
        a, b = (t if t.dtype == torch.float64 else t.float() for t in (candidate, seed))
        axis = unit_axis if unit_axis is not None else 2 if a.dim() == 3 else 1
        a, b = a.movedim(axis, 1), b.movedim(axis, 1)
        squares = (a - b).square().flatten(2).sum(1) if a.dim() > 2 else (a - b).square().sum(1, keepdim=True)
        if not self.smooth:
            positive = squares > 0  # sqrt has no gradient at exactly 0
            plain: Tensor = torch.where(positive, squares, 1.0).sqrt().where(positive, 0.0)
            return plain.mean(1)
        norms = b.flatten(2).norm(dim=1) if b.dim() > 2 else b.norm(dim=1, keepdim=True)
        epsilon = self.smooth * norms.mean(1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny ** 0.5)
        smooth: Tensor = (squares + epsilon.square()).sqrt() - epsilon
        return smooth.mean(1)


@dataclass(frozen=True)
class Ball:
    r"""The image stays within a radius of its seed, projected after every step.

    .. math:: \lVert x - x_0 \rVert_2 \le r \quad \text{or} \quad \lVert x - x_0 \rVert_\infty \le r

    Args:
        radius: r, in units of [0, 1]; the L2 norm is over all of a row's values.
        norm: "L2" or "Linf", as in ``captum.robust.PGD``.

    Example:
        >>> Ball(0.1, "Linf").project(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).max()
        tensor(0.6000)
    """

    radius: float
    norm: Literal["L2", "Linf"] = "L2"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.norm not in ("L2", "Linf"):
            raise ValueError(f'Ball({self.radius!r}, {self.norm!r}): wanted a radius above 0, and "L2" or "Linf".')

    def project(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The nearest images within the ball around the seeds: (N, C, H, W)."""
        change = images - seeds
        if self.norm == "Linf":
            return seeds + change.clamp(-self.radius, self.radius)
        length: Tensor = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
        share = (self.radius / length).clamp_max(1)
        return seeds + change * share.reshape(-1, *[1] * (change.dim() - 1))


Regularizer = FeatureDistance | Ball
