"""How often a model runs, forwards and backwards, and how much memory is alive at most meanwhile."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..hooks import ForwardFunc, modules_behind, of_this_thread


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
def counted(model: ForwardFunc) -> Iterator[Counts]:
    """Count what happens inside; the model is left as found.

    The same work gives the same counts on every machine. Memory is that of the tensors' storages, views counted once;
    what a library's kernels take for themselves is not seen.

    Args:
        model: a module, or a function behind which modules can be found; without any, calls are not counted. Scripted
            modules run no Python hooks, so their calls are not counted either.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with counted(model) as counts:
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
