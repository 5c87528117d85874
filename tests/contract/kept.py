"""What a call leaves in memory: the storages that its operations made and that are still there afterwards."""

import gc
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Made(TorchDispatchMode):
    """Notes a weak reference to every storage that an operation makes, also those that only a C++ graph holds."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _strided(leaf)}
        for leaf in tree_leaves(result):
            if _strided(leaf) and leaf.untyped_storage()._cdata not in given:
                storage = leaf.untyped_storage()
                self.storages[storage._cdata] = weakref.ref(storage)
        return result

    def alive(self):
        """How many of them are left once Python has collected its garbage."""
        gc.collect()
        return sum(ref() is not None for ref in self.storages.values())


def kept(call):
    """Run a call, drop its result, and count the storages that stay: (stay, made)."""
    made = Made()
    with made:
        call()
    return made.alive(), len(made.storages)


def _strided(leaf):
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided
