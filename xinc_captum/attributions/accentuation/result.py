"""Class Accentuation; opacity masks."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d

from ...hooks import exclusive
from ...images import to_hwc
from ...metrics.trust import Trust
from ...store import bundle, write_tensors


def opacity(masks: Tensor, percentile: float = 97.0, sigma: float = 3.0) -> Tensor:
    r"""Masks as opacities in [0, 1], each image by its own measure.

    .. math:: o = G_\sigma * \min(m, q_p) / q_p, \qquad m = \mathrm{mean}_c |\,\mathrm{mask}_c|

    Symbols: q_p the p-th percentile of m, G_σ a Gaussian with standard deviation σ pixels (mirrored at the edges).

    Args:
        masks: (N, C, H, W).
        percentile: p in (0, 100].
        sigma: σ; 0 does not blur.

    Returns:
        (N, 1, H, W), float32.

    Raises:
        ValueError: an impossible percentile or sigma.

    Example:
        >>> float(opacity(torch.ones(1, 3, 4, 4)).min().round(decimals=5))
        1.0

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), how accentuations are drawn; there p = 80 and
    σ = 2, which shows most of the photo.
    """
    if not 0 < percentile <= 100 or sigma < 0:
        raise ValueError(f"percentile={percentile:g}, sigma={sigma:g}; expected 0 < percentile <= 100 and sigma >= 0.")
    mean = masks.detach().float().abs().mean(1, keepdim=True)
    ordered = mean.flatten(1).sort(1).values  # torch.quantile refuses pictures beyond 16 million pixels
    place = (ordered.shape[1] - 1) * percentile / 100
    low, high = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    top = low + (high - low) * (place - math.floor(place))
    clipped = torch.minimum(mean, top.reshape(-1, 1, 1, 1))
    clipped = clipped / clipped.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return blur(clipped, sigma).clamp(0, 1) if sigma else clipped


def blur(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian over the last two axes of (N, 1, H, W), cut off at four σ, mirrored at the edges."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    across = conv2d(_mirrored(maps, 3, radius), kernel.reshape(1, 1, 1, -1))
    return conv2d(_mirrored(across, 2, radius), kernel.reshape(1, 1, -1, 1))


def _mirrored(maps: Tensor, axis: int, radius: int) -> Tensor:
    """Pad an axis with its mirror image, the edge itself repeated; also where the picture is smaller than that."""
    size = maps.shape[axis]
    place = torch.arange(-radius, size + radius, device=maps.device) % (2 * size)
    return maps.index_select(axis, torch.where(place < size, place, 2 * size - 1 - place))


@dataclass(frozen=True, eq=False)
class Accentuation:
    """What :meth:`FeatureAccentuation.accentuate` found; tensors are plain and detached.

    It can be copied and pickled. Pickling computes :attr:`trust` first, as :meth:`save` does, because what is unpickled
    has no model.

    Attributes:
        images: accentuated, (N, C, H, W) in [0, 1].
        masks: Σ of |∂score/∂image| over every ``mask_every``-th step, (N, C, H, W), >= 0.
        seeds: the images it began with, (N, C, H, W), or None where it began with noise.
        scores: mean score over the views of each step, before its update, (steps, N); nan once a row has arrived.
        distances: mean distance to the seed likewise, or None without a feature distance.
        before: the score of each seed as it is, (N,), or None.
        after: the score of each image as it is, (N,).
        dose: what was reached on the dose's scale, (N,), or None where no dose was asked for.
        level: the score that was asked for, (N,), or None.
        steps: updates made.
        interrupted: Ctrl-C ended it.
        feature: what was raised, in words.
        layer: where the distance was measured, or None.
        settings: the choices that differ from call to call, for the manifest.
    """

    images: Tensor = field(repr=False)
    masks: Tensor = field(repr=False)
    seeds: Tensor | None = field(repr=False)
    scores: Tensor = field(repr=False)
    distances: Tensor | None = field(repr=False)
    before: Tensor | None
    after: Tensor
    dose: Tensor | None
    level: Tensor | None
    steps: int
    interrupted: bool
    feature: str
    layer: str | None
    settings: dict[str, Any] = field(repr=False)
    _assess: Callable[["Accentuation"], Trust] = field(repr=False)

    def opacity(self, percentile: float = 97.0, sigma: float = 3.0) -> Tensor:
        """How opaque each pixel is drawn, (N, 1, H, W): :func:`xinc_captum.attributions.accentuation.result`."""
        return opacity(self.masks, percentile, sigma)

    @property
    def trust(self) -> Trust:
        """Holds, weak or fails, and because of what; computed once, with the model as it is at the first look."""
        kept = vars(self)
        with exclusive():
            if _TRUST not in kept:
                kept[_TRUST] = self._assess(self)
            found: Trust = kept[_TRUST]
            return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {_TRUST: self.trust, "_assess": _without_model}

    def __copy__(self) -> "Accentuation":
        return _made(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Accentuation":
        memo[id(self._assess)] = self._assess  # the model behind it is not copied
        return _made({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})

    def save(self, path: str | Path) -> Path:
        """Write images, masks and numbers into a folder that appears whole or not at all.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        note = {
            "feature": self.feature,
            "layer": self.layer,
            "steps": self.steps,
            "interrupted": self.interrupted,
            "trust": {"verdict": self.trust.verdict, "because": self.trust.because},
            "settings": self.settings,
        }
        with bundle(path, note) as folder:
            held = {name: getattr(self, name) for name in _TENSORS}
            write_tensors(
                folder / "accentuation.safetensors",
                {k: v for k, v in held.items() if v is not None},
                kind="accentuation",
            )
            if self.images.shape[1] in (1, 3):
                shown = self.opacity()
                for row in range(len(self.images)):
                    _write(folder / f"row{row}_accentuated.png", self.images[row])
                    _write(folder / f"row{row}_through_mask.png", self.images[row], shown[row])
        return Path(path)


_TRUST = "_trust"


def _made(state: dict[str, Any]) -> Accentuation:
    new = object.__new__(Accentuation)
    vars(new).update(state)
    return new


def _without_model(_: Accentuation) -> Trust:
    raise RuntimeError(
        "this accentuation was changed after it was unpickled: its verdict does not hold any more, and it has no "
        "model to compute another one with. Call accentuate() again."
    )


_TENSORS = ("images", "masks", "seeds", "scores", "distances", "before", "after", "dose", "level")


def _write(file: Path, image: Tensor, alpha: Tensor | None = None) -> None:
    picture = image.expand(3, -1, -1) if alpha is None else torch.cat([image.expand(3, -1, -1), alpha.to(image)])
    Image.fromarray(np.round(to_hwc(picture.clamp(0, 1)) * 255).astype(np.uint8)).save(file)
