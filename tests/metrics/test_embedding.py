import os
import subprocess
import sys

import pytest
import torch

from xinc_captum.metrics import umap_positions

RUN = """
import torch, numpy
from xinc_captum.metrics import umap_positions
near = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.1
vectors = torch.cat([near, near + 9])
before = numpy.random.get_state()[1].copy(), torch.get_rng_state()
first = umap_positions(vectors, neighbors=3, seed=3)
assert (numpy.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
assert first.shape == (12, 2) and first.dtype == torch.float32 and first.isfinite().all()
gap = (first[:6].mean(0) - first[6:].mean(0)).norm()
assert gap > 2 * first[:6].std(0).norm(), "groups stay apart"
print("fine")
"""


def test_it_lays_groups_apart():
    """umap itself, in a process of its own in which numba does not spend half a minute on compiling."""
    settings = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", RUN], capture_output=True, text=True, env=settings)
    assert done.stdout.strip() == "fine", done.stderr


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"vectors have shape \(5, 2\) for 15 neighbours; wanted .* more units than"):
        umap_positions(torch.rand(5, 2))


def test_a_missing_umap_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"a UMAP picture needs umap.*pip install 'xinc-captum\[analysis\]'"):
        umap_positions(torch.rand(30, 2))
