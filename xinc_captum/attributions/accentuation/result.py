"""The result of an accentuation, and opacity masks."""

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
    r"""Return masks as opacities in [0, 1], normalised for each image.

    .. math:: o = G_\sigma * \min(m, q_p) / q_p, \qquad m = \mathrm{mean}_c |\,\mathrm{mask}_c|

    Symbols: q_p the p-th percentile of m, p in (0, 100]; G_σ a Gaussian with standard deviation σ pixels (mirrored at
    the edges), 0 does not blur. Masks are (N, C, H, W), the result (N, 1, H, W) in float32.

    Example:
        >>> float(opacity(torch.ones(1, 3, 4, 4)).min().round(decimals=5))
        1.0

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), opacity of the figures; there p = 80 and
    σ = 2, which shows most of the photo.
    """
    if not 0 < percentile <= 100 or sigma < 0:
        raise ValueError(f"percentile={percentile:g}, sigma={sigma:g}; expected 0 < percentile <= 100 and sigma >= 0.")
    mean = masks.detach().float().abs().mean(1, keepdim=True)
    ordered = mean.flatten(1).sort(1).values  # torch.quantile accepts at most 16 million pixels
    position = (ordered.shape[1] - 1) * percentile / 100
    low, high = ordered[:, math.floor(position)], ordered[:, math.ceil(position)]
    top = low + (high - low) * (position - math.floor(position))
    clipped = torch.minimum(mean, top.reshape(-1, 1, 1, 1))
    clipped = clipped / clipped.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return blur(clipped, sigma).clamp(0, 1) if sigma else clipped


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Apply a Gaussian filter to the last two axes of (N, 1, H, W), truncated at 4 σ, mirrored at the edges."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    across = conv2d(_mirror(maps, 3, radius), kernel.reshape(1, 1, 1, -1))
    return conv2d(_mirror(across, 2, radius), kernel.reshape(1, 1, -1, 1))


def _mirror(maps: Tensor, axis: int, radius: int) -> Tensor:
    """Pad an axis with its mirror image, the edge included, even where the padding is larger than the image."""
    size = maps.shape[axis]
    index = torch.arange(-radius, size + radius, device=maps.device) % (2 * size)
    return maps.index_select(axis, torch.where(index < size, index, 2 * size - 1 - index))


@dataclass(frozen=True, eq=False)
class Accentuation:
    """Result of :meth:`FeatureAccentuation.accentuate`; tensors are detached.

    Pickling computes :attr:`trust` first, as :meth:`save` does, because an unpickled result has no model.

    Attributes:
        images: accentuated, (N, C, H, W) in [0, 1].
        masks: Σ of |∂score/∂image| over every ``mask_every``-th step, (N, C, H, W), >= 0.
        seeds: the images at the start, (N, C, H, W), or None for noise.
        scores: mean score over the views of each step, before its update, (steps, N); NaN once its level is reached.
        distances: mean distance to the seed over the same views, (steps, N), or None without a feature distance.
        before: score of each seed without random views, (N,), or None for noise.
        after: score of each image without random views, (N,).
        dose: the dose that was reached, (N,), or None without a dose.
        level: target level of the score, (N,), or None.
        steps: number of updates.
        interrupted: whether it was stopped by Ctrl-C.
        feature: name of the feature that was raised.
        layer: layer at which the distance was measured, or None.
        settings: the settings of the call, for the manifest.
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
        """Return the opacity of each pixel, (N, 1, H, W), see :func:`xinc_captum.attributions.accentuation.opacity`."""
        return opacity(self.masks, percentile, sigma)

    @property
    def trust(self) -> Trust:
        """The verdict (holds, weak or fails) and its reasons; computed once, with the model's state at first access."""
        cache = vars(self)
        with exclusive():
            if "_trust" not in cache:
                cache["_trust"] = self._assess(self)
            trust: Trust = cache["_trust"]
            return trust

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_trust": self.trust, "_assess": _without_model}

    def __copy__(self) -> "Accentuation":
        return _from_state(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Accentuation":
        memo[id(self._assess)] = self._assess  # its model is not copied
        return _from_state({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})

    def save(self, path: str | Path) -> Path:
        """Write images, masks and numbers into a folder, atomically.

        The folder is new or empty, or holds an earlier result, which is replaced; else :class:`.StoreError` is raised.
        """
        note: dict[str, Any] = {name: getattr(self, name) for name in ("feature", "layer", "steps", "interrupted")}
        note["trust"] = {"verdict": self.trust.verdict, "because": self.trust.because}
        note["settings"] = self.settings
        with bundle(path, note) as folder:
            tensors = {name: value for name in _TENSORS if (value := getattr(self, name)) is not None}
            write_tensors(folder / "accentuation.safetensors", tensors, kind="accentuation")
            if self.images.shape[1] in (1, 3):
                for row, (image, alpha) in enumerate(zip(self.images, self.opacity(), strict=True)):
                    _write(folder / f"row{row}_accentuated.png", image)
                    _write(folder / f"row{row}_through_mask.png", image, alpha)
        return Path(path)


def _from_state(state: dict[str, Any]) -> Accentuation:
    new = object.__new__(Accentuation)
    vars(new).update(state)
    return new


def _without_model(_: Accentuation) -> Trust:
    raise RuntimeError(
        "this accentuation was changed after it was unpickled, so its verdict is not valid, and it has no model to "
        "compute a new one. Call accentuate() again."
    )


_TENSORS = ("images", "masks", "seeds", "scores", "distances", "before", "after", "dose", "level")


def _write(file: Path, image: Tensor, alpha: Tensor | None = None) -> None:
    rgb = image.expand(3, -1, -1)
    rgba = rgb if alpha is None else torch.cat([rgb, alpha.to(image)])
    Image.fromarray(np.round(to_hwc(rgba.clamp(0, 1)) * 255).astype(np.uint8)).save(file)
