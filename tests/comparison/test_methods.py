import warnings

import pytest
import torch
from captum.attr import GuidedBackprop, GuidedGradCam, IntegratedGradients, LayerGradCam
from torch import nn
from vision_models import torchvision_vit

from xinc_captum import LayerError, capture
from xinc_captum.comparison import centre_blob, edge_map, grad_cam, guided_grad_cam, integrated_gradients, random_map

PHOTOS = torch.rand(2, 3, 8, 8)


def twice(images):
    return 2 * images - 1


def test_methods_equal_captum_without_preprocessing(conv):
    assert torch.equal(
        grad_cam(conv, "conv")(PHOTOS, 1), LayerGradCam(conv, conv.conv).attribute(PHOTOS, 1, relu_attributions=True)
    )
    theirs = GuidedGradCam(conv, conv.conv).attribute(PHOTOS, [0, 2], interpolate_mode="bilinear")
    assert torch.equal(guided_grad_cam(conv, conv.conv)(PHOTOS, [0, 2]), theirs)
    theirs = IntegratedGradients(conv).attribute(PHOTOS, target=1, n_steps=8)
    torch.testing.assert_close(integrated_gradients(conv, steps=8)(PHOTOS, 1), theirs)


def test_gradients_pass_through_the_preprocessing(conv):
    shares = integrated_gradients(conv, twice, steps=200)(PHOTOS, 1)
    with torch.no_grad():
        gain = conv(twice(PHOTOS))[:, 1] - conv(twice(0 * PHOTOS))[:, 1]
    torch.testing.assert_close(shares.flatten(1).sum(1), gain, atol=2e-3, rtol=0)
    same = grad_cam(conv, "conv")(twice(PHOTOS), 1)
    torch.testing.assert_close(grad_cam(conv, "conv", twice)(PHOTOS, 1), same)
    inner = guided_grad_cam(conv, "conv")(twice(PHOTOS), 1)
    torch.testing.assert_close(guided_grad_cam(conv, "conv", twice)(PHOTOS, 1), 2 * inner)  # the chain rule's 2


def test_functions_around_a_model(conv):
    def around(images):
        return conv(images) + 0

    for build in (grad_cam, guided_grad_cam):
        torch.testing.assert_close(build(around, "conv", twice)(PHOTOS, 1), build(conv, "conv", twice)(PHOTOS, 1))


def test_guided_grad_cam_of_a_known_model():
    """y = Σ w·relu(a) with a = x: backwards, relu lets through what is active *and* positive; Grad-CAM is constant."""
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4, 1, bias=False)
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[3].weight.copy_(torch.tensor([[1.0, -1.0, 2.0, 4.0]]))
    photo = torch.tensor([[[[0.5, 0.5], [-0.5, 1.0]]]])
    # Grad-CAM: mean gradient (1 − 1 + 0 + 4) / 4 = 1 times relu(a), guided gradient (1, 0, 0, 4)
    assert guided_grad_cam(model, "0")(photo, 0).flatten().tolist() == [0.5, 0.0, 0.0, 4.0]


def test_in_place_relus_give_equal_maps(conv):
    maps = [build(conv, layer)(PHOTOS, 1) for build in (grad_cam, guided_grad_cam) for layer in ("norm", "relu")]
    conv.relu = nn.ReLU(inplace=False)
    again = [build(conv, layer)(PHOTOS, 1) for build in (grad_cam, guided_grad_cam) for layer in ("norm", "relu")]
    torch.testing.assert_close(maps, again)


def test_other_activation_functions_cause_a_warning(conv):
    conv.relu = nn.ReLU6(inplace=True)
    with pytest.warns(UserWarning, match=r"Conv has ReLU6 modules: Captum's GuidedBackprop changes torch.nn.ReLU"):
        guided_grad_cam(conv, "conv")
    conv.relu = nn.Identity()
    with pytest.warns(UserWarning, match=r"Conv has no torch.nn.ReLU module"):
        guided_grad_cam(conv, "conv")


def test_relu_models_cause_no_warning(conv):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guided_grad_cam(conv, "conv")(PHOTOS, 1)


def test_creating_a_method_does_not_change_the_model(conv, found):
    before = found(conv)
    grad_cam(conv, "conv")
    guided_grad_cam(conv, "conv", twice)
    integrated_gradients(conv)
    assert before.differences(conv) == []


def test_missing_layers_and_modules_are_rejected(conv):
    for build in (grad_cam, guided_grad_cam):
        with pytest.raises(LayerError, match="'cnv' is not in the model"):
            build(conv, "cnv")
    with pytest.raises(TypeError, match=r"no torch.nn.Module can be found; .*Pass the module"):
        guided_grad_cam(torch.sin, nn.ReLU())


def test_maps_of_samples_are_independent(conv):
    for method in (grad_cam(conv, "conv"), guided_grad_cam(conv, "conv"), integrated_gradients(conv, steps=4)):
        torch.testing.assert_close(method(PHOTOS, [0, 2])[1:], method(PHOTOS[1:], [2]))


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(5), nn.Linear(5, 5)

    def forward(self, x):
        return x + self.linear(self.norm(x)).relu()


