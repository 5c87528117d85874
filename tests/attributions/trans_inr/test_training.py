import os

import pytest
import torch

from xinc_captum.attributions.trans_inr import (
    RayTransINR,
    TransINR,
    fine_tune,
    independent_inits,
    mean_psnr,
    neuron_canvases,
)
from xinc_captum.attributions.trans_inr.training import random_mask
from xinc_captum.inr import CheckpointError
from xinc_captum.metrics import correspondence
from xinc_captum.store import StoreError, read_tensors, write_tensors


def test_killed_run_resumes_bit_identically(small, bars, tmp_path, monkeypatch):
    """Stopped while it writes its third checkpoint; tests/inr/test_fit.py kills a process there."""
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


def test_checkpoint_of_another_configuration_is_refused(small, bars, tmp_path):
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


def test_other_state_is_restored(small, bars, found):
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
def test_fit_does_not_depend_on_the_callers_grad_mode(small, bars, mode):
    plain, again, images = small(), small(), bars()
    plain.fit(images, steps=3, show_progress=False)
    with mode():
        again.fit(images, steps=3, show_progress=False)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))


def test_models_that_cannot_be_trained_are_refused(small, bars):
    with pytest.raises(ValueError, match="this TransINR is torch.float16, in which steps of Adam are NaN; fit it in"):
        small().half().fit(bars(), show_progress=False)
    with pytest.raises(ValueError, match="no parameter of this TransINR requires a gradient"):
        small().requires_grad_(False).fit(bars(), show_progress=False)


@pytest.mark.cuda
def test_on_a_gpu(small, bars, tmp_path):
    """The same first steps as on the CPU; a checkpoint from there is resumed here."""
    plain, there = small(), small().cuda()
    settings = {"steps": 6, "every": 2, "keep": 0.5, "show_progress": False}
    whole, result = plain.fit(bars(), **settings), there.fit(bars(), checkpoint=tmp_path / "run.pt", **settings)
    assert there.mean_image.device.type == there.tokens.places.device.type == "cuda"
    assert result.curve == pytest.approx(whole.curve, abs=1e-2)
    again = small().fit(bars(), checkpoint=tmp_path / "run.pt", **settings)
    assert (again.resumed_at, again.curve) == (6, result.curve)


def test_mean_psnr_is_a_mean_of_decibels():
    picture = torch.zeros(2, 1, 2, 2)
    assert mean_psnr(picture + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), picture) == pytest.approx(30.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"every": 0}, "every is 0; expected at least 1"),
        ({"warmup": -1}, "warmup is -1 and lr is 0.006; expected warmup of at least 0"),
        ({"lr": 0.0}, "lr is 0.0; expected warmup of at least 0 and lr above 0"),
    ],
)
def test_invalid_numbers_are_refused(small, bars, arguments, text):
    with pytest.raises(ValueError, match=text):
        small().fit(bars(), show_progress=False, **arguments)


def test_fit_converges_and_is_validated(small, ramps):
    images = ramps(64)
    model = small()
    result = model.fit(images[:48], validation=images[48:], steps=250, lr=1e-2, warmup=10, show_progress=False)
    assert result.psnr > mean_psnr(images[:48].mean(0).expand(16, -1, -1, -1), images[48:]) + 8
    with torch.no_grad():
        assert result.psnr == pytest.approx(mean_psnr(model(images[48:]), images[48:]), abs=1e-4)
    assert [step for step, _ in result.validation] == [100, 200, 250]
    assert len(result.curve) == result.steps == 250 and result.curve[-1] > result.curve[0] + 3
    # What benchmarks/trans_inr.py asks of digits: ten steps further, and neurons that find themselves.
    own = independent_inits(model, 16)
    written, scratch = fine_tune(model.generate(images[48:]), images[48:], 10, 3e-3), fine_tune(own, images[48:], 10)
    assert written.psnr > scratch.psnr + 10
    found, control = (correspondence(neuron_canvases(nets, (8, 8))) for nets in (written.inrs, scratch.inrs))
    assert found.retrieval > 0.7 and control.retrieval < 2 * control.chance


