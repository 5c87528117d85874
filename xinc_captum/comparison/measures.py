"""Maps of attribution methods, and the measures of these maps, one column of compare() each."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .._compat import LayerAttribution
from ..batch import OutputFn, output_tensor, random_generator
from ..hooks import ForwardFunc, modules_behind, of_this_thread, unwrap
from ..metrics import (
    DeletionInsertion,
    Probability,
    deletion_insertion,
    energy_in_mask,
    gini,
    pointing_game,
    probabilities,
    road,
    spearman,
    top_overlap,
)


def as_maps(attribution: Any, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return one map per image, of the photos' size (H, W): (N, H, W) in float32.

    Attributions of the shape of ``inputs`` (N, C, H, W) become Σ|.| over channels; (N, 1, H, W) of a grey image is
    input-shaped. Layer-shaped ones (N, 1, h, w) are clamped at 0; maps (N, H, W) are not changed. Maps of another size,
    that of the layer or of inputs that preprocessing resized, are resized bilinearly (align_corners=False).

    Raises:
        TypeError: the attribution is neither a tensor nor an array.
        ValueError: it has another shape.

    Example:
        >>> as_maps(torch.tensor([[[[2.0, -1.0]]]]), torch.rand(1, 3, 2, 4), (2, 4))
        tensor([[[2.0000, 1.5000, 0.5000, 0.0000],
                 [2.0000, 1.5000, 0.5000, 0.0000]]])
    """
    if isinstance(attribution, np.ndarray):
        attribution = torch.from_numpy(attribution)
    if not isinstance(attribution, Tensor):
        raise TypeError(
            f"the method returned a {type(attribution).__name__}; expected one tensor with a map for each image."
        )
    values, count = attribution.detach().float(), len(inputs)
    if values.shape == inputs.shape:
        maps = values.abs().sum(1)
    elif values.dim() == 4 and values.shape[:2] == (count, 1):
        maps = values.relu()[:, 0]
    elif values.dim() == 3 and values.shape in {(count, *size), (count, *inputs.shape[2:])}:
        maps = values
    else:
        raise ValueError(
            f"the method returned shape {tuple(values.shape)} for inputs of shape {tuple(inputs.shape)}; expected maps "
            "(N, H, W), input-shaped (N, C, H, W) or layer-shaped (N, 1, h, w). Arrange tokens in a grid first "
            "(xinc_captum.layer_to_grid), and sum over the units of a layer: "
            "lambda images, target: method.attribute(images, target=target).sum(1, keepdim=True)."
        )
    if maps.shape[1:] != size:
        maps = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return maps


