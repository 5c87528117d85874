"""Blocks of ``untouched`` in two threads that overlap, in every order in which they can end.

Hooks act on forward passes of their own call.
"""

import math
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum import LayerError, capture, patch, untouched
from xinc_captum.hooks import exclusive, of_this_thread, protect, reach
from xinc_captum.hooks import state as ours


def disturb(model):
    model.train()
    model(torch.rand(4, 3, 6, 6)).sum().backward()
    for p in model.parameters():
        p.requires_grad_(not p.requires_grad)
    np.random.rand(3), random.random(), torch.rand(3)
    model.norm.running_mean = torch.ones(4)
    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("with_grad", [False, True])
def test_all_state_is_restored_after_a_block(conv, found, fault, with_grad):
    conv.norm.train()
    conv.conv.weight.requires_grad_(False)
    if with_grad:
        conv(torch.rand(4, 3, 6, 6)).sum().backward()
    before, benchmark = found(conv), torch.backends.cudnn.benchmark
    try:
        with untouched(conv):
            disturb(conv)
            assert before.differences(conv), "the disturbance must be one"
            if fault:
                raise fault
    except (RuntimeError, KeyboardInterrupt) as error:
        assert fault is not None and isinstance(error, fault)  # noqa: PT017
    assert before.differences(conv) == []
    assert torch.backends.cudnn.benchmark is benchmark


def test_autocast_is_restored_after_a_block(net):
    with torch.autocast("cpu", torch.bfloat16):
        with untouched(net):
            torch.set_autocast_enabled("cpu", False)
        assert torch.is_autocast_enabled("cpu")


def test_either_way_of_setting_tf32():
    code = "import torch; from xinc_captum import untouched, LayerContribution\n{}\nn = torch.nn.Linear(2, 2)\n"
    code += "LayerContribution(n, n).attribute(torch.ones(1, 2), target=0)"
    ways = ["torch.backends.cuda.matmul.allow_tf32 = True"]
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        ways += [
            'torch.backends.cuda.matmul.fp32_precision = "tf32"',
            'torch.backends.cudnn.conv.fp32_precision = "ieee"',
        ]
    for way in ways:
        subprocess.run([sys.executable, "-c", code.format(way)], check=True)


def test_modules_behind_a_function_are_protected(conv, found):
    before = found(conv)
    with untouched(lambda x: conv(x)):
        conv.train()(torch.rand(4, 3, 6, 6))
    assert before.differences(conv) == []


def test_a_hook_that_is_not_ours_is_left_alone(net):
    with untouched(net):
        handle = net[0].register_forward_hook(lambda *_: None)
    assert list(net[0]._forward_hooks) == [handle.id]


def test_a_backward_pass_from_before_the_block_still_works(conv):
    loss = conv(torch.rand(4, 3, 6, 6)).sum()
    with untouched(conv):
        conv.train()(torch.rand(4, 3, 6, 6))
    loss.backward()
    assert conv.conv.weight.grad.abs().sum() > 0


class Caching(nn.Module):
    """Keeps what it computed, and how large it was."""

    def __init__(self):
        super().__init__()
        self.size, self.grid = 0, None
        self.register_buffer("mean", None)

    def forward(self, x):
        if self.size != x.shape[-1]:
            self.size, self.grid = x.shape[-1], torch.linspace(0, 1, x.shape[-1])
            self.register_buffer("mean", self.grid.mean())
            self.new, self.count = self.grid, getattr(self, "count", 0) + 1
            self.register_buffer("late", self.grid)
        return x * self.grid


def test_caches_of_modules_come_back_together():
    model = Caching()
    with untouched(model):
        model(torch.rand(5))
    assert (model.size, model.grid, model.mean) == (0, None, None)
    assert not hasattr(model, "new") and not hasattr(model, "count") and "late" not in model._buffers
    model(torch.rand(5))
    grid, late = model.grid, model.late
    with untouched(model):
        model(torch.rand(3))
    assert model.size == 5 and model.grid is grid and model.late is late and model.count == 1


