from contextlib import contextmanager

import pytest
import torch
from torch import nn

from xinc_captum.attributions.linking import Encoder, LatentLink
from xinc_captum.attributions.linking.counterfactuals.search import LinearHead, Task
from xinc_captum.attributions.linking.loop import open_loop
from xinc_captum.generators import from_callable


class PlaneClassifier(nn.Module):
    """Images of two pixels to the two numbers they show ("units"), and to scores of these."""

    def __init__(self, scores):
        super().__init__()
        self.units, self.scores, self.batch_sizes = nn.Identity(), scores, []

    def forward(self, images):
        self.batch_sizes.append(len(images))
        return self.scores(self.units((images.flatten(1) - 0.5) * 20))


def plane_images(latents):
    return (0.5 + latents / 20).clamp(0, 1).view(-1, 1, 1, 2)


@pytest.fixture
def open_plane():
    """Open the loop of representations r (n, 2) and a function from these to scores; images show their latent."""

    @contextmanager
    def open_(r, scores):
        generator = from_callable(plane_images, lambda n, *_, **__: torch.zeros(n, 2, dtype=torch.float64))
        pairs = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        link = LatentLink(ridge=0.0).fit(pairs, pairs)
        encoder = Encoder(PlaneClassifier(scores), "units", attribute_to_neuron_input=False)
        with open_loop(encoder, generator, link, plane_images(r), None, None, 4) as loop:
            yield loop

    return open_


@pytest.fixture
def plane(open_plane):
    """Return a task for representations and targets; the classes lie 120° apart."""
    head = LinearHead(
        torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).double(), torch.zeros(3).double()
    )

    def task(r, target, confidence=0.0, with_head=True):
        top = head(r).topk(2, 1).indices
        origin = torch.where(top[:, 0] == target, top[:, 1], top[:, 0])
        with open_plane(r, head) as loop:
            slope, gap = loop.score_gradient(origin, target)
        return Task(loop, origin, target, slope, gap, head if with_head else None, confidence)

    return task


@pytest.fixture
def rows():
    """Six points on a circle of radius 2, and for each a target that is not its class."""
    angle = torch.arange(6, dtype=torch.float64) * 2 * torch.pi / 6 + 0.3
    r = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return r, torch.tensor([1, 2, 2, 0, 0, 1])
