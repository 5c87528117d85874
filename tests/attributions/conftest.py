from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.generators import EigenGenerator


@dataclass
class Digits:
    """Scikit-learn's digits, a classifier, a generator without training and the link between them."""

    net: nn.Module
    generator: Any
    link: Any
    units: Any

    @property
    def unit(self):
        """A live unit."""
        return int(self.link.alive.nonzero()[0])

    def classes(self, n):
        return torch.arange(n) % 10

    def pictures(self, n):
        """Drawn by the generator, of another seed than the link's pairs."""
        latents = self.generator.sample_latents(n, self.classes(n), 0.7, generator=torch.Generator().manual_seed(7))
        return self.generator.synthesize(latents)


@pytest.fixture(scope="session")
def digits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        net = nn.Sequential(nn.Flatten(), *layers)
    data = pytest.importorskip("sklearn.datasets", reason="pip install '.[analysis]'").load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(120):
        loss = nn.functional.cross_entropy(net(x[:1400]), y[:1400])
        adam.zero_grad()
        loss.backward()
        adam.step()
    net.zero_grad()
    generator = EigenGenerator(x, y, components=24)
    classes = torch.arange(3000) % 10
    latents = generator.sample_latents(3000, classes, 0.7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        r = net[:5](generator.synthesize(latents))
    manifest = {"layer": "5", "attribute_to_neuron_input": True, "pool": "auto"}
    link = LatentLink().fit(r, latents, classes, manifest=manifest)
    return Digits(net.eval(), generator, link, LinkedUnitVisualization(net, "5", generator, link))
