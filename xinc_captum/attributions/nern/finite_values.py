"""Refuse fits that can only end in NaN, and end those that came to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...hooks import exclusive
from .convolutions import checked_values, target_behind
from .recipe import Recipe

if TYPE_CHECKING:
    from .fit import Look
    from .nern import NeRN


def check_target(nern: NeRN, runs: bool) -> None:
    """Check the target before the first step; where it ``runs`` on images, also what is not represented.

    Raises:
        LayerError: a represented weight with NaN or infinite values.
        ValueError: another parameter with such values, or a buffer with NaN.
    """
    checked_values(nern.target_weights())
    if not runs:
        return
    root = target_behind(nern.target)
    with exclusive():
        bad = [n for n, p in root.named_parameters() if not bool(torch.isfinite(p.detach()).all())]
        bad += [n for n, b in root.named_buffers() if bool(b.isnan().any())]  # a mask may hold infinity
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(
            f"{', '.join(map(repr, bad[:3]))}{more} of the target hold NaN or infinite values, with which its outputs "
            "cannot be compared; load a whole network."
        )


def check_look(look: Look, losses: Tensor, best: Look | None, recipe: Recipe) -> None:
    """Check what was seen after a step.

    Args:
        look: what was seen.
        losses: (steps, 3), of the steps so far and zeros.
        best: the look whose predictor is kept.
        recipe: how the predictor is trained.

    Raises:
        FloatingPointError: an error or divergence is NaN or infinite.
    """
    if all(math.isfinite(number) for number in look[1:] if number is not None):
        return
    wrong = (~losses.isfinite().all(1)).nonzero().flatten().tolist()
    since = f"the loss of step {wrong[0] + 1}" if wrong else f"the weights after step {look.step}"
    kept = f"its weights of step {best.step}" if best is not None else "its weights from before the fit"
    raise FloatingPointError(
        f"the fit came to NaN or infinite values, first seen in {since} (lr={recipe.lr:g}, "
        f"loss_weights={recipe.loss_weights}). The predictor has {kept} again. Give a smaller lr, smaller weights of "
        "the feature and logit losses, or images in the range that the target was trained on."
    )
