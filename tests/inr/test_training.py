import resource
import signal

import pytest
import torch
from torch import nn

from xinc_captum.inr import CheckpointError
from xinc_captum.inr.training import architecture_digest, check_finite, digest, load_run, save_run, trainable

RECIPE = {"steps": 10, "frames": "ab"}


def test_round_trip(tmp_path):
    state = {"step": 3, "model": {"a": torch.rand(2)}, "nested": [{"lr": 0.1}]}
    save_run(tmp_path / "run.pt", RECIPE, state)
    found = load_run(tmp_path / "run.pt", RECIPE)
    assert found["step"] == 3
    assert torch.equal(found["model"]["a"], state["model"]["a"])
    assert found["nested"] == state["nested"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    assert load_run(tmp_path / "none.pt", RECIPE) is None


def test_checkpoints_of_another_run_name_what_differs(tmp_path):
    save_run(tmp_path / "run.pt", RECIPE, {})
    with pytest.raises(
        CheckpointError,
        match=r"run.pt is of another run: it has steps 10 instead of 20, frames 'ab' instead of 'cd'; give another file",
    ):
        load_run(tmp_path / "run.pt", {"steps": 20, "frames": "cd"})
    with pytest.raises(CheckpointError, match="it has lr None instead of 1"):
        load_run(tmp_path / "run.pt", {**RECIPE, "lr": 1})


def test_damaged_and_foreign_files(tmp_path):
    save_run(tmp_path / "run.pt", RECIPE, {"model": torch.rand(1000)})
    whole = (tmp_path / "run.pt").read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            CheckpointError,
            match=rf"{name} is not a complete safetensors file \(.+\).* Or give another file, or remove",
        ):
            load_run(tmp_path / name, RECIPE)
    for content, mark in (({"format": "other"}, "'other'"), (torch.zeros(1), "None")):
        torch.save(content, tmp_path / "foreign")
        with pytest.raises(
            CheckpointError, match=rf"foreign is marked {mark}; expected a file written by a fit with checkpoint="
        ):
            load_run(tmp_path / "foreign", RECIPE)


class Runs:
    """Unpickled by a careless reader, this would run a command."""

    def __reduce__(self):
        return (print, ("run",))


def test_a_file_cannot_run_code(tmp_path, capsys):
    torch.save({"format": "xinc-captum-training-1", "state": Runs()}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        load_run(tmp_path / "run.pt", RECIPE)
    assert not capsys.readouterr().out


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The limit on the size of files stands in for the disk: the write itself fails, half way."""
    save_run(tmp_path / "run.pt", RECIPE, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(
            CheckpointError,
            match=r"run.pt cannot be written \(File too large\). The file that was there is unchanged.*The run can go on",
        ):
            save_run(tmp_path / "run.pt", RECIPE, {"step": 2, "model": torch.rand(100_000)})
        with pytest.raises(CheckpointError, match="new.pt cannot be written .*Nothing was written"):
            save_run(tmp_path / "new.pt", RECIPE, {"step": 2, "model": torch.rand(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert load_run(tmp_path / "run.pt", RECIPE)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_digests():
    x = torch.rand(3, 4)
    assert digest(x) == digest(x.T.contiguous().T) == digest(x.clone())
    assert digest(x) != digest(x.reshape(4, 3))
    assert digest(x) != digest(x + 1e-6)


def test_models_are_told_apart_by_their_parts():
    def make(activation=nn.ReLU, frozen=False):
        net = nn.Sequential(nn.Linear(2, 3), activation())
        net[0].bias.requires_grad_(not frozen)
        return net

    assert architecture_digest(make()) == architecture_digest(make())
    assert (
        len(
            {
                architecture_digest(make()),
                architecture_digest(make(nn.GELU)),
                architecture_digest(make().double()),
                architecture_digest(make(frozen=True)),
            }
        )
        == 4
    )


def test_those_that_want_gradients_in_order():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    assert [id(p) for p in trainable(model)] == [id(p) for p in (model[0].weight, *model[1].parameters())]
    assert len(trainable(model.bfloat16())) == len(trainable(model.double())) == 3


def made_under_inference_mode():
    with torch.inference_mode():
        return nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: nn.Linear(1, 1).requires_grad_(False),
            r"no parameter of this Linear wants a gradient; call requires_gr",
        ),
        (lambda: nn.ReLU(), "no parameter of this ReLU wants a gradient"),
        (
            lambda: nn.Linear(1, 1, device="meta"),
            "this Linear is on the meta device, where nothing has values; load it",
        ),
        (made_under_inference_mode, r"this Linear was made under torch.inference_mode\(\), .*; make it outside"),
        (
            lambda: nn.Linear(1, 1).half(),
            "this Linear is torch.float16, in which steps of Adam are NaN; fit it in float32",
        ),
    ],
)
def test_what_cannot_be_trained(make, text):
    with pytest.raises(ValueError, match=text):
        trainable(make())


def test_steps_of_adam_are_nan_in_float16():
    """What the error is about, not only that there is one."""
    model = nn.Linear(1, 1, bias=False).half()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.weight.grad = torch.full_like(model.weight, 1e-5)
    optimizer.step()
    assert not model.weight.isfinite().all()


def test_parameters_that_are_not_finite():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    check_finite(model)
    with torch.no_grad():
        model[1].bias[0] = float("inf")
    text = r"the parameter 1.bias of this Sequential holds NaN or infinite values \(1 of 4 parameters do\)"
    for call in (check_finite, trainable):
        with pytest.raises(ValueError, match=text):
            call(model)
    check_finite(model, [model[1].bias])
    with pytest.raises(ValueError, match="this Linear is on the meta device"):
        check_finite(nn.Linear(2, 2, device="meta"))
