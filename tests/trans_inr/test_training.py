import os

import pytest
import torch

from xinc_captum.attributions.trans_inr import mean_psnr
from xinc_captum.inr import CheckpointError


def test_a_killed_run_goes_on_and_ends_with_the_same_bits(small, bars, tmp_path, monkeypatch):
    """Stopped while it writes its third checkpoint; tests/inr/test_fit_video.py kills a process there."""
    images, path = bars(), tmp_path / "run.pt"
    settings = {"steps": 40, "batch_size": 6, "every": 7, "keep": 0.5, "show_progress": False}
    written, sync = [], os.fsync

    def stop(descriptor):
        written.append(descriptor)
        if len(written) == 3:
            raise KeyboardInterrupt
        sync(descriptor)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "fsync", stop)
        small().fit(images, checkpoint=path, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"], "the half-written file is removed"
    whole, resumed = small(), small(seed=9)  # the weights come from the checkpoint
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
        (small(groups=2), bars(), {}, "groups 4 instead of 2, model"),
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
    changed = {what for what in before.differences(model) if not what.startswith("version of")}
    assert changed == {"weights", "buffers"}, "the means are buffers"
    before, calls = found(model), []

    def stop(*_):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(bars(), steps=9, show_progress=False)
    handle.remove()
    changed = {what for what in before.differences(model) if not what.startswith("version of")}
    assert changed == {"weights"}, "it had taken some steps"
    assert (model.tokens.places.grad == 1).all() and model.tokens.linear.weight.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_whatever_mode_the_caller_is_in(small, bars, mode):
    plain, again, images = small(), small(), bars()
    plain.fit(images, steps=3, show_progress=False)
    with mode():
        again.fit(images, steps=3, show_progress=False)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_trained_as_it_is(small, bars):
    with pytest.raises(ValueError, match="this TransINR is torch.float16, in which steps of Adam are NaN; fit it in"):
        small().half().fit(bars(), show_progress=False)
    with pytest.raises(ValueError, match="no parameter of this TransINR wants a gradient"):
        small().requires_grad_(False).fit(bars(), show_progress=False)


@pytest.mark.cuda
def test_on_a_gpu(small, bars, tmp_path):
    """The same first steps as on the CPU; what was begun there is gone on with here."""
    plain, there = small(), small().cuda()
    settings = {"steps": 6, "every": 2, "keep": 0.5, "show_progress": False}
    whole, result = plain.fit(bars(), **settings), there.fit(bars(), checkpoint=tmp_path / "run.pt", **settings)
    assert there.mean_image.device.type == there.tokens.places.device.type == "cuda"
    assert result.curve == pytest.approx(whole.curve, abs=1e-2)
    again = small().fit(bars(), checkpoint=tmp_path / "run.pt", **settings)
    assert (again.resumed_at, again.curve) == (6, result.curve)


def test_a_mean_of_decibels():
    picture = torch.zeros(2, 1, 2, 2)
    assert mean_psnr(picture + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), picture) == pytest.approx(30.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": 0}, "steps is 0; wanted at least 1"),
        ({"every": 0}, "every is 0; wanted at least 1"),
        ({"warmup": -1}, "warmup is -1; wanted at least 0"),
        ({"lr": 0.0}, "lr is 0.0; wanted above 0"),
    ],
)
def test_impossible_numbers(small, bars, arguments, text):
    with pytest.raises(ValueError, match=text):
        small().fit(bars(), show_progress=False, **arguments)
