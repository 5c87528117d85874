"""Count the tensor storages that a call leaves in memory."""

import gc
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StorageRecorder(TorchDispatchMode):
    """Records a weak reference to every storage that an operation creates, also those that only a C++ graph holds."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        input_storages = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _strided(leaf)}
        for leaf in tree_leaves(result):
            if _strided(leaf) and leaf.untyped_storage()._cdata not in input_storages:
                storage = leaf.untyped_storage()
                self.storages[storage._cdata] = weakref.ref(storage)
        return result

    def alive(self):
        """Return how many of them exist after garbage collection."""
        gc.collect()
        return sum(ref() is not None for ref in self.storages.values())


def count_storages(call):
    """Run a call, drop its result, and return the numbers of remaining and of created storages."""
    recorder = StorageRecorder()
    with recorder:
        call()
    return recorder.alive(), len(recorder.storages)


def _strided(leaf):
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided
