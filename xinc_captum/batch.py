"""Samples, targets and additional arguments of a forward call, and the units that a selector names."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ._compat import select_targets

Target = int | tuple[int | slice, ...] | Tensor | list[Any] | None


class Args(tuple[Any, ...]):
    """Additional arguments, and which of them hold one entry for each sample."""

    aligned: frozenset[int]  # positions of the tensors that are sliced with the inputs; others are passed unchanged
    known: bool  # whether the model was run to determine them
    stuck: str  # why the batch cannot be split; empty if it can

    def __new__(
        cls, values: Iterable[Any], aligned: Iterable[int] = (), known: bool = False, stuck: str = ""
    ) -> "Args":
        """Create arguments with their alignment."""
        self = super().__new__(cls, values)
        self.aligned, self.known, self.stuck = frozenset(aligned), known, stuck
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.aligned, self.known, self.stuck

    def with_values(self, values: Iterable[Any]) -> "Args":
        """Return arguments with other values and the same alignment."""
        return Args(values, self.aligned, self.known, self.stuck)


@dataclass(frozen=True)
class Batch:
    """Inputs, additional arguments and target of a forward call."""

    inputs: tuple[Tensor, ...]  # each (rows, ...)
    # In a plain tuple, all tensors with as many rows as the batch are sliced with the inputs, as in Captum.
    # settle_arguments() runs the model to determine which of them must be sliced.
    args: tuple[Any, ...] = ()
    target: Target = None  # as in Captum; a list or a 1-D tensor holds one entry per sample
    rows: int = -1  # number of samples
    start: int = 0  # index of the first sample in the batch that this one was cut from

    @classmethod
    def of(cls, inputs: Tensor | tuple[Tensor, ...], args: Any = None, target: Target = None) -> "Batch":
        """Create a batch from the arguments of an ``attribute`` call, and check the inputs."""
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        if isinstance(inputs, Mapping):
            raise TypeError(_dict_message(inputs))
        if not tensors or not all(isinstance(t, Tensor) for t in tensors):
            kinds = ", ".join(type(t).__name__ for t in tensors)
            raise TypeError(f"inputs are ({kinds}); expected a tensor or a tuple of tensors with rows first.")
        rows = {t.shape[0] if t.dim() else 0 for t in tensors}
        if len(rows) > 1:
            raise ValueError(f"inputs have {sorted(rows)} rows; every input tensor needs the same number of rows.")
        if rows == {0}:
            raise ValueError(f"inputs have shape {tuple(tensors[0].shape)}: no rows to explain; give at least one.")
        ordinary = tuple(t.clone() if t.is_inference() else t for t in tensors)
        extra = () if args is None else args if isinstance(args, tuple) else (args,)
        extra = _mark_aligned(extra, len(ordinary[0]))
        plain = (a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in extra)
        return cls(ordinary, extra.with_values(plain), python_index(target), rows.pop())

    def through(self, forward_func: Callable[..., Any]) -> Any:
        """Return the model's output; the model receives copies of the inputs, because it may write into them."""
        return forward_func(*(t.clone() for t in self.inputs), *self.args)

    def cut(self, start: int, stop: int) -> "Batch":
        """Return samples ``start`` to ``stop``."""
        if start == 0 and stop >= self.rows:
            return self
        taken = self._each(lambda t: t[start:stop], lambda xs: xs[start:stop])
        return replace(taken, rows=min(stop, self.rows) - start, start=self.start + start)

    def take(self, index: Tensor) -> "Batch":
        """Return the samples at ``index``, in its order."""
        return replace(
            self._each(lambda t: t.index_select(0, index.to(t.device)), lambda xs: [xs[i] for i in index.tolist()]),
            rows=len(index),
        )

    def repeat(self, times: int) -> "Batch":
        """Return the batch ``times`` times: sample r of copy k has the index k * rows + r."""
        if times == 1:
            return self
        repeated = self._each(lambda t: t.repeat(times, *[1] * (t.dim() - 1)), lambda xs: xs * times)
        return replace(repeated, rows=self.rows * times)

    def _each(self, tensor_op: Any, list_op: Any) -> "Batch":
        args = _mark_aligned(self.args, self.rows)
        if args.stuck:
            raise ValueError(args.stuck)
        target = self.target
        if isinstance(target, list) and len(target) == self.rows:
            target = list_op(target)
        elif isinstance(target, Tensor) and target.dim() == 1 and target.numel() == self.rows:
            target = tensor_op(target)
        return replace(
            self,
            inputs=tuple(tensor_op(t) for t in self.inputs),
            args=args.with_values(tensor_op(a) if at in args.aligned else a for at, a in enumerate(args)),
            target=target,
        )


