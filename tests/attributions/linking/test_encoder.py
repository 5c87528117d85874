"""Encoder: sides of a layer, pooling, gradients, and the restored state of the model."""

import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.linking import Encoder, pool_units


def test_encode_returns_the_layers_input_in_batches(conv, found):
    pictures = torch.rand(5, 3, 6, 6)
    record = found(conv)
    encode = Encoder(conv, "fc", preprocess=lambda x: x - 0.5)
    r, logits = encode.encode(pictures, batch_size=2)
    with torch.no_grad():
        x = conv.pool(conv.relu(conv.norm(conv.conv(pictures - 0.5)))).flatten(1)
        torch.testing.assert_close(r, x)
        torch.testing.assert_close(logits, conv.fc(x))
    assert not r.requires_grad
    assert torch.equal(encode(pictures, batch_size=2), r)
    assert record.differences(conv) == []


def test_the_layers_output_and_pooled_maps(conv):
    pictures = torch.rand(2, 3, 6, 6)
    assert torch.equal(Encoder(conv, conv.fc, attribute_to_neuron_input=False)(pictures), conv(pictures).detach())
    assert Encoder(conv, "relu", attribute_to_neuron_input=False)(pictures).shape == (2, 4)
    assert Encoder(conv, "relu", pool="flatten")(pictures).shape == (2, 4 * 36)


def test_gradients_reach_the_images_and_no_parameters(conv, found):
    pictures = torch.rand(2, 3, 6, 6, requires_grad=True)
    record = found(conv)
    r = Encoder(conv, "fc")(pictures)
    (gradient,) = torch.autograd.grad(r.sum(), pictures)
    assert gradient.abs().sum() > 0
    assert record.differences(conv) == []
    with torch.no_grad():
        assert not Encoder(conv, "fc")(pictures).requires_grad


def test_describe(conv):
    told = Encoder(conv, "fc", preprocess=nn.Identity(), pool="mean").describe()
    assert told == {"layer": "fc", "attribute_to_neuron_input": True, "pool": "mean", "preprocess": "Identity()"}
    assert Encoder(conv, "fc").describe()["preprocess"] == "none"


def test_dict_outputs_and_training_mode(conv):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = conv

        def forward(self, x):
            return {"logits": self.inner(x)}

    encode = Encoder(Wrapped(), "inner.fc", output_fn=lambda output: output["logits"])
    assert encode.encode(torch.rand(2, 3, 6, 6)).logits.shape == (2, 3)
    conv.train()
    with pytest.warns(UserWarning, match="Conv is in training mode.*call model.eval"):
        Encoder(conv, "fc")(torch.rand(2, 3, 6, 6))


def test_errors(conv):
    with pytest.raises(LayerError, match="layer 'fcc' is not in the model"):
        Encoder(conv, "fcc")
    with pytest.raises(ValueError, match=r"images are torch.float32 of shape \(3, 6, 6\); expected floats"):
        Encoder(conv, "fc")(torch.rand(3, 6, 6))
    with pytest.raises(ValueError, match=r"output has shape \(2, 3, 1\); expected scores \(n, classes\)"):
        Encoder(conv, "fc", output_fn=lambda y: y[..., None])(torch.rand(2, 3, 6, 6))
    pair = nn.Sequential(Twice(), First())
    with pytest.raises(LayerError, match="layer '0' returns 2 floating-point tensors; expected one"):
        Encoder(pair, "0", attribute_to_neuron_input=False)(torch.rand(2, 3, 6, 6))


class Twice(nn.Module):
    def forward(self, x):
        return x, x


class First(nn.Module):
    def forward(self, pair):
        return pair[0].flatten(1)


