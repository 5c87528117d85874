"""The gradient-ascent loop, its optimizer, stopping at a level."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .parameterizations import Params
from .score import Evaluate


class DeadError(ValueError):
    """Rows whose score has no gradient at all."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"rows {rows} do not respond")
        self.rows = rows


MakeOptimizer = Callable[..., torch.optim.Optimizer]
OnStep = Callable[[int, Tensor, Tensor], bool | None]


@dataclass
class Climb:
    """What an ascent left behind; the parameters themselves were moved in place.

    Attributes:
        scores: mean score over the views of each step, before its update: (steps, N).
        distances: mean distance to the seed likewise, or None.
        mask: Σ of |∂score/∂image| over the steps that enter, (N, C, H, W).
        steps: updates made.
        interrupted: Ctrl-C ended it.
    """

    scores: Tensor
    distances: Tensor | None
    mask: Tensor
    steps: int
    interrupted: bool = False


def ascend(
    params: Params,
    draw: Callable[[], Tensor],
    evaluate: Evaluate,
    *,
    n_steps: int,
    lr: float = 0.05,
    optimizer: MakeOptimizer = torch.optim.Adam,
    weight: Tensor | float = 0.0,
    mask_every: int = 1,
    sign: Tensor | float = 1.0,
    live: Callable[[], Tensor] | None = None,
    on_step: OnStep | None = None,
    after: Callable[[int], bool | None] | None = None,
    rows: int | None = None,
) -> Climb:
    r"""Raise a score, an image's rows apart from one another.

    .. math:: p \leftarrow p + \mathrm{step}(\partial (s f - w d) / \partial p)

    Args:
        params: leaves with rows first, changed in place.
        draw: the images of the parameters, (N, C, H, W).
        evaluate: (images, step) to scores f (N,) and distances d (N,) or None.
        n_steps: updates.
        lr: step size.
        optimizer: called with (params, lr=lr); the originals use Adam.
        weight: w, a number or one a row.
        mask_every: with a distance, f's own gradient costs a pass more; it enters the mask every so many steps.
        sign: s, +1 raises and -1 lowers, a number or one a row.
        live: how much each row's gradient counts in the mask, (N,); None is 1.
        on_step: called with (step, images, scores) before each update; True ends the ascent there.
        after: called with the step after each update; True ends the ascent.
        rows: the number of images, where leaves with another first axis are shared by all of them
            (:class:`~xinc_captum.attributions.accentuation.Steepest` then takes such a leaf as a whole).

    Returns:
        scores, distances and the mask. Ctrl-C after the first update ends the ascent and keeps what there is.
    """
    moving = optimizer(params, lr=lr)
    for group in moving.param_groups:
        if "rows" in group and rows is not None:
            group["rows"] = rows
    scores: list[Tensor] = []
    distances: list[Tensor] = []
    mask = torch.zeros(())
    step = 0
    interrupted = False
    try:
        for step in range(n_steps):
            images = draw()
            pixels = images.detach().requires_grad_()
            score, distance = evaluate(pixels, step)
            scores.append(_while_live(score.detach(), live))
            if distance is not None:
                distances.append(distance.detach())
            score = score * sign
            gradient, own = _gradients(pixels, score, distance, weight, step % mask_every == 0)
            slope = own
            if own is not None:
                own = own.abs() if live is None else own.abs() * live().reshape(-1, *[1] * (own.dim() - 1))
                mask = mask + own if mask.dim() else own
            if on_step is not None and on_step(step, pixels.detach(), scores[-1]):
                break
            if step == 0 and slope is not None:
                _refuse_dead(slope)
            moves = torch.autograd.grad(images, params, -gradient, allow_unused=True)
            for p, move in zip(params, moves, strict=True):
                p.grad = move
            moving.step()
            step += 1
            if after is not None and after(step):
                break
    except KeyboardInterrupt:
        if step == 0:
            raise
        interrupted = True
    kept = min(len(scores), max(step, 1)) if interrupted else len(scores)
    return Climb(
        torch.stack(scores[:kept]),
        torch.stack(distances[:kept]) if distances else None,
        mask,
        step,
        interrupted,
    )


