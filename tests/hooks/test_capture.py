import pytest
import torch
from torch import nn

from xinc_captum import LayerError, capture
from xinc_captum.hooks.capture import Captured


def test_what_was_captured_is_what_flowed(conv):
    x = torch.rand(2, 3, 6, 6)
    with capture(conv, ["norm", conv.relu]) as seen:
        conv(x)
    by_hand = conv.norm(conv.conv(x))
    assert torch.equal(seen[conv.norm], by_hand), "the in-place ReLU after it must not have rewritten it"
    assert torch.equal(seen[conv.relu], by_hand.relu())


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_reach_it(net, frozen):
    net.requires_grad_(not frozen)
    x = torch.rand(4, 2)
    with capture(net, ["1", "3"]) as seen:
        y = net(x)
    early, late = torch.autograd.grad(y[:, 0].sum(), [seen[net[1]], seen[net[3]]])
    assert torch.allclose(late, net[4].weight[0].expand(4, -1))
    assert early.abs().sum() > 0


def test_at_input_with_positional_and_keyword_arguments():
    class Inner(nn.Module):
        def forward(self, x, *, y):
            return x * y

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, x):
            return self.inner(x, y=x + 1)

    model, x = Outer(), torch.rand(2, 3)
    with capture(model, "inner", at_input=True) as seen:
        model(x)
    first, second = seen[model.inner]
    assert torch.equal(first, x)
    assert torch.equal(second, x + 1)


def test_a_layer_that_runs_twice_is_named():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.activation = nn.Linear(2, 3), nn.Linear(3, 3), nn.ReLU()

        def forward(self, x):
            return self.activation(self.b(self.activation(self.a(x))))

    model = Shared()  # XINC's own network shares one ReLU like this
    with pytest.raises(LayerError, match="layer 'activation' runs more than once"), capture(model, "activation"):
        model(torch.rand(2, 2))
    assert not model.activation._forward_hooks


def test_a_layer_that_never_runs_is_named(net):
    model = nn.ModuleDict({"used": net, "idle": nn.Linear(2, 2)})
    with capture(lambda x: model["used"](x), "idle") as seen:
        net(torch.rand(2, 2))
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        seen[model["idle"]]


def test_a_layer_without_float_tensors_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    model = nn.Sequential(nn.Linear(2, 2), Odd())
    with (
        pytest.raises(
            LayerError, match=r"layer '1' returns \(torch.int64\); wanted a floating-point tensor, or a tuple"
        ),
        capture(model, "1"),
    ):
        model(torch.rand(2, 2))


def test_the_states_of_an_lstm_are_refused():
    model = nn.Sequential(nn.LSTM(2, 3, batch_first=True))
    with (
        pytest.raises(LayerError, match="layer '0' is an LSTM, which returns its last states .* choose the layer that"),
        capture(model, "0"),
    ):
        model(torch.rand(2, 4, 2))


def test_several_tensors_stay_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return x, 2 * x

    two = nn.Sequential(Two())
    with capture(two, "0") as seen:
        two(torch.ones(1, 2))
    assert torch.equal(seen[two[0]][1], torch.full((1, 2), 2.0))


def test_offload_keeps_detached_copies(conv):
    with capture(conv, "norm", offload="cpu") as seen:
        conv(torch.rand(2, 3, 6, 6))
    kept = seen[conv.norm]
    assert not kept.requires_grad
    assert kept.min() < 0, "the in-place ReLU must not have rewritten it"


def test_hooks_go_when_the_block_raises(net):
    with pytest.raises(KeyboardInterrupt), capture(net, ["0", "1"]):
        raise KeyboardInterrupt
    assert not any(m._forward_hooks for m in net.modules())


def test_replicas_are_put_together_in_order_of_devices():
    layer = nn.Linear(1, 1)
    captured = Captured({layer: "layer"})
    captured.record(layer, (torch.ones(2, 3),))
    assert captured[layer].shape == (2, 3)
    captured = Captured({layer: "layer"}, device_ids=[1, 0])
    for index in (0, 1):  # the devices are named; the tensors need not lie there for their order to be seen
        captured._seen[layer][torch.device("cuda", index)] = (torch.full((1,), float(index)),)
    assert [t.item() for (t,) in captured.per_device(layer)] == [1.0, 0.0]


@pytest.mark.cuda
def test_offload_through_pinned_memory(conv):
    conv, x = conv.cuda(), torch.rand(64, 3, 64, 64, device="cuda")
    with capture(conv, ["conv", "norm"], offload="cpu") as seen:
        conv(x)
    for layer, expected in ((conv.conv, conv.conv(x)), (conv.norm, conv.norm(conv.conv(x)))):
        assert seen[layer].is_pinned()
        torch.testing.assert_close(seen[layer], expected.detach().cpu(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_features_to_train_on(conv, mode):
    """Under no_grad what was recorded is an ordinary tensor: a head trains on it for as many epochs as one wants."""
    x = torch.rand(4, 3, 6, 6)
    by_hand = conv.norm(conv.conv(x)).detach()
    with mode(), capture(conv, ["norm", "pool"]) as seen:
        conv(x)
    features = seen[conv.norm]
    assert not features.requires_grad and features.is_leaf and not features.is_inference()
    assert torch.equal(features, by_hand), "the in-place ReLU after it must not have rewritten it"
    pooled = seen[conv.pool].flatten(1)
    pooled = pooled - pooled.mean(0)
    head = nn.Linear(pooled.shape[1], 2)
    optimizer, losses = torch.optim.SGD(head.parameters(), 0.1), []
    for _ in range(3):
        loss = nn.functional.cross_entropy(head(pooled), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[2] < losses[0] and pooled.grad is None
    features.mul_(2).numpy()


def test_inputs_captured_without_gradients_are_plain_too(conv):
    with torch.no_grad(), capture(conv, "fc", at_input=True) as seen:
        conv(torch.rand(2, 3, 6, 6))
    assert not seen[conv.fc].requires_grad
