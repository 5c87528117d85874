"""Measure the memory that each public class retains per call, over hundreds of calls of tiny models.

For each call of ``tests/contract/calls.py``, in a separate process:

- growth: the slope of a straight line (least squares) through the memory after each block of calls, in bytes per call.
  Memory is what the process itself occupies (Linux: RssAnon and VmSwap, which the system cannot reclaim as it does
  pages of files; elsewhere the resident memory). Before each reading Python collects its garbage and the C library
  returns free pages (``malloc_trim``, where available). The first blocks fill caches of bounded size and are left out.
- noise: twice the standard error of that slope. Resident memory is counted in pages of 4096 bytes, so a slope below
  its noise is no growth.
- tensors and objects: the increase in what Python's garbage collector counts between the end of the warm-up and the end.
- storages: the number of storages from one call that still exist after it, including those that only a C++ graph holds.

The exit status is 1 if a slope is at least 1024 bytes per call and above its noise, or if storages remain.
"""

import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import sys
import warnings
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from contract.calls import every_call
from contract.storages import count_storages

LIMIT = 1024  # bytes a call


def resident():
    """Return the bytes of this process after all free memory was returned."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library: noise is larger
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return 1024 * sum(int(lines[key].split()[0]) for key in ("RssAnon", "VmSwap"))
    return psutil.Process().memory_info().rss


def slope(readings, calls):
    """Return bytes per call by least squares, and twice its standard error."""
    y = torch.tensor(readings, dtype=torch.float64)
    x = torch.tensor(calls, dtype=torch.float64)
    x = x - x.mean()
    steep = float((x * y).sum() / x.square().sum())
    rest = y - y.mean() - steep * x
    return steep, 2 * float((rest.square().sum() / max(1, len(y) - 2) / x.square().sum()).sqrt())


def seen():
    """Count tensors and objects that the garbage collector tracks."""
    objects = gc.get_objects()
    return sum(issubclass(type(o), torch.Tensor) for o in objects), len(objects)


def measured(name, calls, blocks):
    """Return one row of the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    call = every_call()[name]
    each = max(1, calls // blocks)
    for _ in range(2 * each):
        call()
    resident()
    before = seen()
    readings, done = [resident()], [0]
    for block in range(blocks):
        for _ in range(each):
            call()
        readings.append(resident())
        done.append((block + 1) * each)
    after = seen()
    steep, noise = slope(readings, done)
    stay, made = count_storages(call)
    return steep, noise, after[0] - before[0], after[1] - before[1], stay, made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=25)
    parser.add_argument("--only", default="", help="calls whose name has this in it")
    chosen = parser.parse_args()
    print("| call | bytes a call | noise | tensors | objects | storages that stay | |\n|---|---|---|---|---|---|---|")
    bad = 0
    spawn = multiprocessing.get_context("spawn")
    for name in every_call():
        if chosen.only in name:
            with spawn.Pool(1) as alone:
                steep, noise, tensors, objects, stay, made = alone.apply(measured, (name, chosen.calls, chosen.blocks))
            leaks = stay > 0 or (steep >= LIMIT and steep > noise)
            bad += leaks
            row = f"{name} | {steep:.0f} | {noise:.0f} | {tensors} | {objects} | {stay} of {made}"
            print(f"| {row} | {'**LEAK**' if leaks else 'level'} |", flush=True)
    print(f"\n{bad} calls leak" if bad else "\nno call leaks")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
