"""What optimize() and balance() read of a problem, for tests by hand."""

from types import SimpleNamespace

import torch

from xinc_captum.attributions.accentuation import Settings
from xinc_captum.batch import Batch


def stub(evaluate, images, *, distance=None, **options):
    settings = Settings(**{"n_steps": 1, "lr": 0.05, "optimizer": torch.optim.Adam, "mask_every": 1, **options})
    target_score = SimpleNamespace(objective=SimpleNamespace(name="unit"))
    return SimpleNamespace(
        evaluate=evaluate, settings=settings, distance=distance, batch=Batch.of(images), target_score=target_score
    )
