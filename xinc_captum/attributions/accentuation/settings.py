"""Settings, the paper's preset."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from ...selectors import python_index
from .activations import Layer
from .optimize import MakeOptimizer, OnStep, Steepest
from .parameterizations import Fourier, Parameterization, Start
from .score import Ball, FeatureDistance, Regularizer
from .transforms import Crops, Noise, Transform

Numbers = float | Sequence[float] | Tensor


class Options(TypedDict, total=False):
    """The keywords of ``accentuate``, ``attribute`` and ``perturb``; :class:`Settings` has their defaults."""

    n_steps: int
    lr: float
    optimizer: MakeOptimizer
    parameterization: Parameterization | Callable[[], Start]
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
    """The choices of one ascent.

    Attributes:
        n_steps: updates; with a dose, the most that may be taken.
        lr: step size; with Steepest the root mean square of a step, in parameters. The default suits the default
            parameterization; Pixel() wants about .1.
        optimizer: called with (params, lr=lr): Steepest, torch.optim.Adam, …
        parameterization: Fourier(…), Pixel() or Phase(); for pictures from noise also Lucent's ``param_f``. The default
            falls off more gently than photos do, because Steepest, unlike Adam, favours low frequencies once more.
        transforms: what a step looks at: Crops, Jitter, Rotation, Noise, functions of images (n, C, h, w).
        regularizer: FeatureDistance(), Ball(), or None.
        dose: how far to go: 0 is the seed's own activation, 1 the reference level, below 0 suppresses; one number, or
            one a row. None takes all the steps.
        activation: an absolute level of the score instead of a dose.
        contrast: what is lowered meanwhile: a model (whatever ``transfer`` takes), an objective, or another target (or
            unit).
        natural: pictures (M, C, H, W): the reference level is the .98 quantile of their scores, and ``.trust``
            compares with the highest of them.
        transfer: a second model in whose output ``.trust`` looks for the same target: a module, a function of images,
            or a zoo.Classifier, whose own ``preprocess`` is used instead of the first model's.
        seed: of views and of pictures from noise.
        n_draws: so many different sets of views are drawn and used in turn; the seed's features in each are computed
            once.
        mask_every: with a feature distance, the mask's own gradient costs a pass more, and every so many steps enter
            it (6 of 28); 1 lets all in. It should share no divisor with ``n_draws``, so that draws do not repeat.
        internal_batch_size: at most so many rows at a time.
        on_step: called with (step, images, scores) before each update; answering True ends the ascent.
        show_progress: a bar on standard error.
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
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr is {self.lr}; expected a finite number above 0.")
        if self.dose is not None and self.activation is not None:
            raise ValueError("dose and activation both say where to stop; give one of them.")
        if not isinstance(self.regularizer, FeatureDistance | Ball | None):
            raise TypeError(
                f"regularizer is {self.regularizer!r}; expected FeatureDistance(layer, weight), Ball(radius), or None."
            )
        if not isinstance(self.transforms, Sequence):
            raise TypeError(
                f"transforms is {self.transforms!r}; expected a list or tuple of views, such as [Crops(4)]."
            )
        if self.transfer is not None and not callable(self.transfer):
            raise TypeError(
                f"transfer is {self.transfer!r}; expected a second model: a torch.nn.Module, a function of "
                "images, or a "
                "zoo.Classifier."
            )
        if not callable(self.optimizer):
            raise TypeError(f"optimizer is {self.optimizer!r}; expected a class such as torch.optim.Adam, or Steepest.")


def settings_of(options: Options) -> Settings:
    """The settings with these options.

    Raises:
        TypeError: an option that does not exist, or of another type.
        ValueError: a number that makes no sense.
    """
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"{unknown[0]!r} is no option; expected some of {', '.join(Options.__annotations__)}.")
    return Settings(**options)


_NOISE = (0.02**2 + 0.02**2 / 12) ** 0.5  # N(0, .02) and U(-.01, .01) on every value


def faccent(layer: Layer | None = None, weight: float = 1.0) -> Options:
    """What the paper's released library does, as keywords of ``accentuate``; no feature distance without a layer.

    Sixteen crops with sides U(.05, .99) a step, noise, 99 steps of Adam at .05 on Fourier coefficients, and the plain
    L2 norm, whose gradient at the seed is rounding noise.

    What differs from the original, measured on six photos of scikit-image, in units of [0, 1]:

    - Its antialiased resizing shifts a crop by (s - 1) / 2 pixels of the image, s being image pixels per view pixel;
      here crops keep their corners. The mean difference of a pixel is .011 for images of 224 and .008 for images of
      512 pixels in views of 224.
    - Beside that shift and the edges, crops agree within .00004 where the image is not larger than the view. Crops that
      are shrunk are averaged over whole pixels here and with a triangle there: .005 for images of 512, and .008 for
      images of 1024 pixels.
    - Boxes have the model's aspect, lie at fractions of a pixel and are stratified over the crops of a step; the
      original's have the image's aspect and whole pixels. Noise is added to the views, and not to the crops before
      they are resized, with the standard deviation of the original's two kinds of noise together.

    Example:
        >>> faccent("layer2")["n_steps"]
        99

    Source: faccent 1.0.3, by Hamblin et al. (arXiv 2402.10039).
    """
    return Options(
        n_steps=99,
        lr=0.05,
        optimizer=torch.optim.Adam,
        parameterization=Fourier(margin=1e-6),
        transforms=(Crops(16, side=(0.05, 0.99), edge=0.0), Noise(std=_NOISE)),
        regularizer=None if layer is None else FeatureDistance(layer, weight, smooth=0.0),
        n_draws=99,
        mask_every=1,
    )