def _refuse_dead(gradient: Tensor) -> None:
    """Rows that nothing can move; the one time the ascent waits for the device."""
    lost = ~torch.isfinite(gradient).flatten(1).all(1)
    if bool(lost.any()):
        raise FloatingPointError(
            f"the score's gradient is NaN or infinite in image {int(lost.nonzero()[0])}; look for NaN in the model's "
            "weights, an overflow in half precision, or a square root or logarithm of 0 in preprocess."
        )
    alive = gradient.flatten(1).ne(0).any(1)
    if not bool(alive.all()):
        raise DeadError([row for row, lives in enumerate(alive.tolist()) if not lives])


def _while_live(score: Tensor, live: Callable[[], Tensor] | None) -> Tensor:
    return score if live is None else torch.where(live() > 0, score, torch.nan)


def _gradients(
    pixels: Tensor, score: Tensor, distance: Tensor | None, weight: Tensor | float, with_mask: bool
) -> tuple[Tensor, Tensor | None]:
    """Of the total, and of the score alone where expected: the second costs one more pass below the regulariser."""
    if distance is None:
        (own,) = torch.autograd.grad(score.sum(), pixels)
        return own, own
    if not with_mask:
        (total,) = torch.autograd.grad((score - weight * distance).sum(), pixels)
        return total, None
    (own,) = torch.autograd.grad(score.sum(), pixels, retain_graph=True)
    (away,) = torch.autograd.grad((weight * distance).sum(), pixels)
    return own - away, own


