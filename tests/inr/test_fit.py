import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from xinc_captum.inr import (
    CheckpointError,
    FourierMLP,
    HNeRV,
    NeRV,
    Sine,
    Siren,
    fit,
    fit_video,
    load,
    psnr,
    render,
    render_video,
    save,
    times,
)
from xinc_captum.store import StoreError, write_tensors


def ramp(channels=3, *size):
    return torch.linspace(0, 1, math.prod(size)).reshape(1, *size).expand(channels, *size).clone()


@pytest.mark.parametrize("size", [(30,), (8, 12), (4, 5, 6)])
@pytest.mark.parametrize("kind", ["ffn", "siren"])
def test_fit_converges_for_signals_of_any_dims(size, kind):
    make = {
        "ffn": lambda: FourierMLP(len(size), 2, hidden=24, scale=1.0, seed=0),
        "siren": lambda: Siren(len(size), 2, hidden=24, seed=0),
    }
    model = make[kind]()
    result = fit(model, ramp(2, *size), steps=150, lr=5e-3, show_progress=False)
    assert result.psnr > 25
    assert result.curve[0] < result.curve[-1]
    assert render(model, size).shape == (2, *size)
    assert result.psnr == pytest.approx(psnr(render(model, size), ramp(2, *size)), abs=1e-4)


def test_fit_stops_at_target_psnr():
    result = fit(
        FourierMLP(hidden=24, scale=1.0, seed=0), ramp(3, 8, 8), steps=2000, target_psnr=25, show_progress=False
    )
    assert result.steps < 2000
    assert result.psnr >= 25


def test_seed_determines_minibatches_and_state_is_restored(found):
    models = [FourierMLP(hidden=8, seed=0) for _ in range(3)]
    models[0].linear1.weight.grad = torch.ones_like(models[0].linear1.weight)
    models[0].eval()
    before = found(models[0])
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, ramp(3, 8, 8), steps=5, batch_size=16, seed=seed, show_progress=False)
    first, second, third = (m.linear1.weight for m in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert {one for one in before.differences(models[0]) if "version" not in one} == {"weights"}


def test_frozen_parameters_are_unchanged():
    model = FourierMLP(hidden=8, seed=0)
    model.linear1.requires_grad_(False)
    weight = model.linear1.weight.clone()
    fit(model, ramp(3, 4, 4), steps=3, show_progress=False)
    assert torch.equal(model.linear1.weight, weight)


def test_fit_works_under_no_grad():
    with torch.no_grad():
        assert fit(FourierMLP(hidden=8, seed=0), ramp(3, 4, 4), steps=3, show_progress=False).steps == 3


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (
            torch.zeros(3, 4, 4, dtype=torch.uint8),
            TypeError,
            "image is torch.uint8; expected a float tensor in .*by 255",
        ),
        ([[1.0]], TypeError, "image is list"),
        (torch.full((3, 4, 4), 2.0), ValueError, r"image values lie in \[2, 2\]; expected \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), ValueError, "image holds NaN"),
        (torch.zeros(3, 0, 4), ValueError, r"image has shape \(3, 0, 4\)"),
        (torch.zeros(4), ValueError, r"image has shape \(4,\)"),
        (torch.zeros(1, 4, 4), ValueError, r"the model returns \(1, 3\) for one pixel, but the image has 1 channels"),
        (torch.zeros(3, 4), ValueError, "cannot take coordinates of shape .rows, 1.*in_features=1"),
    ],
)
def test_fit_rejects_invalid_images(image, error, text):
    with pytest.raises(error, match=text):
        fit(FourierMLP(hidden=4), image, show_progress=False)


def test_psnr_equals_hand_computed_values():
    assert psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20)
    assert psnr(torch.zeros(4), torch.zeros(4)) == math.inf


def test_fit_accepts_any_module():
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    assert fit(model, ramp(1, 4, 4), steps=2, show_progress=False).size == (4, 4)


@pytest.mark.cuda
def test_on_a_gpu():
    model = FourierMLP(hidden=24, scale=1.0, seed=0).cuda()
    result = fit(model, ramp(3, 8, 8), steps=200, batch_size=32, show_progress=False)
    assert result.psnr > 25


