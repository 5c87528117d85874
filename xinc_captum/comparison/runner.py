"""Run one method, measure its time, and count its calls of the model."""

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
from .peers import cam_object, is_cam


@dataclass
class Counts:
    """Cost of a block of code.

    Attributes:
        forwards: calls of the model; of several modules behind a function, those of the most frequent one.
        backwards: backward passes through the outputs of these calls.
        rows: samples in all these calls.
        peak_bytes: largest size of all tensors that were created in the block and alive at the same time.
    """

    forwards: int = 0
    backwards: int = 0
    rows: int = 0
    peak_bytes: int = 0


@contextmanager
def count_calls(model: ForwardFunc) -> Iterator[Counts]:
    """Count calls of the model, backward passes and memory in a block, and restore the model's state.

    Counts do not depend on the machine. Memory is that of the tensors' storages, views counted once, without the
    workspaces of library kernels.

    Args:
        model: a module, or a function whose modules can be found; otherwise calls are not counted. Calls of scripted
            modules, which run no Python hooks, are not counted.

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
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad and not wrapped(leaf):
                leaf.register_hook(partial(count_backward, module_counts))
                break  # a backward pass reaches all outputs of a model

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


class Seconds(NamedTuple):
    """CPU time and wall time of a run."""

    cpu: float
    wall: float


@dataclass
class Runs:
    """Results of the runs of one method.

    Attributes:
        explain: function from photos and targets to maps (N, H, W).
        maps: (N, H, W) float32 on the CPU, or None if the method failed.
        counts: cost of the first run.
        seconds: time of each later run.
        error: text of the error that the method raised, or "".
    """

    explain: MapFunction
    maps: Tensor | None = None
    counts: Counts = field(default_factory=Counts)
    seconds: list[Seconds] = field(default_factory=list)
    error: str = ""


def bind_method(
    method: Any, model: ForwardFunc, preprocess: Preprocess | None, size: tuple[int, int], seed: int
) -> MapFunction:
    """Return a method as a function from photos in [0, 1] and targets to maps of the photos' size.

    A Captum object that was made with ``model`` gets preprocessed inputs; any other, or one that preprocesses itself,
    gets photos. A function with three required arguments, or of three arguments whose first is called model or net,
    also gets the model, and preprocessed inputs.

    Args:
        method: a Captum attribution, or a function of (images, target) or (model, images, target).
        model: the classifier.
        preprocess: function from photos to the model's inputs.
        size: (H, W) of the maps.
        seed: random seed.
    """
    if is_cam(method):
        method = cam_object(method, model, preprocess)
    normalises = getattr(getattr(method, "reader", None), "preprocess", None) is not None
    run = method.attribute if hasattr(method, "attribute") else method
    takes_model = run is method and _takes_model(method)
    same_model = getattr(method, "forward_func", None) is model and not normalises
    transform = preprocess if takes_model or same_model else None

    def explain(photos: Tensor, target: Any) -> Tensor:
        modules = modules_behind(getattr(method, "forward_func", method))
        with gradient_errors(model, *modules), protect(model, *modules), torch.enable_grad():
            torch.manual_seed(seed)
            np.random.seed(seed % (1 << 32))  # noqa: NPY002  # methods may use it; protect restores the state
            random.seed(seed)
            inputs = photos.detach().clone()
            if transform is not None:
                inputs = transform(inputs).detach()
            if run is not method:
                attribution = run(inputs.clone(), target=target)
            else:
                attribution = run(model, inputs.clone(), target) if takes_model else run(inputs.clone(), target)
            return maps_of(method, attribution, inputs, size).contiguous()

    return explain


def run_once(runs: Runs, model: ForwardFunc, photos: Tensor, target: Any) -> None:
    """Add a run: the first is counted, later ones are timed. An error is stored as text, and ends the runs.

    A method is not run again after :data:`MAX_SECONDS` of timed runs.
    """
    if runs.error or sum(seconds.wall for seconds in runs.seconds) > MAX_SECONDS:
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
        runs.seconds.append(Seconds(time.process_time() - cpu, time.perf_counter() - wall))
    except Exception as error:
        runs.error = f"{type(error).__name__}: {error}"
        runs.maps = None


def _takes_model(function: Any) -> bool:
    """Return whether a function has three required arguments, or three of which the first is called model."""
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
