"""The gradient-ascent loop, the weight of its regularizer, and stopping at a level."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...progress import progress
from .parameterizations import ImageParameters, Params, is_lucent_param_f
from .problem import Problem


@dataclass
class Trajectory:
    """The record of an optimization, whose parameters are changed in place.

    Attributes:
        scores: mean score over the views of each step, before its update: (steps, N).
        distances: mean distance to the seed likewise, or None.
        mask: Σ of |∂score/∂image| over every ``mask_every``-th step, (N, C, H, W).
        steps: number of updates.
        interrupted: it was stopped by Ctrl-C.
    """

    scores: Tensor
    distances: Tensor | None
    mask: Tensor
    steps: int
    interrupted: bool = False


def optimize(
    problem: Problem,
    parameters: ImageParameters,
    *,
    weight: Tensor | float = 0.0,
    stop: "StopAtLevel | None" = None,
    project: Callable[[], None] | None = None,
) -> Trajectory:
    r"""Raise the score of each image, independently of the others.

    .. math:: p \leftarrow p + \mathrm{step}(\partial (s f - w d) / \partial p)

    Symbols: p the parameters, f the score, d the distance, s = -1 where ``stop`` lowers the score of an image, else 1.

    Args:
        problem: the scores, distances and settings.
        parameters: leaves with rows first, changed in place, and the function that returns their images.
        weight: w, a number or one for each image.
        stop: ends the optimization of each image at its level.
        project: called after each update.

    Returns:
        scores, distances and the mask. Ctrl-C after the first update ends the optimization and returns what there is.
    """
    settings, (params, draw) = problem.settings, parameters
    optimizer = settings.optimizer(params, lr=settings.lr)  # default: Steepest in settings.py
    for group in optimizer.param_groups:
        if "rows" in group and is_lucent_param_f(settings.parameterization):  # leaves may be shared by all images
            group["rows"] = problem.batch.rows
    mask_every = settings.mask_every if problem.distance is not None else 1
    steps = progress(range(settings.n_steps), "optimization", show=True) if settings.show_progress else None
    sign = 1.0 if stop is None else stop.sign
    scores: list[Tensor] = []
    distances: list[Tensor] = []
    mask = torch.zeros(())
    step = 0
    interrupted = False
    try:
        for step in range(settings.n_steps):
            images = draw()
            # The gradient is taken to the pixels first, because the mask is made of it, and then to the parameters.
            pixels = images.detach().requires_grad_()
            score, distance = problem.evaluate(pixels, step)
            scores.append(score.detach() if stop is None else torch.where(stop.live() > 0, score.detach(), torch.nan))
            if distance is not None:
                distances.append(distance.detach())
            gradient, score_gradient = _gradients(pixels, score * sign, distance, weight, step % mask_every == 0)
            if score_gradient is not None:
                slope = score_gradient.abs()
                slope = slope if stop is None else slope * _expand(stop.live(), slope)
                mask = mask + slope if mask.dim() else slope
            if settings.on_step is not None and settings.on_step(step, pixels.detach(), scores[-1]):
                break
            if step == 0 and score_gradient is not None:
                _check_gradient(problem, score_gradient)
            updates = torch.autograd.grad(images, params, -gradient, allow_unused=True)
            for p, update in zip(params, updates, strict=True):
                p.grad = update
            optimizer.step()
            step += 1
            if steps is not None:
                next(steps, None)
            if project is not None:
                project()
            if stop is not None and stop.after(step):
                break
    except KeyboardInterrupt:
        if step == 0:
            raise
        interrupted = True
    n = min(len(scores), max(step, 1)) if interrupted else len(scores)
    return Trajectory(
        torch.stack(scores[:n]), torch.stack(distances[:n]) if distances else None, mask, step, interrupted
    )


def _check_gradient(problem: Problem, gradient: Tensor) -> None:
    """Raise where the score has no gradient; this is the only time that the loop waits for the device."""
    invalid = ~torch.isfinite(gradient).flatten(1).all(1)
    if bool(invalid.any()):
        raise FloatingPointError(
            f"the score's gradient is NaN or infinite in image {int(invalid.nonzero()[0])}; look for NaN in the "
            "model's weights, an overflow in half precision, or a square root or logarithm of 0 in preprocess."
        )
    zero = ~gradient.flatten(1).ne(0).any(1)
    if bool(zero.any()):
        rows = ", ".join(str(problem.batch.start + row) for row in zero.nonzero()[:, 0].tolist())
        raise ValueError(
            f"{problem.target_score.objective.name} does not respond: its gradient is zero everywhere in image {rows} "
            "(a dead or saturated unit). Choose another unit, the layer before its activation function, or another "
            "image."
        )


def _gradients(
    pixels: Tensor, score: Tensor, distance: Tensor | None, weight: Tensor | float, with_mask: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the objective and of the score alone; the latter costs a pass below the regularizer."""
    if distance is None:
        (of_score,) = torch.autograd.grad(score.sum(), pixels)
        return of_score, of_score
    if not with_mask:
        (total,) = torch.autograd.grad((score - weight * distance).sum(), pixels)
        return total, None
    (of_score,) = torch.autograd.grad(score.sum(), pixels, retain_graph=True)
    (of_distance,) = torch.autograd.grad((weight * distance).sum(), pixels)
    return of_score - of_distance, of_score


