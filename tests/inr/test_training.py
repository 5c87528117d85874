import resource
import signal
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.hooks import protect
from xinc_captum.inr import CheckpointError
from xinc_captum.inr.training import (
    Validation,
    architecture_digest,
    check_finite,
    digest,
    epoch_batches,
    load_run,
    save_run,
    train,
    trainable,
)

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


def test_checkpoint_of_another_run_lists_differences(tmp_path):
    save_run(tmp_path / "run.pt", RECIPE, {})
    with pytest.raises(
        CheckpointError,
        match=r"run.pt is of another run: it has steps 10 instead of 20, frames 'ab' instead of 'cd'; give another file",
    ):
        load_run(tmp_path / "run.pt", {"steps": 20, "frames": "cd"})
    with pytest.raises(CheckpointError, match="it has lr None instead of 1"):
        load_run(tmp_path / "run.pt", {**RECIPE, "lr": 1})


def test_damaged_and_foreign_files_are_refused(tmp_path):
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
    """Prints when it is unpickled without ``weights_only``."""

    def __reduce__(self):
        return (print, ("run",))


def test_checkpoint_cannot_execute_code(tmp_path, capsys):
    torch.save({"format": "xinc-captum-training-1", "state": Runs()}, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="not a complete checkpoint"):
        load_run(tmp_path / "run.pt", RECIPE)
    assert not capsys.readouterr().out


def test_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """The limit on the size of files stands in for the disk: the write itself fails, half way."""
    save_run(tmp_path / "run.pt", RECIPE, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(
            CheckpointError,
            match=r"run.pt cannot be written \(File too large\). The file that was there is unchanged.*The run can be resumed",
        ):
            save_run(tmp_path / "run.pt", RECIPE, {"step": 2, "model": torch.rand(100_000)})
        with pytest.raises(CheckpointError, match="new.pt cannot be written .*Nothing was written"):
            save_run(tmp_path / "new.pt", RECIPE, {"step": 2, "model": torch.rand(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert load_run(tmp_path / "run.pt", RECIPE)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_digest_depends_on_values_and_shape():
    x = torch.rand(3, 4)
    assert digest(x) == digest(x.T.contiguous().T) == digest(x.clone())
    assert digest(x) != digest(x.reshape(4, 3))
    assert digest(x) != digest(x + 1e-6)


def test_architecture_digest_depends_on_modules_dtypes_and_frozen_parameters():
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


def test_trainable_returns_parameters_in_order():
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
            r"no parameter of this Linear requires a gradient; call requires_gr",
        ),
        (lambda: nn.ReLU(), "no parameter of this ReLU requires a gradient"),
        (
            lambda: nn.Linear(1, 1, device="meta"),
            "this Linear is on the meta device, where parameters have no values; load",
        ),
        (made_under_inference_mode, r"this Linear was made under torch.inference_mode\(\), .*; make it outside"),
        (
            lambda: nn.Linear(1, 1).half(),
            "this Linear is torch.float16, in which steps of Adam are NaN; fit it in float32",
        ),
    ],
)
def test_trainable_rejects_models_that_cannot_be_trained(make, text):
    with pytest.raises(ValueError, match=text):
        trainable(make())


def test_adam_steps_are_nan_in_float16():
    """The reason for the error of ``trainable``."""
    model = nn.Linear(1, 1, bias=False).half()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.weight.grad = torch.full_like(model.weight, 1e-5)
    optimizer.step()
    assert not model.weight.isfinite().all()


def test_parameters_must_be_finite():
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


@given(rows=st.integers(1, 9), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_each_index_comes_once_in_each_round(rows, size, seed):
    size = min(rows, size)
    batches = epoch_batches(rows, size, torch.Generator().manual_seed(seed))
    indices = [next(batches) for _ in range(3 * rows)]
    assert all(len(batch) == size for batch in indices)
    sequence = torch.cat(indices)
    for start in range(0, len(sequence) - rows + 1, rows):
        assert sorted(sequence[start : start + rows].tolist()) == list(range(rows))
    again = epoch_batches(rows, size, torch.Generator().manual_seed(seed))
    assert torch.equal(sequence, torch.cat([next(again) for _ in range(3 * rows)]))


class StopAt(Validation):
    """Record the steps at which it is called, and stop at one of them."""

    def __init__(self, last=None):
        self.steps, self.last = [], last

    def measure(self, step, losses):
        assert not torch.is_grad_enabled()
        self.steps.append(step)
        self.stop = step == self.last
        return f"step {step}"

    def state_dict(self):
        return {"validated": self.steps}

    def load_state_dict(self, state):
        self.steps = list(state["validated"])


def run(steps=9, last=None, kill=None, after_step=lambda model, step: None, **arguments):
    """Fit y = 0 with batches of 3 of 7 inputs; returns the model, what train() returned, and the steps validated."""
    model = nn.Linear(2, 1)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.5)
    model.bias.grad = torch.ones(1)
    inputs = torch.linspace(-1, 1, 14).view(7, 2)

    def loss_of(index, step):
        if step == kill:
            raise KeyboardInterrupt
        loss = model(inputs[index]).square().mean()
        return loss, torch.stack([loss, loss.new_tensor(step)])

    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=steps)
    validation, losses = StopAt(last), torch.zeros(steps, 2)
    measure = validation.measure
    validation.measure = lambda step, losses: (after_step(model, step), measure(step, losses))[1]
    batches = epoch_batches(7, 3, torch.Generator().manual_seed(0))
    settings = {"validation": validation, "every": 4, "recipe": {"steps": steps}, "show_progress": False}
    try:
        result = train(model, loss_of, batches, optimizer, schedule, losses, **settings, **arguments)
    except KeyboardInterrupt:
        result = None
    assert model.bias.grad.tolist() == [1] and model.weight.grad is None, "restored, also after an exception"
    return model.weight.tolist(), losses.tolist(), result, validation.steps


def test_a_run_is_validated_and_resumed(tmp_path):
    weight, losses, result, validated = run()
    assert result == (9, 0) and validated == [4, 8, 9]
    assert [step for _, step in losses] == list(range(9)) and losses[-1][0] < losses[0][0]
    assert run(kill=6, checkpoint=tmp_path / "run", key="net")[2] is None
    assert run(checkpoint=tmp_path / "run", key="net") == (weight, losses, (9, 4), validated)
    assert run(kill=0, checkpoint=tmp_path / "run", key="net") == (weight, losses, (9, 9), validated)
    with pytest.raises(CheckpointError, match="it has steps 9 instead of 8"):
        run(8, checkpoint=tmp_path / "run")


def test_validation_can_end_a_run():
    _, losses, result, validated = run(last=4)
    assert result == (4, 0) and validated == [4] and losses[4:] == [[0, 0]] * 5


def test_gradients_are_restored_while_another_thread_explains_the_model():
    """The other thread met the gradients of a step, and restores them: the run must restore its own after that."""
    met, trained = threading.Event(), []

    def explain():
        with protect(trained[0]):
            met.set()
            time.sleep(0.2)  # the run's last step is done; now it ends

    thread = threading.Thread(target=explain)

    def after_step(model, step):
        if step == 9:
            trained.append(model)
            thread.start()
            assert met.wait(10)

    run(after_step=after_step)
    thread.join()
    assert trained[0].weight.grad is None and trained[0].bias.grad.tolist() == [1]
