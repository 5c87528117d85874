"""Run, time and count one method."""

import inspect
import random
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..hooks import (
    ForwardFunc,
    gradient_errors,
    modules_behind,
    of_this_thread,
    protect,
)
from .maps import maps_of
from .methods import Preprocess
from .peers import is_cam, own_cam


@dataclass
class Counts:
    """What a piece of work did.

    Attributes:
        forwards: calls of the model; of several modules behind a function, calls of the one that ran most often.
        backwards: times that a gradient came back to what it answered.
        rows: inputs in all these calls, along the first axis.
        peak_bytes: of tensors that the work made and that were alive at once, on all devices.
    """

    forwards: int = 0
    backwards: int = 0
    rows: int = 0
    peak_bytes: int = 0


@contextmanager
def count_calls(model: ForwardFunc) -> Iterator[Counts]:
    """Count what happens inside; the model is left as found.

    The same work gives the same counts on every machine. Memory is that of the tensors' storages, views counted once;
    what a library's kernels take for themselves is not seen.

    Args:
        model: a module, or a function behind which modules can be found; without any, calls are not counted. Scripted
            modules run no Python hooks, so their calls are not counted either.

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

    def count(own: Counts, root: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not ours(root):
            return
        own.forwards += 1
        own.rows += next((len(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.dim()), 0)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad and not wrapped(leaf):
                leaf.register_hook(partial(back, own))
                break  # a model of several outputs is passed backwards once

    def back(own: Counts, _: Tensor) -> None:
        own.backwards += 1

    handles = [root.register_forward_hook(partial(count, own)) for root, own in zip(modules, calls, strict=True)]
    alive = _Alive()
    try:
        with alive:
            yield counts
    finally:
        for handle in handles:
            handle.remove()
        counts.peak_bytes = alive.peak
        for name in ("forwards", "backwards", "rows"):
            setattr(counts, name, max((getattr(own, name) for own in calls), default=0))


class _Alive(TorchDispatchMode):
    """Adds up the storages that operations make, and takes them off when they go."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[int, Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._met(leaf, made=False)
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            self._met(leaf, made=True)
        return answer

    def _met(self, leaf: Any, made: bool) -> None:
        if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
            return
        storage = leaf.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            size = storage.nbytes() if made else 0
            self.known[key] = (size, weakref.ref(storage, lambda _: self._gone(key)))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key)[0]


Explain = Callable[[Tensor, Any], Tensor]


LONG = 10.0  # seconds on the clock
MODELS = {"model", "net", "network", "classifier", "forward_func"}


class Seconds(NamedTuple):
    """How long a run took."""

    cpu: float
    wall: float


@dataclass
class Runs:
    """What came of one method's runs.

    Attributes:
        explain: photos and targets to maps (N, H, W), as often as expected.
        maps: (N, H, W) float32 on the host, or None where it failed.
        counts: of the first run.
        seconds: of each run after the first.
        error: what it failed with, "" where it did not.
    """

    explain: Explain
    maps: Tensor | None = None
    counts: Counts = field(default_factory=Counts)
    seconds: list[Seconds] = field(default_factory=list)
    error: str = ""


def bind_method(
    method: Any, model: ForwardFunc, preprocess: Preprocess | None, size: tuple[int, int], seed: int
) -> Explain:
    """A method as a function from photos in [0, 1] and targets to maps of the photos' size.

    A Captum object made with ``model`` itself gets preprocessed inputs, any other, or one that normalises itself,
    photos. A function that wants three arguments, or whose first of three is called model or net, gets the model too,
    and preprocessed inputs.

    Args:
        method: a Captum attribution, or a function of (images, target) or (model, images, target).
        model: the classifier.
        preprocess: what turns photos into its inputs.
        size: (H, W) of the maps.
        seed: of all that is random.
    """
    if is_cam(method):
        method = own_cam(method, model, preprocess)
    normalises = getattr(getattr(method, "reader", None), "preprocess", None) is not None
    run = method.attribute if hasattr(method, "attribute") else method
    three = run is method and _wants_the_model(method)
    own = getattr(method, "forward_func", None) is model and not normalises
    early = preprocess is not None and (three or own)

    def explain(photos: Tensor, target: Any) -> Tensor:
        behind = modules_behind(getattr(method, "forward_func", method))
        with gradient_errors(model, *behind), protect(model, *behind), torch.enable_grad():
            torch.manual_seed(seed)
            np.random.seed(seed % (1 << 32))  # noqa: NPY002  # what methods may draw from; put back by untouched
            random.seed(seed)
            given = photos.detach().clone()
            if early and preprocess is not None:
                given = preprocess(given).detach()
            if run is not method:
                answer = run(given.clone(), target=target)
            else:
                answer = run(model, given.clone(), target) if three else run(given.clone(), target)
            return maps_of(method, answer, given, size).contiguous()

    return explain


def run_once(runs: Runs, model: ForwardFunc, photos: Tensor, target: Any) -> None:
    """Add a run: the first is count_calls, later ones are timed; a failure is kept as text, and nothing runs after it.

    What has been timed for :data:`LONG` is not run again.
    """
    if runs.error or sum(one.wall for one in runs.seconds) > LONG:
        return
    try:
        if runs.maps is None:
            with protect(model), count_calls(model) as counts:
                maps = runs.explain(photos, target)
            runs.maps, runs.counts = maps.cpu().clone(), counts  # a method may answer what it keeps and changes
            return
        _wait(photos)
        cpu, wall = time.process_time(), time.perf_counter()
        runs.explain(photos, target)
        _wait(photos)
        runs.seconds.append(Seconds(time.process_time() - cpu, time.perf_counter() - wall))
    except Exception as error:
        runs.error = f"{type(error).__name__}: {error}"
        runs.maps = None


def _wants_the_model(function: Any) -> bool:
    """Whether a function has three arguments without defaults, as in (model, images, target), or calls one a model."""
    try:
        arguments = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # built into a library: its signature cannot be read
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = len(arguments) >= 3 and arguments[0].kind in plain and arguments[0].name in MODELS
    return named or sum(a.kind in plain and a.default is inspect.Parameter.empty for a in arguments) == 3


def _wait(photos: Tensor) -> None:
    if photos.is_cuda:
        torch.cuda.synchronize(photos.device)
