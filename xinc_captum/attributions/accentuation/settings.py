"""Settings of one call: optimizer, regularizers, and the paper's preset."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from ...batch import python_index
from .activations import Layer
from .parameterizations import Fourier, ImageParameters, Parameterization
from .transforms import Crops, Noise, Transform

Numbers = float | Sequence[float] | Tensor
MakeOptimizer = Callable[..., torch.optim.Optimizer]
OnStep = Callable[[int, Tensor, Tensor], bool | None]


class Steepest(torch.optim.Optimizer):
    r"""Optimizer whose steps have the same root mean square for every row.

    .. math:: m \leftarrow \beta m + g, \qquad p \leftarrow p - \eta\, m / \mathrm{rms}(m)

    Symbols: g the gradient, m its running sum; rms is over each row (first axis) of a tensor. Adam moves every single
    parameter equally far, also those whose gradient is only noise. Steepest moves them in proportion to m, so that the
    change is smoother and nearer to the seed (``benchmarks/cost_to_result.py``).

    Args:
        params: leaves (rows, ...); or leaves shared by all images, such as the weights of a network that generates
            them, whose rms is over the whole tensor.
        lr: η, the root mean square of a step.
        momentum: β in [0, 1).
        rows: number of rows; a leaf whose first axis has another length is shared. None: no leaf is shared.

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
        """Make one step; rows whose m is zero stay unchanged."""
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


@dataclass(frozen=True)
class FeatureDistance:
    r"""Regularizer: the distance to the seed's activations at a layer, subtracted from the score.

    .. math:: d(a, a^0) = \mathrm{mean}_{hw}\Bigl(\sqrt{\textstyle\sum_c (a_{chw} - a^0_{chw})^2 + \epsilon^2} -
        \epsilon\Bigr), \quad \epsilon = s \cdot \mathrm{mean}_{hw} \lVert a^0_{hw} \rVert

    Symbols: a, a⁰ the activations of candidate and seed in the same view, s ``smooth``. The objective is
    f - weight · B · d, where B = Σ|∂f/∂p| / Σ|∂d/∂p| is measured for each image, by its parameters p, at a small fixed
    perturbation of the seed. At the seed itself, the gradient of d is zero; that of the plain norm is rounding noise.

    Args:
        layer: layer whose activations are compared; None chooses one early in the model
            (:func:`~xinc_captum.attributions.accentuation.activations.early_layer`).
        weight: 0 is no regularizer; 1 gives score and distance equal weight.
        smooth: s; 0 is the original's plain norm.
        balance: a fixed value of B; None measures B.

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), the regularizer; there s = 0 and B is measured
    at the seed.
    """

    layer: Layer | None = None
    weight: float = 1.0
    smooth: float = 0.01
    balance: float | None = None

    def __post_init__(self) -> None:
        if self.weight < 0 or self.smooth < 0:
            raise ValueError(
                f"FeatureDistance(weight={self.weight:g}, smooth={self.smooth:g}): expected both at least 0."
            )

    def distance(self, candidate: Tensor, seed: Tensor, *, unit_axis: int | None = None) -> Tensor:
        """Return d for each row of two activations: (rows,), float32 or wider.

        ``unit_axis`` is the axis of the units; None uses the last of three axes, (rows, tokens, units), and otherwise
        axis 1, (rows, units, *positions). An accentuation passes the axis that it determined for the layer.
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
    r"""Constraint: the image stays within a radius of its seed; it is projected after every step.

    .. math:: \lVert x - x_0 \rVert_2 \le r \quad \text{or} \quad \lVert x - x_0 \rVert_\infty \le r

    Args:
        radius: r, in units of [0, 1]; the L2 norm is over all values of an image.
        norm: "L2" or "Linf", as in ``captum.robust.PGD``.

    Example:
        >>> Ball(0.1, "Linf").project(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).max()
        tensor(0.6000)
    """

    radius: float
    norm: Literal["L2", "Linf"] = "L2"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.norm not in ("L2", "Linf"):
            raise ValueError(f'Ball({self.radius!r}, {self.norm!r}): expected a radius above 0, and "L2" or "Linf".')

    def project(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return the nearest images within the ball around the seeds: (N, C, H, W)."""
        change = images - seeds
        if self.norm == "Linf":
            return seeds + change.clamp(-self.radius, self.radius)
        length: Tensor = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
        share = (self.radius / length).clamp_max(1)
        return seeds + change * share.reshape(-1, *[1] * (change.dim() - 1))


Regularizer = FeatureDistance | Ball


class Options(TypedDict, total=False):
    """Keyword arguments of ``accentuate``, ``attribute`` and ``perturb``; :class:`Settings` has their defaults."""

    n_steps: int
    lr: float
    optimizer: MakeOptimizer
    parameterization: Parameterization | Callable[[], ImageParameters]
    transforms: Sequence[Transform]
    regularizer: Regularizer | None
    dose: Numbers | None
    activation: Numbers | None
    contrast: Any
    natural: Tensor | None
    transfer: Callable[..., Any] | None
    seed: int
    n_draws: int
    mask_every: int
    internal_batch_size: int | None
    on_step: OnStep | None
    show_progress: bool


