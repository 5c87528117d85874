"""From a method, a tail and rows to a lazy canvas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...alignment import settled
from ...batch import Batch
from ...hooks import exclusive, layer_name, snapshot
from ...metrics.canvas_trust import CanvasTrust
from ...targets import called
from ...units import Selector, listed
from ..contract import plain, shares_statistics
from .canvas import Canvas
from .canvas_assessing import assess, assess_ablation
from .finite import check_finite
from .framing import are_frames, frame_canvas
from .rules import (
    Ablation,
    Rule,
    Secant,
    Tail,
    Tangent,
)
from .rules.budget import Footprint, measure
from .rules.pairs import behind, kernels_of
from .rules.together import Together

if TYPE_CHECKING:
    from .neuron_canvas import NeuronCanvas


@dataclass(frozen=True)
class Plan:
    """How rows are cut.

    Attributes:
        rule: prepared.
        rows: at once.
        units: of one forward.
        footprint: what a few rows need.
    """

    rule: Rule
    rows: int
    units: int
    footprint: Footprint


def plan(rule: Rule, tail: Tail, batch: Batch, pairs: bool, budget: int | None, per_eval: int | None) -> Plan:
    """Look at a few rows and cut all of them to the budget.

    Raises:
        ValueError: ``per_eval`` or the budget is not positive.
    """
    if per_eval is not None and per_eval < 1:
        raise ValueError(f"perturbations_per_eval is {per_eval}; wanted at least 1.")
    footprint = measure(tail, batch)
    if isinstance(rule, Ablation) and isinstance(rule.baselines, Tensor):
        rule = replace(rule, baselines=tail.baselines(rule.baselines, footprint.activation))
    units = math.prod(kernels_of(tail).shape) if pairs else len(listed(footprint.activation, None))
    fit = footprint.rows(units + 1, budget, enough=batch.rows)
    size = min(batch.rows, fit)
    frames = footprint.output[0].numel() > 2 * units
    stacked = footprint.stack(units, size if frames else batch.rows, budget)
    if shares_statistics(tail.forward_func, tail.layer):  # rows see one another: neither cut nor stack unasked
        size, stacked = batch.rows if budget is None else size, 1
    return Plan(rule.prepared(tail, batch, size), size, per_eval or stacked, footprint)


def draw(
    rule: Rule,
    tail: Tail,
    batch: Batch,
    size: tuple[int, ...],
    pairs: bool,
    surroundings: Callable[[], AbstractContextManager[None]],
    *,
    place: str = "",
    budget: int | None = None,
    per_eval: int | None = None,
    show_progress: bool = False,
) -> Canvas:
    """A canvas whose queries run in ``surroundings``; this itself is called in them.

    Args:
        rule: as the user gave it.
        tail: of a snapshot of the model.
        batch: all rows.
        size: of the picture whose pixels the rows are, or of the pictures that they are.
        pairs: kernels instead of units.
        surroundings: what queries run in.
        place: the layer's name.
        budget: bytes of working memory of each query.
        per_eval: units in one forward.
        show_progress: a bar on every query.

    Raises:
        ValueError: rows that do not match ``size``, pairs of pixels, or values that are not finite.
    """
    left = tuple(tail.output(batch.cut(0, 1)).shape[1:])
    frames = are_frames(left, size, batch.rows)
    if not frames:
        _check_pixels(size, batch.rows, left, pairs)
    planned = plan(rule, tail, batch, pairs, budget, per_eval)
    words, prepared = repr(rule)[:200], planned.rule
    same = batch, size, pairs, surroundings
    alone = replace(tail, together=None)  # what other layers share stays theirs
    removed = partial(draw, Ablation(), alone, *same, budget=budget, per_eval=per_eval)
    assessor = _assessor(prepared, tail, batch, removed)
    if frames:
        framed = prepared, tail, batch, size, pairs, planned.footprint, budget
        canvas, first = frame_canvas(*framed, surroundings, show_progress)
        check_finite(batch, first, tail.layer)
        return replace(canvas, rule=words, layer=place, _assess=assessor)
    first = prepared.neurons(tail, batch.cut(0, 1), None, planned.units)
    check_finite(batch, first, tail.layer)

    def shares(start: int, stop: int, selector: Selector) -> Tensor:
        with torch.enable_grad():
            part = plain(prepared.neurons(tail, batch.cut(start, stop), selector, planned.units))
        return part.reshape(*part.shape[:2], -1)

    return Canvas(
        size=size,
        units=first.shape[1] - prepared.slots,
        channels=first[0, 0].numel(),
        slots=prepared.slots,
        _shares=shares,
        _rows_at_once=planned.rows,
        _surroundings=surroundings,
        _show_progress=show_progress,
        rule=words,
        layer=place,
        _assess=assessor,
    )


def _assessor(rule: Rule, tail: Tail, batch: Batch, removed: Callable[[], Canvas]) -> Callable[[Canvas], CanvasTrust]:
    """The function that looks a canvas over when someone asks."""
    if isinstance(rule, Ablation):
        return partial(assess_ablation, output=lambda first, last: plain(tail.output(batch.cut(first, last))))
    if shares_statistics(tail.forward_func, tail.layer):
        said = "a batch norm in training mode lets rows change one another; call model.eval()"
        return lambda _canvas: CanvasTrust("weak", said)
    whole = (lambda first, last: plain(rule.whole(tail, batch.cut(first, last)))) if rule.slots else None
    return partial(assess, removed=removed, whole=whole)


@exclusive()  # the copy of the parameters too: another thread's call may have others in their places
def drawn_together(
    methods: Sequence[NeuronCanvas],
    inputs: Tensor | tuple[Tensor, ...],
    size: tuple[int, ...],
    target: Any,
    additional_forward_args: Any,
    attribute_to_layer_input: bool,
    perturbations_per_eval: int | None,
    memory_budget: int | None,
    show_progress: bool,
) -> list[Canvas]:
    """One canvas a method, all of one model, on one copy of its parameters and one recorded forward pass."""
    with torch.inference_mode(False):
        batch = Batch.of(inputs, additional_forward_args, target)
    call = snapshot(methods[0]._call, *(one.layer for one in methods))
    tails = [one._tail(call, attribute_to_layer_input) for one in methods]
    with methods[0]._surroundings():
        batch = settled(batch, partial(called, call, methods[0].output_fn))
    if len(tails) > 1 and isinstance(methods[0].rule, Tangent | Secant):
        # Kernels are carried on from what leaves their layer.
        together = Together([behind(tail) if methods[0].unit == "pair" else tail for tail in tails])
        tails = [replace(tail, together=together) for tail in tails]
    answers = []
    for one, tail in zip(methods, tails, strict=True):
        with one._surroundings():
            canvas = draw(
                one.rule,
                tail,
                batch,
                tuple(size),
                one.unit == "pair",
                one._surroundings,
                place=layer_name(one.forward_func, one.layer).strip("'"),
                budget=memory_budget,
                per_eval=perturbations_per_eval,
                show_progress=show_progress,
            )
        answers.append(canvas)
    return answers


def _check_pixels(size: tuple[int, ...], rows: int, left: tuple[int, ...], pairs: bool) -> None:
    """Rows that are no frames must be the pixels of one picture."""
    if pairs:
        raise ValueError(
            "canvas() draws neurons where rows are pixels; read pairs with attribute(), or construct with "
            f'unit="neuron". (Rows are frames where the output ends in size; a row of it is {left} here.)'
        )
    if math.prod(size) != rows:
        if len(left) > len(size):
            raise ValueError(
                f"size={size}, but each row of the output has shape {left}, which ends in {left[-len(size) :]}; where "
                "rows are frames, give that."
            )
        raise ValueError(
            f"size={size} has {math.prod(size)} pixels, but the inputs have {rows} rows; give the size whose "
            "pixels the rows are, in row-major order (see xinc_captum.inr.coordinates), or, where rows are frames, "
            f"the size in which each row of the output ends; it is {left} here."
        )