class Last(nn.Module):
    """Maps (N, h, w, channels) at the block."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.block, self.fc = nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), Mixing(), nn.Linear(60, 3)

    def forward(self, x):
        return self.fc(self.block(self.relu(self.conv(x)).permute(0, 2, 3, 1)).flatten(1))


def by_hand(net, images, target):
    with capture(net, "block") as seen:
        y = net(images)
    a = seen[net.block]
    (slope,) = torch.autograd.grad(y.gather(1, target[:, None]).sum(), a)
    return (a.detach() * slope.mean((1, 2), keepdim=True)).sum(3).relu()[:, None]


@pytest.mark.parametrize("axis", [None, -1])
def test_grad_cam_of_channels_last_layers(axis):
    net, images, target = Last().eval(), torch.rand(2, 3, 6, 8), torch.tensor([2, 0])
    hand = by_hand(net, images, target)
    assert hand.shape == (2, 1, 3, 4)
    found = grad_cam(net, "block", unit_axis=axis)(images, target)
    torch.testing.assert_close(found, hand)
    torch.testing.assert_close(
        grad_cam(net, "block", twice, unit_axis=axis)(images, target), by_hand(net, twice(images), target)
    )
    guided = guided_grad_cam(net, "block", unit_axis=axis)(images, target)
    wide = nn.functional.interpolate(hand, (6, 8), mode="bilinear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backwards = GuidedBackprop(net).attribute(images, target=target)
    torch.testing.assert_close(guided, wide * backwards)
    resized = lambda x: nn.functional.interpolate(x, (6, 8))
    assert grad_cam(net, "block", resized, unit_axis=axis)(torch.rand(2, 3, 9, 9), 1).shape == (2, 1, 3, 4)


def test_an_ambiguous_axis_is_rejected():
    net = nn.Sequential(nn.Conv2d(3, 6, 1), Unknown(), nn.Flatten(), nn.Linear(216, 2)).eval()
    with pytest.raises(LayerError, match=r"layer '1' returns shape \(2, 6, 6, 6\), and which axis holds the units"):
        grad_cam(lambda x: net[3](net[2](net[1](net[0](x)))), net[1])(torch.rand(2, 3, 6, 6), 1)
    assert grad_cam(net, "1", unit_axis=1)(torch.rand(2, 3, 6, 6), 1).shape == (2, 1, 6, 6)


class Unknown(nn.Module):
    """Mixed modules inside: nothing tells (N, 6, 6, 6) apart."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_random_maps_depend_only_on_seed_and_index():
    state = torch.get_rng_state()
    maps = random_map(3)(PHOTOS, 0)
    assert maps.shape == (2, 1, 7, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(random_map(3)(PHOTOS[:1] * 0, 1), maps[:1])
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(random_map(4)(PHOTOS, 0), maps)
    assert random_map(cells=3)(PHOTOS.double(), 0).dtype == torch.float64


def test_centre_blob_is_symmetric_with_its_peak_at_the_centre():
    (blob,) = centre_blob(0.25)(torch.rand(1, 3, 4, 8), 1)
    assert blob.shape == (4, 8) and blob.max().item() == pytest.approx(blob[1:3, 3:5].min().item())
    torch.testing.assert_close(blob, blob.flip(0).flip(1))
    torch.testing.assert_close(blob[1, 7] / blob[1, 4], torch.exp(torch.tensor((0.0625**2 - 0.4375**2) / 0.125)))


def test_edge_map_of_a_known_image():
    photo = torch.zeros(1, 3, 3, 4)
    photo[..., 2:] = 1.0  # a step between columns 1 and 2: Sobel gives 4 on both sides of it, nothing elsewhere
    (edges,) = edge_map()(photo, 0)
    assert edges.tolist() == [[0.0, 4.0, 4.0, 0.0]] * 3
    (turned,) = edge_map()(photo.mT, 0)
    assert torch.equal(turned, edges.T)
    assert edge_map()(PHOTOS.double(), 0).dtype == torch.float64


def test_grad_cam_of_tokens():
    net, images, target = torchvision_vit().eval(), torch.rand(2, 3, 32, 32), torch.tensor([2, 0])
    nn.init.normal_(net.heads.head.weight)
    layer = "encoder.layers.encoder_layer_1.ln_1"
    with capture(net, layer) as seen:
        y = net(images)
    a = seen[net.get_submodule(layer)]
    (slope,) = torch.autograd.grad(y.gather(1, target[:, None]).sum(), a)
    weights = slope[:, 1:].mean(1, keepdim=True)  # without the class token
    by_hand = (a.detach()[:, 1:] * weights).sum(2).relu().reshape(2, 1, 4, 4)
    assert by_hand.any()
    for axis in (None, -1):
        torch.testing.assert_close(grad_cam(net, layer, unit_axis=axis)(images, target), by_hand)
    with pytest.raises(
        LayerError, match=r"returns shape \(2, 17, 32\); expected maps .* or tokens of a vision trans.*er l"
    ):
        grad_cam(net, layer, unit_axis=1)(images, target)


def test_layers_without_a_map_are_rejected():
    images = torch.rand(2, 3, 8, 8)
    sequence = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Flatten(), nn.Linear(18, 3)).eval()
    with pytest.raises(LayerError, match=r"layer '1' returns shape \(2, 3, 6\); .*No patches of an image are known"):
        grad_cam(sequence, "1")(images, 1)
    heads = nn.Sequential(nn.Flatten(2), nn.Linear(64, 64), nn.Unflatten(2, (8, 8)), nn.Linear(8, 8), nn.Flatten())
    net = nn.Sequential(*heads, nn.Linear(192, 3)).eval()
    with pytest.raises(
        LayerError, match=r"layer '3' returns shape \(2, 3, 8, 8\), and its positions 3 x 8 are not a map"
    ):
        grad_cam(net, "3")(images, 1)
    assert grad_cam(net, "3", unit_axis=1)(images, 1).shape == (2, 1, 8, 8)


def test_a_layer_that_returns_a_tuple():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x):
            return self.conv(x), None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.fc = Pair(), nn.Linear(180, 3)

        def forward(self, x):
            return self.fc(self.pair(x)[0].flatten(1))

    net = Net().eval()
    torch.testing.assert_close(grad_cam(net, "pair")(PHOTOS, 1), grad_cam(net, "pair.conv")(PHOTOS, 1))