def _dict_message(inputs: Mapping[Any, Any]) -> str:
    """Return the text of the error for inputs in a dict, with the function that takes them as tensors."""
    names = [str(key) if str(key).isidentifier() else f"input{at}" for at, key in enumerate(inputs)]
    entries = ", ".join(f"{key!r}: {name}" for key, name in zip(inputs, names, strict=True)).replace("'", '"')
    given = f"({', '.join(names)})" if len(names) > 1 else "".join(names)
    return (
        f"inputs are a {type(inputs).__name__}, and Captum's signature takes a tensor or a tuple of tensors: give the "
        f"function lambda {', '.join(names)}: model({{{entries}}}) in place of the model, and inputs={given}."
    )


def _mark_aligned(args: tuple[Any, ...], rows: int) -> Args:
    """Return the arguments, with each tensor of as many rows as the batch as aligned; Args are returned unchanged."""
    if isinstance(args, Args):
        return args
    return Args(args, (at for at, a in enumerate(args) if isinstance(a, Tensor) and a.dim() and a.shape[0] == rows))


def chunks(rows: int, size: int) -> list[tuple[int, int]]:
    """Return start and stop of consecutive chunks of at most ``size`` rows."""
    size = max(1, size)
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


Run = Callable[[Batch], Any]

_MOST = 4  # largest number of arguments of which all combinations are tried
_LOOKED = 64  # number of samples that are searched for one whose arguments differ from those of the first


class _RowsError(ValueError):
    """An output without one row for each sample."""


def settle_arguments(batch: Batch, run: Run) -> Batch:
    """Return the batch with a decision for every tensor argument that has as many rows as the inputs.

    Such a tensor may hold one entry for each sample (a depth map, a label); then it is sliced and repeated with the
    inputs. Or all samples share it, and its number of rows is a coincidence (class embeddings, an adjacency matrix);
    then it is passed unchanged. The correct choice gives a sample the same output alone and next to another sample.
    If both choices do so, one run of the full batch decides; if it agrees with both, the tensor is passed unchanged.
    If neither does so, slicing or repeating the batch raises an error. Without such tensors, the model does not run.

    ``run`` maps a part of the batch to the model's output: a tensor, or nested containers of tensors, samples first.

    Example:
        >>> bank, images = torch.eye(3)[:2], torch.rand(2, 3)
        >>> settle_arguments(Batch.of(images, bank), lambda some: some.inputs[0] @ some.args[0].T).args.aligned
        frozenset()
        >>> settle_arguments(Batch.of(images, bank), lambda some: some.inputs[0] * some.args[0]).args.aligned
        frozenset({0})
    """
    args = batch.args if isinstance(batch.args, Args) else Args(batch.args)
    if args.known or not args.aligned:
        return batch
    with torch.no_grad():
        return replace(batch, args=_Probe(batch, args, run).decide())