def maps_of(method: Any, attribution: Any, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return :func:`as_maps`, but clamp the map of a layer at 0 also where it is as large as a grey image."""
    same_shape = isinstance(attribution, Tensor) and attribution.shape == (len(inputs), 1, *inputs.shape[2:])
    if same_shape and isinstance(method, LayerAttribution):
        attribution = attribution.relu()[:, 0]
    return as_maps(attribution, inputs, size)


def faults(maps: Tensor) -> list[str]:
    """Return why each map ranks no pixels, "constant" or "not finite"; "" for a valid map.

    A map is constant if it varies by less than a millionth of its largest magnitude, as in
    :func:`xinc_captum.metrics.spearman`.
    """
    flat = maps.detach().flatten(1)
    finite = flat.isfinite().all(1).tolist()
    constant = (flat.amax(1) - flat.amin(1) <= 1e-6 * flat.abs().amax(1)).tolist()
    return ["not finite" if not ok else "constant" if equal else "" for ok, equal in zip(finite, constant, strict=True)]


class TensorOutput:
    """A model as a function to the one tensor that ``output_fn``, or the default, reads from its output."""

    def __init__(self, model: ForwardFunc, output_fn: OutputFn | None = None) -> None:
        self.model, self.output_fn = model, output_fn

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the tensor for inputs (N, ...)."""
        return self.read(self.model(inputs), len(inputs))

    def read(self, output: Any, rows: int) -> Tensor:
        """Return the tensor in an output for ``rows`` samples."""
        return output_tensor(output if self.output_fn is None else self.output_fn(output), rows)

    @contextmanager
    def read_in(self, method: Any) -> Iterator[None]:
        """Let a method that calls the model get this tensor in the block: by a hook, or in place of its function."""
        ours = of_this_thread()

        def reduce(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if (isinstance(output, Tensor) and self.output_fn is None) or not ours(module):
                return None
            tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim())
            return self.read(output, next((len(leaf) for leaf in tensors), 1))

        with ExitStack() as stack:
            if isinstance(self.model, nn.Module):
                stack.callback(self.model.register_forward_hook(reduce, with_kwargs=True).remove)
            else:
                parts: list[Any] = [method, getattr(method, "attribution_method", None)]
                for part in parts:
                    if getattr(part, "forward_func", None) is self.model:
                        stack.callback(setattr, part, "forward_func", self.model)
                        part.forward_func = self
            yield


def reads_output(method: Any) -> bool:
    """Return whether a method, or the one that it wraps, was made with ``output_fn=`` and needs the whole output."""
    parts = (method, getattr(method, "model", None), getattr(method, "attribution_method", None))
    return any(getattr(part, "output_fn", None) is not None for part in parts)


def quantus_explain_func(method: Any, **arguments: Any) -> Callable[..., NDArray[Any]]:
    """Return a method as the ``explain_func`` of Quantus: (model, inputs, targets) -> maps (N, 1, H, W), all arrays.

    Input-shaped attributions are summed over channels with their signs, as Quantus does for Captum; layer-shaped ones
    (N, 1, h, w) are resized to the inputs. A model that returns a dict, dataclass or tuple returns the tensor of
    :func:`~xinc_captum.batch.output_tensor` while the method runs.

    Args:
        method: a function from a model to an attribution, such as ``lambda model: LayerGradCam(model, model.layer4)``;
            or an attribution, which explains only the model that it was made with: ValueError for another one, such as
            the copies of metrics that randomise a model (MPRT, SmoothMPRT).
        **arguments: keyword arguments for ``attribute``. A ``target`` replaces that of Quantus; with
            ``neuron_selector`` no target is passed.

    Example:
        >>> from captum.attr import Saliency
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> quantus_explain_func(Saliency)(model, np.ones((5, 3, 2, 2)), np.zeros(5)).shape
        (5, 1, 2, 2)

    Source: Hedström et al., "Quantus" (JMLR 2023).
    """

    def explain(model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any], **_: Any) -> NDArray[Any]:
        reference = next(model.parameters(), torch.zeros(()))
        batch = torch.as_tensor(np.asarray(inputs)).to(reference)
        keywords = dict(arguments)
        if not {"neuron_selector", "target"} & keywords.keys():
            keywords["target"] = torch.as_tensor(np.asarray(targets)).long().to(batch.device)
        attribution = method(model) if isinstance(method, type) or not hasattr(method, "attribute") else method
        if attribution is method:
            _check_model(method, model)
        with nullcontext() if reads_output(attribution) else TensorOutput(model).read_in(attribution):
            values = attribution.attribute(batch, **keywords).detach()
        if values.shape == batch.shape and not isinstance(attribution, LayerAttribution):
            values = values.sum(1, keepdim=True)
        else:
            values = maps_of(attribution, values, batch, (batch.shape[-2], batch.shape[-1]))[:, None]
        maps: NDArray[Any] = values.float().cpu().numpy()
        return maps

    return explain


def _check_model(method: Any, model: nn.Module) -> None:
    modules = modules_behind(method.forward_func)
    if modules and not any(unwrap(model) is root for root in modules):
        raise ValueError(
            f"Quantus passes another {type(model).__name__} than the one that this {type(method).__name__} was made "
            "with, as metrics do that randomise weights. Pass a function from a model to a method: "
            "quantus_explain_func(lambda model: ...)."
        )


DRAWS, SQUARES = 8, 32  # perturbed copies of an image, for sensitivity and for infidelity
RADIUS = 0.02  # of the perturbation for sensitivity, Captum's default
SIDE = 8  # the side of the image divided by that of a removed square


