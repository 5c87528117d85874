"""Repeat the random draws of a function, whichever generators it uses."""

import functools
import inspect
import random
import types
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# Packages whose functions draw from the global generators, or from generators that they are given.
_LIBRARIES = {"torch", "torchvision", "numpy", "scipy", "skimage", "PIL", "cv2", "kornia", "builtins", "random"}

_LONGEST = 1000  # longer containers hold data


@contextmanager
def same_draws(seed: int, generators: Iterable[Any] = (), like: Tensor | None = None) -> Iterator[None]:
    """Seed all generators for the length of the block, and restore their states afterwards.

    The generators are the global ones of PyTorch, NumPy and Python's ``random``, and the given ones. Two blocks with
    one seed draw the same numbers.

    Args:
        seed: any int.
        generators: further generators, as :func:`generators_in` finds them.
        like: a tensor on the device whose generator is seeded too.

    Example:
        >>> drawn = []
        >>> for _ in range(2):
        ...     with same_draws(3):
        ...         drawn.append((float(torch.rand(())), np.random.rand(), random.random()))
        >>> drawn[0] == drawn[1]
        True
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([like.device] if like is not None and like.is_cuda else []))
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  # users' code draws from it
        stack.callback(random.setstate, random.getstate())
        for generator in generators:
            stack.callback(_restorer(generator))
        reseed(seed)
        for generator in generators:
            _seed(generator, seed)
        yield


def reseed(seed: int) -> None:
    """Seed the global generators of PyTorch, NumPy and Python's ``random``."""
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002  # the legacy generator takes 32 bits
    random.seed(seed)


def generators_in(*things: Any) -> list[Any]:
    """Return the random generators that functions or objects hold.

    Closures, default arguments, the globals that a function names, partials, bound methods, attributes and containers
    are searched; functions of numerical libraries are not.

    Example:
        >>> own = np.random.default_rng(0)
        >>> generators_in(lambda images: images + own.random()) == [own]
        True
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = list(things)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, Tensor | np.ndarray | str | bytes | types.ModuleType | type):
            continue
        seen.add(id(thing))
        if isinstance(thing, _KINDS):
            found.append(thing)
        else:
            waiting += _held_by(thing)
    return found


def _held_by(thing: Any) -> list[Any]:
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, dict | list | tuple | set | frozenset):
        if len(thing) > _LONGEST:
            return []
        return list(thing.values() if isinstance(thing, dict) else thing)
    if inspect.ismethod(thing) or inspect.isbuiltin(thing):  # also the bound ``random`` of a generator
        return [thing.__self__, getattr(thing, "__func__", None)]
    if inspect.isfunction(thing):
        if (thing.__module__ or "").partition(".")[0] in _LIBRARIES:
            return []
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
        named = [thing.__globals__[name] for name in _names(thing.__code__) if name in thing.__globals__]
        return [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *named]
    if not hasattr(thing, "__dict__"):
        return []
    return [*vars(thing).values(), *(getattr(type(thing), name, None) for name in ("__call__", "forward"))]


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a name that is assigned later
        return False
    return True


def _names(code: types.CodeType) -> set[str]:
    """The names that a function, or a function inside it, looks up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed % (1 << 64)).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed % (1 << 32))
    else:
        generator.seed(seed)


def _restorer(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return functools.partial(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.RandomState):
        return functools.partial(generator.set_state, generator.get_state())
    if isinstance(generator, np.random.Generator):
        return functools.partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    return functools.partial(generator.setstate, generator.getstate())
