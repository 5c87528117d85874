"""Compute the statistics of canvases on the paper's trained network, with controls and with the released code's definitions.

    python benchmarks/analyses.py FOLDER    (the folder contains xinc_ffn.npz, the paper's trained network)

Each layer has two rows: the paper's maps (rule "xinc") and the tangent. The image is the output of the network, since
the photo was not released, so k-means and Gabor regions are those of the output. "comb" is what the released code uses
as grid cells.
"""

import sys

import torch
from reference import load, network

from xinc_captum import NeuronCanvas
from xinc_captum.inr import coordinates, render
from xinc_captum.metrics.regions import (
    as_masks,
    association,
    colour_regions,
    edges,
    gabor_regions,
    grid_cells,
    intensity,
    region_test,
)
from xinc_captum.metrics.spread import magnitudes, participation, pixels_per_unit, units_for, units_per_pixel

SIZE = (128, 256)
SITES = (
    ("hidden 2", "activation2", "output"),
    ("hidden 1", "activation1", "linear2"),
    ("features", "encoding", "linear1"),
)


def comb(size, grid=(4, 8)):
    """Label every fourth row and eighth column, as the released code does."""
    rows, columns = (torch.arange(side) % step for side, step in zip(size, grid, strict=True))
    return rows[:, None] * grid[1] + columns


def canvases(model):
    x = coordinates(SIZE)
    for name, layer, reader in SITES:
        with torch.no_grad():
            maps = NeuronCanvas(model, reader, rule="xinc").attribute(x, attribute_to_layer_input=True)
        maps = maps.sum(2) if maps.dim() == 3 else maps  # the paper adds the channels with their signs
        yield name, "xinc", maps.abs().T.reshape(-1, *SIZE)
        yield name, "tangent", magnitudes(NeuronCanvas(model, layer).canvas(x, SIZE).to_tensor())


def main(folder):
    model = network(load(folder))
    photo = render(model, SIZE).clamp(0, 1)
    sources = {
        "comb": comb(SIZE),
        "cells": grid_cells(SIZE, (4, 8)),
        "colour": colour_regions(photo, 32),
        "gabor": gabor_regions(photo, 24),
    }
    for name, rule, amounts in canvases(model):
        print(f"\n{name}, {rule}: {len(amounts)} units")
        pixels = pixels_per_unit(amounts)
        print(
            f"  pixels per unit: {pixels.min()} / {pixels.median()} / {pixels.max()} of {pixels[0].numel() and photo[0].numel()}"
        )
        share = [float((units_per_pixel(amounts, q) / len(amounts)).mean()) for q in (0.9, 0.5)]
        few = [float(units_for(amounts, q).double().median()) for q in (0.5, 0.9)]
        print(
            f"  units per pixel, 90 % / 50 %: {share[0]:.3f} / {share[1]:.3f} of all; units for 50 / 90 % of a pixel "
            f"{few[0]:.0f} / {few[1]:.0f}; participation {float(participation(amounts).nanmedian()):.1f}"
        )
        for kind, labels in sources.items():
            test = region_test(amounts, as_masks(labels), generator=torch.Generator().manual_seed(0), repeats=5)
            size = test.preference.abs().var(1, correction=0).nanmedian()
            print(
                f"  {kind:7s} variance {float(test.variance.nanmedian()):.5f}  of |δ| {float(size):.5f}  scattered "
                f"{float(test.scattered.nanmedian()):.5f}  shifted {float(test.shifted.nanmedian()):.5f}  ratios "
                f"{test.above_chance:.1f} {test.above_elsewhere:.2f}"
            )
        for kind, field in (("intensity", intensity(photo)), ("edges", edges(photo))):
            found = association(amounts, field, generator=torch.Generator().manual_seed(0))
            whole = association(amounts.sum(0, keepdim=True), field, generator=torch.Generator().manual_seed(0))
            print(
                f"  {kind:9s} median |ρ| {float(found.rho.abs().nanmedian()):.3f} (elsewhere "
                f"{float(found.shifted.abs().nanmedian()):.3f}), {found.below_five_percent:.0%} of units at p <= .05; "
                f"all units together ρ {float(whole.rho):+.3f}, p {float(whole.chance):.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1])
