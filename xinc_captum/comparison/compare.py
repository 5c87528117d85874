"""Compare() and its checks."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..attributions.base import attribution_context
from ..hooks import ForwardFunc, crop_of, protect
from ..metrics import PROBABILITIES, Probability, energy_in_mask
from ..metrics.faithfulness import Target, score_outputs
from ..metrics.probability import class_outputs
from ..progress import progress
from ..zoo import Classifier
from .maps import faults
from .measures import DEFAULT, Case, Column, select_columns
from .methods import Preprocess, after
from .registry import BASELINES, Layer, Methods, by_name, untrained
from .result import Comparison, Row
from .runner import Explain, Runs, Seconds, bind_method, run_once


def check_photos(inputs: Tensor) -> None:
    """Floats in [0, 1], rows first.

    Raises:
        ValueError: they are not.
    """
    if inputs.dim() != 4 or not inputs.is_floating_point() or not len(inputs):
        raise ValueError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; expected photos as floats, (N, C, H, W)."
        )
    low, high = (float(end) for end in inputs.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"inputs go from {low:.3g} to {high:.3g}; expected photos in [0, 1]. Give what normalises them as "
            "preprocess."
        )


def checked_masks(segmentation: Any, inputs: Tensor) -> Tensor | None:
    """Masks of the photos as a tensor; those that show nothing are said in a warning.

    Args:
        segmentation: (N, H, W), a tensor or array, or None.
        inputs: (N, C, H, W).

    Raises:
        ValueError: another shape, or values out of [0, 1].
    """
    if segmentation is None:
        return None
    masks = segmentation if isinstance(segmentation, Tensor) else torch.as_tensor(np.asarray(segmentation))
    if masks.shape != (len(inputs), *inputs.shape[2:]):
        raise ValueError(
            f"segmentation has shape {tuple(masks.shape)}; expected one mask for each photo, "
            f"{(len(inputs), *inputs.shape[2:])}."
        )
    energy_in_mask(torch.ones(masks.shape), masks.cpu())  # finds wrong values
    if empty := [i for i, mask in enumerate(masks) if not bool((mask > 0).any())]:
        warnings.warn(
            f"segmentation shows nothing in image {', '.join(map(str, empty))} of {len(masks)}: pointing game and "
            "energy in mask are means over the others.",
            stacklevel=3,
        )
    return masks


def check_preprocess(model: ForwardFunc, preprocess: Preprocess | None, inputs: Tensor) -> None:
    """Nothing is normalised twice or cropped, and preprocessing takes tensors.

    Args:
        model: the classifier.
        preprocess: what turns photos into its inputs, or None.
        inputs: (N, C, H, W).

    Raises:
        TypeError: it does not take a tensor of photos.
        ValueError: the model has its own, or whole borders of a photo do not reach it.
    """
    if preprocess is None:
        return
    if isinstance(model, Classifier):
        raise ValueError(
            f"preprocess is given, and {model.name} is a Classifier, which preprocesses itself; give its .model with "
            "preprocess, or the Classifier alone."
        )
    with protect(model), torch.inference_mode(False), torch.enable_grad():
        try:
            crop = crop_of(preprocess, inputs)
        except Exception as error:
            raise TypeError(
                f"preprocess failed on a tensor of photos {tuple(inputs[:1].shape)}: {type(error).__name__}: {error}. "
                "It gets float tensors (N, C, H, W) in [0, 1]; leave out what opens or converts pictures, such as "
                "ToTensor."
            ) from error
    if crop is not None:
        (top, bottom), (left, right) = crop
        height, width = inputs.shape[2:]
        raise ValueError(
            f"preprocess looks at rows {top} to {bottom} and columns {left} to {right} of photos of {width} x {height} "
            "pixels, so that maps of what it leaves would be stretched over the whole. Crop the photos "
            "first (xinc_captum.images.centre_crop), and let preprocess normalise or resize."
        )


def compare(
    methods: Methods,
    model: ForwardFunc,
    inputs: Tensor,
    target: Target,
    layer: Layer = None,
    metrics: Sequence[str | Column] = DEFAULT,
    segmentation: Tensor | None = None,
    seed: int = 0,
    *,
    preprocess: Preprocess | None = None,
    reference: str | None = None,
    baselines: Sequence[str] = BASELINES,
    rounds: int = 3,
    steps: int = 32,
    probability: Probability = "auto",
    show_progress: bool = False,
    unit_axis: int | None = None,
) -> Comparison:
    """Several attribution methods on the same images and targets, in one figure and one table.

    Every method runs alone, from the same random state, on a copy of the images, and the model is left as found after
    each. One run is counted (calls of the model, gradients that came back, memory), the others take turns and are
    timed. Measures are means over images with 95 % bootstrap intervals: with few images they are wide, and rank
    nothing; with one there are none. A method that fails is a row that says so; constant maps, and those with nan or
    infinity, are said in a warning and left out of the measures.

    Args:
        methods: names (``"Grad-CAM"``, ``"Guided Grad-CAM"``, ``"Integrated Gradients"``, ``"Feature Accentuation"``,
            and ``"grad-cam"`` and ``"torchcam"`` where these packages are installed), Captum attributions, functions
            (images, target) -> map or (model, images, target) -> map, or CAM objects of pytorch-grad-cam; or any of
            these under names of your own. What was made with ``model`` itself or asks for it gets
            ``preprocess(inputs)``, any other, or one that normalises itself, ``inputs``. See
            :func:`~xinc_captum.comparison.as_maps` for the maps they may answer.
        model: images, preprocessed, to outputs (N, classes). For another output give a function around the model,
            such as ``lambda images: model(images)["logits"]``.
        inputs: photos in [0, 1], (N, C, H, W).
        target: a class, or one for each image; methods get a number, or a tensor (N,).
        layer: where the methods of one layer look; None takes the last that still says where.
        metrics: names out of :data:`~xinc_captum.comparison.COLUMNS`, or columns of your own. Sensitivity and
            infidelity run each method, or the model, many more times, and are measured only where they are named.
        segmentation: (N, H, W), bool or weights in [0, 1]: where the object is. Without it there is no pointing game,
            and photos whose mask is empty are left out of it.
        seed: of everything random.
        preprocess: normalises; it may resize, but not crop, which would shift the maps.
        reference: the method that the others are set beside; None takes the first.
        baselines: maps that know nothing of the model, rows too: a measure that cannot tell them from a method says
            nothing about that method.
        rounds: how often each method is timed, at most: not again once it took ten seconds.
        steps: points on the deletion and insertion curves.
        probability: what the outputs are: "softmax" or "sigmoid" for logits, "identity" for probabilities, "none" for
            a regression, whose measures follow the output itself; see :func:`xinc_captum.metrics.probabilities`.
            "auto" takes a ``zoo.Classifier``'s own setting, else decides on the outputs of all photos.
        show_progress: a bar over runs, and one over the methods that are measured.
        unit_axis: which axis of ``layer`` holds the channels, for example -1 for (N, h, w, channels); None determines
            it from the layer's class, the input's height and width, and the modules inside the layer.

    Raises:
        TypeError: a method that is neither a name nor a function nor has ``attribute``, preprocessing that takes no
            tensors, or a model that returns no tensor.
        ValueError: shapes or values that do not fit, an unknown name or reference, no methods or rounds, preprocessing
            that crops or comes twice, or outputs outside [0, 1] where they are said to be probabilities.
        IndexError: a target that is no class.
        ModuleNotFoundError: a peer that is not installed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> photos = torch.rand(2, 3, 8, 8)
        >>> found = compare(["Grad-CAM", "Integrated Gradients"], model, photos, target=1, layer="0")
        >>> found.maps["Grad-CAM"].shape
        torch.Size([2, 8, 8])

    Source: what each measure is from stands at its function in :mod:`xinc_captum.metrics`; sensitivity and infidelity
    are Captum's (Yeh et al., NeurIPS 2019), with squares of an eighth of the photo set to its mean colour.
    """
    columns = select_columns(metrics)
    if probability not in PROBABILITIES:
        raise ValueError(f"probability is {probability!r}; expected one of {', '.join(map(repr, PROBABILITIES))}.")
    if probability == "none":
        columns = tuple(replace(column, meaning=column.meaning.replace("probability", "output")) for column in columns)
    check_photos(inputs)
    masks = checked_masks(segmentation, inputs)
    check_preprocess(model, preprocess, inputs)
    if min(rounds, steps) < 1:
        raise ValueError(f"rounds or steps is {min(rounds, steps)}; expected at least 1 of each.")
    classify, size = after(preprocess, model), (inputs.shape[-2], inputs.shape[-1])
    if probability == "auto" and isinstance(model, Classifier):
        probability = model.probability
    with attribution_context(model):
        photos = inputs.detach().clone()
        class_outputs(classify, photos[:1])  # refuses an output that is no tensor of class scores
        given = by_name(methods, model, photos, preprocess, layer, seed, unit_axis)
        reference = next(iter(given)) if reference is None else reference
        if reference not in given:
            raise ValueError(
                f"reference {reference!r} is not among the methods {', '.join(map(repr, given))}; give one of their "
                "names, or None for the first."
            )
        if added := {name: name for name in baselines if name not in given}:
            given |= by_name(added, model, photos, preprocess, layer, seed)
        confidence, decided = score_outputs(classify, photos, target, probability)  # also finds a wrong target
        kind = cast("Probability", decided)
        expected = torch.as_tensor(target, device=photos.device).long().flatten().expand(len(photos)).contiguous()
        asked = expected if torch.as_tensor(target).numel() > 1 else int(expected[0])
        found = {name: Runs(bind_method(method, model, preprocess, size, seed)) for name, method in given.items()}
        turns = list(found.values()) * (rounds + 1)
        for runs in progress(turns, "runs", show=show_progress):
            run_once(runs, model, photos, asked)
        maps = {name: runs.maps for name, runs in found.items() if runs.maps is not None}
        flawed = {name: faults(of_method) for name, of_method in maps.items()}
        scores = {}
        for name, of_method in progress(maps.items(), "measures", show=show_progress, total=len(maps)):
            case = Case(
                _asking(found[name].explain, asked), classify, photos, of_method.to(photos.device), expected,
                maps.get(reference), masks, steps, seed, kind,
            )  # fmt: skip
            scores[name] = _scores(name, case, columns, flawed[name])
    _warn(found, flawed)
    rows = tuple(_row(name, runs, scores.get(name, {}), flawed.get(name, []), seed) for name, runs in found.items())
    shown = tuple(column for column in columns if any(column.name in row.scores for row in rows))
    note = {
        "seed": seed, "rounds": rounds, "steps": steps, "target": torch.as_tensor(target).tolist(),
        "baselines": [*untrained(methods), *added], "network": _name(model), "probability": kind,
    }  # fmt: skip
    return Comparison(photos.float().cpu(), maps, rows, scores, confidence.float().cpu(), reference, note, shown)


def _asking(explain: Explain, target: int | Tensor) -> Callable[[Tensor], Tensor]:
    return lambda photos: explain(photos, target)


def _scores(name: str, case: Case, columns: Sequence[Column], flaws: Sequence[str]) -> dict[str, Tensor]:
    """One method's measures of each image, nan where its map says nothing or the measure fails."""
    useless = torch.tensor([bool(flaw) for flaw in flaws])
    found = {}
    for column in columns:
        try:
            values = column.of(case)
        except Exception as error:
            text = f"{column.name} of {name} could not be measured: {type(error).__name__}: {error}"
            warnings.warn(text, stacklevel=3)
            values = torch.full(useless.shape, torch.nan)
        if values is not None:
            found[column.name] = values.detach().float().cpu().masked_fill(useless, torch.nan)
    return found


def _row(name: str, runs: Runs, scores: Mapping[str, Tensor], flaws: Sequence[str], seed: int) -> Row:
    seconds = runs.seconds or [Seconds(math.nan, math.nan)]
    cost = median(s.cpu for s in seconds), median(s.wall for s in seconds)
    return Row.of(name, cost, runs.counts, scores, flaws, runs.error, seed)


def _name(model: ForwardFunc) -> str:
    return str(getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__)


def _warn(found: Mapping[str, Runs], flawed: Mapping[str, Sequence[str]]) -> None:
    for name, runs in found.items():
        if runs.error:
            warnings.warn(f"{name} failed and has no map: {runs.error}", stacklevel=3)
    for name, flaws in flawed.items():
        for flaw in sorted(set(flaws) - {""}):
            images = [i for i, one in enumerate(flaws) if one == flaw]
            warnings.warn(
                f"{name} answered a map that is {flaw} for image {', '.join(map(str, images))} of "
                f"{len(flaws)}: it ranks no pixels, and its scores are left out.",
                stacklevel=3,
            )