def clip(frames=5, channels=3, height=8, width=12):
    """A bright bar that moves to the right over a ramp."""
    video = torch.linspace(0, 0.5, width).expand(frames, channels, height, width).clone()
    for i in range(frames):
        video[i, :, :, 2 * i : 2 * i + 2] = 1.0
    return video


def small(**arguments):
    return NeRV(**{"size": (8, 12), "widths": (8, 8, 8), "strides": (2, 2), "stem": (), "seed": 0, **arguments})


def fitted(model, video, **arguments):
    return fit_video(model, video, **{"show_progress": False, **arguments})


def test_fit_video_converges():
    model, video = small(), clip()
    result = fitted(model, video, steps=200, batch_size=5)
    assert result.psnr > 25
    assert len(result.frame_psnr) == 5
    drawn = render_video(model, 5)
    assert result.frame_psnr[3] == pytest.approx(psnr(drawn[3], video[3]), abs=1e-4)
    mean = sum(10 ** (-decibels / 10) for decibels in result.frame_psnr) / 5
    assert result.psnr == pytest.approx(-10 * math.log10(mean), abs=1e-3)
    assert (result.steps, result.resumed_at, len(result.curve), result.size) == (200, 0, 200, (5, 8, 12))
    assert result.curve[-1] > result.curve[0] + 10


def test_hnerv_is_fitted_to_its_own_frames():
    model, video = HNeRV((8, 12), (8, 8, 8), (2, 2), encoder_width=8, embedding=4, seed=0), clip()
    result = fitted(model, video, steps=200, batch_size=5)
    assert result.psnr > 20
    drawn = model.decoder(model.encoder(video))
    assert result.psnr == pytest.approx(psnr(drawn, video), abs=1e-3)


def test_fit_video_accepts_other_inputs():
    model = nn.Sequential(nn.Linear(2, 3 * 8 * 12), nn.Unflatten(1, (3, 8, 12))).double()
    result = fitted(model, clip(3), inputs=torch.eye(3)[:, :2], steps=20)
    assert result.curve[-1] > result.curve[0]
    assert render_video(model, torch.eye(3)[:, :2]).dtype == torch.float64


def test_video_seed_determines_batches_and_state_is_restored(found):
    models = [small() for _ in range(3)]
    models[0].head.weight.grad = torch.ones_like(models[0].head.weight)
    models[0].blocks.eval()
    models[0].stem.requires_grad_(False)
    models[1].stem.requires_grad_(False)
    models[2].stem.requires_grad_(False)
    stem = models[0].stem.linear1.weight.clone()
    before = found(models[0])
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fitted(model, clip(), steps=5, batch_size=2, seed=seed)
    first, second, third = (m.head.weight for m in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert {one for one in before.differences(models[0]) if "version" not in one} == {"weights"}
    assert torch.equal(models[0].stem.linear1.weight, stem)


def test_gradients_are_restored_after_an_exception():
    model = small()
    model.head.bias.grad = torch.ones(3)
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        fitted(model, clip(), steps=9)
    handle.remove()
    assert model.head.bias.grad.tolist() == [1, 1, 1]
    assert model.head.weight.grad is None


CHILD = """
import os, sys, time, torch
from xinc_captum.inr import NeRV, fit_video
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # as many as the parent (tests/conftest.py)
real, times_called = os.fsync, []
def hang(descriptor):
    times_called.append(1)
    if len(times_called) == 3:
        print("half written", flush=True)
        time.sleep(600)
    real(descriptor)
os.fsync = hang
model = NeRV((8, 12), (8, 8, 8), (2, 2), stem=(), seed=0)
video = torch.load(sys.argv[1])
fit_video(model, video, steps=40, batch_size=2, every=7, checkpoint=sys.argv[2], show_progress=False)
"""


@pytest.mark.own_kernels("half of the run is another process's, which has torch's kernels")
def test_killed_run_resumes_bit_identically(tmp_path):
    """Killed by SIGKILL while it writes its third checkpoint, in the middle of a round through the frames."""
    video, path = clip(), tmp_path / "run.pt"
    torch.save(video, tmp_path / "video.pt")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "video.pt"), str(path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "half written\n"
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".part", ".pt", ".pt"]
    whole, resumed = small(), small(seed=9)  # the weights come from the checkpoint
    settings = {"steps": 40, "batch_size": 2, "every": 7}
    uninterrupted = fitted(whole, video, **settings)
    result = fitted(resumed, video, checkpoint=path, **settings)
    assert result.resumed_at == 14
    assert result.curve == uninterrupted.curve
    assert result.frame_psnr == uninterrupted.frame_psnr
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.pt", "video.pt"]


