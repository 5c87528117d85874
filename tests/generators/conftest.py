from types import SimpleNamespace

import pytest
import torch

from xinc_captum.generators import LatentLink, PictureParts, from_callable, normal_latents
from xinc_captum.generators.linear_head import LinearHead
from xinc_captum.generators.loop import Loop
from xinc_captum.generators.search import Task

PER_PART = 10


@pytest.fixture(scope="session")
def planted():
    """A generator of three parts side by side, ten latents to each, and units of which some lead to the first alone.

    Latent k makes pixels of its own part brighter or darker. Unit u reads latents along a random direction, but units
    0 to 29 read the one that makes the left part brighter, and nothing else.
    """
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(3, 8, 12)
    for part in range(3):
        masks[part, :, 4 * part : 4 * part + 4] = 1
    patterns = torch.randn(3 * PER_PART, 3, 8, 12, generator=g) * 0.1 + 0.05
    patterns *= masks.repeat_interleave(PER_PART, 0)[:, None]

    def synthesize(latents):
        return torch.sigmoid(torch.einsum("nk,kchw->nchw", latents, patterns.to(latents)))

    reading = torch.randn(200, 3 * PER_PART, generator=g)
    brighter = torch.einsum("kchw,c->k", patterns, torch.tensor([0.299, 0.587, 0.114]))
    reading[:30] = brighter * (torch.arange(3 * PER_PART) < PER_PART)
    latents = torch.randn(2000, 3 * PER_PART, generator=g)
    representations = latents @ (reading / reading.norm(dim=1, keepdim=True)).T
    representations += 0.1 * torch.randn(representations.shape, generator=g)
    classes = torch.arange(2000) % 2
    return SimpleNamespace(
        generator=from_callable(synthesize, normal_latents(3 * PER_PART)),
        parts=PictureParts(masks, ["left", "middle", "right"]),
        soft=PictureParts(lambda pictures: masks * pictures.mean(1, keepdim=True), ["left", "middle", "right"]),
        masks=masks,
        latents=latents,
        representations=representations,
        classes=classes,
        link=LatentLink().fit(representations, latents, classes),
        to_left=torch.arange(30),
    )


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
