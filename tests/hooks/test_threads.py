"""Hooks act on forward passes of their own call."""

import threading

import pytest
import torch
from torch import nn

from xinc_captum import LayerError, capture, patch
from xinc_captum.hooks import of_this_thread, reach
from xinc_captum.hooks import threads as ours


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
    wanted = conv(other).detach()
    with capture(conv, "pool", at_input=at_input) as captured:
        theirs = elsewhere(lambda: conv(other))
        conv(x)
        again = elsewhere(lambda: conv(other))
    assert torch.equal(theirs, wanted) and torch.equal(again, wanted)
    recorded = captured[conv.pool]
    with torch.no_grad():
        maps = conv.relu(conv.norm(conv.conv(x)))
        torch.testing.assert_close(recorded, maps if at_input else conv.pool(maps))
    with patch(conv, "pool", torch.zeros_like, at_input=at_input):
        assert torch.equal(elsewhere(lambda: conv(other)), wanted)
        torch.testing.assert_close(conv(x), conv.fc.bias.expand(2, 3))
        assert torch.equal(elsewhere(lambda: conv(other)), wanted)


def test_a_pass_of_another_thread_is_not_stopped(conv):
    x, wanted = torch.rand(2, 3, 6, 6), conv(torch.ones(2, 3, 6, 6)).detach()
    found = []

    def call():
        found.append(elsewhere(lambda: conv(torch.ones(2, 3, 6, 6))))
        return conv(x)

    assert reach(conv, [conv.norm], call)[conv.norm].shape == (2, 4, 6, 6)
    assert torch.equal(found[0], wanted)


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
    wanted = conv(x).detach()
    handles = []
    is_ours = of_this_thread()
    handles.append(conv.pool.register_forward_hook(lambda m, *_: seen.append((m is conv.pool, is_ours(m)))))
    parallel = Replicas(conv, applied)
    torch.testing.assert_close(parallel(x), wanted)
    assert seen == [(False, True)] * 3
    with patch(conv, "pool", torch.zeros_like), pytest.raises(LayerError, match="more than once"):
        parallel(x)  # three replicas on one device: refused as three runs of the layer
    seen.clear()
    elsewhere(lambda: parallel(x))
    assert seen == [(False, False)] * 3, "those of another thread's DataParallel do not"
    handles[0].remove()


def test_torchs_own_parallel_apply_has_the_names_that_are_relied_on():
    assert "threads" in ours.parallel_apply.__code__.co_varnames
    assert nn.Linear(1, 1)._replicate_for_data_parallel()._is_replica
