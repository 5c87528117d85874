from types import SimpleNamespace

import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.generators import ImageParts, from_callable, normal_latents

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
        parts=ImageParts(masks, ["left", "middle", "right"]),
        soft=ImageParts(lambda pictures: masks * pictures.mean(1, keepdim=True), ["left", "middle", "right"]),
        masks=masks,
        latents=latents,
        representations=representations,
        classes=classes,
        link=LatentLink().fit(representations, latents, classes),
        to_left=torch.arange(30),
    )
