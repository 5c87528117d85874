"""The function compare(): checks of its arguments, and runs of the methods, whose time and calls are measured."""

import inspect
import math
import random
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..attributions.accentuation.activations import ModelInputs
from ..attributions.base import attribution_context
from ..batch import OutputFn, output_leaves, python_index
from ..hooks import ForwardFunc, check_preprocess, crop_of, gradient_errors, modules_behind, of_this_thread, protect
from ..image_model import ImageModel
from ..metrics import PROBABILITIES, Probability, energy_in_mask
from ..metrics.faithfulness import Target, score_outputs
from ..metrics.statistics import class_scores
from ..progress import progress
from .measures import DEFAULT, Case, Column, TensorOutput, faults, maps_of, reads_output, select_columns
from .methods import Layer, Preprocess, after, cam_object, is_cam
from .registry import BASELINES, Methods, by_name, model_independent
from .result import Comparison, Counts, Row


@contextmanager
def count_calls(model: ForwardFunc) -> Iterator[Counts]:
    """Count calls of the model, backward passes and memory in a block, and restore the model's state.

    Counts do not depend on the machine. Memory is that of the tensors' storages, views counted once, without the
    workspaces of library kernels. Calls are counted of modules, and of those that can be found behind a function, but
    not of scripted modules, which run no Python hooks.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with count_calls(model) as counts:
        ...     model(torch.rand(3, 2)).sum().backward()
        >>> counts.forwards, counts.backwards, counts.rows
        (1, 1, 3)
    """
    counts, wrapped = Counts(), torch._C._functorch.is_functorch_wrapped_tensor
    modules = [root for root in modules_behind(model) if not isinstance(root, torch.jit.ScriptModule)]
    calls = [Counts() for _ in modules]
    ours = of_this_thread()

    def count(module_counts: Counts, root: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not ours(root):
            return
        module_counts.forwards += 1
        samples = (len(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.dim())
        module_counts.rows += next(samples, 0)
        leaves = [leaf for _, leaf in output_leaves(output) if isinstance(leaf, Tensor)]
        leaves = [leaf for leaf in leaves if leaf.requires_grad and not wrapped(leaf)]
        if leaves:  # of several outputs, a backward pass may reach only one
            register_multi_grad_hook(leaves, partial(count_backward, module_counts), mode="any")

    def count_backward(module_counts: Counts, _: Tensor) -> None:
        module_counts.backwards += 1

    handles = [
        root.register_forward_hook(partial(count, of_root)) for root, of_root in zip(modules, calls, strict=True)
    ]
    memory = _MemoryMode()
    try:
        with memory:
            yield counts
    finally:
        for handle in handles:
            handle.remove()
        counts.peak_bytes = memory.peak
        for name in ("forwards", "backwards", "rows"):
            setattr(counts, name, max((getattr(of_root, name) for of_root in calls), default=0))


class _MemoryMode(TorchDispatchMode):
    """Track the total size of the storages that operations create, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[int, Any]] = {}
        self.current = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._register(leaf, created=False)
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            self._register(leaf, created=True)
        return output

    def _register(self, leaf: Any, created: bool) -> None:
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
            return
        storage = leaf.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            size = storage.nbytes() if created else 0
            self.sizes[key] = (size, weakref.ref(storage, lambda _: self._free(key)))
            self.current += size
            self.peak = max(self.peak, self.current)

    def _free(self, key: int) -> None:
        self.current -= self.sizes.pop(key)[0]


MapFunction = Callable[[Tensor, Any], Tensor]  # photos and targets to maps (N, H, W)
MAX_SECONDS = 10.0  # wall time of all timed runs of one method
MODEL_ARGUMENTS = {"model", "net", "network", "classifier", "forward_func"}


@dataclass
class Runs:
    """Results of the runs of one method."""

    explain: MapFunction
    maps: Tensor | None = None  # (N, H, W) float32 on the CPU, None if the method failed
    counts: Counts = field(default_factory=Counts)  # of the first run
    seconds: list[tuple[float, float]] = field(default_factory=list)  # CPU time and wall time of each later run
    error: str = ""


def bind_method(
    method: Any,
    model: ForwardFunc,
    preprocess: Preprocess | None,
    size: tuple[int, int],
    seed: int,
    scores: TensorOutput | None = None,
) -> MapFunction:
    """Return a method as a function from photos in [0, 1] and targets to maps of the photos' size (H, W).

    A Captum object that was made with ``model`` gets preprocessed inputs; any other, or one that preprocesses itself,
    gets photos. A function with three required arguments, or of three or more whose first is named model or net,
    also gets the model, and preprocessed inputs. If ``scores`` is given, it reads the model's outputs in these methods,
    except in those that were made with their own ``output_fn``.
    """
    same_cam = is_cam(method) and method.model is model
    if is_cam(method):
        method = cam_object(method, model, preprocess)
    image_model = getattr(method, "model", None)
    normalises = isinstance(image_model, ModelInputs) and image_model.preprocess is not None
    run = method.attribute if hasattr(method, "attribute") else method
    takes_model = run is method and _takes_model(method)
    same_model = getattr(method, "forward_func", None) is model and not normalises
    transform = preprocess if takes_model or same_model else None
    made_with_model = same_cam or (getattr(method, "forward_func", None) is model and not reads_output(method))
    given = model if scores is None or isinstance(model, nn.Module) else scores

    def explain(photos: Tensor, target: Any) -> Tensor:
        modules = modules_behind(getattr(method, "forward_func", method))
        reading = scores.read_in(method) if scores is not None and (takes_model or made_with_model) else nullcontext()
        with gradient_errors(model, *modules), protect(model, *modules), torch.enable_grad(), reading:
            torch.manual_seed(seed)
            np.random.seed(seed % (1 << 32))  # noqa: NPY002  # methods may use it; protect restores the state
            random.seed(seed)
            inputs = photos.detach().clone()
            if transform is not None:
                inputs = transform(inputs).detach()
            if run is not method:
                attribution = run(inputs.clone(), target=target)
            else:
                attribution = run(given, inputs.clone(), target) if takes_model else run(inputs.clone(), target)
            return maps_of(method, attribution, inputs, size).contiguous()

    return explain


def run_once(runs: Runs, model: ForwardFunc, photos: Tensor, target: Any) -> None:
    """Add a run: the first is counted, later ones are timed. An error is stored as text, and ends the runs.

    A method is not run again after :data:`MAX_SECONDS` of timed runs.
    """
    if runs.error or sum(wall for _, wall in runs.seconds) > MAX_SECONDS:
        return
    try:
        if runs.maps is None:
            with protect(model), count_calls(model) as counts:
                maps = runs.explain(photos, target)
            runs.maps, runs.counts = maps.cpu().clone(), counts  # a method may change its output later
            return
        _wait(photos)
        cpu, wall = time.process_time(), time.perf_counter()
        runs.explain(photos, target)
        _wait(photos)
        runs.seconds.append((time.process_time() - cpu, time.perf_counter() - wall))
    except Exception as error:
        runs.error = f"{type(error).__name__}: {error}"
        runs.maps = None


def _takes_model(function: Any) -> bool:
    """Return whether a function has three required arguments, or three or more of which the first is named model."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # the signatures of some built-in functions cannot be read
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = len(arguments) >= 3 and arguments[0].kind in plain and arguments[0].name in MODEL_ARGUMENTS
    return by_name or sum(a.kind in plain and a.default is inspect.Parameter.empty for a in arguments) == 3


def _wait(photos: Tensor) -> None:
    if photos.is_cuda:
        torch.cuda.synchronize(photos.device)


def check_photos(inputs: Tensor) -> None:
    """Raise ValueError unless the photos are floats (N, C, H, W) in [0, 1]."""
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs are a {type(inputs).__name__}; expected a tensor of photos, floats (N, C, H, W).")
    if inputs.dim() != 4 or not inputs.is_floating_point() or not len(inputs):
        raise ValueError(
            f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; expected photos as floats, (N, C, H, W)."
        )
    low, high = (float(end) for end in inputs.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"inputs have values from {low:.3g} to {high:.3g}; expected photos in [0, 1]. Pass their normalisation as "
            "preprocess=."
        )


def check_masks(segmentation: Any, inputs: Tensor) -> Tensor | None:
    """Return the masks of the photos, (N, H, W) in [0, 1], as a checked tensor, with a warning about empty masks."""
    if segmentation is None:
        return None
    masks = segmentation if isinstance(segmentation, Tensor) else torch.as_tensor(np.asarray(segmentation))
    if masks.shape != (len(inputs), *inputs.shape[2:]):
        raise ValueError(
            f"segmentation has shape {tuple(masks.shape)}; expected one mask per photo, "
            f"{(len(inputs), *inputs.shape[2:])}."
        )
    energy_in_mask(torch.ones(masks.shape), masks.cpu())  # raises an error for wrong values
    if empty := [i for i, mask in enumerate(masks) if not bool((mask > 0).any())]:
        warnings.warn(
            f"segmentation is empty for image {', '.join(map(str, empty))} of {len(masks)}: pointing game and energy "
            "in mask are means over the other images.",
            stacklevel=3,
        )
    return masks


def check_preprocess_of_photos(model: ForwardFunc, preprocess: Preprocess | None, inputs: Tensor) -> None:
    """Raise TypeError or ValueError if the preprocessing does not accept tensors, crops, or is applied twice."""
    check_preprocess(model, preprocess)
    if preprocess is None:
        return
    with protect(model), torch.inference_mode(False), torch.enable_grad():
        try:
            crop = crop_of(preprocess, inputs)
        except Exception as error:
            raise TypeError(
                f"preprocess failed on a tensor of photos {tuple(inputs[:1].shape)}: {type(error).__name__}: {error}. "
                "Expected a function of float tensors (N, C, H, W) in [0, 1]; leave out steps that open or convert "
                "images, such as ToTensor."
            ) from error
    if crop is not None:
        (y0, y1), (x0, x1) = crop
        height, width = inputs.shape[2:]
        raise ValueError(
            f"preprocess uses only rows {y0} to {y1} and columns {x0} to {x1} of photos of {width} x {height} pixels, "
            "so that maps of the crop would be stretched over the photo. Crop the photos first "
            "(xinc_captum.images.centre_crop), and let preprocess normalise or resize."
        )


def compare(
    methods: Methods,
    model: ForwardFunc,
    inputs: Tensor,
    target: Target,
    layer: Layer | None = None,
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
    output_fn: OutputFn | None = None,
) -> Comparison:
    """Compare several attribution methods on the same images and targets, in one figure and one table.

    Every method runs with the same random seed on a copy of the images, and the model's state is restored after each
    run. The first run of a method is counted (calls of the model, backward passes, memory); the others alternate with
    those of the other methods and are timed. Measures are means over images with 95 % bootstrap intervals, which are
    wide for few images and missing for one. A method that raises an error gets a row with the error. Constant and
    non-finite maps cause a warning and are not measured.

    Args:
        methods: names (``"Grad-CAM"``, ``"Guided Grad-CAM"``, ``"Integrated Gradients"``, ``"Feature Accentuation"``,
            and ``"grad-cam"`` and ``"torchcam"`` where these packages are installed), Captum attributions, functions
            (images, target) -> map or (model, images, target) -> map, or CAM objects of pytorch-grad-cam; as a list,
            or as a mapping from your own names. Methods that were made with ``model``, or that take it as an argument,
            get ``preprocess(inputs)``; all others, and those that preprocess themselves, get ``inputs``. See
            :func:`~xinc_captum.comparison.as_maps` for the maps they may return.
        model: function from preprocessed images to outputs (N, classes), a tensor or a container from which
            :func:`~xinc_captum.batch.output_tensor` reads it. For other outputs give ``output_fn``.
        inputs: photos in [0, 1], (N, C, H, W).
        target: a class, or one per image; methods get a number, or a tensor (N,).
        layer: layer of the layer methods; None uses :func:`~xinc_captum.comparison.last_map`.
        metrics: names from :data:`~xinc_captum.comparison.COLUMNS`, or your own columns. Sensitivity and infidelity run
            each method, or the model, many more times, and are only measured if they are named here.
        segmentation: (N, H, W), bool or weights in [0, 1], position of the object. Without it the pointing game and the
            energy in the mask are not measured; photos with an empty mask are excluded from both.
        seed: random seed.
        preprocess: normalisation; it may resize but not crop, which would shift the maps.
        reference: method that the agreement measures compare with; None uses the first.
        baselines: model-independent maps, added as controls: a measure that cannot distinguish them from a method gives
            no information about that method.
        rounds: number of timed runs per method, at most; a method is not run again after ten seconds.
        steps: number of points on the deletion and insertion curves.
        probability: type of the outputs: "softmax" or "sigmoid" for logits, "identity" for probabilities, "none" for a
            regression, whose measures use the output itself; see :func:`xinc_captum.metrics.probabilities`. "auto" uses
            the setting of an ``ImageModel``, else determines it from the outputs of all photos.
        show_progress: whether to show progress bars.
        unit_axis: axis of the channels in ``layer``, for example -1 for (N, h, w, channels); None determines it.
        output_fn: function from the model's output to class scores (N, classes), such as
            ``lambda output: output["out"].mean((2, 3))`` for the maps of a segmentation. Named methods, and those that
            were made with ``model`` or take it as an argument, get the model with these outputs.

    Raises:
        TypeError: a method of another type, preprocessing that does not accept tensors, or an output in which no tensor
            can be chosen.
        ValueError: shapes or values that do not match, an unknown name or reference, no methods or rounds,
            preprocessing that crops or is applied twice, or outputs outside [0, 1] that are declared probabilities.
        IndexError: a target that is not a class.
        ModuleNotFoundError: the package of a method is not installed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> photos = torch.rand(2, 3, 8, 8)
        >>> result = compare(["Grad-CAM", "Integrated Gradients"], model, photos, target=1, layer="0")
        >>> result.maps["Grad-CAM"].shape
        torch.Size([2, 8, 8])

    Source: each function in :mod:`xinc_captum.metrics` names the source of its measure; sensitivity and infidelity are
    Captum's (Yeh et al., NeurIPS 2019), with squares of an eighth of the photo set to its mean colour.
    """
    columns = select_columns(metrics)
    if probability not in PROBABILITIES:
        raise ValueError(f"probability is {probability!r}; expected one of {', '.join(map(repr, PROBABILITIES))}.")
    check_photos(inputs)
    masks = check_masks(segmentation, inputs)
    check_preprocess_of_photos(model, preprocess, inputs)
    rounds, steps, seed = python_index((rounds, steps, seed))
    if not all(isinstance(number, int) for number in (rounds, steps, seed)):
        raise TypeError(f"rounds, steps and seed are {rounds}, {steps} and {seed}; expected whole numbers.")
    if min(rounds, steps) < 1:
        raise ValueError(f"rounds or steps is {min(rounds, steps)}; expected at least 1 of each.")
    size = (inputs.shape[-2], inputs.shape[-1])
    if probability == "auto" and isinstance(model, ImageModel):
        probability = model.probability
    with attribution_context(model):
        photos = inputs.detach().clone()
        scores_of = _check_outputs(model, preprocess, photos[:1], output_fn)
        scorer = model if scores_of is None else scores_of
        classify = after(preprocess, scorer)
        resolved = by_name(methods, scorer, photos, preprocess, layer, seed, unit_axis)
        reference = next(iter(resolved)) if reference is None else reference
        if reference not in resolved:
            raise ValueError(
                f"reference {reference!r} is not among the methods {', '.join(map(repr, resolved))}; expected one of "
                "their names, or None for the first."
            )
        if added := {name: name for name in baselines if name not in resolved}:
            resolved |= by_name(added, scorer, photos, preprocess, layer, seed)
        confidence, decided = score_outputs(classify, photos, target, probability)  # also checks the target
        kind = cast("Probability", decided)
        if kind == "none":
            columns = tuple(replace(one, meaning=one.meaning.replace("probability", "output")) for one in columns)
        targets = torch.as_tensor(target, device=photos.device).long().flatten().expand(len(photos)).contiguous()
        method_target = targets if torch.as_tensor(target).numel() > 1 else int(targets[0])
        runs = {
            name: Runs(bind_method(method, model, preprocess, size, seed, scores_of))
            for name, method in resolved.items()
        }
        for method_runs in progress(list(runs.values()) * (rounds + 1), "runs", show=show_progress):
            run_once(method_runs, model, photos, method_target)
        maps = {name: method_runs.maps for name, method_runs in runs.items() if method_runs.maps is not None}
        flaws = {name: faults(method_maps) for name, method_maps in maps.items()}
        scores = {}
        for name, method_maps in progress(maps.items(), "measures", show=show_progress, total=len(maps)):
            case = Case(
                _bind_target(runs[name].explain, method_target), classify, photos, method_maps.to(photos.device),
                targets, maps.get(reference), masks, steps, seed, kind,
            )  # fmt: skip
            scores[name] = _scores(name, case, columns, flaws[name])
    _warn(runs, flaws)
    rows = tuple(
        _row(name, method_runs, scores.get(name, {}), flaws.get(name, []), seed) for name, method_runs in runs.items()
    )
    measured = tuple(column for column in columns if any(column.name in row.scores for row in rows))
    note = {
        "seed": seed, "rounds": rounds, "steps": steps, "target": torch.as_tensor(target).tolist(),
        "baselines": [*model_independent(methods), *added], "network": _name(model), "probability": kind,
        "probability_detected": probability == "auto",
    }  # fmt: skip
    return Comparison(photos.float().cpu(), maps, rows, scores, confidence.float().cpu(), reference, note, measured)


def _check_outputs(
    model: ForwardFunc, preprocess: Preprocess | None, photo: Tensor, output_fn: OutputFn | None
) -> TensorOutput | None:
    """Return a function to class scores, or None if the model is one; raise an error for other outputs."""
    with protect(model), torch.no_grad():
        output = after(preprocess, model)(photo)
        read = output if output_fn is None else output_fn(output)
    given = "output" if output_fn is None else "output_fn(output)"
    class_scores(read, len(photo), f"output_fn=lambda output: {given}")
    return None if read is output and isinstance(output, Tensor) else TensorOutput(model, output_fn)


def _bind_target(explain: MapFunction, target: int | Tensor) -> Callable[[Tensor], Tensor]:
    return lambda photos: explain(photos, target)


def _scores(name: str, case: Case, columns: Sequence[Column], flaws: Sequence[str]) -> dict[str, Tensor]:
    """Return the measures of one method by image, nan where its map is invalid or the measure fails."""
    invalid = torch.tensor([bool(flaw) for flaw in flaws])
    scores = {}
    for column in columns:
        try:
            values = column.of(case)
        except Exception as error:
            text = f"{column.name} of {name} could not be measured: {type(error).__name__}: {error}"
            warnings.warn(text, stacklevel=3)
            values = torch.full(invalid.shape, torch.nan)
        if values is not None:
            scores[column.name] = values.detach().float().cpu().masked_fill(invalid, torch.nan)
    return scores


def _row(name: str, runs: Runs, scores: Mapping[str, Tensor], flaws: Sequence[str], seed: int) -> Row:
    cpu, wall = zip(*runs.seconds or [(math.nan, math.nan)], strict=True)
    return Row.of(name, (median(cpu), median(wall)), runs.counts, scores, flaws, runs.error, seed)


def _name(model: ForwardFunc) -> str:
    return str(getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__)


def _warn(runs: Mapping[str, Runs], flaws: Mapping[str, Sequence[str]]) -> None:
    for name, method_runs in runs.items():
        if method_runs.error:
            warnings.warn(f"{name} failed and has no map: {method_runs.error}", stacklevel=3)
    for name, method_flaws in flaws.items():
        for flaw in sorted(set(method_flaws) - {""}):
            images = [i for i, image_flaw in enumerate(method_flaws) if image_flaw == flaw]
            warnings.warn(
                f"{name} returned a map that is {flaw} for image {', '.join(map(str, images))} of "
                f"{len(method_flaws)}: such a map gives no ranking of pixels, and its scores are left out.",
                stacklevel=3,
            )
