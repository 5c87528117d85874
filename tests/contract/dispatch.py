"""Dispatch modes that record, on a CPU, operations that would synchronise a GPU or that some devices lack."""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import xinc_captum

OURS = str(Path(xinc_captum.__file__).parent)


class Syncs(TorchDispatchMode):
    """Counts what would make a GPU wait: scalars read back, nonzero, indexing by a mask."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "item"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Doubles(TorchDispatchMode):
    """Names what a device without float64 (Apple's) would refuse, and its line, though all runs on the CPU.

    That is an operation that widens a tensor of the model's precision, and a float64 tensor that is sent to a device.
    Constants that are made in float64 on the CPU, and narrowed before they are sent, are not named.
    """

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []
        self.moves = _Moves(self.note)

    def __enter__(self):
        self.moves.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.moves.__exit__(*error)

    def note(self, name):
        lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(OURS)]
        where = f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else "the test itself"
        self.seen.append(f"{name} in {where}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if dtypes(answer) & WIDE and dtypes((args, kwargs)) & NARROW:
            self.note(func.overloadpacket.__name__)
        return answer


class _Moves(TorchFunctionMode):
    def __init__(self, note):
        super().__init__()
        self.note = note

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = [*args[1:], *(kwargs or {}).values()]
        if func is torch.Tensor.to and args[0].dtype in WIDE:
            placed = any(isinstance(v, torch.device) for v in given)
            if placed and not any(isinstance(v, torch.dtype) and v not in WIDE for v in given):
                self.note("a move of float64")
        return func(*args, **(kwargs or {}))


WIDE = {torch.float64, torch.complex128}
NARROW = {torch.float32, torch.bfloat16, torch.float16, torch.complex64}


def dtypes(tree):
    return {leaf.dtype for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)}
