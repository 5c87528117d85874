import pytest
import torch
from torch import nn

from xinc_captum.comparison import counted


def test_calls_and_gradients():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x = torch.rand(5, 2)
    with counted(model) as counts:
        model(x).sum().backward()
        y = model(x[:2])
        torch.autograd.grad(y[:, 0].sum(), model[0].weight, retain_graph=True)
        torch.autograd.grad(y[:, 1].sum(), model[0].weight)
        with torch.no_grad():
            model(x)
    assert (counts.forwards, counts.backwards, counts.rows) == (3, 3, 12)


def test_memory_is_what_is_alive_at_once():
    x = torch.rand(1000)  # there before: not counted
    with counted(nn.Identity()) as counts:
        a = x + 1  # 4 kB
        b = a * 2  # 8 kB at once
        del a
        c = b + 1  # 8 kB again
        c.view(10, 100).add_(1)  # in place: nothing new
        del b, c
    assert counts.peak_bytes == 8000


def test_what_a_graph_keeps_counts():
    x = torch.rand(1000, requires_grad=True)
    with counted(nn.Identity()) as counts:
        x.exp().exp().sum().backward()
    with counted(nn.Identity()) as bare, torch.no_grad():
        x.exp().exp().sum()
    assert counts.peak_bytes > bare.peak_bytes


def test_functions_around_models_and_transforms():
    model, x, v = nn.Linear(2, 3), torch.rand(1, 2), torch.rand(4, 1, 2)
    with counted(lambda x: model(x)[:, 0]) as counts:
        torch.func.vmap(lambda v: torch.func.jvp(model, (x,), (v,))[1])(v)
    assert (counts.forwards, counts.backwards) == (1, 0) and counts.peak_bytes > 0


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind(conv, found, fault):
    x, before = torch.rand(1, 3, 8, 8), found(conv)
    with pytest.raises(fault), counted(conv):
        conv(x)
        raise fault
    assert before.differences(conv) == []


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_modules_beside_the_model_take_no_hooks():
    net, scripted = nn.Linear(2, 1), torch.jit.script(nn.Linear(2, 2))
    with counted(lambda x: net(scripted(x))) as counts:
        net(scripted(torch.rand(3, 2))).sum().backward()
    assert (counts.forwards, counts.backwards, counts.rows) == (1, 1, 3)
