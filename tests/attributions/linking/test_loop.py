"""Encoder: sides of a layer, pooling, gradients, and the restored state of the model. The round trip for all layouts."""

import copy

import pytest
import torch
from torch import nn

from xinc_captum import LatentLink, LayerError, LinkedUnitVisualization
from xinc_captum.attributions.linking import Encoder, pool_units
from xinc_captum.generators import from_callable, normal_latents


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


def test_modules_inside_a_generator_are_restored(digits, found):
    paint = nn.Sequential(nn.Linear(24, 64), nn.Dropout(0.5), nn.Sigmoid()).eval()
    generator = from_callable(lambda w: paint(w).view(-1, 1, 8, 8), normal_latents(24))
    paint(torch.rand(2, 24)).sum().backward()
    before = found(paint)
    units = LinkedUnitVisualization(digits.net, "5", generator, digits.link)
    units.attribute(digits.pictures(2), digits.unit)
    units.counterfactual(digits.pictures(2), 3, "latent")
    assert before.differences(paint) == []


def test_a_generator_in_training_mode_gives_a_warning(digits):
    paint = nn.Sequential(nn.Linear(24, 64), nn.Dropout(0.5), nn.Sigmoid())
    units = LinkedUnitVisualization(
        digits.net, "5", from_callable(lambda w: paint(w).view(-1, 1, 8, 8), normal_latents(24)), digits.link
    )
    with pytest.warns(UserWarning, match="Dropout '1' is in training mode"):
        units.perturb(digits.pictures(2), digits.unit, 1.0)


def test_a_per_class_link_gets_what_the_model_predicts(digits):
    classes = torch.arange(3000) % 10
    w = digits.generator.sample_latents(3000, classes, 0.7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        r = digits.net[:5](digits.generator.synthesize(w))
    link = LatentLink("per_class").fit(r, w, classes, manifest=digits.link.manifest)
    units = LinkedUnitVisualization(digits.net, "5", digits.generator, link)
    x = digits.pictures(10)
    result = units.sweep(x, digits.unit)
    with torch.no_grad():
        seen = digits.net[:5](x).double()
        predicted = digits.net(x).argmax(1)
    torch.testing.assert_close(
        result.base, digits.generator.synthesize(link(seen, predicted).float()), atol=1e-5, rtol=0
    )
    assert units.counterfactual(x, 3).images.shape == x.shape


def test_a_link_solved_under_inference_mode_is_differentiated(digits):
    with torch.inference_mode():
        link = copy.deepcopy(digits.link)
        link.map.weight = link.map.weight.clone()
    units = LinkedUnitVisualization(digits.net, "5", digits.generator, link)
    plain = digits.units.attribute(digits.pictures(2), digits.unit)
    torch.testing.assert_close(units.attribute(digits.pictures(2), digits.unit), plain)


def test_the_layer_may_have_a_longer_name_in_a_larger_model(digits):
    outer = nn.Sequential(nn.Identity(), digits.net)
    units = LinkedUnitVisualization(outer, "1.5", digits.generator, digits.link)
    x = digits.pictures(2)
    torch.testing.assert_close(units.perturb(x, digits.unit, 1.0), digits.units.perturb(x, digits.unit, 1.0))


PAINT = from_callable(
    lambda w: (w @ torch.linspace(-1, 1, 4 * 3 * 32 * 32).view(4, -1).sin()).sigmoid().view(-1, 3, 32, 32),
    normal_latents(4),
)


def resnet():
    torchvision = pytest.importorskip("torchvision", reason="pip install '.[zoo]'")
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)


def efficientnet():
    timm = pytest.importorskip("timm", reason="pip install '.[zoo]'")
    return timm.create_model("test_efficientnet", num_classes=7)


def vit():
    torchvision = pytest.importorskip("torchvision", reason="pip install '.[zoo]'")
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=7)


CASES = [  # and whether the scores are linear in what is linked
    (resnet, "fc", True, "auto", True),
    (resnet, "avgpool", False, "auto", True),
    (resnet, "layer2", False, "mean", False),
    (resnet, "layer3", False, "flatten", False),
    (efficientnet, "classifier", True, "auto", True),
    (efficientnet, "conv_head", False, "auto", False),
    (vit, "heads", True, "auto", True),
    (vit, "encoder.ln", False, "cls", True),
    (vit, "encoder.layers.encoder_layer_0", False, "mean", False),
]


