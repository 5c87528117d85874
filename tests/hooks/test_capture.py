"""Capture and replacement of the float tensors in a layer's output; everything else is passed on unchanged."""

import sys
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from xinc_captum import LayerContribution, LayerError, NeuronCanvas, capture, patch
from xinc_captum.hooks import eager, one_tensor, reach
from xinc_captum.hooks.capture import Captured, floats_of, to_host, wait


def test_captured_tensors_equal_the_activations(conv):
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
            LayerError, match=r"layer '1' returns \(torch.int64\); expected a floating-point tensor, or a tuple"
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
        captured._by_device[layer][torch.device("cuda", index)] = (torch.full((1,), float(index)),)
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


def test_on_the_host_to_host_returns_a_copy():
    tensor = torch.rand(3, requires_grad=True)
    held = to_host(tensor)
    wait()
    assert torch.equal(held, tensor.detach())
    assert held.data_ptr() != tensor.data_ptr()
    assert not held.requires_grad


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
    with (
        pytest.raises(LayerError, match="which of its 2 calls is meant is not clear. Give call=0 to call=1"),
        patch(model, relu, abs),
    ):
        model(torch.rand(1, 2))
    assert not relu._forward_hooks


def test_the_hook_goes_even_after_ctrl_c(net):
    def stop(_value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), patch(net, "0", stop):
        net(torch.rand(1, 2))
    assert not net[0]._forward_hooks


def test_compiled_models_are_patched_and_unused_layers_are_named(net):
    x, compiled = torch.rand(3, 2), torch.compile(net, backend="eager")
    compiled(x)
    with torch.no_grad(), patch(compiled, "3", torch.zeros_like):
        torch.testing.assert_close(compiled(x), net[4].bias.expand(3, -1))
    net.spare = nn.Linear(2, 2)
    with pytest.raises(LayerError, match="layer 'spare' never ran"), patch(net, "spare", torch.zeros_like):
        net[0](x)


def test_a_users_hook_is_kept_and_runs_first(net):
    seen = []
    handle = net[0].register_forward_hook(lambda *_: seen.append("user"))
    with patch(net, "0", lambda v: seen.append("patch") or v):
        net(torch.rand(1, 2))
    assert seen == ["user", "patch"]
    assert list(net[0]._forward_hooks) == [handle.id]


def test_compiled_models_run_their_hooks_inside_and_are_compiled_again_behind():
    model, calls, graphs = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), [], []

    def backend(graph, _inputs):
        def compiled(*args):
            graphs.append(1)
            return graph.forward(*args)

        return compiled

    x, compiled = torch.rand(4, 2), torch.compile(model, backend=backend)
    expected = compiled(x)
    assert len(graphs) == 1
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    with eager():
        torch.testing.assert_close(compiled(x), expected)
    assert len(calls) == 1 and len(graphs) == 1, "as written, hooks and all"
    handle.remove()
    compiled(x)
    assert len(graphs) == 2, "the block is over"


def test_a_process_that_compiled_nothing_does_not_load_the_compiler(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:2] == ["torch", "_dynamo"]]:
        monkeypatch.delitem(sys.modules, name)
    with eager():
        pass
    assert "torch._dynamo" not in sys.modules


def test_blocks_of_two_threads_that_overlap():
    """The stance belongs to the process: the first block to end must not take it from the second."""
    import torch._dynamo.eval_frame as frame

    usual, inside, leave = frame._stance.stance, threading.Event(), threading.Event()

    def other():
        with eager():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert inside.wait(10)
    with eager():
        leave.set()
        thread.join(10)
        assert frame._stance.stance == "force_eager"
    assert frame._stance.stance == usual


Pair = namedtuple("Pair", "hidden mask")


@dataclass(frozen=True)
class Output:
    hidden: torch.Tensor
    length: int
    mask: torch.Tensor


MASK = torch.tensor([True, False])
KINDS = {
    "tensor and None": lambda z: (z, None),
    "tensor and tuple": lambda z: (z, (z * 0, z + 1)),
    "tensor and mask": lambda z: (z, MASK),
    "mask and tensor": lambda z: (MASK, z),
    "one": lambda z: (z,),
    "list": lambda z: [z, 3],
    "namedtuple": lambda z: Pair(z, MASK),
    "dict": lambda z: {"mask": MASK, "hidden": z},
    "ordered dict": lambda z: OrderedDict(hidden=z, length=2),
    "dataclass": lambda z: Output(z, 2, MASK),
}


