"""Sweeps of units: which columns and values, the latents, and the result UnitSweep."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...batch import python_index
from ...images import to_hwc
from ...metrics.fidelity import Fidelity, fidelity
from ...metrics.statistics import predict_classes
from ...metrics.trust import Verdict
from ...store import bundle, write_tensors
from .link import Bounds, Direction, Link
from .loop import Loop, RoundTrip


class SweepTrust(Verdict):
    """Verdict of a sweep or a counterfactual search, and its reason."""


@dataclass(frozen=True, eq=False)
class UnitSweep:
    """Result of :meth:`LinkedUnitVisualization.sweep`; tensors are detached.

    Attributes:
        values: of the unit, (S,).
        images: the generated frames, (N, S, C, H, W) in [0, 1].
        representations: of the encoded frames, (N, S, units).
        latents: (N, S, latent_dim).
        scores: of the frames, (N, S, K).
        fidelity: how faithfully the frames show the values.
        unit: column of the representation.
        base: images of the anchors (the linked inputs, or those of ``latents=``), (N, C, H, W).
        base_representations: of these, (N, units).
        base_scores: (N, K).
        own: value at which a frame is the base image, (N,): the unit's in the anchors (mode "replace": in the inputs).
        agreement: share of samples whose base image has the class of the input.
        settings: mode, direction and span, for the manifest.
    """

    values: Tensor
    images: Tensor
    representations: Tensor
    latents: Tensor
    scores: Tensor
    fidelity: Fidelity
    unit: int
    base: Tensor
    base_representations: Tensor
    base_scores: Tensor
    own: Tensor
    agreement: float
    settings: dict[str, Any]

    @property
    def response(self) -> Tensor:
        """The unit's value in every encoded frame, (N, S)."""
        return self.representations[..., self.unit]

    @property
    def trust(self) -> SweepTrust:
        """Verdict (holds, weak or fails) and reason: that of :class:`Fidelity`.

        It is at most *weak* if linking alone changes the class of half of the inputs or more, because the frames then
        no longer show the inputs.
        """
        verdict, because = self.fidelity.verdict
        if self.agreement <= 0.5 and verdict != "fails":
            changed = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any unit is set"
            return SweepTrust("weak", f"{changed}; {because}")
        return SweepTrust(verdict, because)

    def save(self, path: str | Path) -> Path:
        """Write frames and numbers, atomically, into a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the folder cannot be written, or has other content.
        """
        fidelity = self.fidelity
        note = {
            "unit": self.unit,
            "trust": asdict(self.trust),
            "fidelity": {"rank": fidelity.rank, "alive": fidelity.alive}
            | {name: none_for_nan(getattr(fidelity, name)) for name in ("rho", "gain", "flips")},
            "agreement": self.agreement,
            "settings": self.settings,
        }
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        tensors |= {"ranks": fidelity.ranks, "moved": fidelity.moved}
        return save_frames(path, "sweep", note, tensors, self.images)


def save_frames(
    path: str | Path, kind: str, note: dict[str, Any], tensors: dict[str, Tensor], rows: Iterable[Tensor]
) -> Path:
    """Write a folder of tensors and of one image per sample: its frames, (S, C, H, W) in [0, 1], side by side."""
    with bundle(path, note) as folder:
        write_tensors(folder / f"{kind}.safetensors", tensors, kind=kind)
        for row, frames in enumerate(rows):
            if frames.shape[1] in (1, 3):
                strip = to_hwc(torch.cat(list(frames.clamp(0, 1)), -1).expand(3, -1, -1))
                Image.fromarray(np.round(strip * 255).astype(np.uint8)).save(folder / f"row{row}.png")
    return Path(path)


def none_for_nan(number: float) -> float | None:
    """Return None for nan, which JSON does not have and other programs read as text."""
    return None if number != number else number


def columns(selector: Any, shape: tuple[int, ...], alive: Tensor) -> list[int]:
    """Return the columns of the representation that a Captum selector names; all of them must be alive, (units,).

    An int is a column. A tuple of ints and slices indexes the layer's dimensions after the samples, ``shape``, if these
    were flattened, and the columns otherwise.
    """
    selector, units = python_index(selector), len(alive)
    index = selector if isinstance(selector, tuple) else (selector,)
    if isinstance(selector, list):
        raise TypeError(f"neuron_selector is a list of {len(selector)}; give one unit here, and a list to sweeps().")
    if any(isinstance(i, bool) or not isinstance(i, int | slice) for i in index) or isinstance(selector, slice):
        raise TypeError(
            f"neuron_selector {selector!r} is a {type(selector).__name__}; expected an int, which is a unit of the "
            "linked representation, or a tuple of ints and slices, which index the layer's dimensions."
        )
    is_flattened = isinstance(selector, tuple) and torch.Size(shape).numel() == units
    dims = shape if is_flattened else (units,)
    if len(index) != len(dims):
        raise IndexError(f"neuron_selector {selector!r} has {len(index)} entries; the linked dims are {dims}.")
    for i, size in zip(index, dims, strict=True):
        if isinstance(i, int) and not -size <= i < size:
            raise IndexError(
                f"neuron_selector {selector!r} is out of range: the linked dims are {dims}, so expected {i} to be in "
                f"[{-size}, {size - 1}]."
            )
    selected: list[int] = torch.arange(units).view(dims)[index].flatten().tolist()
    if not selected:
        raise IndexError(f"neuron_selector {selector!r} selects no unit of {dims}.")
    dead = [u for u in selected if not bool(alive[u])]
    if dead:
        raise ValueError(
            f"unit {dead[0]} is dead: it does not vary over the pairs of the link, so it has no direction. Choose a "
            "unit for which link.alive is True."
        )
    return selected


