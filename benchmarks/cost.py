"""Measure CPU time and peak memory of canvases at 128x256, in separate processes, relative to the released code's loop.

    python benchmarks/cost.py [--reference FOLDER]

Without the folder the network has the paper's shape and random weights: the cost does not depend on the weights.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

SIZE = (128, 256)
SITES = (("linear1", "encoding"), ("linear2", "activation1"), ("output", "activation2"))


def model_and_coordinates(folder):
    from xinc_captum.inr import FourierMLP, coordinates

    if folder:
        from reference import load, network

        return network(load(folder)), coordinates(SIZE)
    return FourierMLP(seed=0), coordinates(SIZE)


def loop(model, x):
    from original_loop import maps

    return maps(model, x, SIZE)


def tangent(model, x):
    from xinc_captum import NeuronCanvas

    return {site: NeuronCanvas(model, site).attribute(x) for _, site in SITES}


def equal_outputs(model, x):
    from xinc_captum import NeuronCanvas

    answers = {}
    for linear, _ in SITES:
        canvas = NeuronCanvas(model, linear, rule="xinc")
        answers[linear] = canvas.attribute(x, attribute_to_layer_input=True)
        if linear != "output":
            pair = NeuronCanvas(model, linear, rule="xinc", unit="pair")
            answers[f"{linear} pairs"] = pair.attribute(x, attribute_to_layer_input=True)
    answers["layer3"] = answers["output"].sum(-1)
    return answers


def queries(model, x):
    from xinc_captum import NeuronCanvas
    from xinc_captum.attributions.canvas.canvas import Regions, Top, Totals

    masks = torch.zeros(16, *SIZE, dtype=torch.bool)
    for r in range(16):
        masks[r, 32 * (r // 4) : 32 * (r // 4 + 1), 64 * (r % 4) : 64 * (r % 4 + 1)] = True
    answers = {}
    for _, site in SITES:
        canvas = NeuronCanvas(model, site).canvas(x, SIZE, memory_budget=16 << 20)
        answers[site] = canvas.ask(Totals(), Regions(masks), Top(5, canvas.units, canvas.pixels))
    return answers


JOBS = {"loop": loop, "tangent": tangent, "equal_outputs": equal_outputs, "queries": queries}


def child(job, folder):
    """Run one job and print its CPU seconds and the increase of peak memory over the state before it."""
    model, x = model_and_coordinates(folder)
    import xinc_captum  # noqa: F401 - imports are not part of the cost

    JOBS[job](model, x[:64]) if job == "tangent" else model(x[:64])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    start = time.process_time()
    answer = JOBS[job](model, x)
    seconds = time.process_time() - start
    print(json.dumps({"cpu": seconds, "peak": resident("VmHWM") - before, "kept": len(answer)}))


def resident(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", default="")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.reference)
        return
    found = {job: [] for job in JOBS}
    for _ in range(arguments.rounds):
        for job in JOBS:  # interleaved, so that a drifting machine drifts for all
            command = [sys.executable, __file__, "--child", job, "--reference", arguments.reference]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[job].append(json.loads(done.stdout.splitlines()[-1]))
    base = {k: statistics.median(r[k] for r in found["loop"]) for k in ("cpu", "peak")}
    print(f"{'':15s} {'CPU s':>8s} {'x loop':>8s} {'peak MB':>9s} {'x loop':>8s}")
    for job, rounds in found.items():
        cpu, peak = (statistics.median(r[k] for r in rounds) for k in ("cpu", "peak"))
        print(f"{job:15s} {cpu:8.2f} {cpu / base['cpu']:8.3f} {peak / 1e6:9.0f} {peak / base['peak']:8.4f}")
    print("expected: tangent <= 0.12 CPU and <= 0.15 memory; equal_outputs <= 0.5 CPU; queries <= 0.02 memory")


if __name__ == "__main__":
    main()