def test_a_forward_pass_that_rewrites_its_weights_is_named():
    model = nn.Sequential(nn.Embedding(3, 2, max_norm=0.1))
    with pytest.warns(UserWarning, match="parameter 'weight' of an Embedding layer was changed in"), untouched(model):
        model(torch.tensor([0, 1]))


def test_a_lazy_module_is_refused():
    model = nn.Sequential(nn.LazyLinear(3))
    with (
        pytest.raises(LayerError, match=r"LazyLinear has parameters or buffers without.*Call the model once"),
        untouched(model),
    ):
        pass


@pytest.mark.parametrize(
    "buffer",
    [
        torch.eye(3).to_sparse(),
        torch.eye(3).to_sparse_csr(),
        torch.tensor([[1.0, math.nan]]).expand(3, 2),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["sparse", "sparse rows", "expanded", "nested"],
)
def test_buffers_that_torch_cannot_compare_or_write_to(buffer):
    model = nn.Linear(2, 1)
    model.register_buffer("extra", buffer)
    with untouched(model):
        if not buffer.is_nested and buffer.layout is torch.strided:
            buffer.as_strided((2,), (1,)).zero_()
    assert model.extra is buffer
    if buffer.layout is torch.strided and not buffer.is_nested:
        torch.testing.assert_close(buffer, torch.tensor([[1.0, math.nan]]).expand(3, 2), equal_nan=True)
    elif not buffer.is_nested:
        assert buffer.to_dense().tolist() == torch.eye(3).tolist()


def test_a_buffer_gets_its_shape_back():
    model = nn.Module()
    model.register_buffer("low", torch.tensor([3.0]))
    low = model.low
    with untouched(model):
        model.low.resize_(4).fill_(1.0)  # as the observers of torch's quantization
    assert model.low is low and low.tolist() == [3.0]


def test_gradients_stay_where_the_block_cannot_begin():
    model = nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d(affine=False))
    gradient = model[0].weight.grad = torch.ones(2, 2)
    with pytest.raises(LayerError, match="LazyBatchNorm1d has parameters or buffers without a shape"), untouched(model):
        pass
    assert model[0].weight.grad is gradient

    class Unclonable(torch.Tensor):
        def clone(self, **_options):
            raise MemoryError

    model = nn.Linear(2, 2)
    model.weight.grad = gradient
    model.register_buffer("bank", torch.ones(2).as_subclass(Unclonable))
    with pytest.raises(MemoryError), untouched(model):
        pass
    assert model.weight.grad is gradient


class Block:
    """``untouched(model)`` in a thread of its own, entered and left on command; inside, the model is changed."""

    def __init__(self, model, change):
        self.model, self.change = model, change
        self.inside, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.inside.wait(10)

    def run(self):
        with untouched(self.model):
            self.change(self.model)
            self.inside.set()
            self.leave.wait(10)

    def end(self):
        self.leave.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def freeze(model):
    model.requires_grad_(False)
    model.train()
    model.running_mean.add_(1)


