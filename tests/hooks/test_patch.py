import pytest
import torch
from torch import nn

from xinc_captum import LayerError, patch


def test_the_edit_is_handed_on(net):
    x = torch.rand(3, 2)
    with patch(net, "3", torch.zeros_like):
        torch.testing.assert_close(net(x), net[4].bias.expand(3, -1))


def test_the_input_can_be_edited(net):
    x = torch.rand(3, 2)
    with patch(net, "4", torch.zeros_like, at_input=True):
        torch.testing.assert_close(net(x), net[4].bias.expand(3, -1))


def test_only_one_call_a_forward():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Linear(2, 2), relu)
    with pytest.raises(LayerError, match="runs more than once in a forward pass, so one edit"), patch(model, relu, abs):
        model(torch.rand(1, 2))
    assert not relu._forward_hooks


def test_the_hook_goes_even_after_ctrl_c(net):
    def stop(_value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), patch(net, "0", stop):
        net(torch.rand(1, 2))
    assert not net[0]._forward_hooks


def test_compiled_models_are_patched_and_idle_layers_named(net):
    x, compiled = torch.rand(3, 2), torch.compile(net, backend="eager")
    compiled(x)
    with torch.no_grad(), patch(compiled, "3", torch.zeros_like):
        torch.testing.assert_close(compiled(x), net[4].bias.expand(3, -1))
    net.spare = nn.Linear(2, 2)
    with pytest.raises(LayerError, match="layer 'spare' never ran"), patch(net, "spare", torch.zeros_like):
        net[0](x)


def test_a_users_hook_stays_and_runs_first(net):
    seen = []
    handle = net[0].register_forward_hook(lambda *_: seen.append("user"))
    with patch(net, "0", lambda v: seen.append("patch") or v):
        net(torch.rand(1, 2))
    assert seen == ["user", "patch"]
    assert list(net[0]._forward_hooks) == [handle.id]
