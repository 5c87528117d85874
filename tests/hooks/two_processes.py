"""One of two processes on the CPU (gloo): run as ``two_processes.py RANK FOLDER``; writes RANK.json there."""

import json
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    LayerError,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    compare,
)
from xinc_captum.attributions.linking import Encoder
from xinc_captum.attributions.nern import NeRN

SHARDS_ON_CPU = hasattr(torch.cpu.Stream, "record_event")  # fully_shard needs it, and torch 2.6 has none on the CPU


def plain():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)).eval()


NATURAL = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

CALLS = {
    "LayerContribution": lambda m, x: LayerContribution(m, "2").attribute(x, target=1),
    "delta": lambda m, x: LayerContribution(m, "2").attribute(x, target=1, return_convergence_delta=True)[1],
    "FeatureActivationMap": lambda m, x: FeatureActivationMap(m, "2", x[:1]).attribute(x),
    "FeatureAccentuation": lambda m, x: FeatureAccentuation(m).accentuate(x, 1, n_steps=2).images,
    "NeuronFeatureAccentuation": lambda m, x: NeuronFeatureAccentuation(m, "2").accentuate(x, 2, n_steps=2).images,
    "trust": lambda m, x: torch.tensor(FeatureAccentuation(m).accentuate(x, 1, n_steps=2).trust.rows[0].gained),
    "tangent": lambda m, x: NeuronCanvas(m, "2").attribute(x, target=1),
    "ablation": lambda m, x: NeuronCanvas(m, "2", rule="ablation").attribute(x, target=1),
    "Encoder": lambda m, x: Encoder(m, "7")(x),
    "compare": lambda m, x: compare(["Grad-CAM"], m, x, 1, "2", rounds=1, steps=4).maps["Grad-CAM"],
}
WHOLE_WEIGHTS = {
    "trust beside natural images": lambda m, x: torch.tensor(
        FeatureAccentuation(m).accentuate(x, 1, n_steps=2, natural=NATURAL).trust.rows[0].path
    ),
    "secant": lambda m, x: NeuronCanvas(m, "2", rule="secant").attribute(x, target=1),
    "xinc": lambda m, x: NeuronCanvas(m, "7", rule="xinc").attribute(x, target=1, attribute_to_layer_input=True),
    "canvas": lambda m, x: NeuronCanvas(m, "2").canvas(x, (3,)).totals(),
    "NeRN": lambda m, x: NeRN(m, ["3"], hidden=6, levels=4).fit(
        x, steps=2, every=2, batch_size=2, validation=0, show_progress=False
    ).losses,
}  # fmt: skip


def trained(model, x, steps=1):
    """Loss after each step of training, in training mode; ranks see different images."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        model.train()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        losses.append(float(loss))
    return losses


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for module in model:
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def said(call, model, x):
    torch.manual_seed(3)
    try:
        return call(model, x)
    except LayerError as error:
        return str(error)


def work(kind, rank):
    found = {}
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(rank))
    wrap = sharded if kind == "fsdp" else nn.parallel.DistributedDataParallel
    model, alone, own = wrap(plain()), plain(), wrap(plain())
    for name, call in (CALLS | WHOLE_WEIGHTS).items():
        if kind == "ddp" and rank == 1:
            continue  # only one of the ranks explains
        answer, expected = said(call, model, x), said(call, alone, x)
        found[name] = answer if isinstance(answer, str) else float((answer - expected).abs().max())
    found["training"] = trained(model, x, 3), trained(own, x, 3)
    if kind == "fsdp":
        found["after training"] = float((said(CALLS["tangent"], model, x) - said(CALLS["tangent"], own, x)).abs().max())
    else:
        first = trained(model, x)
        LayerContribution(model, "2").attribute(x, target=1)
        found["between two steps"] = first + trained(model, x), trained(own, x, 2)
        found["flags"] = [model.require_backward_grad_sync, model.require_forward_param_sync]
    return found


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    kinds = ("ddp", "fsdp") if SHARDS_ON_CPU else ("ddp",)
    (folder / f"{rank}.json").write_text(json.dumps({kind: work(kind, rank) for kind in kinds}))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may take long to end