class _Probe:
    """Runs of one sample alone and next to another one, under each choice of aligned arguments."""

    def __init__(self, batch: Batch, args: Args, run: Run) -> None:
        self.batch, self.args, self.run = batch, args, run
        self.other = _different(batch, args)
        self.one, self.two = (torch.tensor(at, device=batch.inputs[0].device) for at in ([self.other], [0, self.other]))
        self.error = ""

    def decide(self) -> Args:
        """Return the arguments with the alignment that makes outputs independent of the other samples."""
        every = self.args.aligned
        pair = self.pair(every)
        if pair is not None and _close(*pair) and all(self.tied(at) for at in every):
            return Args(self.args, every, True)
        tried = sorted(every) if len(every) <= _MOST else []
        sets = [frozenset(some) for size in range(len(tried)) for some in combinations(tried, size)]
        pairs = {some: outputs for some in [*sets, every] if (outputs := self.pair(some)) is not None}
        same = {some: outputs for some, outputs in pairs.items() if _close(*outputs)}
        same = same or pairs  # with dropout, no two outputs are equal
        if len(same) > 1:
            same = self.select_agreeing(same)
        if same:
            smallest: frozenset[int] = min(same, key=len)
            return Args(self.args, smallest, True)
        shapes = ", ".join(f"{at}: {tuple(self.args[at].shape)}" for at in sorted(every))
        return Args(
            self.args,
            every,
            True,
            f"additional_forward_args hold tensors with as many rows as the {self.batch.rows} inputs ({shapes}), and "
            "the output of a sample depends on the other samples of its batch, whether these tensors are sliced with "
            f"the inputs or passed unchanged{self.error}. Explain all samples in one batch (no internal_batch_size, a "
            "larger memory_budget), or give shared values inside the function: lambda x: model(x, shared).",
        )

    def pair(self, aligned: frozenset[int]) -> tuple[list[Tensor], list[Tensor]] | None:
        """Return the outputs of a sample alone and next to another one; None where the model fails or shapes differ."""
        some = replace(self.batch, args=Args(self.args, aligned))
        try:
            alone, beside = self.leaves(some.take(self.one), 1), self.leaves(some.take(self.two), 2)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models raise errors of any type for arguments of the wrong size
            self.error = f" (the model raised: {error})" if not isinstance(error, _RowsError) else self.error
            return None
        if len(alone) != len(beside) or any(a.shape[1:] != b.shape[1:] for a, b in zip(alone, beside, strict=True)):
            return None
        return alone, [leaf[-1:] for leaf in beside]

    def tied(self, at: int) -> bool:
        """Return whether the model fails for one sample with two entries of an argument."""
        one = replace(self.batch, args=self.args).take(self.one)
        changed = list(one.args)
        changed[at] = self.args[at].index_select(0, self.two.to(self.args[at].device))
        try:
            self.leaves(replace(one, args=Args(changed, self.args.aligned)), 1)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return True
        return False

    def select_agreeing(self, pairs: dict[frozenset[int], Any]) -> dict[frozenset[int], Any]:
        """Return the choices under which a sample has the same output alone and in the full batch."""
        first, *rest = pairs.values()
        if all(_close(first[0], other[0]) for other in rest):
            return pairs
        full_output = [leaf[self.other : self.other + 1] for leaf in self.leaves(self.batch, self.batch.rows)]
        return {some: outputs for some, outputs in pairs.items() if _close(outputs[0], full_output)}

    def leaves(self, some: Batch, rows: int) -> list[Tensor]:
        tensors = [leaf for leaf in tree_leaves(self.run(some)) if isinstance(leaf, Tensor)]
        tensors = [leaf for leaf in tensors if leaf.dim() and leaf.shape[0] == rows]
        if not tensors:
            raise _RowsError
        return tensors


def _different(batch: Batch, args: Args) -> int:
    """Return the index of a sample whose arguments differ from those of the first one, if there is one."""
    for at in sorted(args.aligned):
        some = args[at][:_LOOKED]
        differs = (some != some[:1]).flatten(1).any(1) if some.dim() > 1 else some != some[:1]
        if bool(differs.any()):
            return int(differs.nonzero()[0])
    return min(1, batch.rows - 1)


