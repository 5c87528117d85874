"""Make the figures of clusters in docs/canvases.md: units of four architectures, two seeds each, fitted to one clip.

python docs/make_clusters.py [sprites | carphone]        (about fifteen minutes on an idle core)

The clip is that of docs/make_canvases.py, whose motion is known exactly, and the figures show it. ``carphone`` prints
the same numbers for twelve frames of a real video, with TV-L1's flow.
"""

import sys
from typing import NamedTuple

import torch
from make_canvases import SIZE, generator, known_clip, save
from torch import Tensor

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, HNeRV, NeRV, Siren, coordinates, fit, fit_video, times
from xinc_captum.metrics import (
    cluster_mixing,
    cluster_rows,
    magnitudes,
    optical_flow,
    stability,
    umap_positions,
    unit_responses,
    unit_vectors,
    verdict,
    what_dominates,
)
from xinc_captum.visualizers import cluster_sheet, cluster_variance_bars
from xinc_captum.zoo import video

CLUSTERS, GRID = 6, (8, 12)
SEEDS = (0, 1)
FIELDS = {"FFN": (FourierMLP, {"features": 128, "scale": 3.0}, 5e-3), "SIREN": (Siren, {}, 1.5e-3)}
VIDEOS = {"NeRV": (NeRV, {}), "HNeRV": (HNeRV, {"widths": (16, 24, 20, 14), "strides": (2, 2, 2)})}


class Layer(NamedTuple):
    """The origin of some units, and their contribution magnitudes ``amounts`` (frames, units, H, W)."""

    architecture: str
    seed: int
    depth: int
    amounts: Tensor


def fields(frames):
    """Yield layers of networks from (t, y, x) to a pixel."""
    size = (len(frames), *frames.shape[2:])
    for name, (kind, options, rate) in FIELDS.items():
        for seed in SEEDS:
            model = kind(in_features=3, hidden=64, seed=seed, **options)
            settings = {"steps": 1600, "lr": rate, "batch_size": 12000, "seed": seed, "show_progress": False}
            done = fit(model, frames.movedim(0, 1), **settings)
            print(f"{name}, seed {seed}: {done.psnr:.1f} dB", flush=True)
            for depth in (1, 2):
                canvas = NeuronCanvas(model, f"activation{depth}").canvas(coordinates(size), size).to_tensor()
                yield Layer(name, seed, depth, magnitudes(canvas.movedim(2, 0)))


def decoders(frames):
    """Yield layers of networks from a time, or from a frame's embedding, to a frame."""
    for name, (kind, options) in VIDEOS.items():
        for seed in SEEDS:
            model = kind(tuple(frames.shape[2:]), seed=seed, **options)
            done = fit_video(model, frames, steps=800, seed=seed, show_progress=False)
            print(f"{name}, seed {seed}: {done.psnr:.1f} dB", flush=True)
            decoder, rows = (model, times(len(frames))) if name == "NeRV" else (model.decoder, model.encoder(frames))
            for depth in range(1, len(decoder.blocks) + 1):
                method = NeuronCanvas(decoder, f"blocks.{depth - 1}.activation")
                yield Layer(name, seed, depth, magnitudes(method.attribute(rows.detach())))


def label_indices(labels):
    """Return the index of each label among the sorted labels, (units,)."""
    return torch.tensor([sorted(set(labels)).index(label) for label in labels])


def main(clip="sprites"):
    torch.set_num_threads(1)
    known = known_clip()
    frames = known.frames if clip == "sprites" else video("carphone_pristine", SIZE[0], SIZE[1:]).frames
    flow = known.flow if clip == "sprites" else optical_flow(frames)
    layers = [*fields(frames), *decoders(frames)]
    vectors = [unit_vectors(layer.amounts, GRID) for layer in layers]
    values = torch.cat([one.values for one in vectors])
    owner = torch.cat([torch.full_like(one.units, i) for i, one in enumerate(vectors)]).tolist()
    labels = cluster_rows(values, CLUSTERS)
    steady = stability(values, CLUSTERS, generator=generator())
    facts = {"the same clusters from other seeds of k-means": tuple(float(s.mean()) for s in steady)}
    for what, words in {
        "architectures": [layers[i].architecture for i in owner],
        "layers": [f"{layers[i].architecture} {layers[i].depth}" for i in owner],
    }.items():
        mixed = cluster_mixing(labels, label_indices(words), generator=generator())
        facts[f"clusters are {what}: 1, go across them: 0"] = (mixed.observed, float(mixed.shuffled.mean()))
    for name in (*FIELDS, *VIDEOS):
        mine = torch.tensor([layers[i].architecture == name for i in owner])
        seeds = torch.tensor([layers[i].seed for i in owner])
        mixed = cluster_mixing(labels[mine], seeds[mine], generator=generator())
        print(
            f"{name}: seeds told apart by clusters {mixed.observed:+.3f}, shuffled {float(mixed.shuffled.mean()):+.3f}"
        )
    responses = [unit_responses(a.amounts[:, one.units], frames, flow) for a, one in zip(layers, vectors, strict=True)]
    joined = {k: torch.cat([r[k] for r in responses]) for k in responses[0]}
    print(facts)
    for name in ("all", *FIELDS, *VIDEOS):
        mine = torch.tensor([name in ("all", layers[i].architecture) for i in owner])
        if len(labels[mine].unique()) == 1:
            print(f"{name}: all {int(mine.sum())} units are in one cluster", flush=True)
            continue
        found = what_dominates({k: r[mine] for k, r in joined.items()}, labels[mine], generator=generator())
        shares = ", ".join(f"{k} {one.share:.2f} ({float(one.shuffled.mean()):.2f})" for k, one in found.items())
        print(f"{name}: {int(mine.sum())} units; {shares}; {verdict(found)}", flush=True)
        if name == "all" and clip == "sprites":
            save(cluster_variance_bars({k: one[:2] for k, one in found.items()}, verdict(found)), "explained")
    if clip == "sprites":
        maps = torch.cat([a.amounts.mean(0)[one.units] for a, one in zip(layers, vectors, strict=True)])
        words = [f"{layers[i].architecture}" for i in owner]
        units = torch.cat([one.units for one in vectors])
        sheet = {"sources": words, "units": units, "positions": umap_positions(values), "facts": facts}
        save(cluster_sheet(maps, labels, frames[0], **sheet), "clusters")


if __name__ == "__main__":
    main(*sys.argv[1:])
