"""A small classifier with 128 rectified units before its head, and how it is trained."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks import exclusive


def small_convnet(num_classes: int = 10, size: int = 28, image_channels: int = 1) -> nn.Sequential:
    """Three convolutions, 128 rectified units and a linear head; ``head``'s input is what a link wants.

    Its input is pictures in [0, 1]; it normalises nothing.

    Args:
        num_classes: logits.
        size: height and width of the pictures, at least 8.
        image_channels: 1 for grey, 3 for colour.

    Raises:
        ValueError: pictures that are too small.

    Example:
        >>> small_convnet(10, 16)(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """
    if size < 8:
        raise ValueError(f"size is {size}; wanted at least 8, since the pictures are halved three times.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(((image_channels, 16), (16, 32), (32, 64)), 1):
        layers[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    layers["flat"] = nn.Flatten()
    layers["units"] = nn.Linear(64 * (size // 8) ** 2, 128)
    layers["relu4"] = nn.ReLU()
    layers["head"] = nn.Linear(128, num_classes)
    return nn.Sequential(layers)


def train_small_convnet(images: Tensor, labels: Tensor, *, epochs: int = 8, seed: int = 0) -> nn.Sequential:
    """A :func:`small_convnet` that knows these pictures, in eval mode; torch's global random state is as found.

    Args:
        images: (n, channels, size, size) floats in [0, 1].
        labels: (n,) classes 0, 1, …
        epochs: times that each picture is seen, each time shifted by up to one pixel.
        seed: of weights, order and shifts.

    Example:
        >>> model = train_small_convnet(torch.rand(20, 1, 8, 8), torch.arange(20) % 2, epochs=1)
        >>> model(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 2])
    """
    stream = torch.Generator().manual_seed(seed)
    with exclusive(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = small_convnet(int(labels.max()) + 1, images.shape[-1], images.shape[1]).to(images.device)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=stream).split(64):
            down, across = (torch.randint(-1, 2, (2,), generator=stream)).tolist()
            shown = images[rows].roll((down, across), (2, 3))
            loss = F.cross_entropy(model(shown), labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    adam.zero_grad()
    return model.eval()
