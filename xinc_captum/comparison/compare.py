"""compare: run methods side by side under the same conditions, and measure what each map is worth."""

import random
import time
import warnings
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor

from ..attributions.contract import explaining
from ..hooks import ForwardFunc, modules_behind, untouched
from ..metrics import deletion_insertion, energy_in_mask, spearman, target_score
from ..metrics.deletion import Target
from .maps import as_maps, faults
from .methods import Explain, Preprocess, after
from .result import Comparison, Row, Scores


def compare(
    methods: Mapping[str, Explain | Attribution],
    model: ForwardFunc,
    inputs: Tensor,
    target: Target,
    *,
    preprocess: Preprocess | None = None,
    masks: Tensor | None = None,
    reference: str | None = "Grad-CAM",
    seed: int = 0,
    rounds: int = 3,
    steps: int = 32,
) -> Comparison:
    """Several attribution methods on the same images and targets, in one figure and one table.

    Every method runs alone, from the same random state, on a copy of the images, and the model is left as found after
    each. Seconds are the median over rounds in which the methods take turns. Deletion replaces pixels by the photo's
    own mean colour, insertion starts from the photo out of focus; both follow the softmax probability of the target.
    Constant maps, and those with nan or infinity, are said in a warning and left out of the scores.

    Args:
        methods: by name, functions (images, target) -> map, or Captum attributions. A Captum object that was made with
            ``model`` itself gets ``preprocess(inputs)``, any other, or one that normalises itself, ``inputs``. See
            :func:`~xinc_captum.comparison.as_maps` for the maps they may answer.
        model: images, preprocessed, to (N, classes) logits.
        inputs: photos in [0, 1], (N, C, H, W).
        target: a class, or one for each image.
        preprocess: normalises; it may resize, but a crop would shift the maps.
        masks: (N, H, W), bool or weights in [0, 1]: where the object is.
        reference: the method that the others are correlated with, None for no such column.
        seed: of everything random in the methods.
        rounds: how often each method runs.
        steps: points on the deletion and insertion curves.

    Raises:
        TypeError: a method that is neither a function nor has ``attribute``, or answers no tensor.
        ValueError: shapes or values that do not fit, an unknown reference, no methods or rounds.
        IndexError: a target that is no class.

    Example:
        >>> from xinc_captum.comparison import grad_cam, integrated_gradients
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
        >>> photos = torch.rand(2, 3, 8, 8)
        >>> methods = {"Grad-CAM": grad_cam(model, "0"), "IG": integrated_gradients(model)}
        >>> compare(methods, model, photos, target=1).maps["IG"].shape
        torch.Size([2, 8, 8])

    Source: the deletion and insertion scores of Petsiuk et al., "RISE" (BMVC 2018).
    """
    _check(methods, inputs, masks, reference, min(rounds, steps))
    classify = after(preprocess, model)
    with explaining(model):
        photos = inputs.detach().clone()
        confidence = target_score(classify, photos, target)  # also finds a wrong target before anything slow
        maps: dict[str, Tensor] = {}
        clocks: dict[str, list[_Seconds]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, method in methods.items():
                found, seconds = _run(name, method, model, photos, target, preprocess, seed)
                maps.setdefault(name, found)
                clocks[name].append(seconds)
        grey = photos.mean((2, 3), keepdim=True)
        scores = {}
        for name, found in maps.items():
            curves = deletion_insertion(classify, photos, found.to(photos.device), target, baseline=grey, steps=steps)
            scores[name] = _scores(found, curves, None if reference is None else maps[reference], masks)
    _warn(scores)
    rows = [
        Row.of(name, scores[name], median(s.cpu for s in clocks[name]), median(s.wall for s in clocks[name]))
        for name in methods
    ]
    note = {"seed": seed, "rounds": rounds, "steps": steps, "target": torch.as_tensor(target).tolist()}
    return Comparison(photos.float().cpu(), maps, tuple(rows), scores, confidence.float().cpu(), reference, note)


class _Seconds(NamedTuple):
    cpu: float
    wall: float


def _run(
    name: str,
    method: Any,
    model: ForwardFunc,
    photos: Tensor,
    target: Target,
    preprocess: Preprocess | None,
    seed: int,
) -> tuple[Tensor, _Seconds]:
    """One method, once: its maps on the host, and how long it took."""
    with untouched(model, *modules_behind(getattr(method, "forward_func", method))), torch.enable_grad():
        torch.manual_seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002  # what methods may draw from; put back by untouched
        random.seed(seed)
        given = photos.clone()
        normalises = getattr(getattr(method, "reader", None), "preprocess", None) is not None  # ours may, by themselves
        if preprocess is not None and getattr(method, "forward_func", None) is model and not normalises:
            given = preprocess(given).detach()
        run = method.attribute if hasattr(method, "attribute") else method
        _wait(photos)
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            answer = run(given.clone(), target=target) if run is not method else run(given.clone(), target)
            _wait(photos)
            seconds = _Seconds(time.process_time() - cpu, time.perf_counter() - wall)
            size = photos.shape[-2], photos.shape[-1]
            return as_maps(answer, given, size).cpu().contiguous(), seconds
        except Exception as error:
            error.add_note(f"This was the method {name!r} of compare().")
            raise


def _wait(photos: Tensor) -> None:
    if photos.is_cuda:
        torch.cuda.synchronize(photos.device)


def _scores(maps: Tensor, curves: tuple[Tensor, Tensor], reference: Tensor | None, masks: Tensor | None) -> Scores:
    """One method's measures of each image, nan where its map says nothing."""
    found = faults(maps)
    useless = torch.tensor([bool(fault) for fault in found])
    nothing = torch.full((len(maps),), torch.nan)
    deletion, insertion = (area.float().cpu().masked_fill(useless, torch.nan) for area in curves)
    alike = nothing if reference is None else torch.stack([_alike(*pair) for pair in zip(maps, reference, strict=True)])
    inside = nothing if masks is None else energy_in_mask(maps.clamp_min(0), masks.cpu())
    return Scores(
        deletion, insertion, alike.masked_fill(useless, torch.nan), inside.masked_fill(useless, torch.nan), tuple(found)
    )


def _alike(one: Tensor, other: Tensor) -> Tensor:
    values = spearman(one.flatten()[None], other.flatten()[None]).values
    return values[0].float() if len(values) else torch.tensor(torch.nan)


def _warn(scores: Mapping[str, Scores]) -> None:
    for name, of_method in scores.items():
        for fault in sorted(set(of_method.faults) - {""}):
            images = [i for i, found in enumerate(of_method.faults) if found == fault]
            warnings.warn(
                f"{name} answered a map that is {fault} for image {', '.join(map(str, images))} of "
                f"{len(of_method.faults)}: it ranks no pixels, and its scores are left out.",
                stacklevel=3,
            )


def _check(methods: Mapping[str, Any], inputs: Tensor, masks: Tensor | None, reference: str | None, least: int) -> None:
    if not methods:
        raise ValueError("methods is empty; give at least one, by name: {'Grad-CAM': grad_cam(model, layer)}.")
    for name, method in methods.items():
        if not (callable(method) or hasattr(method, "attribute")):
            raise TypeError(
                f"method {name!r} is a {type(method).__name__}; wanted a function (images, target) -> map, or a Captum "
                "attribution."
            )
    if reference is not None and reference not in methods:
        raise ValueError(
            f"reference {reference!r} is not among the methods {', '.join(map(repr, methods))}; give one of their "
            "names, or None."
        )
    if inputs.dim() != 4 or not inputs.is_floating_point() or not len(inputs):
        raise ValueError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; wanted photos as floats, (N, C, H, W)."
        )
    low, high = float(inputs.min()), float(inputs.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"inputs go from {low:.3g} to {high:.3g}; wanted photos in [0, 1]. Give what normalises them as preprocess."
        )
    if masks is not None and masks.shape != (len(inputs), *inputs.shape[2:]):
        raise ValueError(
            f"masks have shape {tuple(masks.shape)}; wanted one for each photo, {(len(inputs), *inputs.shape[2:])}."
        )
    if masks is not None:
        energy_in_mask(torch.ones(masks.shape), masks.cpu())  # finds wrong values before anything slow
    if least < 1:
        raise ValueError(f"rounds or steps is {least}; wanted at least 1 of each.")
