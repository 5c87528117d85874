"""Every private Captum name that the package uses exists and behaves as expected."""

import torch
from captum.attr import LayerAttribution, NeuronAttribution

from xinc_captum import _compat


def test_every_name_exists():
    for name in _compat.__all__:
        assert callable(getattr(_compat, name))


def test_select_targets_indexes_right_after_the_rows():
    output = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(_compat.select_targets(output, 1), output[:, 1])
    assert torch.equal(_compat.select_targets(output, (1, 2)), output[:, 1, 2])
    assert torch.equal(_compat.select_targets(output[:, :, 0], [0, 2]), output[[0, 1], [0, 2], 0])


def test_internal_attribution_is_the_parent_of_layer_attribution():
    assert issubclass(LayerAttribution, _compat.InternalAttribution)


def test_neuron_attribution_keeps_model_layer_and_devices():
    assert issubclass(_compat.NeuronAttribution, _compat.InternalAttribution)
    assert NeuronAttribution is _compat.NeuronAttribution
    net = torch.nn.Linear(1, 1)
    made = _compat.NeuronAttribution(net, net, [0])
    assert (made.forward_func, made.layer, made.device_ids) == (net, net, [0])