def evaluate(model):
    model.eval()
    model.running_mean.add_(2)
    torch.rand(3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_first_state_is_restored_when_the_last_block_ends(order, found):
    model = nn.BatchNorm1d(3).eval()
    model(torch.rand(4, 3)).sum().backward()
    before = found(model)
    blocks = [Block(model, freeze), Block(model, evaluate)]
    for place in order:
        blocks[place].end()
    assert before.differences(model) == []


def test_the_first_block_does_not_restore_under_the_second():
    model = nn.BatchNorm1d(3).train()
    first, second = Block(model, nn.Module.train), Block(model, nn.Module.eval)
    first.end()
    assert not model.training, "the second block still runs in the mode that it set"
    second.end()
    assert model.training


def test_blocks_of_other_models_restore_at_once():
    one, other = nn.BatchNorm1d(3).train(), nn.BatchNorm1d(3).train()
    first, second = Block(one, nn.Module.eval), Block(other, nn.Module.eval)
    first.end()
    assert one.training and not other.training
    second.end()
    assert other.training


def test_three_blocks_and_a_shared_submodule(found):
    shared = nn.BatchNorm1d(3)
    one, other = nn.Sequential(shared), nn.Sequential(shared, nn.ReLU())
    before, both = found(one), found(other)
    set_shared = lambda flag: lambda model: model[0].train(flag)
    blocks = [Block(one, set_shared(False)), Block(other, set_shared(True)), Block(one, set_shared(False))]
    for place in (1, 0, 2):
        blocks[place].end()
    assert before.differences(one) == [] and both.differences(other) == []


def test_a_block_in_a_suspended_generator_of_the_same_thread_keeps_no_other_from_restoring():
    model = nn.BatchNorm1d(3).train()

    def suspended():
        with untouched(model):
            yield

    with untouched(model):
        model.eval()
        generator = suspended()
        next(generator)
    assert model.training
    generator.close()


def test_autocast_and_gradient_mode_are_restored_in_their_own_thread():
    model, seen = nn.Linear(2, 2), {}

    def run():
        with torch.no_grad():
            with untouched(model):
                torch.set_grad_enabled(True)
                inside.set()
                leave.wait(10)
            seen["first"] = torch.is_grad_enabled()

    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert inside.wait(10)
    with untouched(model):
        leave.set()
        thread.join(10)
    assert seen["first"] is False and torch.is_grad_enabled()


def test_the_model_is_restored_and_no_other_thread_is_inside(found):
    model, seen, begun = nn.BatchNorm1d(3).train(), [], threading.Event()
    before = found(model)

    def other():
        begun.set()
        with protect(model):
            seen.append(model.training)

    with protect(model):
        model.eval()
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert begun.wait(10)
        thread.join(0.05)
        assert seen == [], "it waits for its turn"
        torch.rand(2)
    thread.join(10)
    assert seen == [True] and before.differences(model) == []


def started(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_blocks_of_several_threads_run_one_after_the_other():
    inside, most = [], []

    def work():
        for _ in range(20):
            with exclusive(), exclusive():  # re-entrant
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.pop()

    threads = [started(work) for _ in range(4)]
    for thread in threads:
        thread.join(20)
    assert len(most) == 80 and max(most) == 1


def test_an_exception_gives_the_lock_back():
    with pytest.raises(KeyError), exclusive():
        raise KeyError
    ran = []

    def work():
        with exclusive():
            ran.append(1)

    started(work).join(10)
    assert ran == [1]


def test_a_thread_that_reacquires_the_lock_queues_behind_the_others():
    """A fit gives the lock back after each of its steps; whoever waits for it must come in between."""
    done, begun = threading.Event(), threading.Event()
    turns = []

    def fit():
        while not done.is_set():
            with exclusive():
                begun.set()
                turns.append(1)
                time.sleep(0.005)

    worker = started(fit)
    begun.wait(10)
    before = len(turns)
    with exclusive():
        waited = len(turns) - before
    done.set()
    worker.join(10)
    assert waited <= 3


def test_as_a_decorator():
    @exclusive()
    def add(a, b):
        """Add."""
        return a + b

    assert add(1, 2) == 3 and add.__doc__ == "Add."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("own", [False, True])
def test_a_forked_child_is_not_locked_out(own):
    """Worker processes of a DataLoader are forked, perhaps while another thread explains."""
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with exclusive():
            held.set()
            go_on.wait(20)

    def in_child():
        child = os.fork()
        if not child:
            threading.Thread(target=lambda: (time.sleep(5), os._exit(1)), daemon=True).start()
            with exclusive():
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    if own:
        with exclusive():
            assert in_child() == 0
    else:
        thread = started(hold)
        held.wait(10)
        try:
            assert in_child() == 0
        finally:
            go_on.set()
            thread.join(10)


def elsewhere(function):
    """Call it in another thread; what it returned or raised."""
    found = []

    def run():
        try:
            found.append(function())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    return found[0]


@pytest.mark.parametrize("at_input", [False, True])
def test_capture_and_patch_leave_other_threads_alone(conv, at_input):
    x, other = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    expected = conv(other).detach()
    with capture(conv, "pool", at_input=at_input) as captured:
        theirs = elsewhere(lambda: conv(other))
        conv(x)
        again = elsewhere(lambda: conv(other))
    assert torch.equal(theirs, expected) and torch.equal(again, expected)
    recorded = captured[conv.pool]
    with torch.no_grad():
        maps = conv.relu(conv.norm(conv.conv(x)))
        torch.testing.assert_close(recorded, maps if at_input else conv.pool(maps))
    with patch(conv, "pool", torch.zeros_like, at_input=at_input):
        assert torch.equal(elsewhere(lambda: conv(other)), expected)
        torch.testing.assert_close(conv(x), conv.fc.bias.expand(2, 3))
        assert torch.equal(elsewhere(lambda: conv(other)), expected)


def test_a_pass_of_another_thread_is_not_stopped(conv):
    x, expected = torch.rand(2, 3, 6, 6), conv(torch.ones(2, 3, 6, 6)).detach()
    found = []

    def call():
        found.append(elsewhere(lambda: conv(torch.ones(2, 3, 6, 6))))
        return conv(x)

    assert reach(conv, [conv.norm], call)[conv.norm].shape == (2, 4, 6, 6)
    assert torch.equal(found[0], expected)


def test_a_layer_that_ran_in_another_thread_only(conv):
    with capture(conv, "pool") as captured:
        elsewhere(lambda: conv(torch.rand(1, 3, 6, 6)))
    with pytest.raises(LayerError, match="never ran"):
        captured[conv.pool]


class Replicas(nn.Module):
    """Runs copies of a module in threads, as DataParallel does on several GPUs."""

    def __init__(self, module, run):
        super().__init__()
        self.module, self.run = module, run

    def forward(self, x):
        copies = [self.module._replicate_for_data_parallel() for _ in x]
        for copy in copies:
            for name, child in self.module._modules.items():
                copy._modules[name] = child._replicate_for_data_parallel()
                copy._modules[name]._parameters = child._parameters
                copy._modules[name].__dict__.update(child._parameters)
        return torch.cat(self.run(copies, x.unbind(0)))


def applied(modules, inputs):
    """DataParallel's own function without its devices: what starts the threads has the same local names."""
    found = [None] * len(modules)

    def work(i):
        try:
            found[i] = modules[i](inputs[i][None])
        except LayerError as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(modules))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for one in found:
        if isinstance(one, LayerError):
            raise one
    return found


def test_replicas_that_data_parallel_runs_for_the_call_take_part(conv, monkeypatch):
    monkeypatch.setattr(ours, "parallel_apply", applied)
    x, seen = torch.rand(3, 3, 6, 6), []
    expected = conv(x).detach()
    handles = []
    is_ours = of_this_thread()
    handles.append(conv.pool.register_forward_hook(lambda m, *_: seen.append((m is conv.pool, is_ours(m)))))
    parallel = Replicas(conv, applied)
    torch.testing.assert_close(parallel(x), expected)
    assert seen == [(False, True)] * 3
    with pytest.raises(LayerError, match="more than once"), patch(conv, "pool", torch.zeros_like):
        parallel(x)  # three replicas on one device: refused as three runs of the layer
    seen.clear()
    elsewhere(lambda: parallel(x))
    assert seen == [(False, False)] * 3, "those of another thread's DataParallel do not"
    handles[0].remove()


def test_torchs_own_parallel_apply_has_the_names_that_are_relied_on():
    assert "threads" in ours.parallel_apply.__code__.co_varnames
    assert nn.Linear(1, 1)._replicate_for_data_parallel()._is_replica


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_train_flag_of_a_scripted_module_is_restored():
    model = torch.jit.script(nn.Sequential(nn.Dropout())).eval()
    with untouched(model):
        model.train()
    assert not model.training
