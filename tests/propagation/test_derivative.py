import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.derivative import by_backward, gradients, independent, run, tail_activation
from xinc_captum.attributions.canvas.rules.secant import SECANT
from xinc_captum.attributions.canvas.rules.tangent import TANGENT
from xinc_captum.batch import Batch


def test_one_run_by_hand(hand_net):
    """x=(2,1) → a=(3,4) → y=(18, 7); ∂y/∂a = ((5, −1), (0, 2)), so c = ((15, −4), (0, 8)) and the biases are left."""
    net, x = hand_net
    tail, batch = Tail(net, net[1]), Batch.of(x)
    assert tail_activation(tail, batch).tolist() == [[3.0, 4.0]]
    ran = run(tail, batch, TANGENT)
    assert ran.activation.is_leaf and ran.activation.tolist() == [[3.0, 4.0]]
    assert ran.output.tolist() == [[18.0, 7.0]] and ran.slot is None and not ran.switches_gradients
    shares = by_backward(tail, ran.activation, ran.output, None)
    assert shares.tolist() == [[[15.0, 0.0], [-4.0, 8.0]]], "(rows, units, outputs)"
    secant = run(tail, batch, SECANT)
    assert secant.output.tolist() == [[18.0, 7.0]] and secant.slot.tolist() == [[7.0, -1.0]]


def test_units_are_selected_and_outputs_keep_their_shape(hand_net):
    net, x = hand_net
    tail = Tail(net, net[1], output_fn=lambda y: y.view(-1, 2, 1))
    ran = run(tail, Batch.of(x), TANGENT)
    assert by_backward(tail, ran.activation, ran.output, [1]).tolist() == [[[[-4.0], [8.0]]]]
    one = Tail(net, net[1])
    ran = run(one, Batch.of(x, target=1), TANGENT)
    assert by_backward(one, ran.activation, ran.output, None).tolist() == [[0.0, 8.0]], "one output has no dim"


def test_the_graph_is_kept_only_when_asked(hand_net):
    net, x = hand_net
    tail = Tail(net, net[1])
    for keep in (True, False):
        ran = run(tail, Batch.of(x * 1.5), TANGENT)
        flat = ran.output.square()
        assert len(list(gradients(tail, ran.activation, flat, keep=keep))) == 2
        if keep:
            assert len(list(gradients(tail, ran.activation, flat))) == 2
        else:
            with pytest.raises(RuntimeError, match="second time"):
                list(gradients(tail, ran.activation, flat))


def test_a_model_that_switches_gradients_is_noted():
    class Switching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            with torch.no_grad():
                gate = torch.sigmoid(self.first(x))
            return self.second(x) * gate

    model = Switching()
    assert run(Tail(model, model.second), Batch.of(torch.rand(3, 2)), TANGENT).switches_gradients


def test_a_layer_that_leads_nowhere_is_named():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            self.aside(x)
            return self.used(x)

    model = Aside().requires_grad_(False)
    tail = Tail(model, model.aside)
    text = r"the output does not depend on layer 'aside' \(no gradient flows between them\); choose a layer that leads"
    with pytest.raises(LayerError, match=text):
        run(tail, Batch.of(torch.rand(3, 2)), TANGENT)
    assert "'aside'" in str(independent(tail))