def _close(some: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Return whether outputs are equal up to the rounding errors that another batch size causes."""
    for a, b in zip(some, other, strict=True):
        if a.shape != b.shape:
            return False
        if not a.is_floating_point():
            if not torch.equal(a, b):
                return False
            continue
        bound = torch.finfo(a.dtype).eps ** 0.5 * a.nan_to_num(0, 0, 0).abs().max() if a.numel() else 0.0
        if not bool(((a == b) | ((a - b).abs() <= bound)).all()):
            return False
    return True


OutputFn = Callable[[Any], Tensor]


def call_model(forward_func: Callable[..., Any], output_fn: OutputFn | None, batch: Batch) -> Any:
    """Return the model's output for a batch, after ``output_fn`` or :func:`output_tensor`."""
    return read_output(batch.through(forward_func), batch.rows, output_fn)


def read_output(output: Any, rows: int, output_fn: OutputFn | None) -> Any:
    """Return the tensor to explain, or the whole output if ``output_fn`` is None and the choice is not clear."""
    if output_fn is not None:
        return output_fn(output)
    try:
        return output_tensor(output, rows)
    except TypeError:  # raised by select_output()
        return output


def select_output(output: Any, batch: Batch, output_fn: OutputFn | None) -> Tensor:
    """Return the entries of a model's output that the target selects; the output and the target are checked.

    The output is read by ``output_fn``, or by :func:`output_tensor` if it is None.
    """
    if output_fn is None:
        tensor = output_tensor(output, batch.rows)
    else:
        cure = "Let output_fn return the tensor to explain."
        tensor = output_tensor(output_fn(output), batch.rows, source="output_fn", cure=cure)
    if tensor.dim() == 0 or tensor.shape[0] != batch.rows:
        raise ValueError(
            f"the model returned shape {tuple(tensor.shape)} for {batch.rows} input rows; expected one output row per "
            "input row, rows first."
        )
    if batch.target is None:
        return tensor
    try:
        picked: Tensor = select_targets(tensor, batch.target)
        return picked
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"target {_short(batch.target)} does not fit the output's shape {tuple(tensor.shape)}: {error} Valid "
            "targets index the dims after the rows: an int, a tuple, or a list or 1-D tensor with one entry a row."
        ) from error


# Names of the scores in outputs of known libraries.
SCORES = ("logits", "out", "prediction_logits", "logits_per_image", "model_out")
CURE = "Choose the tensor to explain with output_fn=, for example output_fn=lambda output: output{}."
_USUAL = (*SCORES, "scores", "output", "rgb")  # names that an error message suggests first
_DEPTH = 4  # of nested containers
_LISTED = 8  # number of entries that an error message lists


def output_tensor(output: Any, rows: int, *, source: str = "the model", cure: str = CURE) -> Tensor:
    """Return the one tensor in a model's output that holds its scores.

    A tensor is returned unchanged. In a dict, dataclass, tuple, list or a container of these, such as the outputs of
    transformers and of torchvision's segmentation models, a tensor can be chosen if it is floating-point and its first
    axis has ``rows`` entries. If there is one such tensor, it is returned. If there are several, the one that is named
    ``logits``, ``out``, ``prediction_logits``, ``logits_per_image`` or ``model_out`` is returned, if exactly one has
    such a name; names in the outermost container come first.

    Args:
        output: what the model returned.
        rows: number of samples.
        source: what returned the output, for the message.
        cure: what to do, for the message; ``{}`` stands for the code that selects the likeliest tensor.

    Raises:
        TypeError: no tensor can be chosen, or several and the choice is not clear. The message lists keys and shapes.

    Example:
        >>> output_tensor({"out": torch.zeros(2, 5, 8, 8), "aux": torch.zeros(2, 5, 8, 8)}, rows=2).shape
        torch.Size([2, 5, 8, 8])
        >>> output_tensor((torch.ones(2, 3), None), rows=2).shape
        torch.Size([2, 3])
    """
    return output_entry(output, rows, source=source, cure=cure)[1]


def output_entry(output: Any, rows: int, *, source: str = "the model", cure: str = CURE) -> tuple[str, Tensor]:
    """Return the code that selects the tensor of :func:`output_tensor`, such as ``['out']``, and the tensor."""
    if isinstance(output, Tensor):
        return "", output
    leaves = [leaf for leaf in output_leaves(output) if leaf[0]]
    fitting = [(path, leaf) for path, leaf in leaves if isinstance(leaf, Tensor) and _fits(leaf, rows)]
    named = [entry for entry in fitting if entry[0][-1][0] in SCORES]
    for choice in ([entry for entry in named if len(entry[0]) == 1], named, fitting):
        if len({id(tensor) for _, tensor in choice}) == 1:
            path, tensor = choice[0]
            return _code(path), tensor
    count_text = f"; this {type(output).__name__} has {len(fitting) or 'none'}" if leaves else ""
    leaves = leaves or _attributes(output)
    raise TypeError(
        f"{source} returned {_describe(output, leaves)}; expected a tensor, or a container with exactly one "
        f"floating-point tensor of {rows} samples{count_text}. {cure.format(_likeliest(fitting, leaves))}"
    )


