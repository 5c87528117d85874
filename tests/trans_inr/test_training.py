import os
import signal
import subprocess
import sys

import pytest
import torch

from xinc_captum.inr import CheckpointError
from xinc_captum.trans_inr import mean_psnr

CHILD = """
import os, sys, time, torch
from xinc_captum.trans_inr import TransINR
torch.set_num_threads(1)
real, called = os.fsync, []
def hang(descriptor):
    called.append(1)
    if len(called) == 3:
        print("half written", flush=True)
        time.sleep(600)
    real(descriptor)
os.fsync = hang
model = TransINR(dim=16, depth=1, ff=16, hidden=8, count=2, groups=4, seed=0)
images = torch.load(sys.argv[1])
model.fit(images, steps=40, batch_size=6, every=7, keep=0.5, checkpoint=sys.argv[2], show_progress=False)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(small, bars, tmp_path):
    """Killed by SIGKILL while it writes its third checkpoint."""
    images, path = bars(), tmp_path / "run.pt"
    torch.save(images, tmp_path / "images.pt")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "images.pt"), str(path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "half written\n"
        os.kill(child.pid, signal.SIGKILL)
    whole, resumed = small(), small(seed=9)  # the weights come from the checkpoint
    settings = {"steps": 40, "batch_size": 6, "every": 7, "keep": 0.5, "show_progress": False}
    uninterrupted = whole.fit(images, **settings)
    result = resumed.fit(images, checkpoint=path, **settings)
    assert result.resumed_at == 14 and uninterrupted.resumed_at == 0
    assert (result.curve, result.validation) == (uninterrupted.curve, uninterrupted.validation)
    assert [step for step, _ in result.validation] == [7, 14, 21, 28, 35, 40]
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_configuration_is_refused(small, bars, tmp_path):
    settings = {"steps": 2, "checkpoint": tmp_path / "run.pt", "show_progress": False}
    small().fit(bars(), **settings)
    for model, images, other, word in (
        (small(groups=2), bars(), {}, "model"),
        (small(), 1 - bars(), {}, "images"),
        (small(), bars(), {"lr": 1e-3}, "lr 0.006 instead of 0.001"),
        (small(), bars(), {"validation": None}, "validation 0.1 instead of None"),
    ):
        with pytest.raises(CheckpointError, match=f"run.pt is of another run: it has {word}"):
            model.fit(images, **settings, **other)


def test_everything_else_is_as_found(small, bars, found):
    model = small()
    model.tokens.places.grad = torch.ones_like(model.tokens.places)
    model.writer.encoder.eval()
    before = found(model)
    model.fit(bars(), steps=3, show_progress=False)
    assert set(before.differences(model)) == {"weights", "buffers"}, "the means are buffers"
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(bars(), steps=9, show_progress=False)
    handle.remove()
    assert (model.tokens.places.grad == 1).all() and model.tokens.linear.weight.grad is None


def test_a_mean_of_decibels():
    picture = torch.zeros(2, 1, 2, 2)
    assert mean_psnr(picture + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), picture) == pytest.approx(30.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": 0}, "steps is 0; wanted at least 1"),
        ({"every": 0}, "every is 0; wanted at least 1"),
        ({"warmup": -1}, "warmup is -1; wanted at least 0"),
    ],
)
def test_impossible_numbers(small, bars, arguments, text):
    with pytest.raises(ValueError, match=text):
        small().fit(bars(), show_progress=False, **arguments)
