import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.counterfactuals.search import LinearHead, Task
from xinc_captum.attributions.linking.loop import Loop
from xinc_captum.generators import from_callable, normal_latents


@pytest.fixture
def plane():
    """Latents, units and pixels are two numbers; a picture shows its latent, three classes lie 120° apart."""
    head = LinearHead(
        torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).double(), torch.zeros(3).double()
    )
    paint = from_callable(lambda w: (0.5 + w / 20).clamp(0, 1).view(-1, 1, 1, 2), normal_latents(2))
    g = torch.Generator().manual_seed(0)
    r = torch.randn(200, 2, generator=g, dtype=torch.float64)
    link = LatentLink(ridge=0.0).fit(r, r)
    seen = []

    def look(pictures, rows):
        seen.append(len(pictures))
        representations = (pictures.flatten(1) - 0.5) * 20
        return representations, head(representations)

    loop = Loop(link, paint, look, torch.zeros(1, 2, dtype=torch.float64), limit=4)

    def task(r, target, confidence=0.0, with_head=True):
        rows = torch.arange(len(r))
        scores = head(r)
        top = scores.topk(2, 1).indices
        origin = torch.where(top[:, 0] == target, top[:, 1], top[:, 0])
        slope = head.weight[target] - head.weight[origin]
        gap = (scores.gather(1, target[:, None]) - scores.gather(1, origin[:, None]))[:, 0]
        base = loop.shown(loop.latents(r, rows), rows)
        return Task(loop, r, base, origin, target, slope, gap, head if with_head else None, confidence, rows)

    return task, loop, seen


@pytest.fixture
def rows():
    """Six points on a circle of radius 2, and for each a target that is not its class."""
    angle = torch.arange(6, dtype=torch.float64) * 2 * torch.pi / 6 + 0.3
    r = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return r, torch.tensor([1, 2, 2, 0, 0, 1])