_Path = tuple[tuple[Any, str], ...]  # keys from the outermost container to a leaf, and the code for each


def _parts(output: Any) -> list[tuple[Any, str, Any]]:
    """Return key, code and value of each entry of a container; nothing for another object."""
    fields: Iterable[Any] = getattr(output, "_fields", ()) if isinstance(output, tuple) else ()
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = output if isinstance(output, Mapping) else [field.name for field in dataclasses.fields(output)]
    elif isinstance(output, Mapping):
        return [(key, f"[{key!r}]", output[key]) for key in output]
    elif isinstance(output, tuple | list) and not fields:
        return [(at, f"[{at}]", value) for at, value in enumerate(output)]
    return [(name, f".{name}", getattr(output, name, None)) for name in fields]


def output_leaves(output: Any, path: _Path = ()) -> list[tuple[_Path, Any]]:
    """Return the path and the value of each entry of nested containers that is no container, or the output itself."""
    parts = _parts(output) if len(path) < _DEPTH else []
    if not parts:
        return [(path, output)]
    return [leaf for key, code, value in parts for leaf in output_leaves(value, (*path, (key, code)))]


def _fits(value: Tensor, rows: int) -> bool:
    return value.is_floating_point() and value.dim() > 0 and value.shape[0] == rows


def _code(path: _Path) -> str:
    return "".join(code for _, code in path)


def _attributes(output: Any) -> list[tuple[_Path, Any]]:
    """Return the tensors among the attributes of an object, for a message."""
    named = getattr(output, "__dict__", {}).items()
    return [(((name, f".{name}"),), value) for name, value in named if isinstance(value, Tensor)]


def _likeliest(fitting: list[tuple[_Path, Tensor]], leaves: list[tuple[_Path, Any]]) -> str:
    """Return the code of the tensor that a message suggests: one with a usual name, else with two axes, else any."""
    entries = fitting or [leaf for leaf in leaves if isinstance(leaf[1], Tensor) and leaf[1].is_floating_point()]
    if not entries:
        return "[...]"
    usual = [entry for name in _USUAL for entry in entries if entry[0][-1][0] == name]
    flat = [entry for entry in entries if entry[1].dim() == 2]
    return _code([*usual, *flat, *entries][0][0])


def _describe(output: Any, leaves: list[tuple[_Path, Any]]) -> str:
    """Return the type of an output, and the keys and shapes of its entries."""
    kind = type(output).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    listed = [f"{_code(path).removeprefix('.')} {_kind(value)}" for path, value in leaves[:_LISTED]]
    more = [f"{len(leaves) - _LISTED} more"] * (len(leaves) > _LISTED)
    return f"{article} {kind} with {', '.join([*listed, *more])}" if leaves else f"{article} {kind}"


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{'' if value.is_floating_point() else f'{value.dtype} '}{tuple(value.shape)}".removeprefix("torch.")


def _short(target: Any) -> str:
    return f"of shape {tuple(target.shape)}" if isinstance(target, Tensor) and target.dim() else repr(target)[:80]


def one_score_a_row(output: Tensor) -> Tensor:
    """Return an output as one score per row, (rows,); ValueError if a row has several scores."""
    if output.dim() == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.dim() != 1:
        raise ValueError(
            f"target is missing or incomplete: the output still has shape {tuple(output.shape)}, expected one number a "
            f"row. Give target= an index into {tuple(output.shape[1:])}, or reduce the output with output_fn=."
        )
    return output


def python_index(index: Any) -> Any:
    """Return a target or selector with its NumPy integers as ints, and its 1-D integer arrays as lists.

    Everything else is returned unchanged, bools and floats too; the caller checks them.
    """
    if isinstance(index, np.integer):
        return int(index)
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu" and index.ndim < 2:
        return index.tolist()
    if type(index) in (list, tuple):
        return type(index)(python_index(one) for one in index)
    return index


