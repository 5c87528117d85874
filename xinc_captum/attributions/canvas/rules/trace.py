"""The operations between a layer and the output, written down while they run."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ....batch import Batch
from .operations import METADATA, plain_name
from .tail import Tail


@dataclass(frozen=True)
class Step:
    """One operation on the one tensor that comes from the layer.

    Attributes:
        name: as torch calls it, without in-place marks.
        func: the operation.
        args: its arguments after that tensor.
        kwargs: its keyword arguments.
        entered: what went in, (rows, channels, ...).
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    entered: Tensor

    def again(self, x: Tensor) -> Tensor:
        """The same operation on another tensor, which is not written into."""
        y: Tensor = self.func(x.clone(), *self.args, **self.kwargs)
        return y

    def given(self, names: str) -> dict[str, Any]:
        """The arguments by name, as far as they were given; ``names`` are those after the tensor, in order."""
        return dict(zip(names.split(), self.args, strict=False)) | self.kwargs

    @property
    def has_tensors(self) -> bool:
        """Whether it takes other tensors too."""
        return any(isinstance(a, Tensor) for a in tree_flatten((self.args, self.kwargs))[0])


@dataclass(frozen=True)
class Trace:
    """A tail that is a chain: every operation takes what the one before it gave, and nothing else of the layer.

    Attributes:
        activation: at the layer, (rows, units, ...).
        steps: the operations in order.
        output: what they end in, (rows, *left).
    """

    activation: Tensor
    steps: tuple[Step, ...]
    output: Tensor


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        self.current: Tensor | None = None
        self.activation: Tensor | None = None
        self.earlier: list[Tensor] = []
        self.steps: list[Step] = []
        self.chain = True
        self.marks: dict[Any, tuple[int, Tensor]] = {}

    def begin(self, place: Any, activation: Tensor) -> Tensor:
        """Start from what the first layer hands over, and note where the later ones lie on the way."""
        if self.current is None:
            self.activation = activation.detach()
            self.current = self.activation.clone()
            self.marks[place] = (0, self.activation)
            return self.current
        if activation is self.current:
            with torch._C.DisableTorchFunction():
                self.marks[place] = (len(self.steps), activation.detach().clone())
        return activation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "_set_grad_enabled" and self.current is not None:
            self.chain = False  # the model stops gradients somewhere inside: leave it to autograd
        entered, name, in_place = None, "", False
        if self.current is not None and self.chain:
            if not args and "input" in kwargs:
                args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
            tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
            touched = [t for t in tensors if any(t is seen for seen in (self.current, *self.earlier))]
            name, in_place = plain_name(func)
            if touched and name not in METADATA:
                alone = len(touched) == 1 and touched[0] is self.current and args[0] is self.current
                self.chain = alone and torch.is_grad_enabled()  # a custom autograd Function runs without
                in_place = in_place or bool(kwargs.get("inplace"))
                in_place = in_place or any(a is True for a in args[1:2])
                entered = self.current.clone() if in_place else self.current
        with torch.no_grad() if entered is not None else nullcontext():
            result = func(*args, **kwargs)
        if entered is not None and self.chain:
            if isinstance(result, Tensor):
                self.earlier.append(args[0])
                self.steps.append(Step(name, func, tuple(args[1:]), kwargs, entered))
                self.current = result
            else:
                self.chain = False
        return result


def trace(tail: Tail, batch: Batch) -> Trace | None:
    """Run these rows and write down what happens after the layer; None where the tail is not a chain.

    Skips, branches, in-place writes into views, gradients switched off inside and custom autograd Functions make a
    tail something else than a chain.
    """
    if tail.together is not None:
        shared: Trace | None = tail.together.trace(tail, batch)
        if shared is not None:
            return shared
    return traced([tail], batch).get(tail.place)


def traced(tails: Sequence[Tail], batch: Batch) -> dict[Any, Trace]:
    """The same for layers that lie one after the other on one chain, from one run; others are left out."""
    recorder = _Recorder()
    try:
        with torch.enable_grad(), recorder, ExitStack() as stack:
            for tail in tails:
                stack.enter_context(tail.patched(batch, partial(recorder.begin, tail.place)))
            output = tails[0].output(batch)
    except RuntimeError:  # for example a model that takes gradients inside; who asks again sees why
        return {}
    if not recorder.chain or output is not recorder.current:
        return {}
    steps, end = tuple(recorder.steps), output.detach()
    return {place: Trace(activation, steps[at:], end) for place, (at, activation) in recorder.marks.items()}