def test_finished_run_is_not_repeated(tmp_path):
    first, again = small(), small(seed=3)
    result = fitted(first, clip(), steps=6, checkpoint=tmp_path / "run.pt", every=4)
    calls = []
    handle = again.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    repeated = fitted(again, clip(), steps=6, checkpoint=tmp_path / "run.pt", every=4)
    handle.remove()
    assert not any(calls), "rendered, not trained"
    assert (repeated.resumed_at, repeated.psnr, repeated.curve) == (6, result.psnr, result.curve)
    assert torch.equal(first.head.weight, again.head.weight)


def test_checkpoint_of_another_model_video_or_setting_is_refused(tmp_path):
    video, path = clip(), tmp_path / "run.pt"
    fitted(small(), video, steps=3, checkpoint=path)
    for model, frames, arguments, text in (
        (small(), video, {"steps": 4}, "it has steps 3 instead of 4; give another file, or remove it"),
        (small(), video, {"lr": 0.1}, "it has lr 0.01 instead of 0.1;"),
        (small(), video, {"seed": 1}, "it has seed 0 instead of 1;"),
        (small(), video, {"batch_size": 2}, "it has batch_size 5 instead of 2;"),
        (small(widths=(8, 8, 7)), video, {}, "it has model '[0-9a-f]{64}' instead of '[0-9a-f]{64}';"),
        (small(), 1 - video, {}, "it has frames '"),
        (small(), video, {"inputs": 1 - times(5)}, "it has inputs '"),
    ):
        weight = model.head.weight.clone()
        with pytest.raises(CheckpointError, match=f"run.pt is of another run: {text}"):
            fitted(model, frames, **{"steps": 3, "checkpoint": path, **arguments})
        assert torch.equal(model.head.weight, weight)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="text.pt is not a complete safetensors file"):
        fitted(small(), video, steps=3, checkpoint=tmp_path / "text.pt")


@pytest.mark.parametrize(
    ("frames", "arguments", "error", "text"),
    [
        (
            clip(1),
            {},
            ValueError,
            r"frames have shape \(1, 3, 8, 12\); expected .* at least 2 frames. A single image is f",
        ),
        (clip()[0], {}, ValueError, r"frames have shape \(3, 8, 12\); expected \(T, C, H, W\)"),
        ((clip() * 255).byte(), {}, TypeError, "expected a float tensor"),
        (clip() * 2, {}, ValueError, r"expected \[0, 1\]"),
        (clip(height=4), {}, ValueError, r"the model returns \(1, 3, 8, 12\) for one row, but a frame is \(3, 4, 12\)"),
        (
            clip(channels=1),
            {},
            ValueError,
            r"but a frame is \(1, 8, 12\); expected \(1, C, H, W\). Build it with size=",
        ),
        (clip(), {"inputs": times(4)}, ValueError, "inputs have 4 rows for 5 frames; expected one row a frame"),
        (clip(), {"steps": 0}, ValueError, "steps is 0; expected at least 1"),
        (clip(), {"batch_size": 0}, ValueError, "batch_size is 0; expected at least 1"),
        (clip(), {"every": 0}, ValueError, "every is 0; expected at least 1"),
    ],
)
def test_fit_video_rejects_invalid_input(frames, arguments, error, text):
    with pytest.raises(error, match=text):
        fitted(small(), frames, **arguments)


@pytest.mark.cuda
def test_fit_video_on_a_gpu():
    model = small().cuda()
    assert fitted(model, clip(), steps=200, batch_size=5).psnr > 25


