"""One recorded pass read off at several layers."""

import pytest
import torch

from xinc_captum import LayerError
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.derivative import run
from xinc_captum.attributions.canvas.rules.secant import SECANT
from xinc_captum.attributions.canvas.rules.tangent import TANGENT
from xinc_captum.attributions.canvas.rules.together import Together
from xinc_captum.attributions.canvas.rules.trace import trace
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP


@pytest.mark.parametrize("along", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_gradients_are_those_of_a_run_alone(along):
    model, x = FourierMLP(hidden=5, activation="gelu", seed=0).double(), torch.rand(4, 2, dtype=torch.float64)
    tails, batch = [Tail(model, model.activation2), Tail(model, model.linear1, True)], Batch.of(x)
    together = Together(tails)
    for tail in tails:
        shared, alone = together.run(tail, batch, along), run(tail, batch, along)
        torch.testing.assert_close(shared.activation, alone.activation)
        gradients = [
            torch.autograd.grad(r.output[:, 1].sum(), r.activation, retain_graph=True)[0] for r in (shared, alone)
        ]
        torch.testing.assert_close(*gradients, atol=1e-14, rtol=1e-12)


def test_only_the_last_rows_are_kept():
    calls, model = [], FourierMLP(hidden=5, seed=0)
    model.register_forward_hook(lambda *_: calls.append(1))
    tails, batch = [Tail(model, model.activation1), Tail(model, model.activation2)], Batch.of(torch.rand(6, 2))
    together = Together(tails)
    for first, last, runs in ((0, 3, 1), (3, 6, 2), (0, 3, 3)):
        for tail in tails:
            together.run(tail, batch.cut(first, last), TANGENT)
        assert len(calls) == runs
    together.run(tails[0], batch.cut(0, 3), SECANT)
    assert len(calls) == 4, "another slope is another run"


def test_chains_are_suffixes_of_one(decoder):
    model, t = decoder
    tails, batch = [Tail(model, model.blocks[1][0]), Tail(model, model.blocks[0])], Batch.of(t)
    together = Together(tails)
    for tail in tails:
        shared, alone = together.trace(tail, batch), trace(tail, batch)
        assert [s.name for s in shared.steps] == [s.name for s in alone.steps]
        torch.testing.assert_close(shared.activation, alone.activation)
        torch.testing.assert_close(shared.output, alone.output)


def test_a_layer_beside_the_chain_is_left_to_itself():
    class Beside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)

        def forward(self, x):
            return torch.tanh(self.main(x)) + self.side(x)

    model, batch = Beside(), Batch.of(torch.rand(4, 2))
    tails = [Tail(model, model.main), Tail(model, model.side)]
    together = Together(tails)
    assert together.trace(tails[1], batch) is None
    assert together.trace(tails[0], batch) is not None
    shared, alone = together.run(tails[1], batch, TANGENT), run(tails[1], batch, TANGENT)
    torch.testing.assert_close(shared.output, alone.output)


def test_an_output_without_gradients_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    cut = lambda x: model(x).detach()
    tail = Tail(cut, model[0])
    with pytest.raises(LayerError, match="the output does not depend on layer '0'"):
        Together([tail]).run(tail, Batch.of(torch.rand(4, 2)), TANGENT)