@dataclass(frozen=True)
class Settings:
    """Settings of one optimization.

    Attributes:
        n_steps: number of updates; with a dose, the maximum.
        lr: step size; with Steepest the root mean square of a step, in parameters. The default suits the default
            parameterization; Pixel() needs about .1.
        optimizer: called with (params, lr=lr): Steepest, torch.optim.Adam, ...
        parameterization: Fourier(...), Pixel() or Phase(); for images from noise also Lucent's ``param_f``. The
            default decays more slowly than photos do, because Steepest, unlike Adam, also favours low frequencies.
        transforms: random views of each step: Crops, Jitter, Rotation, Noise, or functions of images (n, C, h, w).
        regularizer: FeatureDistance(), Ball(), or None.
        dose: target level: 0 is the seed's own score, 1 the reference level, below 0 suppresses; one number, or one
            for each image. None makes all steps.
        activation: absolute target level of the score, instead of a dose.
        contrast: a model (of the kinds that ``transfer`` takes), an objective, or another target (or unit), whose score
            is minimised at the same time.
        natural: natural images (M, C, H, W) in [0, 1]. The reference level is the .98 quantile of their scores, and
            ``.trust`` compares the accentuation with the natural images of the highest scores.
        transfer: a second model in which ``.trust`` measures the same target: a module, a function of images, or a
            ImageModel, whose own ``preprocess`` replaces that of the first model.
        seed: random seed of the views and of images from noise.
        n_draws: number of different sets of views, used in turn; the seed's features are computed once for each.
        mask_every: with a feature distance, the mask needs one more backward pass, so only every ``mask_every``-th step
            is added to it (6 of 28); 1 adds all. A common divisor with ``n_draws`` would leave out some sets of views.
        internal_batch_size: maximum number of images at a time.
        on_step: called with (step, images, scores) before each update; returning True stops.
        show_progress: show a progress bar on standard error.
    """

    n_steps: int = 28
    lr: float = 0.03
    optimizer: MakeOptimizer = Steepest
    parameterization: Any = field(default_factory=lambda: Fourier(decay=0.75))
    transforms: Sequence[Transform] = (Crops(),)
    regularizer: Regularizer | None = field(default_factory=FeatureDistance)
    dose: Numbers | None = None
    activation: Numbers | None = None
    contrast: Any = None
    natural: Tensor | None = None
    transfer: Callable[..., Any] | None = None
    seed: int = 0
    n_draws: int = 8
    mask_every: int = 5
    internal_batch_size: int | None = None
    on_step: OnStep | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        for name in ("n_steps", "n_draws", "mask_every", "internal_batch_size"):
            value = python_index(getattr(self, name))
            object.__setattr__(self, name, value)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value}; expected a whole number, at least 1.")
        object.__setattr__(self, "seed", python_index(self.seed))
        if not isinstance(self.seed, int):
            raise TypeError(f"seed is {self.seed!r}; expected a whole number.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}; expected a finite number above 0.")
        if self.dose is not None and self.activation is not None:
            raise ValueError("dose and activation are both given; expected at most one of them.")
        of_regularizer = "FeatureDistance(layer, weight), Ball(radius), or None"
        of_transfer = "a second model: a torch.nn.Module, a function of images, or an ImageModel"
        for name, valid, expected in (
            ("regularizer", isinstance(self.regularizer, FeatureDistance | Ball | None), of_regularizer),
            ("transforms", isinstance(self.transforms, Sequence), "a list or tuple of transforms, such as [Crops(4)]"),
            ("transfer", self.transfer is None or callable(self.transfer), of_transfer),
            ("optimizer", callable(self.optimizer), "a class such as torch.optim.Adam, or Steepest"),
        ):
            if not valid:
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected {expected}.")


def settings_of(options: Options) -> Settings:
    """Return the settings with these options."""
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"{unknown[0]!r} is not an option; expected some of {', '.join(Options.__annotations__)}.")
    return Settings(**options)


def faccent(layer: Layer | None = None, weight: float = 1.0) -> Options:
    """Return the settings of the paper's released library as options; without a layer there is no feature distance.

    Adam makes 99 steps at .05 on Fourier coefficients, with sixteen crops of sides U(.05, .99) and noise. The distance
    is the plain L2 norm, whose gradient at the seed is rounding noise.

    Differences from the original, measured on six photos of scikit-image, in units of [0, 1]:

    - The original's antialiased resizing shifts a crop by (s - 1) / 2 pixels of the image, where s is the number of
      image pixels per view pixel. In views of 224 pixels, this changes a pixel by .011 for images of 224 pixels, and by
      .008 for images of 512 pixels.
    - Apart from that and the edges, crops agree within .00004 where the image is not larger than the view. Crops that
      are shrunk are averaged over whole pixels here, but with a triangle filter in the original: a difference of .005
      for images of 512 pixels, and of .008 for images of 1024 pixels.
    - Boxes have the model's aspect, lie at fractions of a pixel and are stratified over the crops of a step; the
      original's have the image's aspect and whole pixels. Noise is added to the views, not to the crops before they
      are resized, with the standard deviation of the original's two kinds of noise together.

    Example:
        >>> faccent("layer2")["n_steps"]
        99

    Source: faccent 1.0.3, by Hamblin et al. (arXiv 2402.10039).
    """
    noise = (0.02**2 + 0.02**2 / 12) ** 0.5  # N(0, .02) and U(-.01, .01) on every value
    return Options(
        n_steps=99,
        lr=0.05,
        optimizer=torch.optim.Adam,
        parameterization=Fourier(margin=1e-6),
        transforms=(Crops(16, side=(0.05, 0.99), edge=0.0), Noise(std=noise)),
        regularizer=None if layer is None else FeatureDistance(layer, weight, smooth=0.0),
        n_draws=99,
        mask_every=1,
    )
