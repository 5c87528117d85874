import pytest
import torch
from captum.attr import LayerGradientXActivation
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import LayerContribution, LayerError


def test_worked_out_by_hand():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[5.0, -1.0]]))
    x = torch.tensor([[3.0, 4.0], [-1.0, 2.0]])
    assert LayerContribution(net, "1").attribute(x).tolist() == [[15.0, -4.0], [0.0, -2.0]]
    assert LayerContribution(net, "1", multiply_by_inputs=False).attribute(x).tolist() == [[5.0, -1.0], [5.0, -1.0]]


@given(rows=st.integers(1, 6), batch=st.integers(1, 6), seed=st.integers(0, 99), at_input=st.booleans())
def test_equals_captum_for_any_batch_size(rows, batch, seed, at_input):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))
    x, target = torch.randn(rows, 3), torch.randint(4, (rows,))
    for layer in net:
        ours = LayerContribution(net, layer).attribute(x, target, None, at_input, internal_batch_size=batch)
        theirs = LayerGradientXActivation(net, layer).attribute(x, target, None, at_input)
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)


def test_the_delta_is_the_formula(conv):
    x = torch.rand(3, 3, 6, 6)
    result, delta = LayerContribution(conv, "norm").attribute(x, target=2, return_convergence_delta=True)
    zeroed = conv.fc(conv.pool(torch.zeros(3, 4, 6, 6)).flatten(1))
    expected = result.flatten(1).sum(1) - (conv(x) - zeroed)[:, 2]
    torch.testing.assert_close(delta, expected.detach(), atol=1e-6, rtol=1e-5)


def test_several_layers_in_one_pass(conv):
    x = torch.rand(2, 3, 6, 6)
    answers, deltas = LayerContribution(conv, ["conv", conv.relu]).attribute(x, target=0, return_convergence_delta=True)
    assert [a.shape for a in answers] == [(2, 4, 6, 6), (2, 4, 6, 6)]
    assert [d.shape for d in deltas] == [(2,), (2,)]
    for name, result in zip(("conv", "relu"), answers, strict=True):
        torch.testing.assert_close(result, LayerContribution(conv, name).attribute(x, target=0))


def test_tuple_layers_return_tuples_for_any_batch_size():
    class Two(nn.Module):
        def forward(self, x):
            return x, x * 2

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            a, b = self.two(x)
            return a.sum(1) + 3 * b.sum(1)

    x = torch.rand(5, 2)
    first, second = LayerContribution(Model(), "two").attribute(x, internal_batch_size=2)
    assert torch.equal(first, x)
    assert torch.equal(second, 6 * x)


class Recurrent(nn.Module):
    def __init__(self, batch_first, last):
        super().__init__()
        self.start, self.gru, self.head = nn.Linear(2, 3), nn.GRU(3, 4, batch_first=batch_first), nn.Linear(4, 2)
        self.last = last

    def forward(self, x):  # (rows, steps, 2)
        steps, state = self.gru(self.start(x if self.gru.batch_first else x.transpose(0, 1)))
        return self.head(state[-1] if self.last else steps.mean(1 if self.gru.batch_first else 0))


@pytest.mark.parametrize("last", [False, True])
def test_tensors_without_a_path_to_the_output_contribute_zero(last):
    net, x = Recurrent(True, last), torch.rand(5, 6, 2)
    steps, state = LayerContribution(net, "gru").attribute(x, target=1)
    assert steps.shape == (5, 6, 4) and state.shape == (1, 5, 4)
    hidden = net.gru(net.start(x))[0].detach()
    if last:
        assert steps.eq(0).all()
        assert torch.allclose(state[0], hidden[:, -1] * net.head.weight[1].detach(), atol=1e-6)
    else:
        assert state.eq(0).all()
        assert torch.allclose(steps, hidden * net.head.weight[1].detach() / 6, atol=1e-6)


def test_tensors_that_all_have_no_path_to_the_output_raise():
    net = Recurrent(True, False)
    with pytest.raises(LayerError, match="the output does not depend on layer 'gru'"):
        LayerContribution(lambda x: net.head(x[:, 0].repeat(1, 2)) + 0 * net(x).detach(), net.gru).attribute(
            torch.rand(2, 3, 2), target=0
        )


@pytest.mark.parametrize(("rows", "at_once"), [(4, 2), (5, 2), (2, 1), (6, 6)])
def test_a_layer_with_steps_first_raises_for_chunks(rows, at_once):
    net, x = Recurrent(False, False), torch.rand(rows, 6, 2)
    full = LayerContribution(net, "start").attribute(x, target=0)
    assert full.shape == (6, rows, 3)
    if rows == at_once:
        assert torch.equal(LayerContribution(net, "start").attribute(x, target=0, internal_batch_size=at_once), full)
        return
    with pytest.raises(
        LayerError, match=rf"layer 'start' has shape \(6, {at_once}, 3\) for {at_once} rows.*rows first"
    ):
        LayerContribution(net, "start").attribute(x, target=0, internal_batch_size=at_once)


def test_chunks_of_a_layer_with_windows_folded_into_rows_are_joined():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Sigmoid()

        def forward(self, x):
            return self.act(x.view(-1, 2)).view(len(x), 3, 2).sum(1)

    x, method = torch.rand(4, 6), LayerContribution(Windows(), "act")
    assert torch.equal(method.attribute(x, target=0, internal_batch_size=2), method.attribute(x, target=0))


def test_grad_kwargs_are_passed_to_autograd(conv):
    conv.spare = nn.Identity()
    x = torch.rand(2, 3, 6, 6)
    forward = lambda x: conv(x) + 0 * conv.spare(torch.ones(2, 3)).detach()
    with pytest.raises(LayerError, match="the output does not depend on layer 'spare'"):
        LayerContribution(forward, conv.spare).attribute(x, target=0)
    silent = LayerContribution(forward, conv.spare).attribute(x, target=0, grad_kwargs={"allow_unused": True})
    assert torch.equal(silent, torch.zeros(2, 3))


def test_invalid_arguments_raise(net):
    x = torch.rand(2, 2)
    with pytest.raises(ValueError, match="target is missing or incomplete"):
        LayerContribution(net, "1").attribute(x)
    with pytest.raises(ValueError, match="internal_batch_size is 0; expected at least 1"):
        LayerContribution(net, "1").attribute(x, target=0, internal_batch_size=0)
    with pytest.raises(ValueError, match="needs multiply_by_inputs=True"):
        LayerContribution(net, "1", multiply_by_inputs=False).attribute(x, target=0, return_convergence_delta=True)
    with pytest.raises(LayerError, match="layer is an empty list"):
        LayerContribution(net, [])
    with pytest.raises(RuntimeError, match="expected scalar type|dtype|Float"):
        LayerContribution(net, "1").attribute(x.double(), target=0)


def test_constructing_does_not_change_the_model(conv, found):
    before = found(conv)
    LayerContribution(conv, ["conv", "fc"])
    assert before.differences(conv) == []
