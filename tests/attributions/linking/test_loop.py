"""The round trip for layers of every layout, its protection of models, and the gradient of a class score."""

import copy

import pytest
import torch
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking.encoder import Encoder
from xinc_captum.generators import from_callable, normal_latents


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
