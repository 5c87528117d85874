"""Write, interrupt, resume, open and query a canvas that is larger than memory, and measure the memory.

    python benchmarks/canvas_store.py [FOLDER] [--side 5760]

It writes about the logical size of the canvas to FOLDER (2 bytes per number; noise hardly compresses) and removes it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
import zarr

from xinc_captum import NeuronCanvas, open_canvas
from xinc_captum.inr import FourierMLP, coordinates

BUDGET = 256 << 20


def canvas(side):
    """Return a canvas of all 104 neurons of the paper's network, R, G and B, on side x side pixels."""
    model = FourierMLP(seed=0)
    return NeuronCanvas(model, "activation2").canvas(
        coordinates((side, side)), size=(side, side), memory_budget=BUDGET, show_progress=sys.stderr.isatty()
    )


class Memory:
    """Peak memory of this process and its children, in bytes."""

    def __init__(self, pid=None):
        self.process, self.peak, self.over = psutil.Process(pid), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.over.wait(0.05):
            try:
                self.peak = max(self.peak, self.process.memory_info().rss)
            except psutil.Error:
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def child(place, side, threads):
    words = [sys.executable, __file__, "--write", str(place), "--side", str(side), "--threads", str(threads)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def written(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=None)
    parser.add_argument("--side", type=int, default=5760)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.write:
        canvas(chosen.side).save(chosen.write, dtype="float16")
        return
    home = Path(tempfile.mkdtemp(dir=chosen.folder))
    try:
        logical = 104 * 3 * chosen.side**2 * 2
        print(f"logical size {logical / 1e9:.1f} GB", flush=True)
        sums = []
        for name, kill in (("straight", False), ("killed", True)):
            place, start = home / name, time.perf_counter()
            run = child(place, chosen.side, chosen.threads)
            with Memory(run.pid) as memory:
                if kill:
                    while written(place.with_name("killed.part")) < logical // 4 and run.poll() is None:
                        time.sleep(1)
                    os.kill(run.pid, signal.SIGKILL)
                    run.wait()
                    print(f"killed with {written(place.with_name('killed.part')) / 1e9:.1f} GB written", flush=True)
                    run = child(place, chosen.side, chosen.threads)
                    memory.process = psutil.Process(run.pid)
                code = run.wait()
            if code:
                sys.exit(code)
            sums.append(dict(zarr.open_group(place, mode="r").attrs)["checksum"])
            print(
                f"{name}: {time.perf_counter() - start:.0f} s, {written(place) / 1e9:.1f} GB on disk, peak "
                f"{memory.peak / 1e9:.2f} GB of memory, checksum {sums[-1][:12]}",
                flush=True,
            )
            if not kill:
                ask(place, chosen.side)
            shutil.rmtree(place)
        print("same checksum:", sums[0] == sums[1])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def ask(place, side):
    stored, process = open_canvas(place), psutil.Process()
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    masks[0, : side // 2], masks[1, :, side // 2 :] = True, True
    for name, query in (
        ("one map", lambda: stored.map(5)),
        ("top five of a pixel", lambda: stored.top_units(5, pixel=(7, 9))),
        ("totals", stored.totals),
        ("two regions", lambda: stored.regions(masks)),
    ):
        start = time.perf_counter()
        with Memory(process.pid) as memory:
            query()
        print(f"  {name}: {time.perf_counter() - start:.1f} s, peak {memory.peak / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
