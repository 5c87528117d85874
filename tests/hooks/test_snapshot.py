import pytest
import torch
from torch import nn

from xinc_captum.hooks import layer_name, snapshot


def test_it_answers_as_before_training(conv):
    x = torch.rand(2, 3, 6, 6)
    before, frozen = conv(x), snapshot(conv)
    with torch.no_grad():
        for tensor in (*conv.parameters(), *conv.buffers()):
            tensor.add_(1)
    conv.train()
    assert torch.equal(frozen(x), before)
    assert conv.training and conv.fc.training, "the user's flags are put back"


def test_around_a_function_and_with_shared_weights():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    forward = lambda x: {"y": model(x)}
    frozen, x = snapshot(forward, first), torch.rand(3, 2)
    before = forward(x)["y"]
    nn.init.zeros_(first.weight)
    assert torch.equal(frozen(x)["y"], before)
    assert torch.equal(model[1].weight, torch.zeros(2, 2))


def test_weights_can_be_changed_in_the_copy_alone(conv, found):
    x, before = torch.rand(2, 3, 6, 6), found(conv)
    zeroed = snapshot(conv, change=torch.zeros_like)
    assert torch.equal(zeroed(x), torch.zeros(2, 3))
    assert conv(x).abs().sum() > 0
    assert before.differences(conv) == []
    seen = []
    snapshot(conv, change=lambda weight: seen.append(weight.shape) or weight)
    assert seen == [p.shape for p in conv.parameters()], "every parameter, no buffer"


def test_layers_keep_the_names_their_owner_gave():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert layer_name(snapshot(model), model[1]) == "'1'"


class Twice(nn.Module):
    """One convolution under two names, a tied weight, a batch norm, and a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Conv2d(3, 3, 1)
        self.c = nn.Conv2d(3, 3, 1)
        self.c.weight = self.a.weight
        self.norm = nn.BatchNorm2d(3)
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x):
        return self.rnn(self.norm(self.c(self.b(self.a(x)))).flatten(2).transpose(1, 2))[0]


@pytest.mark.parametrize("also", [(), ("a",), ("a", "norm"), ("rnn",)])
@pytest.mark.parametrize("fault", [False, True])
def test_the_same_objects_come_back_under_every_name(found, also, fault):
    model, x = Twice().eval(), torch.rand(2, 3, 2, 2)
    layers = [model.get_submodule(name) for name in also]
    wanted, before = model(x), found(model)
    second = list(model.rnn._flat_weights)
    frozen = snapshot(lambda x: model(x), *layers)
    for p in model.parameters():
        p.data.zero_()
    before = found(model)
    if fault:
        handle = model.norm.register_forward_hook(lambda *_: 1 / 0)
        before = found(model)
        with pytest.raises(ZeroDivisionError):
            frozen(x)
        assert before.differences(model) == []
        handle.remove()
    else:
        assert torch.equal(frozen(x), wanted)
        assert before.differences(model) == []
    assert all(a is b for a, b in zip(second, model.rnn._flat_weights, strict=True))


def test_a_parameter_that_the_user_puts_there_later_stays(conv):
    frozen, x = snapshot(conv), torch.rand(1, 3, 6, 6)
    before = conv(x)
    new = conv.fc.weight = nn.Parameter(torch.zeros_like(conv.fc.weight))
    other = conv.relu = nn.Tanh()
    assert torch.equal(frozen(x), before)
    assert conv.fc.weight is new and conv.relu is other


def test_buffers_in_training_mode_start_every_call_with_the_same_values():
    torch.manual_seed(0)
    model = nn.utils.spectral_norm(nn.Linear(4, 4)).train()
    frozen, x = snapshot(model), torch.rand(2, 4)
    assert torch.equal(frozen(x), frozen(x))