def balance(params: Params, draw: Callable[[], Tensor], evaluate: Evaluate, *, seed: int, rms: float = 0.01) -> Tensor:
    r"""How much steeper the score is than the distance, row by row: (N,), in float32.

    .. math:: B = \sum |\partial f / \partial p| \,/\, \sum |\partial d / \partial p|

    Measured at a fixed random perturbation of the images with the given root mean square, because at the seed
    itself the distance has no slope. The parameters are left as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        found = [p.clone() for p in params]
        noise = [torch.randn((1, *p.shape[1:]), generator=generator).to(p) for p in params]  # the same for every row
        start = draw()
        _move(params, found, noise, torch.full((len(start),), 1e-2).to(start))
        moved = (draw() - start).flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
        _move(params, found, noise, 1e-2 * rms / moved)
    images = draw()
    pixels = images.detach().requires_grad_()
    score, distance = evaluate(pixels, 0)
    sums = []
    for value, keep in ((score, True), (distance if distance is not None else score, False)):
        (gradient,) = torch.autograd.grad(value.sum(), pixels, retain_graph=keep)
        slopes = torch.autograd.grad(images, params, gradient, retain_graph=keep, allow_unused=True)
        sums.append(
            torch.stack([s.flatten(1).abs().sum(1, dtype=torch.float32) for s in slopes if s is not None]).sum(0)
        )
    with torch.no_grad():
        for p, value in zip(params, found, strict=True):
            p.copy_(value)
    return sums[0] / sums[1].clamp_min(torch.finfo(torch.float32).tiny)


def _move(params: Params, found: list[Tensor], noise: list[Tensor], by: Tensor) -> None:
    for p, value, n in zip(params, found, noise, strict=True):
        p.copy_(value + n * by.reshape(-1, *[1] * (p.dim() - 1)))


@dataclass
class Dosing:
    """Follows an ascent until each row's clean score reaches its level.

    Between the last step below a level and the first beyond it, the parameters are halved towards the crossing, so
    the answer lies on the level, and higher levels lie further along the same path.

    Args:
        params: moved by the ascent; rows first.
        clean: the score of the parameters' images as they are, (N,).
        start: the seed's score, (N,).
        level: where to stop, (N,).
    """

    params: Params
    clean: Callable[[], Tensor]
    start: Tensor
    level: Tensor
    halvings: int = 12
    reached: Tensor = field(init=False)
    _best: Tensor = field(init=False)
    _kept: list[Tensor] = field(init=False)
    _low: list[Tensor] = field(init=False)
    _last: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.sign = torch.where(self.level < self.start, -1.0, 1.0).to(self.start)
        self.reached = self.level == self.start
        self._best = self.start * self.sign
        self._kept, self._low, self._last = ([p.detach().clone() for p in self.params] for _ in range(3))

    def live(self) -> Tensor:
        """Which rows are still on their way: (N,), as numbers."""
        return (~self.reached).to(self.start)

    def after(self, _step: int) -> bool:
        """Look where the rows are now; True when all have arrived."""
        with torch.no_grad():
            score = self.clean() * self.sign
            arrived = ~self.reached & (score >= self.level * self.sign)
            better = ~self.reached & (score > self._best)
            self._best = torch.where(better, score, self._best)
            for kept, low, last, p in zip(self._kept, self._low, self._last, self.params, strict=True):
                low.copy_(torch.where(_rows(arrived, p), last, low))
                kept.copy_(torch.where(_rows(better, p), p, kept))
                last.copy_(p)
            self.reached = self.reached | arrived
        return bool(self.reached.all())

    def finish(self) -> Tensor:
        """Put every row on its level, or at the nearest it came to it; the scores there, (N,)."""
        with torch.no_grad():
            moved = self._best > self.start * self.sign
            below, above = torch.zeros_like(self.start), torch.ones_like(self.start)
            for _ in range(self.halvings):
                middle = (below + above) / 2
                self._place(middle)
                beyond = self.clean() * self.sign >= self.level * self.sign
                above = torch.where(beyond, middle, above)
                below = torch.where(beyond, below, middle)
            self._place(torch.where(moved & self.reached, above, torch.ones_like(above)))
            return self.clean()

    def _place(self, along: Tensor) -> None:
        for p, low, kept in zip(self.params, self._low, self._kept, strict=True):
            share = torch.where(
                _rows(self.reached, p),
                along.reshape(-1, *[1] * (p.dim() - 1)).to(p),
                torch.ones((), dtype=p.dtype, device=p.device),
            )
            p.copy_(low + (kept - low) * share)


def _rows(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (like.dim() - 1))


class Steepest(torch.optim.Optimizer):
    r"""Moves every row along its averaged gradient, always as far.

    .. math:: m \leftarrow \beta m + g, \qquad p \leftarrow p - \eta\, m / \mathrm{rms}(m)

    Symbols: g the gradient, m its running sum, β the momentum, η ``lr``: the root mean square of a step; rms is over
    each row (first axis) of a tensor. Adam moves every parameter as far, also those whose gradient is nothing but
    chance; here they stay,
    and the change is smoother and nearer to the seed (``benchmarks/cost_to_result.py``).

    Leaves that all images share, such as the weights and biases of a network that draws them, have no rows: rms is
    over the whole tensor. ``rows`` tells the two apart.

    Args:
        params: leaves of any shape; rows first, or shared.
        lr: η.
        momentum: β in [0, 1).
        rows: the number of rows; a leaf whose first axis has another length is shared. None takes the first axis of
            every leaf for rows.

    Example:
        >>> p = torch.zeros(1, 4, requires_grad=True)
        >>> p.grad = torch.tensor([[2.0, 0.0, 0.0, 0.0]])
        >>> Steepest([p], lr=0.5).step()
        >>> p.detach()
        tensor([[-1., 0., 0., 0.]])
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.5, *, rows: int | None = None
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; expected 0 <= momentum < 1.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "rows": rows})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; rows whose gradient is zero stay where they are."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                m = state["m"] = p.grad.clone() if "m" not in state else state["m"].mul_(group["momentum"]).add_(p.grad)
                shared = m.dim() == 0 or group["rows"] not in (None, m.shape[0])
                by_row = m.reshape(1 if shared else m.shape[0], -1)
                size = by_row.square().mean(1).sqrt().clamp_min(torch.finfo(m.dtype).tiny)
                p.sub_(group["lr"] * (by_row / size[:, None]).reshape(m.shape))