def balance(problem: Problem, parameters: ImageParameters, *, rms: float = 0.01) -> Tensor:
    r"""Return the ratio of the gradients of score and distance for each image: (N,), float32.

    .. math:: B = \sum |\partial f / \partial p| \,/\, \sum |\partial d / \partial p|

    It is measured at a fixed random perturbation of the images with the root mean square ``rms``, because at the seed
    itself the distance has no gradient. The parameters are restored.
    """
    params, draw = parameters
    generator = torch.Generator().manual_seed(problem.settings.seed)
    with torch.no_grad():
        originals = [p.clone() for p in params]
        noise = [torch.randn((1, *p.shape[1:]), generator=generator).to(p) for p in params]  # the same for every row
        start = draw()
        _perturb(params, originals, noise, torch.full((len(start),), 1e-2).to(start))
        change = (draw() - start).flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
        _perturb(params, originals, noise, 1e-2 * rms / change)
    images = draw()
    pixels = images.detach().requires_grad_()
    score, distance = problem.evaluate(pixels, 0)
    sums = []
    for value, keep in ((score, True), (distance if distance is not None else score, False)):
        (gradient,) = torch.autograd.grad(value.sum(), pixels, retain_graph=keep)
        slopes = torch.autograd.grad(images, params, gradient, retain_graph=keep, allow_unused=True)
        sums.append(
            torch.stack([s.flatten(1).abs().sum(1, dtype=torch.float32) for s in slopes if s is not None]).sum(0)
        )
    with torch.no_grad():
        for p, original in zip(params, originals, strict=True):
            p.copy_(original)
    return sums[0] / sums[1].clamp_min(torch.finfo(torch.float32).tiny)


def _perturb(params: Params, originals: list[Tensor], noise: list[Tensor], scale: Tensor) -> None:
    for p, original, n in zip(params, originals, noise, strict=True):
        p.copy_(original + n * _expand(scale, p))


@dataclass
class StopAtLevel:
    """Stops the optimization of each image when its score without random views reaches its level.

    Between the last step below a level and the first beyond it, the parameters are bisected towards the crossing, so
    the result lies on the level, and higher levels lie further along the same path.

    Args:
        params: the parameters that the optimization changes; rows first.
        score: returns the scores of the parameters' images without random views, (N,).
        start: the seeds' scores, (N,).
        level: where to stop, (N,).
    """

    params: Params
    score: Callable[[], Tensor]
    start: Tensor
    level: Tensor
    n_bisections: int = 12
    reached: Tensor = field(init=False)
    _best: Tensor = field(init=False)
    _best_params: list[Tensor] = field(init=False)
    _low_params: list[Tensor] = field(init=False)
    _last_params: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.sign = torch.where(self.level < self.start, -1.0, 1.0).to(self.start)
        self.reached = self.level == self.start
        self._best = self.start * self.sign
        copies = ([p.detach().clone() for p in self.params] for _ in range(3))
        self._best_params, self._low_params, self._last_params = copies

    def live(self) -> Tensor:
        """Return 1 for images that have not reached their level, else 0: (N,)."""
        return (~self.reached).to(self.start)

    def after(self, _step: int) -> bool:
        """Update the state after a step; return True when all images have reached their levels."""
        with torch.no_grad():
            score = self.score() * self.sign
            arrived = ~self.reached & (score >= self.level * self.sign)
            better = ~self.reached & (score > self._best)
            self._best = torch.where(better, score, self._best)
            for best, low, last, p in zip(
                self._best_params, self._low_params, self._last_params, self.params, strict=True
            ):
                low.copy_(torch.where(_expand(arrived, p), last, low))
                best.copy_(torch.where(_expand(better, p), p, best))
                last.copy_(p)
            self.reached = self.reached | arrived
        return bool(self.reached.all())

    def finish(self) -> Tensor:
        """Move every image to its level, or to its score nearest to it; return the scores, (N,)."""
        with torch.no_grad():
            improved = self._best > self.start * self.sign
            below, above = torch.zeros_like(self.start), torch.ones_like(self.start)
            for _ in range(self.n_bisections):
                middle = (below + above) / 2
                self._interpolate(middle)
                beyond = self.score() * self.sign >= self.level * self.sign
                above = torch.where(beyond, middle, above)
                below = torch.where(beyond, below, middle)
            self._interpolate(torch.where(improved & self.reached, above, torch.ones_like(above)))
            return self.score()

    def _interpolate(self, fraction: Tensor) -> None:
        for p, low, best in zip(self.params, self._low_params, self._best_params, strict=True):
            one = torch.ones((), dtype=p.dtype, device=p.device)
            p.copy_(low + (best - low) * torch.where(_expand(self.reached, p), _expand(fraction, p).to(p), one))


def _expand(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to broadcast against (N, ...)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