def column(selector: Any, shape: tuple[int, ...], alive: Tensor) -> int:
    """Return the column of a selector of a single unit, as :func:`columns`."""
    selected = columns(selector, shape, alive)
    if len(selected) > 1:
        raise ValueError(
            f"neuron_selector {selector!r} selects {len(selected)} units, but a value is set for one; select one of "
            "them."
        )
    return selected[0]


Values = Tensor | Sequence[float] | Bounds


def unit_steps(
    link: Link,
    r: Tensor,
    unit: int,
    values: Tensor,
    *,
    anchor: Tensor,
    start: Tensor,
    direction: Direction = "marginal",
    classes: Tensor | None = None,
) -> Tensor:
    r"""Return latents at which a unit should take each value, on a path from an anchor: (n, S, latent_dim).

    .. math:: w_{ns} = a_n + (v_s - o_n)\, d_u, \qquad
        \text{partial: } w_{ns} = a_n + \mathrm{link}(r_n + (v_s - o_n) e_u) - \mathrm{link}(r_n)

    Symbols: r the representations (n, units), u the unit, e_u its basis vector, v the values (S,), a the latents of the
    anchors (n, latent_dim), o = ``start`` the unit's value there (n,), d_u the :meth:`LatentLink.direction`. A
    ``"per_class"`` link needs the classes (n,). The paper sets r_u := v and leaves the other units unchanged: that is
    ``direction="partial"`` with a = link(r) and o = r_u. Images seldom follow it: they have fewer degrees of freedom
    than there are units, and the unchanged units contradict the changed one.

    Example:
        >>> from xinc_captum import LatentLink
        >>> r = torch.rand(50, 3)
        >>> link = LatentLink(ridge=0.0).fit(r, r @ torch.rand(3, 2))
        >>> unit_steps(link, r[:4], 0, torch.tensor([0.0, 1.0]), anchor=link(r[:4]), start=r[:4, 0]).shape
        torch.Size([4, 2, 2])

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865), tuning of one unit.
    """
    change = values.to(start)[None] - start[:, None]
    if direction != "partial":
        return anchor[:, None] + change.to(anchor)[..., None] * link.direction([unit], direction)[0].to(anchor)
    changed = r[:, None].repeat(1, len(values), 1)
    changed[..., unit] += change.to(r)
    repeated = None if classes is None else classes.repeat_interleave(len(values))
    linked: Tensor = link(changed.flatten(0, 1), repeated).unflatten(0, change.shape)
    base: Tensor = link(r, classes)
    return linked.to(anchor) + (anchor - base.to(anchor))[:, None]


def unit_values(link: Link, unit: int, values: Values, steps: int = 5) -> Tensor:
    """Return the values of a unit's sweep, (S,) float64: numbers as given, or ``steps`` values over a span of the link.

    A span is ``"quantile"``, ``"minmax"`` or ``"sd"`` (:meth:`LatentLink.bounds`).

    Raises:
        ValueError: no values, values that are not finite, an unknown span, or fewer than two steps.
    """
    if isinstance(values, str):
        if values not in get_args(Bounds):
            raise ValueError(f"values is {values!r}; expected numbers, or the span 'quantile', 'minmax' or 'sd'.")
        if steps < 2:
            raise ValueError(f"steps is {steps}; expected at least 2, from one end of the span to the other.")
        low, high = link.bounds([unit], values)[0].tolist()
        return torch.linspace(low, high, steps, dtype=torch.float64)
    numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if numbers.dim() != 1 or not numbers.numel() or not numbers.isfinite().all():
        raise ValueError(
            f"values have shape {tuple(numbers.shape)}, {int((~numbers.isfinite()).sum())} of them not finite; "
            "expected finite numbers, (S,), or the span 'quantile', 'minmax' or 'sd'."
        )
    return numbers


Mode = Literal["anchored", "replace"]