@pytest.mark.parametrize(
    ("make", "layer", "at_input", "pool", "linear"), CASES, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_layouts(make, layer, at_input, pool, linear, found):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().eval()
        if hasattr(net, "heads"):  # torchvision begins with a head of zeros
            nn.init.normal_(net.heads.head.weight)
    w = PAINT.sample_latents(40, generator=torch.Generator().manual_seed(1))
    encode = Encoder(net, layer, attribute_to_neuron_input=at_input, pool=pool)
    link = LatentLink().fit(encode(PAINT.synthesize(w)), w, manifest=encode.describe())
    units = LinkedUnitVisualization(net, layer, PAINT, link)
    x, unit = PAINT.synthesize(w[:2]), int(link.r_sd.argmax())
    before = found(net)
    swept = units.sweep(x, unit, steps=3)
    torch.testing.assert_close(swept.base_representations, encode(swept.base), atol=1e-5, rtol=1e-4)
    assert swept.images.shape == (2, 3, 3, 32, 32) and swept.representations.shape[-1] == len(link.r_sd)
    assert units.attribute(x, unit).shape == x.shape
    flipped = units.counterfactual(x, (net(x).argmax(1) + 1) % 7, "ray")
    assert flipped.shift.shape == (2, len(link.r_sd)) and (flipped.steps <= 30).all()
    assert (flipped.head is not None) is linear
    assert before.differences(net) == []


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_score_gradient_equals_finite_differences(smooth, pool):
    """∂f/∂r_u against adding to the unit's place (flattened), or to all places of its channel (mean)."""
    net = copy.deepcopy(smooth).double()
    encode = Encoder(net, "1", attribute_to_neuron_input=False, pool=pool)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    paint = from_callable(lambda w: w.sigmoid().view(-1, 1, 1, 1).expand(-1, 3, 8, 8), normal_latents(1))
    r = encode(torch.rand(20, 3, 8, 8, dtype=torch.float64))
    link = LatentLink().fit(r, torch.rand(20, 1))
    units = LinkedUnitVisualization(net, "1", paint, link, pool=pool)
    origin, target = torch.tensor([0, 1]), torch.tensor([2, 0])
    with units._open(x, None, False, None) as loop:
        slopes, gap = loop.score_gradient(origin, target)
    with torch.no_grad():
        a = net[:2](x)
        lead = lambda act: (lambda f: f.gather(1, target[:, None]) - f.gather(1, origin[:, None]))(net[2:](act))[:, 0]
        torch.testing.assert_close(gap, lead(a))
        for unit in (0, 3):
            lift = torch.zeros_like(a[:1])
            if pool == "mean":
                lift[:, unit] = 1
            else:
                lift.view(1, -1)[:, unit] = 1
            numeric = (lead(a + 1e-5 * lift) - lead(a - 1e-5 * lift)) / 2e-5
            torch.testing.assert_close(slopes[:, unit], numeric, rtol=1e-5, atol=1e-8)


def test_a_round_trip_takes_no_more_images_at_once_than_the_limit(plane, rows):
    loop = plane(*rows).loop
    trip = loop.run(loop.latents(rows[0], loop.index), loop.index)
    torch.testing.assert_close(trip.representations, rows[0])
    assert trip.images.shape == (6, 1, 1, 2)
    assert loop.encoder.forward_func.batch_sizes[-2:] == [4, 2]


def test_samples_of_round_trips_are_taken_and_replaced(plane, rows):
    trip = plane(*rows).loop.linked
    index = torch.tensor([4, 1])
    swapped = trip.replace(index, trip.take(index.flip(0)))
    assert torch.equal(swapped.latents[4], trip.latents[1]) and torch.equal(swapped.scores[1], trip.scores[4])
    assert torch.equal(swapped.images[0], trip.images[0])
    assert len(trip.take(torch.tensor([True, False] * 3)).scores) == 3


def test_the_generator_gets_latents_of_its_own_dtype(plane, rows):
    loop = plane(*rows).loop
    dtypes, synthesize = [], loop.generator.synthesize
    loop.generator.synthesize = lambda w: (dtypes.append(w.dtype), synthesize(w))[1]
    loop.generate(torch.zeros(1, 2))
    loop.run(loop.latents(rows[0].float(), loop.index), loop.index)
    assert set(dtypes) == {torch.float64}
