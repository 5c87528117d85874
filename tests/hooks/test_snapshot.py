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
