"""A fast call of compare() on two tiny photos."""

import torch

from xinc_captum.comparison import compare, grad_cam, guided_grad_cam, integrated_gradients, random_map

PHOTOS = torch.rand(2, 3, 8, 8)
MEASURES = ("deletion", "insertion", "agreement", "energy")


def twice(images):
    return 2 * images - 1


def defaults(model, preprocess=None):
    return {
        "Grad-CAM": grad_cam(model, "conv", preprocess),
        "guided": guided_grad_cam(model, "conv", preprocess),
        "IG": integrated_gradients(model, preprocess, steps=4),
        "random": random_map(1),
    }


def quick(*args, **kwargs):
    return compare(*args, **{"rounds": 1, "steps": 4, "baselines": (), "metrics": MEASURES, **kwargs})