def test_means_are_those_of_the_training_images(small, bars):
    model, images = small(), bars(20)
    assert (model.mean_image == 0.5).all() and all((x == 1).all() for x in model.mean_modulations)
    model.fit(images, validation=None, steps=2, show_progress=False)
    torch.testing.assert_close(model.mean_image, images.mean(0))
    with torch.no_grad():
        for mean, each in zip(model.mean_modulations, model.modulations(images), strict=True):
            torch.testing.assert_close(mean, each.mean(0))
    larger = bars(4).repeat_interleave(2, -1)
    model.fit(larger, validation=None, steps=1, show_progress=False)
    assert model.mean_image.shape == (1, 8, 8), "of the size it was built for"


def test_seed_determines_the_split_and_validation_images_are_not_trained_on(small, bars):
    images = bars(20)
    spoilt = images.clone()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    spoilt[order[:4]] = 0.0
    first, second = small(), small()
    first.fit(images, validation=0.2, steps=3, seed=5, show_progress=False)
    second.fit(spoilt, validation=0.2, steps=3, seed=5, show_progress=False)
    assert torch.equal(first.tokens.places, second.tokens.places)


def test_random_masks_have_shares_between_keep_and_one():
    seen = random_mask((500, 4, 4), 0.25, torch.Generator().manual_seed(0))
    counts = seen.flatten(1).sum(1)
    assert seen.dtype == torch.bool and 4 <= counts.min() <= 5 and counts.max() == 16
    assert seen.float().mean(0).std() < 0.1, "every place as often"


@pytest.mark.parametrize("arguments", [{}, {"pixel_mask": True}])
def test_training_with_random_masks(bars, arguments):
    model = TransINR(1, (8, 8), 4, dim=8, depth=1, ff=8, heads=2, hidden=4, count=2, groups=2, seed=0, **arguments)
    result = model.fit(bars(), steps=5, keep=0.3, show_progress=False)
    assert len(result.curve) == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images": torch.rand(1, 1, 8, 8)}, "images hold 1 image; expected at least 2"),
        ({"validation": 0.001}, "validation is 0.001 of 24 images; expected a share that leaves images on both sides"),
        ({"keep": 0.0}, r"batch_size is 64 and keep is 0.0; expected at least 1, and a share in \(0, 1\]"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": torch.rand(20, 3, 8, 8)}, r"images have shape \(1, 3, 8, 8\); expected \(N, 1, H, W\)"),
        ({"images": torch.rand(20, 1, 8, 9)}, r"an image of \(8, 9\) pixels .* does not tile"),
    ],
)
def test_invalid_settings_are_refused(small, bars, arguments, text):
    with pytest.raises(ValueError, match=text):
        small().fit(**{"images": bars(), "steps": 1, "show_progress": False, **arguments})


def test_round_trip(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny.fit(torch.rand(8, 3, 6, 6), steps=2, validation=None, show_progress=False)
    tiny.save(path)
    state = torch.get_rng_state()
    again = TransINR.load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.config == tiny.config and str(again) == str(tiny)
    for (name, a), b in zip(tiny.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype, name
    images = torch.rand(2, 3, 6, 6).double()
    assert torch.equal(again(images), tiny(images))
    assert all(p.requires_grad for p in again.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before, "equal models are equal bytes"


def test_single_vectors_and_patches_are_saved(tmp_path):
    model = TransINR(groups="vector", pixel_mask=True, padding=1, size=(8, 10))
    model.save(tmp_path / "model.safetensors")
    again = TransINR.load(tmp_path / "model.safetensors")
    assert again.config["size"] == (8, 10) and again.writer.groups == "vector" and again.tokens.pixel_mask


def test_files_of_another_configuration_are_refused(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny.save(path)
    tensors, note = read_tensors(path, kind="trans-inr", writer="TransINR.save()")
    note["config"]["hidden"] = 12
    write_tensors(path, tensors, kind="trans-inr", metadata=note)
    with pytest.raises(StoreError, match=r"do not fit: .*mean_modulation1 has shape \(3, 6\), not \(3, 12\)"):
        TransINR.load(path)
    note["config"]["hidden"] = 6
    del tensors["tokens.places"]
    write_tensors(path, tensors, kind="trans-inr", metadata=note)
    with pytest.raises(StoreError, match="do not fit: tokens.places is missing"):
        TransINR.load(path)


def test_files_of_the_other_class_are_refused(tiny, tmp_path):
    tiny.save(tmp_path / "model")
    with pytest.raises(StoreError, match="model holds a TransINR; expected a RayTransINR, a file of RayTransINR.save"):
        RayTransINR.load(tmp_path / "model")
