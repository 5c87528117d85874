"""Lines 14 to 16, 20 and 21: models in wrappers, compiled, traced, or with unusual outputs."""

import pytest
import torch
from contract.methods import attribute, every
from torch import nn

from xinc_captum import LayerError


@every
def test_line_14_data_parallel(method, net, x):
    plain, parallel = attribute(method, net, x), nn.DataParallel(net)
    torch.testing.assert_close(
        method.make(parallel, net.get_submodule(method.layer)).attribute(x, **method.of(1)), plain
    )
    by_ids = method.make(parallel.forward, net.get_submodule(method.layer), [0])
    torch.testing.assert_close(by_ids.attribute(x, **method.of(1)), plain)


@pytest.mark.cuda
@every
def test_line_14_data_parallel_replicas(method, net, x):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs, so that the model is really replicated")
    net, x = net.to("cuda"), torch.rand(5, 3, 6, 6, device="cuda")
    plain, parallel = attribute(method, net, x), nn.DataParallel(net)
    found = method.make(parallel, net.get_submodule(method.layer)).attribute(x, **method.of(1))
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)


@every
def test_line_15_compiled(method, net, x):
    plain = attribute(method, net, x)
    compiled = torch.compile(net, backend="eager")
    compiled(x)
    torch.testing.assert_close(attribute(method, compiled, x), plain)
    assert torch.compiler.is_compiling() is False


@every
def test_line_16_traced_models_are_refused(method, net, x):
    traced = torch.jit.trace(net, x)
    with pytest.raises(LayerError, match="scripted and traced models run no Python hooks"):
        method.make(traced, traced.get_submodule(method.layer)).attribute(x, **method.of(1))


@every
def test_line_20_function_around_the_model_and_output_fn(method, net, x):
    plain = attribute(method, net, x)
    wrapped = method.make(lambda x: net(x), net.get_submodule(method.layer))
    torch.testing.assert_close(wrapped.attribute(x, **method.of(1)), plain)
    if "ignores the output" in method.promises:
        return
    for pack, pick in ((lambda y: {"y": y}, lambda o: o["y"]), (lambda y: (y, 1), lambda o: o[0])):
        picked = method.make(lambda x, p=pack: p(net(x)), method.layer, output_fn=pick)
        torch.testing.assert_close(picked.attribute(x, **method.of(1)), plain)
        default = method.make(lambda x, p=pack: p(net(x)), method.layer)
        torch.testing.assert_close(default.attribute(x, **method.of(1)), plain)
    if "unscaled" not in method.promises:
        two = method.make(lambda x: (lambda y: {"y": y, "z": 2 * y})(net(x)), method.layer)
        with pytest.raises(TypeError, match=r"this dict has 2. Choose the tensor to explain with output_fn=, for"):
            two.attribute(x, **method.of(1))


class Reused(nn.Module):
    """XINC's own network shares one activation object like this."""

    def __init__(self):
        super().__init__()
        self.linear1, self.linear2, self.fc = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.fc(self.relu(self.linear2(self.relu(self.linear1(x)))))


@every
def test_line_21_a_layer_that_runs_twice(method):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    if "weights" in method.promises:
        pytest.skip("it looks at weights, which may be used more than once")
    model, rows = Reused(), torch.rand(2, 1, 1, 2) if "images" in method.promises else torch.rand(2, 2)
    if method.layer == "fc":
        model.fc = model.linear2 = nn.Linear(4, 4)
    with pytest.raises(
        LayerError, match=f"layer '{'linear2' if method.layer == 'fc' else 'relu'}' runs more than once"
    ):
        method.make(model, model.get_submodule(method.layer)).attribute(rows, **method.of(1))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@every
def test_line_21_in_place_and_functional_operations_after_the_layer(method, net, x):
    if method.layer == "fc":
        pytest.skip("the paper's rule looks at nothing after its Linear")
    if "images" in method.promises:
        pytest.skip("it takes images, and its answer does not lie at a layer")
    if "weights" in method.promises:
        pytest.skip("this model has no convolutions; nothing of it is hooked")

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.relu = nn.Linear(2, 4), nn.Tanh()

        def forward(self, x, in_place=True):
            a = self.relu(self.net(x))
            a = a.mul_(2).relu_() if in_place else torch.relu(a * 2)
            return nn.functional.softplus(a)[:, :3]

    model, rows = InPlace(), torch.rand(2, 2)
    assert_close = torch.testing.assert_close
    assert_close(
        attribute(method, model, rows),
        attribute(method, model, rows, additional_forward_args=False),
        atol=1e-6,
        rtol=1e-5,
    )