class Wrapping(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(3, 4), wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


class Net(nn.Module):
    """Takes the hidden tensor out of the layer's value, and notes the value that it received."""

    def __init__(self, wrap):
        super().__init__()
        self.part, self.head = Wrapping(wrap), nn.Linear(4, 2)
        self.received = []  # its entries stay; an attribute would be restored

    def forward(self, x):
        value = self.part(x)
        self.received.append(value)
        if isinstance(value, dict):
            return self.head(value["hidden"])
        if hasattr(value, "hidden"):
            return self.head(value.hidden)
        return self.head(next(v for v in value if isinstance(v, torch.Tensor) and v.is_floating_point()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensor_is_explained_alone_and_the_rest_passes_through(kind):
    net, x = Net(KINDS[kind]).eval(), torch.rand(5, 3)
    hidden = net.part.linear(x)
    by_hand = hidden * net.head.weight[1]
    assert torch.allclose(LayerContribution(net, "part").attribute(x, target=1), by_hand, atol=1e-6)
    plain = type(net.part(x))
    assert type(net.received[-1]) is plain, "the model goes on with a container of the same kind"
    canvas = NeuronCanvas(net, "part").attribute(x)
    assert torch.allclose(canvas[..., 1], by_hand, atol=1e-6)
    without = NeuronCanvas(net, "part", rule="ablation").attribute(x, neuron_selector=2)
    assert torch.allclose(without[:, 0, 1], by_hand[:, 2], atol=1e-6)
    with capture(net, "part") as seen:
        net(x)
    assert torch.equal(seen[net.part], hidden) and type(net.received[-1]) is plain
    with capture(net, "part", offload="cpu") as seen:
        net(x)
    assert torch.equal(seen[net.part], hidden)
    with patch(net, "part", torch.zeros_like):
        assert torch.allclose(net(x), net.head.bias.expand(5, 2))


def test_other_outputs_are_passed_on_as_the_same_objects():
    states = (torch.zeros(1), [torch.ones(1)])
    value = (torch.ones(2), MASK, states, None)
    found, rebuild = floats_of(value, nn.Identity(), lambda: "'0'")
    assert len(found) == 1 and found[0] is value[0]
    new = rebuild((torch.zeros(2),))
    assert new[1] is MASK and new[2] is states and new[3] is None and new[0].sum() == 0
    assert value[0].sum() == 2, "the layer's own value is not written into"
    frozen = Output(torch.ones(2), 3, MASK)
    _, rebuild = floats_of(frozen, nn.Identity(), lambda: "'0'")
    assert rebuild((torch.zeros(2),)) is not frozen and frozen.hidden.sum() == 2


def test_several_float_tensors_are_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return {"a": x, "mask": MASK, "b": 2 * x}

    net = nn.Sequential(Two())
    with capture(net, "0") as seen:
        net(torch.ones(1, 2))
    assert torch.equal(seen[net[0]][1], torch.full((1, 2), 2.0))
    with pytest.raises(LayerError, match="layer 'x' returns 2 floating-point tensors; expected one"):
        one_tensor(seen[net[0]], lambda: "'x'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            torch.ones(2, dtype=torch.long),
            r"layer '0' returns \(torch.int64\); expected a floating-point tensor, or a tuple",
        ),
        ((None, MASK), r"returns \(NoneType, torch.bool\)"),
        ((None, (torch.ones(1),)), "and tensors inside a nested container are not explained. Explain what enters"),
        ((), r"returns \(\)"),
        (object(), "returns object; expected"),
        ({"a": [torch.ones(1)]}, "inside a nested container are not explained"),
    ],
)
def test_values_without_a_float_tensor_are_refused(value, text):
    with pytest.raises(LayerError, match=text):
        floats_of(value, nn.Identity(), lambda: "'0'")


def test_inputs_without_a_float_tensor_are_refused():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with (
        pytest.raises(LayerError, match=r"layer '0' takes \(torch.int64\); expected a floating-point tensor"),
        capture(net, "0", at_input=True),
    ):
        net(torch.tensor([1, 2]))
    assert not net[0]._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_layers_are_refused():
    net = nn.Sequential(torch.jit.script(nn.Linear(3, 3)), nn.Linear(3, 2))
    for reading in (lambda: capture(net, "0"), lambda: patch(net, "0", torch.zeros_like)):
        with pytest.raises(LayerError, match="layer '0' is scripted .*scripted modules run no Python hooks"), reading():
            net(torch.rand(2, 3))
