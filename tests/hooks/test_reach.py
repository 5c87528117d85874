import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.hooks import reach


def test_it_stops_after_the_last_layer(conv):
    ran = []
    for name in ("conv", "norm", "relu", "pool", "fc"):
        conv.get_submodule(name).register_forward_hook(lambda m, a, out, n=name: ran.append(n))
    x = torch.rand(2, 3, 6, 6)
    captured = reach(conv, [conv.norm, conv.conv], lambda: conv(x))
    assert ran == ["conv", "norm"], "whatever the order they are asked in"
    torch.testing.assert_close(captured[conv.conv], conv.conv(x))
    torch.testing.assert_close(captured[conv.norm], conv.norm(conv.conv(x)))
    (slope,) = torch.autograd.grad(captured[conv.norm].sum(), captured[conv.conv])
    assert slope.abs().sum() > 0


def test_models_that_catch_everything_are_stopped_too():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(9, 9)

        def forward(self, x):
            try:
                return self.second(self.first(x))
            except Exception:
                raise AssertionError("swallowed") from None

    net = Careful()
    assert reach(net, [net.first], lambda: net(torch.ones(1, 2)))[net.first].shape == (1, 2)


def test_hooks_go_whatever_happens(conv, found):
    grey = torch.rand(2, 1, 6, 6)
    before = found(conv)
    for wrong in (grey, None):
        with pytest.raises((RuntimeError, TypeError)):
            reach(conv, [conv.fc], lambda w=wrong: conv(w))
    assert before.differences(conv) == []


def test_a_layer_that_never_runs(conv):
    conv.idle = nn.Linear(2, 2)
    captured = reach(conv, [conv.idle], lambda: conv(torch.rand(1, 3, 6, 6)))
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        captured[conv.idle]


def test_data_parallel_runs_to_its_end(conv):
    parallel, x, ran = nn.DataParallel(conv), torch.rand(2, 3, 6, 6), []
    conv.fc.register_forward_hook(lambda *_: ran.append(1))
    for forward in (parallel, parallel.forward):
        assert reach(forward, [conv.conv], lambda f=forward: f(x))[conv.conv].shape == (2, 4, 6, 6)
    assert len(ran) == 2