@dataclass(frozen=True)
class Case:
    """The inputs of a measure: the maps of one method, and the model, images and settings.

    Attributes:
        explain: function from N photos, possibly perturbed, to maps (N, H, W); measures call it any number of times.
        classify: function from photos in [0, 1] to outputs (N, classes).
        photos: (N, C, H, W).
        maps: (N, H, W), on the photos' device.
        target: (N,), long.
        reference: maps of the reference method, or None.
        segmentation: (N, H, W), or None.
        steps: number of points on the curves.
        seed: random seed.
        probability: type of the outputs, see :func:`xinc_captum.metrics.probabilities`.
    """

    explain: Callable[[Tensor], Tensor]
    classify: ForwardFunc
    photos: Tensor
    maps: Tensor
    target: Tensor
    reference: Tensor | None
    segmentation: Tensor | None
    steps: int
    seed: int
    probability: Probability = "auto"

    @cached_property
    def curves(self) -> DeletionInsertion:
        """Areas under the deletion curve, towards the mean colour, and the insertion curve, of one run."""
        grey = self.photos.mean((2, 3), keepdim=True)
        return deletion_insertion(
            self.classify, self.photos, self.maps, self.target, baseline=grey, steps=self.steps, scores=self.probability
        )


@dataclass(frozen=True)
class Column:
    """One measure.

    Attributes:
        name: name for ``metrics=``.
        title: title of the column.
        better: "↓" where less is better, "↑" where more is better, "" where neither is.
        of: function from a case to values (N,), nan where an image has none; None where the case lacks an input.
        digits: number of decimals.
        meaning: short explanation.
    """

    name: str
    title: str
    better: Literal["↓", "↑", ""]
    of: Callable[[Case], Tensor | None]
    digits: int = 2
    meaning: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        if self in COLUMNS:
            return _by_name, (self.name,)
        try:
            pickle.dumps(self.of)
        except Exception:  # any error of its parts
            of: Callable[[Case], Tensor | None] = _not_pickled
        else:
            of = self.of
        return Column, (self.name, self.title, self.better, of, self.digits, self.meaning)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Column":
        return self  # frozen, and functions are not copied

    def __copy__(self) -> "Column":
        return self


def _by_name(name: str) -> Column:
    return next(column for column in COLUMNS if column.name == name)


def _not_pickled(_: Case) -> None:
    raise TypeError(
        "This measure was unpickled without its function, which was a lambda or defined inside another function. "
        "Define the function at the top of a module, or pass the measure to compare() again."
    )


def _agreement(case: Case) -> Tensor | None:
    if case.reference is None:
        return None
    pairs = zip(case.maps.cpu(), case.reference, strict=True)
    rhos = [spearman(one.flatten()[None], other.flatten()[None]).values for one, other in pairs]
    return torch.stack([rho[0].float() if len(rho) else torch.tensor(torch.nan) for rho in rhos])


def _overlap(case: Case) -> Tensor | None:
    if case.reference is None:
        return None
    invalid = torch.tensor([bool(fault) for fault in faults(case.reference)])
    return top_overlap(case.maps.cpu(), case.reference).masked_fill(invalid, torch.nan)


def _peak_in_mask(case: Case) -> Tensor | None:
    return None if case.segmentation is None else pointing_game(case.maps.cpu(), case.segmentation.cpu())


def _energy(case: Case) -> Tensor | None:
    return None if case.segmentation is None else energy_in_mask(case.maps.cpu().clamp_min(0), case.segmentation.cpu())


