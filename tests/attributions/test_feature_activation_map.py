import pytest
import torch
from torch import nn

from xinc_captum import FeatureActivationMap, LayerError, layer_to_grid

X = torch.rand(2, 3, 8, 8)


def test_by_hand():
    """One channel of two is shared: the map is where that channel is, in size its part of the cosine."""
    net = nn.Sequential(nn.Identity())
    image = torch.tensor(
        [[[[2.0, 0.0]], [[0.0, 4.0]]]]
    )  # channel 0 on the left (mean 1), channel 1 on the right (mean 2)
    method = FeatureActivationMap(net, "0", torch.tensor([[3.0, 4.0], [1.0, -1.0]]))
    length = 5**0.5
    weights = method.weights(image, 0)
    torch.testing.assert_close(weights, torch.tensor([[3.0, 8.0]]) / (5 * length))
    torch.testing.assert_close(method.attribute(image, 0), torch.tensor([[[[6.0, 32.0]]]]) / (5 * length))
    away = method.attribute(image, 1)
    (
        torch.testing.assert_close(away, torch.tensor([[[[2.0, 0.0]]]]) / (length * 2**0.5)),
        "what makes them differ is not shown",
    )


def test_weights_add_up_to_the_cosine_of_the_pooled_channels(conv):
    references = torch.rand(4, 3, 8, 8)
    method = FeatureActivationMap(conv, "norm", references)
    with torch.no_grad():
        pooled = [conv.norm(conv.conv(t)).mean((2, 3)) for t in (X, references)]
    for target in range(4):
        cosine = torch.cosine_similarity(pooled[0], pooled[1][target][None])
        torch.testing.assert_close(method.weights(X, target).sum(1), cosine, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(method.weights(X, [3, 1])[1], method.weights(X[1:], 1)[0])


def test_positions_add_up_to_the_cosine(conv):
    references = torch.rand(3, 3, 8, 8)
    method = FeatureActivationMap(conv, "norm", references)
    for target in range(3):
        cosine = method.weights(X, target).sum(1)
        torch.testing.assert_close(method.places(X, target).sum((1, 2, 3)), cosine, atol=1e-6, rtol=1e-5)


def test_positions_by_hand():
    """f = (1, 2) and g = (3, 4): left a = (2, 0), right a = (0, 4), each a·g / (2 |f| |g|)."""
    image = torch.tensor([[[[2.0, 0.0]], [[0.0, 4.0]]]])
    method = FeatureActivationMap(nn.Sequential(nn.Identity()), "0", torch.tensor([[3.0, 4.0], [3.0, -4.0]]))
    torch.testing.assert_close(method.places(image, 0), torch.tensor([[[[3.0, 8.0]]]]) / (5 * 5**0.5))
    torch.testing.assert_close(method.places(image, 1), torch.tensor([[[[3.0, -8.0]]]]) / (5 * 5**0.5))


def test_the_map_does_not_depend_on_the_sign_of_a_channel():
    """The sign of a transformer channel is arbitrary; the map must not depend on it."""
    maps, references = torch.randn(2, 6, 4, 4), torch.randn(3, 6)
    turned = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0])
    net = nn.Sequential(nn.Identity())
    for target in range(3):
        calls = FeatureActivationMap(net, "0", references)
        other = FeatureActivationMap(net, "0", references * turned)
        around = maps * turned[:, None, None]
        assert torch.equal(other.attribute(around, target), calls.attribute(maps, target))
        assert torch.equal(other.weights(around, target), calls.weights(maps, target))
        assert torch.equal(other.places(around, target), calls.places(maps, target))


def test_features_with_negative_means_contribute():
    """Both have a low channel 0, the image in its left half: there they are similar."""
    image = torch.tensor([[[[-4.0, 0.0]], [[0.5, 0.5]]]])
    method = FeatureActivationMap(nn.Sequential(nn.Identity()), "0", torch.tensor([[-2.0, 0.1]]))
    left, right = method.attribute(image).flatten().tolist()
    assert left > 10 * right > 0


def test_the_similarity_of_an_image_to_itself_is_one(conv):
    method = FeatureActivationMap(conv, "relu", X[:1])
    assert method.weights(X[:1]).sum().item() == pytest.approx(1.0)
    assert torch.equal(method.attribute(X), method.attribute(X, target=0))


