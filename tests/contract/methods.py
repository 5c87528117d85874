"""The table of the contract: every public attribution class, its construction, and its properties.

A new class adds a row to ``METHODS``; a new promise adds a test in the file of its idea. Lines are numbered as in the
project's checklist of what Captum users do with a method (``test_checklist.py`` lists them).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from xinc_captum import (
    Ablation,
    FeatureAccentuation,
    FeatureActivationMap,
    LatentLink,
    LayerContribution,
    LinkedUnitVisualization,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    WeightContribution,
)
from xinc_captum.attributions.nern import NeRN
from xinc_captum.generators import from_callable, normal_latents


class Net(nn.Module):
    """A small classifier with batch norm and an in-place ReLU; ``fc`` is its last Linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(16, 3)

    def forward(self, x, scale=1.0):
        return self.fc(self.flat(self.pool(self.relu(self.norm(self.conv(x)))))) * scale


@dataclass(frozen=True)
class Method:
    """A class of the package, how to build it on a layer, and what it promises."""

    name: str
    make: Callable[..., Any]
    layer: str = "relu"
    kwargs: dict[str, Any] = field(default_factory=dict)
    promises: frozenset[str] = frozenset()
    shape: tuple[int, ...] = ()  # of the answer for two rows and target 1
    unit: int | None = None  # what it explains instead of a target
    dose: tuple[Any, ...] = ("n_steps", 1, 4, 1)  # what Captum varies in perturb: name, least, most, step

    @property
    def perturbed(self):
        """The keywords of a call of ``perturb`` but for the dose."""
        return {k: v for k, v in self.of(1).items() if k != self.dose[0]}

    def of(self, target):
        """The keywords of a call that explains ``target``."""
        chosen = {"target": target} if self.unit is None else {"neuron_selector": self.unit}
        return chosen | self.kwargs

    def on(self, model, layer=None, **kwargs):
        return self.make(model, self.layer if layer is None else layer, **kwargs)


def canvas(rule):
    return lambda model, layer, *args, **kwargs: NeuronCanvas(model, layer, *args, rule=rule, **kwargs)


MIXED, PAIRS = (torch.randn(*size, generator=torch.Generator().manual_seed(0)) for size in ((5, 108), (60, 9)))


PAINT = from_callable(lambda w: (w @ MIXED.to(w)).sigmoid().view(-1, 3, 6, 6), normal_latents(5))


def linked(model, layer, device_ids=None, **kwargs):
    """Of the four channels of the layer's map, to pictures that bend with their latents."""
    r = PAIRS[:, :4].sigmoid()
    link = LatentLink(ridge=0.0).fit(r, PAIRS[:, 4:] + r.sum(1, keepdim=True))
    return LinkedUnitVisualization(model, layer, PAINT, link, device_ids, pool="mean", **kwargs)


def written(mode):
    """Of the neurons that wrote one convolution of the model."""

    def make(model, layer, device_ids=None, **kwargs):
        nern = NeRN(model, [layer], hidden=6, levels=4)
        return WeightContribution(nern, layer, device_ids, mode=mode, **kwargs)

    weights = frozenset({"weights"})
    return Method(f"WeightContribution {mode}", make, layer="conv", promises=weights, shape=(2, 7, 1))


REFERENCE = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))


METHODS = [
    Method(
        "LayerContribution",
        LayerContribution,
        promises=frozenset({"layer_shaped", "delta", "backward"}),
        shape=(2, 4, 6, 6),
    ),
    Method(
        "NeuronCanvas tangent", canvas("tangent"), promises=frozenset({"canvas", "delta", "backward"}), shape=(2, 4)
    ),
    Method("NeuronCanvas secant", canvas("secant"), promises=frozenset({"canvas", "delta"}), shape=(2, 5)),
    Method("NeuronCanvas ablation", canvas("ablation"), promises=frozenset({"canvas", "delta"}), shape=(2, 4)),
    Method(
        "NeuronCanvas ablation mean",
        canvas(Ablation("mean")),
        promises=frozenset({"canvas", "delta", "looks at all rows"}),
        shape=(2, 4),
    ),
    Method(
        "NeuronCanvas xinc",
        canvas("xinc"),
        layer="fc",
        kwargs={"attribute_to_layer_input": True},
        promises=frozenset({"canvas", "delta", "unscaled"}),
        shape=(2, 16),
    ),
    Method(
        "FeatureAccentuation",
        lambda model, layer, device_ids=None, **kwargs: FeatureAccentuation(model, **kwargs),
        kwargs={"n_steps": 2},
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks values", "perturb", "no layer"}),
        shape=(2, 3, 6, 6),
    ),
    Method(
        "NeuronFeatureAccentuation",
        NeuronFeatureAccentuation,
        kwargs={"n_steps": 2},
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks values", "perturb", "ignores the output"}),
        shape=(2, 3, 6, 6),
        unit=2,
    ),
    Method(
        "LinkedUnitVisualization",
        linked,
        promises=frozenset({"input_shaped", "images", "refuses nan", "checks once", "perturb", "ignores the output"}),
        shape=(2, 3, 6, 6),
        unit=2,
        dose=("value", 0.0, 1.0, 0.5),
    ),
    Method(
        "FeatureActivationMap",
        lambda model, layer, *args, **kwargs: FeatureActivationMap(model, layer, REFERENCE, *args, **kwargs),
        promises=frozenset({"ignores the output", "images", "checks once", "layer_shaped"}),
        shape=(2, 1, 6, 6),
    ),
    written("gradient"),
    written("integrated"),
    written("removal"),
]


every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def having(*promises):
    """Those that promise any of these."""
    chosen = [m for m in METHODS if m.promises & set(promises)]
    return pytest.mark.parametrize("method", chosen, ids=lambda m: m.name)


def attribute(method, model, x, target=1, **kwargs):
    return method.on(model).attribute(x, **{**method.of(target), **kwargs})


class Broken(Exception):
    pass