def _sensitivity(case: Case) -> Tensor:
    def explain(photos: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Captum puts the copies of a photo side by side; here each copy has the batch index of its photo, so that a
        # method draws the same random numbers for it.
        draws = photos[0].to(case.photos.dtype).unflatten(0, (len(case.photos), -1))
        return (torch.stack([case.explain(draw) for draw in draws.unbind(1)], 1).flatten(0, 1)[:, None],)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        values: Tensor = sensitivity_max(explain, case.photos, perturb_radius=RADIUS, n_perturb_samples=DRAWS)
    return values


def _infidelity(case: Case) -> Tensor:
    grey = case.photos.mean((2, 3), keepdim=True)
    generator = random_generator(case.seed)
    size = case.photos.shape[-2:]
    sides = [max(n // SIDE, 1) for n in size]

    def remove_square(photos: Tensor) -> tuple[Tensor, Tensor]:
        square = torch.zeros(len(photos), 1, *size, dtype=photos.dtype)
        for image in square:
            y, x = (
                int(torch.randint(n - side + 1, (), generator=generator)) for n, side in zip(size, sides, strict=True)
            )
            image[:, y : y + sides[0], x : x + sides[1]] = 1
        square = square.to(photos.device)
        colour = grey.repeat_interleave(len(photos) // len(grey), 0)
        return square.expand_as(photos), torch.where(square > 0, colour, photos)

    attributions = case.maps[:, None].expand_as(case.photos).to(case.photos.dtype) / case.photos.shape[1]
    values: Tensor = infidelity(
        lambda photos: probabilities(case.classify(photos), case.probability),
        remove_square,
        case.photos,
        attributions,
        target=case.target,
        n_perturb_samples=SQUARES,
        max_examples_per_batch=max(32, len(case.photos)),
        normalize=True,
    )
    return values


COLUMNS = (
    Column(
        "deletion", "deletion AUC", "↓", lambda c: c.curves.deletion,
        meaning="area under the class's probability, strongest pixels removed first",
    ),
    Column(
        "insertion", "insertion AUC", "↑", lambda c: c.curves.insertion,
        meaning="area under the class's probability, strongest pixels added first",
    ),
    Column(
        "road", "ROAD", "↑",
        lambda c: road(c.classify, c.photos, c.maps, c.target, seed=c.seed, scores=c.probability), 3,
        "probability without the weakest pixels minus probability without the strongest pixels, divided by two",
    ),
    Column(
        "sparseness", "Gini", "", lambda c: gini(c.maps.clamp_min(0)),
        meaning="concentration of the map: 0 if all pixels are equal, 1 for a single pixel",
    ),
    Column("agreement", "ρ with {reference}", "", _agreement, meaning="rank correlation with the map of the reference"),
    Column(
        "overlap", "top-10 % IoU with {reference}", "", _overlap,
        meaning="overlap of the strongest tenths of both maps' pixels: 0 none, 1 complete",
    ),
    Column("pointing", "pointing game", "↑", _peak_in_mask, meaning="share of maps with their maximum in the mask"),
    Column("energy", "energy in mask", "↑", _energy, meaning="share of the map inside the mask"),
    Column(
        "sensitivity", "max-sensitivity", "↓", _sensitivity,
        meaning=f"relative change of the map when pixels change by at most {RADIUS}",
    ),
    Column(
        "infidelity", "infidelity x 1000", "↓", lambda c: 1000 * _infidelity(c),
        meaning="squared difference between the measured decrease in probability when a square is removed and the "
        "decrease that the map predicts",
    ),
)  # fmt: skip
DEFAULT = tuple(column.name for column in COLUMNS[:8])
ALL = tuple(column.name for column in COLUMNS)
RESERVED = ("method", "seconds", "cpu_seconds", "forwards", "backwards", "peak MB", "left_out", "fault", "error")


def select_columns(metrics: Sequence[str | Column]) -> tuple[Column, ...]:
    """Return the columns with these names, or a :class:`Column` as it is; ValueError for unknown or repeated names."""
    by_name = {column.name: column for column in COLUMNS}
    unknown = [metric for metric in metrics if isinstance(metric, str) and metric not in by_name]
    if unknown:
        raise ValueError(f"metrics contains {unknown[0]!r}; expected names from {', '.join(map(repr, by_name))}.")
    columns = tuple(by_name[metric] if isinstance(metric, str) else metric for metric in metrics)
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise ValueError(f"metrics contains a name twice: {', '.join(map(repr, names))}. Give each measure once.")
    if reserved := [name for name in names if name in RESERVED]:
        raise ValueError(
            f"a measure is named {reserved[0]!r}, which is reserved for a cost or remark of every row; choose another "
            "name."
        )
    return columns