class Last(nn.Module):
    """Maps (n, h, w, channels) at a block of a transformer."""

    def __init__(self):
        super().__init__()
        self.conv, self.block, self.fc = (
            nn.Conv2d(3, 5, 1),
            nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 5)),
            nn.Linear(5, 3),
        )
        self.block.add_module("last", Plain())

    def forward(self, x):
        return self.fc(self.block(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


class Plain(nn.Module):
    def forward(self, x):
        return x


def test_channels_last_maps_are_pooled_over_positions():
    net, x = Last().eval(), torch.rand(2, 3, 6, 6)
    by_hand = net.block(net.conv(x).permute(0, 2, 3, 1)).mean((1, 2)).detach()
    for axis in (None, -1):
        encode = Encoder(net, "block", attribute_to_neuron_input=False, unit_axis=axis)
        torch.testing.assert_close(encode(x), by_hand)
        assert encode.describe().get("unit_axis") == axis
    tokens = nn.Sequential(nn.Flatten(2), Plain(), nn.Flatten(), nn.Linear(108, 3))
    with pytest.raises(LayerError, match=r"layer '1' returns shape \(2, 3, 36\), and which axis .* unit_axis=1 for"):
        Encoder(tokens, "1", attribute_to_neuron_input=False)(x)
    assert Encoder(tokens, "1", attribute_to_neuron_input=False, unit_axis=1)(x).shape == (2, 3)
    assert Encoder(tokens, "1", attribute_to_neuron_input=False, pool="flatten")(x).shape == (2, 108)


def test_several_rows_per_image_raise():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            both = torch.cat([x, x.flip(3)])
            return self.fc(self.body(both).mean((2, 3)).unflatten(0, (2, -1)).mean(0))

    with pytest.raises(
        LayerError, match=r"layer 'body' returns shape \(4, 4, 4, 4\) for 2 input rows; expected rows first"
    ):
        Encoder(Views().eval(), "body", attribute_to_neuron_input=False)(torch.rand(2, 3, 6, 6))


def test_every_layout():
    vectors, maps, tokens = torch.rand(2, 5), torch.rand(2, 5, 3, 4), torch.rand(2, 7, 5)
    for pool in ("auto", "mean", "flatten"):
        assert torch.equal(pool_units(vectors, pool), vectors)
    torch.testing.assert_close(pool_units(maps), maps.mean((2, 3)))
    assert torch.equal(pool_units(maps, "flatten"), maps.flatten(1))
    assert torch.equal(pool_units(tokens), tokens[:, 0])
    assert torch.equal(pool_units(tokens, "cls"), tokens[:, 0])
    torch.testing.assert_close(pool_units(tokens, "mean"), tokens.mean(1))
    assert pool_units(tokens, "flatten").shape == (2, 35)


def test_pool_units_errors():
    with pytest.raises(ValueError, match="pool is 'max'; expected 'auto', 'mean', 'flatten' or 'cls'"):
        pool_units(torch.rand(2, 5), "max")
    with pytest.raises(ValueError, match="pool='cls' uses the first token"):
        pool_units(torch.rand(2, 5, 3, 3), "cls")
    with pytest.raises(ValueError, match=r"activation has shape \(5,\)"):
        pool_units(torch.rand(5))


def test_unit_axes():
    last, signal = torch.rand(2, 3, 4, 5), torch.rand(2, 5, 7)
    torch.testing.assert_close(pool_units(last, unit_axis=-1), last.mean((1, 2)))
    torch.testing.assert_close(pool_units(signal, unit_axis=1), signal.mean(2))
    assert torch.equal(pool_units(signal, unit_axis=2), pool_units(signal))
    with pytest.raises(ValueError, match="pool='cls' uses the first token"):
        pool_units(signal, "cls", unit_axis=1)


@pytest.mark.parametrize(("layer", "side", "units"), [("net.1", None, 4), ("1", True, 4), (None, None, 4)])
def test_check_pairs_compares_layer_and_units(layer, side, units):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    manifest = {} if layer is None else {"layer": layer}
    manifest |= {} if side is None else {"attribute_to_neuron_input": side}
    Encoder(net, "1").check_pairs(manifest, units, 4)
    with pytest.raises(ValueError, match="the encoder returns the input of layer '1', 5 units; the pairs have 4"):
        Encoder(net, "1").check_pairs(manifest, units, 5)
