"""Every class works on the tensors' device and never synchronises with it."""

import copy

import pytest
import torch
from contract.dispatch import Doubles, Syncs
from contract.methods import attribute, every


@every
def test_hot_paths_never_wait_for_the_device(method, net, x):
    with Syncs() as mode:
        torch.ones(1).item()
    assert mode.seen, "the counter must be able to count"
    if "checks values" in method.promises:  # once, at the border; no step of the ascent waits
        counts = []
        for steps in (2, 7):
            with Syncs() as mode:
                attribute(method, net, x, n_steps=steps, transforms=())
            counts.append(len(mode.seen))
        assert counts[0] == counts[1]
        return
    if "checks once" in method.promises:  # the border and the generator's range, however many rows there are
        counts = []
        for rows in (x[:1], x.repeat(4, 1, 1, 1)):
            with Syncs() as mode:
                attribute(method, net, rows)
            counts.append(len(mode.seen))
        assert counts[0] == counts[1]
        return
    with Syncs() as mode:
        attribute(method, net, x)
    assert mode.seen == []


def test_the_recorder_of_doubles_reports_float64_operations_and_moves():
    with Doubles() as mode:
        torch.ones(2).double()
        torch.ones(2) * torch.ones(2, dtype=torch.float64)
        torch.ones(2, dtype=torch.float64).to(torch.device("cpu"))
    assert [name.split(" in ")[0] for name in mode.seen] == ["_to_copy", "mul", "a move of float64"]
    with Doubles() as mode:
        torch.linspace(0, 1, 3, dtype=torch.float64).sqrt().to(torch.float32).to(torch.device("cpu"))
        torch.ones(2).mean()
    assert mode.seen == [], "a constant that is narrowed before it is sent is nobody's trouble"


# A link is a solve in float64. It stays on its own device (moments.wide: the CPU, where the model's has no float64):
# these lines take the model's numbers there and bring the answer back.
AT_THE_LINK = {"loop.py", "maps.py", "capture.py"}


@every
def test_a_float32_model_is_explained_without_float64(method, net, x):
    built = method.on(net)
    with Doubles() as mode:
        built.attribute(x, **method.of(1))
    allowed = AT_THE_LINK if method.name == "LinkedUnitVisualization" else set()
    assert {name.split(" in ")[1].split(":")[0] for name in mode.seen} <= allowed, mode.seen


@pytest.mark.cuda
@every
def test_cuda_equals_cpu(method, net, x, found):
    plain = attribute(method, net, x)
    there = copy.deepcopy(net).cuda()
    before = found(there)
    answer = attribute(method, there, x.cuda())
    assert answer.device.type == "cuda"
    torch.testing.assert_close(answer.cpu(), plain, atol=1e-4, rtol=1e-3)
    assert before.differences(there) == []
