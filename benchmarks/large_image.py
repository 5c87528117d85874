"""Query a 4096x4096 canvas of a 104-unit layer for totals, 16 region sums and per-pixel top-5 in one pass; measure memory.

    python benchmarks/large_image.py [--side 4096] [--device cpu]

Inputs, masks and results are all counted: the increase is measured from before the coordinates are created.
"""

import argparse
import time
from pathlib import Path

import torch

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.canvas.canvas import Regions, Top, Totals
from xinc_captum.inr import FourierMLP, coordinates


def resident(field):
    """Return the bytes in a line of this process's status: VmRSS is the current memory, VmHWM the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{field} not found: this benchmark reads Linux's /proc")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    side, device = arguments.side, arguments.device
    model = FourierMLP(seed=0).to(device)
    method = NeuronCanvas(model, "activation2")
    method.canvas(coordinates((8, 8), device=device), (8, 8)).totals()  # first use is not part of the measurement
    Path("/proc/self/clear_refs").write_text("5")
    before, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    size = (side, side)
    masks = torch.zeros(16, *size, dtype=torch.bool, device=device)
    quarter = side // 4
    for r in range(16):
        masks[r, r // 4 * quarter : (r // 4 + 1) * quarter, r % 4 * quarter : (r % 4 + 1) * quarter] = True
    canvas = method.canvas(coordinates(size, device=device), size, memory_budget=64 << 20, show_progress=True)
    totals, regions, top = canvas.ask(Totals(), Regions(masks), Top(5, canvas.units, canvas.pixels))
    if device != "cpu":
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    growth = resident("VmHWM") - before
    print(f"{side}x{side}: {seconds:.0f} s, {cpu:.0f} CPU s, RSS growth {growth / 1e9:.2f} GB (expected < 1.5 at 4096)")
    held = sum(t.nbytes for t in (totals, regions, *top)) / 1e9
    inputs = (coordinates((1, 1)).element_size() * 2 * side * side + masks.nbytes) / 1e9
    print(f"of which results {held:.2f} GB (top-5 as {top.indices.dtype}), coordinates and masks {inputs:.2f} GB")
    print("regions add up to totals:", bool(torch.allclose(regions.sum(0), totals, rtol=1e-4)))
    if device != "cpu":
        print(f"device memory peak {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