def test_references_as_vectors_or_images_give_the_same_map(conv):
    with torch.no_grad():
        vectors = conv.relu(conv.norm(conv.conv(X))).mean((2, 3))
    by_vector, by_picture = (FeatureActivationMap(conv, "relu", r).attribute(X, 1) for r in (vectors, X))
    torch.testing.assert_close(by_vector, by_picture)


def test_layer_to_grid_of_tokens():
    net = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6))  # (rows, 3 tokens, 6): no square
    patches = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.Flatten(2), nn.Unflatten(1, (5,)))
    tokens = FeatureActivationMap(patches, "1", X, layer_to_grid=lambda a: layer_to_grid(a.mT.contiguous())).attribute(
        X, 0
    )
    assert tokens.shape == (2, 1, 4, 4)
    with pytest.raises(
        ValueError,
        match=r"layer '1' returns shape \(2, 3, 6\); expected maps .*layer_to_grid=xinc_captum.layer_to_grid",
    ):
        FeatureActivationMap(net, "1", X).attribute(X, 0)


def test_no_gradients_are_computed(conv):
    conv.requires_grad_(False)
    with torch.inference_mode():
        assert FeatureActivationMap(conv, "relu", X).attribute(X, 1).shape == (2, 1, 8, 8)


def test_invalid_references_and_targets_raise(conv):
    several = FeatureActivationMap(conv, "relu", X)
    for target in (None, 2, [0, 1, 0], -1, 1.5, True, [True, False], torch.tensor([0.0, 1.0])):
        with pytest.raises(ValueError, match=r"target is .* for 2 rows and references of shape \(2, 4\)"):
            several.attribute(X, target)
    with pytest.raises(ValueError, match=r"references of shape \(1, 7\), and the layer has 4 channels"):
        FeatureActivationMap(conv, "relu", torch.rand(1, 7)).attribute(X)
    with pytest.raises(TypeError, match="references are a ndarray; expected a tensor of images or vectors"):
        FeatureActivationMap(conv, "relu", X.numpy())


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x, scale):
        return self.conv(x * scale)


def test_reference_images_use_shared_arguments():
    net, references = Scaled(), torch.rand(2, 3, 8, 8)
    result = FeatureActivationMap(net, "conv", references).attribute(X, target=1, additional_forward_args=3.0)
    plain = FeatureActivationMap(lambda x: net(x, 3.0), net.conv, references).attribute(X, target=1)
    torch.testing.assert_close(result, plain)
    each = torch.rand(2, 1, 1, 1)
    with pytest.raises(
        ValueError, match="hold one value for each of the 2 rows, and none for the images in references=; ex"
    ):
        FeatureActivationMap(net, "conv", references).attribute(X, target=1, additional_forward_args=each)
    vectors = FeatureActivationMap(net, "conv", torch.rand(2, 4))
    assert vectors.attribute(X, target=1, additional_forward_args=each).shape == (2, 1, 6, 6)


def test_views_folded_into_rows_raise():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.body(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2])

    views, x = Views(), torch.rand(2, 3, 3, 8, 8)
    for references in (torch.rand(2, 4), x):
        with pytest.raises(
            LayerError, match=r"layer 'body' returns shape \(6, 4, 6, 6\) for 2 input rows; expected rows fi"
        ):
            FeatureActivationMap(views, "body", references).attribute(x, target=[0, 1])


def test_volumes_raise():
    net, x = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU()), torch.rand(2, 1, 5, 8, 6)
    with pytest.raises(
        ValueError, match=r"returns shape \(2, 4, 3, 6, 4\); expected maps .* lambda a: a.mean\(2\)"
    ) as error:
        FeatureActivationMap(net, "1", x[:1]).attribute(x)
    assert "transformer" not in str(error.value)
    flat = FeatureActivationMap(net, "1", x[:1], layer_to_grid=lambda a: a.mean(2)).attribute(x)
    assert flat.shape == (2, 1, 6, 4)
    with pytest.raises(ValueError, match=r"and layer_to_grid returns \(2, 4, 72\); expected maps"):
        FeatureActivationMap(net, "1", x[:1], layer_to_grid=lambda a: a.flatten(2)).attribute(x)


def test_a_layer_without_a_map_raises(conv):
    with pytest.raises(
        ValueError, match=r"layer 'fc' returns shape \(2, 3\); expected maps .* Choose a layer whose output"
    ):
        FeatureActivationMap(conv, "fc", X[:1]).attribute(X)
