"""Measure CPU time and peak memory of kernel canvases of a .98 M-parameter NeRV at 128x256, in separate processes.

    python benchmarks/decoder_cost.py [--rounds 1] [--jobs loop equal ...]

Random weights: the cost does not depend on them. ``loop`` is a re-implementation of the released code
(original_loop.py) and ``equal`` ours, for equal outputs of the head and blocks 3, 2, 1. The other jobs use block 1
only: ``maps`` (ours, stored), ``stream`` (absolute totals and 16 regions, no map stored), ``one`` (a map on demand),
``some`` (secant maps of a sample of its 18,352 kernels, all of which would take minutes) and ``adjoint`` (signed sums
of all kernels over 16 regions).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

SIZE = (128, 256)
WIDTHS, STRIDES, LOW = (37, 31, 26, 22), (4, 2, 2), (8, 16)
SITES = ("blocks.0.0", "blocks.1.0", "blocks.2.0", "head")
SAMPLED = 8  # output channels of block 1, each with its 37 kernels


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(160, WIDTHS[0] * LOW[0] * LOW[1])
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b * s * s, 3, padding=1), nn.PixelShuffle(s), nn.GELU())
            for a, b, s in zip(WIDTHS, WIDTHS[1:], STRIDES, strict=False)
        )
        self.head = nn.Conv2d(WIDTHS[-1], 3, 3, padding=1)

    def start(self, t):
        return torch.nn.functional.gelu(self.stem(t)).view(-1, WIDTHS[0], *LOW)

    def forward(self, t):
        x = self.start(t)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def masks():
    found = torch.zeros(16, *SIZE, dtype=torch.bool)
    for r in range(16):
        found[r, 32 * (r // 4) : 32 * (r // 4 + 1), 64 * (r % 4) : 64 * (r % 4 + 1)] = True
    return found


def canvas(model, t, rule, **kwargs):
    from xinc_captum import NeuronCanvas

    method = NeuronCanvas(model, SITES[0], rule=rule, unit="pair")
    return method.canvas(t, SIZE, attribute_to_layer_input=True, **kwargs)


def loop(model, t):
    from original_loop import decoder_maps

    return decoder_maps(model, model.start(t).detach())


def equal(model, t):
    from xinc_captum import NeuronCanvas

    return {
        site: NeuronCanvas(model, site, rule="xinc", unit="pair").attribute(t, attribute_to_layer_input=True)[0]
        for site in SITES
    }


def maps(model, t):
    from xinc_captum import NeuronCanvas

    method = NeuronCanvas(model, SITES[0], rule="xinc", unit="pair")
    return method.attribute(t, attribute_to_layer_input=True)


def stream(model, t):
    from xinc_captum.attributions.canvas.canvas import Regions, Totals

    return canvas(model, t, "xinc").ask(Totals(), Regions(masks()))


def one(model, t):
    seconds = []
    for rule in ("xinc", "secant", "tangent"):
        drawn = canvas(model, t, rule)
        drawn.map((0, 0))
        for k in range(9):
            start = time.process_time()
            drawn.map((4 * k, 55 * k))
            seconds.append(time.process_time() - start)
        print(f"one map, {rule}: median {1000 * statistics.median(seconds[-9:]):.1f} ms of CPU", file=sys.stderr)
    return seconds


def some(model, t):
    from xinc_captum import NeuronCanvas

    method = NeuronCanvas(model, SITES[0], rule="secant", unit="pair")
    outs = range(0, WIDTHS[1] * STRIDES[0] ** 2, WIDTHS[1] * STRIDES[0] ** 2 // SAMPLED)
    return method.attribute(t, [(i, o) for o in list(outs)[:SAMPLED] for i in range(WIDTHS[0])])


def adjoint(model, t):
    return canvas(model, t, "secant").regions(masks(), signed=True)


JOBS = {f.__name__: f for f in (loop, equal, maps, stream, one, some, adjoint)}


def resident(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{field} not found: this benchmark reads Linux's /proc")


def child(job):
    """Run one job and print its CPU seconds and the increase of peak memory over the state before it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, t = Decoder(), torch.rand(1, 160)
    import xinc_captum  # noqa: F401 - imports are not part of the cost

    model(t)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.process_time()
    answer = JOBS[job](model, t)
    seconds, peak = time.process_time() - start, resident("VmHWM") - before
    sums = {k: v.sum(dtype=torch.float64).item() for k, v in answer.items()} if isinstance(answer, dict) else {}
    print(json.dumps({"cpu": seconds, "peak": peak, "sums": sums}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", nargs="+", default=list(JOBS))
    parser.add_argument("--child", default="")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    parameters = sum(p.numel() for p in Decoder().parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {WIDTHS[0] * WIDTHS[1] * 16} kernels in block 1", flush=True)
    found = {job: [] for job in arguments.jobs}
    for _ in range(arguments.rounds):
        for job in arguments.jobs:  # interleaved, so that a drifting machine drifts for all
            done = subprocess.run(
                [sys.executable, __file__, "--child", job], stdout=subprocess.PIPE, text=True, check=True
            )
            found[job].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{job:8s} {found[job][-1]['cpu']:8.2f} CPU s {found[job][-1]['peak'] / 1e6:9.0f} MB", flush=True)
    cpu = {job: statistics.median(r["cpu"] for r in rounds) for job, rounds in found.items()}
    peak = {job: statistics.median(r["peak"] for r in rounds) for job, rounds in found.items()}
    if {"loop", "equal"} <= cpu.keys():
        print(f"equal outputs: {cpu['equal'] / cpu['loop']:.2f} of its CPU (expected <= .75), ", end="")
        print(f"{peak['equal'] / peak['loop']:.2f} of its peak memory (expected <= .45)")
        for site, total in found["loop"][0]["sums"].items():
            print(f"  sum of {site}: {total:.4f} theirs, {found['equal'][0]['sums'][site]:.4f} ours")
    if {"maps", "stream"} <= cpu.keys():
        print(f"streamed: {cpu['stream'] / cpu['maps']:.2f} of the CPU of our maps (expected <= 1.1), ", end="")
        print(f"{peak['stream'] / 1e9:.2f} GB (expected < 1)")
    if {"some", "adjoint"} <= cpu.keys():
        every = cpu["some"] * WIDTHS[1] * STRIDES[0] ** 2 / SAMPLED
        print(f"signed sums: {every / cpu['adjoint']:.0f} x less CPU than all secant maps (expected >= 50; the maps' ")
        print(f"cost is {SAMPLED * WIDTHS[0]} of them, scaled), {peak['adjoint'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