class SweepOptions(TypedDict, total=False):
    """Options of a sweep; :class:`SweepSettings` explains each."""

    steps: int
    mode: Mode
    direction: Direction
    latents: Tensor | None


@dataclass(frozen=True)
class SweepSettings:
    """How units are swept.

    Attributes:
        values: numbers (S,), or a span of the link: "quantile" (5 % to 95 %), "minmax", "sd".
        steps: number of values over a span.
        mode: "anchored" starts from the anchor's image and from the unit's value in it, so that this value leaves the
            image unchanged; "replace" sets the unit in the input's representation, as the paper does, so that every
            frame includes the error of linking.
        direction: "marginal", "partial" or "within_class" (:meth:`LatentLink.direction`).
        latents: anchors, (N, latent_dim), if the inputs are the generator's own images with known latents; None links
            the inputs. Only for mode "anchored".
    """

    values: Values = "quantile"
    steps: int = 5
    mode: Mode = "anchored"
    direction: Direction = "marginal"
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, Mode), ("direction", self.direction, Direction)):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, get_args(known)))}.")
        if self.latents is not None and self.mode == "replace":
            raise ValueError(
                "latents= are anchors, and mode 'replace' starts from the inputs' own representations; omit latents=, "
                "or use mode 'anchored'."
            )

    def anchor(self, loop: Loop) -> RoundTrip:
        """Return the round trip that all sweeps of these samples start from."""
        if self.latents is None:
            return loop.linked
        latents, shape = self.latents.detach(), (len(loop.r), loop.latent.shape[1])
        if latents.shape != shape or not bool(latents.isfinite().all()):
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected finite numbers {shape}, one latent per sample."
            )
        return loop.run(latents.to(loop.latent), loop.index)

    def plan(self, loop: Loop, anchor: RoundTrip, unit: int) -> "SweepPlan":
        """Return the values and latents of one unit's sweep."""
        link, r, classes = loop.link, loop.r, loop.classes_of(loop.index)
        values = unit_values(link, unit, self.values, self.steps)
        start = r[:, unit] if self.mode == "replace" else anchor.representations[:, unit].to(r)
        with torch.no_grad():
            latents = unit_steps(
                link, r, unit, values, anchor=anchor.latents, start=start, direction=self.direction, classes=classes
            )
        return SweepPlan(unit, values, start, latents)


class SweepPlan(NamedTuple):
    """One unit's sweep before generation: values (S,), the value of the base (N,), latents (N, S, latent_dim)."""

    unit: int
    values: Tensor
    start: Tensor
    latents: Tensor


def sweep_units(loop: Loop, anchor: RoundTrip, units: Sequence[int], settings: SweepSettings) -> list[UnitSweep]:
    """Sweep several units in common batches of at most the loop's limit."""
    plans = [settings.plan(loop, anchor, unit) for unit in units]
    latents = torch.cat([plan.latents.flatten(0, 1) for plan in plans])
    index = torch.cat([loop.index.repeat_interleave(len(plan.values)) for plan in plans])
    sizes = [len(loop.r) * len(plan.values) for plan in plans]
    frames = map(RoundTrip, *(tensor.split(sizes) for tensor in loop.run(latents, index)))
    return [_unit_sweep(loop, anchor, some, plan, settings) for plan, some in zip(plans, frames, strict=True)]


def _unit_sweep(
    loop: Loop, anchor: RoundTrip, frames: RoundTrip, plan: SweepPlan, settings: SweepSettings
) -> UnitSweep:
    sizes = (len(loop.r), len(plan.values))
    latents, images, representations, scores = (detach(tensor.unflatten(0, sizes)) for tensor in frames)
    scored = fidelity(
        representations,
        anchor.representations,
        plan.values,
        plan.unit,
        sd=loop.link.r_sd,
        alive=loop.link.alive,
        scores=scores,
        base_scores=anchor.scores,
    )
    return UnitSweep(
        values=plan.values,
        images=images,
        representations=representations,
        latents=latents,
        scores=scores,
        fidelity=scored,
        unit=plan.unit,
        base=detach(anchor.images),
        base_representations=detach(anchor.representations),
        base_scores=detach(anchor.scores),
        own=detach(plan.start),
        agreement=agreement(anchor.scores, loop.scores),
        settings={
            "mode": settings.mode,
            "direction": settings.direction,
            "values": settings.values if isinstance(settings.values, str) else "given",
            "anchors": settings.latents is not None,
        },
    )


def detach(tensor: Tensor) -> Tensor:
    """Return the tensor detached and contiguous."""
    return tensor.detach().contiguous()


def agreement(linked: Tensor, scores: Tensor) -> float:
    """Return the share of inputs whose linked image has the input's class, from the scores of both."""
    return float((predict_classes(linked, scores) == predict_classes(scores)).double().mean())
