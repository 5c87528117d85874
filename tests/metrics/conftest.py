from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def part_table():
    """The released code's table of parts: three pictures, masks of five labels (the first is background)."""
    held = np.load(Path(__file__).parents[1] / "data" / "linking.npz")
    labels = torch.from_numpy(held["E_labels"]).long()
    return SimpleNamespace(
        pictures=torch.from_numpy(held["E_imgs"]).permute(0, 3, 1, 2).double() / 255,
        masks=labels[:, None] == torch.arange(5).view(-1, 1, 1),
        rows=held["E_table"],
        ellipses=held["E_ellipses"],
        entropy=torch.from_numpy(held["E_entropy"]),
        change=held["E_change_area_lum_entropy"],
    )