def random_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator with this seed, an int of Python or NumPy."""
    return torch.Generator(device).manual_seed(operator.index(seed))


OneUnit = int | tuple[int | slice, ...] | Callable[[Tensor], Tensor]
Selector = OneUnit | Sequence[OneUnit] | None


def list_units(activation: Tensor, selector: Selector) -> list[OneUnit]:
    """Return the checked single selectors of a selector for an activation (rows, units, ...).

    ``None`` selects every unit of dim 1; an int selects one unit of dim 1; a tuple indexes the dims after the rows
    (slices are summed); a callable maps the activation to one value per row and must be linear; a list holds several.

    Raises:
        ValueError: the activation has no unit axis, or the list is empty.
        IndexError: a unit is out of range.
        TypeError: a selector of another kind.
    """
    selector = python_index(selector)
    if activation.dim() < 2:
        raise ValueError(
            f"the layer's activation has shape {tuple(activation.shape)}; expected (rows, units, ...), so that there "
            "is a unit to choose. Choose a layer with a unit axis."
        )
    if selector is None:
        return list(range(activation.shape[1]))
    singles = selector if isinstance(selector, list) else [selector]
    if not singles:
        raise ValueError("neuron_selector is an empty list; give at least one unit, or None for all of them.")
    return [_check_selector(activation, one) for one in singles]  # type: ignore[arg-type]


def _check_selector(activation: Tensor, one: OneUnit) -> OneUnit:
    shape = tuple(activation.shape[1:])
    if callable(one):
        return one
    if isinstance(one, bool) or not isinstance(one, int | tuple):
        raise TypeError(
            f"neuron_selector {one!r} is a {type(one).__name__}; expected an int, a tuple of ints and slices, a "
            "callable, a list of these, or None for every unit."
        )
    index = one if isinstance(one, tuple) else (one,)
    if isinstance(one, tuple) and len(one) != len(shape):
        raise IndexError(
            f"neuron_selector {one!r} has {len(one)} entries, but the layer has {len(shape)} dims after the rows "
            f"{shape}; give one int or slice for each."
        )
    for i, size in zip(index, shape, strict=False):
        if isinstance(i, int) and not -size <= i < size:
            raise IndexError(
                f"neuron_selector {one!r} is out of range: the layer's units are {shape}, so {i} must lie in [{-size}, "
                f"{size - 1}]."
            )
        if not isinstance(i, int | slice):
            raise TypeError(f"neuron_selector {one!r} holds a {type(i).__name__}; expected ints and slices.")
    return one


def _index(one: int | tuple[int | slice, ...]) -> tuple[int | slice, ...]:
    return (slice(None), *(one if isinstance(one, tuple) else (one,)))


def select(activation: Tensor, selector: Selector) -> Tensor:
    """Return the value of each unit of :func:`list_units`, summed over its remaining dims: (rows, k)."""
    singles = list_units(activation, selector)
    if all(isinstance(one, int) for one in singles):
        if selector is not None:
            # Before the sum: its gradient has strides of 0, for which torch 2.15 may return wrong ones of a batch norm.
            index = [i % activation.shape[1] for i in singles]  # type: ignore[operator]
            activation = activation.index_select(1, torch.tensor(index, device=activation.device))
        return activation.flatten(2).sum(2) if activation.dim() > 2 else activation
    return torch.stack([_value(activation, one) for one in singles], dim=1)


def _value(activation: Tensor, one: OneUnit) -> Tensor:
    if not callable(one):
        return activation[_index(one)].reshape(activation.shape[0], -1).sum(1)
    value = one(activation)
    if not isinstance(value, Tensor) or value.shape != activation.shape[:1]:
        received = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"the neuron_selector function returned {received}; expected one value a row, shape "
            f"({activation.shape[0]},)."
        )
    return value


def replace_unit(activation: Tensor, one: OneUnit, baseline: Tensor) -> Tensor:
    """Return a copy of the activation (rows, units, ...) in which one unit is set to its baseline, which is broadcast.

    If ``one`` is callable, its gradient is the fraction by which each element moves to the baseline.
    """
    if callable(one):
        with torch.enable_grad():
            leaf = activation.detach().requires_grad_()
            (share,) = torch.autograd.grad(_value(leaf, one).sum(), leaf)
        return activation + share * (baseline - activation)
    new = activation.clone()
    new[_index(one)] = baseline.expand_as(activation)[_index(one)]
    return new