@pytest.mark.parametrize(
    "model",
    [
        FourierMLP(hidden=6, layers=4, activation="gelu", scale=3.0, out_features=1),
        FourierMLP(3, 2, hidden=6, encoding="nerf", features=5),
        Siren(1, 2, hidden=5, omega=20.0),
    ],
)
def test_round_trip(model, tmp_path):
    save(model, tmp_path / "net.safetensors", size=(5, 7))
    found, size = load(tmp_path / "net.safetensors")
    x = torch.rand(4, model.config["in_features"])
    assert size == (5, 7)
    assert torch.equal(found(x), model(x))
    assert found.config == model.config
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("half", [False, True])
def test_round_trip_of_video_networks(half, tmp_path):
    nerv = NeRV((8, 12), (3, 4, 5), (2, 2), kernel_sizes=(1, 3), stem=(4,), squash=True)
    hnerv = HNeRV((8, 12), (3, 4, 5), (2, 2), embedding=2, encoder_width=4)
    for model, rows in ((nerv, times(3)), (hnerv, torch.rand(3, 3, 8, 12))):
        path = tmp_path / "net.safetensors"
        save(model, path, size=(3, 8, 12), dtype=torch.float16 if half else None)
        found, size = load(path)
        assert size == (3, 8, 12)
        assert found.config == model.config
        assert found(rows).dtype == torch.float32
        torch.testing.assert_close(found(rows), model(rows), atol=5e-3 if half else 0, rtol=0)
    save(nerv, path, size=(1,), dtype=torch.float16)
    assert torch.equal(load(path).model.encoding.frequencies, nerv.encoding.frequencies), "times need all their digits"
    whole, halved = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    big = FourierMLP()
    save(big, whole, size=(1, 1))
    save(big, halved, size=(1, 1), dtype=torch.float16)
    assert halved.stat().st_size < 0.6 * whole.stat().st_size


def test_files_of_the_first_version_have_no_dtype(tmp_path):
    model = Siren(hidden=4).double()
    save(model, tmp_path / "net.safetensors", size=(2, 2))
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["xinc_captum"])["metadata"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert note.pop("dtype") == "float64"
    note["format"] = "xinc-captum-inr-1"
    save_file(tensors, tmp_path / "old.safetensors", metadata={"network": json.dumps(note)})
    with pytest.warns(UserWarning, match="has format version 1"):
        assert load(tmp_path / "old.safetensors").model.linear1.weight.dtype == torch.float64


def test_activations_without_a_name_are_refused(tmp_path):
    with pytest.raises(TypeError, match="the model's activation is .*Sine.*; expected the name of an activation"):
        save(NeRV((8, 8), (2, 2), (2,), activation=Sine), tmp_path / "x.safetensors", size=(1, 8, 8))
    assert not list(tmp_path.iterdir())


def test_other_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="model is a Linear; expected one of FourierMLP, Siren, NeRV, HNeRV"):
        save(nn.Linear(2, 2), tmp_path / "x.safetensors", size=(1, 1))
    assert not list(tmp_path.iterdir())


def test_files_of_unknown_classes_are_refused(tmp_path):
    write_tensors(tmp_path / "x", {}, kind="inr", metadata={"kind": "Other"})
    with pytest.raises(StoreError, match="holds a network of the class 'Other'; expected one of FourierMLP, Siren"):
        load(tmp_path / "x")


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": -1}, {"batch_size": 0}])
def test_fit_rejects_numbers_below_one(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; expected at least 1"):
        fit(FourierMLP(hidden=4), torch.rand(3, 4, 4), show_progress=False, **options)


def test_numpy_integers_are_counts_and_seeds(tmp_path):
    """They end up in the JSON of checkpoints and files, and in calls of torch that take Python's ints only."""
    frames, nerv, results = torch.rand(5, 3, 16, 24), {"widths": (4, 4, 4), "strides": (2, 2)}, []
    for whole in (int, np.int64):
        model = NeRV((whole(16), whole(24)), kernel_sizes=whole(3), seed=whole(2), **nerv)
        counts = {"steps": whole(3), "batch_size": whole(2), "seed": whole(1), "every": whole(2)}
        fit_video(model, frames, **counts, checkpoint=tmp_path / "run", show_progress=False)
        save(model, tmp_path / "model.safetensors", size=(16, 24))
        results.append(render_video(load(tmp_path / "model.safetensors").model, whole(5), batch_size=whole(2)))
    assert torch.equal(*results)
    assert fit_video(model, frames, **counts, checkpoint=tmp_path / "run", show_progress=False).resumed_at == 3
    images = []
    for whole in (int, np.int64):
        model = FourierMLP(hidden=8, seed=whole(3))
        fit(model, frames[0], steps=whole(3), batch_size=whole(50), seed=whole(1), show_progress=False)
        images.append(render(model, (whole(4), 4), batch_size=whole(5)))
    assert torch.equal(*images)
