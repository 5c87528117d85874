"""Models of torchvision and transformers, and models with dict, dataclass and tuple outputs, without output_fn=."""

import dataclasses

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, LayerGradCam, NoiseTunnel, Saliency
from comparison.fast_compare import quick
from torch import nn
from torchvision import models
from torchvision.models import segmentation

from xinc_captum import LayerContribution, NeuronCanvas
from xinc_captum.attributions.linking.loop import Encoder
from xinc_captum.batch import output_tensor
from xinc_captum.comparison import quantus_explain_func
from xinc_captum.comparison.compare import count_calls
from xinc_captum.hooks import LayerError

PHOTOS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs transformers, whose models are the subject")


@dataclasses.dataclass
class Answer:
    hidden: tuple
    scores: torch.Tensor


def conv(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
    ).eval()


class Wrapped(nn.Module):
    """A classifier that returns its scores in a container."""

    def __init__(self, pack, net=None):
        super().__init__()
        self.net, self.pack = conv() if net is None else net, pack

    def forward(self, x):
        return self.pack(self.net(x))


PACKS = {
    "dict": lambda y: {"logits": y, "hidden": 2 * y},
    "nested dict": lambda y: {"head": {"y": y}, "losses": {"total": y.sum()}},
    "dataclass": lambda y: Answer((), y),
    "1-tuple": lambda y: (y,),
    "tuple": lambda y: (y, None, y.argmax(1), y.sum()),
    "list": lambda y: [y],
}


def autograd(model, module, x, pick):
    """Activation times gradient of one number per sample, by hooks of PyTorch alone."""
    kept = []
    handle = module.register_forward_hook(lambda m, a, y: kept.append(y[0] if isinstance(y, tuple) else y))
    y = pick(model(x))
    handle.remove()
    (slope,) = torch.autograd.grad(y.sum(), kept[0])
    return (kept[0] * slope).detach()


def agree(ours, expected):
    assert expected.abs().max() > 0
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_packed_scores_are_explained_as_alone(pack):
    model = Wrapped(pack)
    plain = lambda x: model.net(x)
    expected = autograd(plain, model.net[1], PHOTOS, lambda y: y[:, 1])
    agree(LayerContribution(model, "net.1").attribute(PHOTOS, target=1), expected)
    one, other = (NeuronCanvas(f, model.net[1]).attribute(PHOTOS) for f in (model, plain))
    torch.testing.assert_close(one, other)
    agree(one[..., 1], expected.sum((2, 3)))
    assert torch.equal(Encoder(model, "net.4").encode(PHOTOS).logits, plain(PHOTOS).detach())


@pytest.mark.filterwarnings("ignore:Setting|Input Tensor|Some of the")
@pytest.mark.parametrize("pack", ["dict", "dataclass", "tuple"])
def test_compare_of_packed_scores_is_that_of_the_scores_alone(pack):
    def own(model, images, target):
        return LayerGradCam(model, model.net[0]).attribute(images, target)

    def run(model):
        methods = {
            "Grad-CAM": "Grad-CAM", "Integrated Gradients": "Integrated Gradients", "own": own,
            "saliency": Saliency(model), "DeepLift": DeepLift(model), "smooth": NoiseTunnel(Saliency(model)),
        }  # fmt: skip
        return quick(methods, model, PHOTOS, [1, 2], layer="net.0", preprocess=lambda x: 2 * x)

    packed, alone = run(Wrapped(PACKS[pack])), run(Wrapped(lambda y: y))
    assert [row.error for row in packed.table] == [""] * 6
    for row, other in zip(packed.table, alone.table, strict=True):
        assert other.counts.backwards > 0 and alone.maps[row.method].abs().sum() > 0
        assert row.counts.forwards == other.counts.forwards and row.counts.backwards == other.counts.backwards
        torch.testing.assert_close(packed.maps[row.method], alone.maps[row.method])
        for name in ("deletion", "insertion", "agreement"):
            torch.testing.assert_close(packed.scores[row.method][name], alone.scores[row.method][name])


def test_methods_that_read_the_output_themselves_get_all_of_it():
    model = Wrapped(lambda y: {"logits": y, "other": 3 * y})
    other = {"output_fn": lambda output: output["other"]}

    def own(images, target):
        return Saliency(lambda x: model(x)["other"]).attribute(images, target=target)

    class Gradient(LayerContribution):
        def attribute(self, inputs, target):
            return super().attribute(inputs, target=target).sum(1, keepdim=True)

    methods = {"first": Gradient(model, "net.1"), "second": Gradient(model, "net.1", **other), "own": own}
    found = quick(methods | {"saliency": Saliency(model)}, model, PHOTOS, 1)
    assert found.maps["first"].abs().sum() > 0 and found.maps["own"].abs().sum() > 0
    torch.testing.assert_close(found.maps["second"], 3 * found.maps["first"])
    torch.testing.assert_close(found.maps["own"], 3 * found.maps["saliency"])


def test_captum_objects_of_a_function_around_the_model():
    net = conv()
    model = lambda x: Wrapped(PACKS["dict"], net)(x)

    def own(model, images, target):
        return Saliency(model).attribute(images, target)

    methods = {"saliency": Saliency(model), "smooth": NoiseTunnel(Saliency(model)), "own": own}
    methods |= {"cam": LayerGradCam(model, net[0])}
    found = quick(methods, model, PHOTOS, 1)
    assert [row.error for row in found.table] == [""] * 4
    assert all(method.forward_func is model for name, method in methods.items() if name != "own")
    assert methods["smooth"].attribution_method.forward_func is model
    alone = quick({"saliency": Saliency(net), "cam": LayerGradCam(net, net[0])}, net, PHOTOS, 1)
    torch.testing.assert_close(found.maps["saliency"], alone.maps["saliency"])
    torch.testing.assert_close(found.maps["own"], alone.maps["saliency"])
    torch.testing.assert_close(found.maps["cam"], alone.maps["cam"])
    assert alone.maps["saliency"].abs().sum() > 0 and found.maps["smooth"].abs().sum() > 0


def test_cams_of_peers_get_one_tensor():
    cams = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam, whose object is compared")
    pytest.importorskip("torchcam", reason="needs torchcam, whose method is compared")
    found = {}
    for name in ("dict", "alone"):
        model = Wrapped(PACKS.get(name, lambda y: y))
        methods = {"peer": "grad-cam", "torchcam": "torchcam", "object": cams.GradCAM(model, [model.net[0]])}
        found[name] = quick(methods, model, PHOTOS, 1, layer="net.0")
        assert [row.error for row in found[name].table] == [""] * 3
    for method in found["alone"].maps:
        assert found["alone"].maps[method].abs().sum() > 0
        torch.testing.assert_close(found["dict"].maps[method], found["alone"].maps[method])


def test_the_quantus_adapter_reads_dicts():
    explain, images = quantus_explain_func(Saliency), PHOTOS.numpy()
    model = Wrapped(PACKS["dict"])
    maps = explain(model, images, np.array([1, 2]))
    assert maps.shape == (2, 1, 32, 32) and np.abs(maps).sum() > 0
    np.testing.assert_allclose(maps, explain(model.net, images, np.array([1, 2])), atol=1e-6)
    assert isinstance(model(PHOTOS), dict) and not model._forward_hooks
    own = quantus_explain_func(lambda m: LayerContribution(m, "net.0", output_fn=lambda y: y["hidden"]), target=1)
    with pytest.raises(ValueError, match=r"returned shape \(2, 4, 15, 15\)"):
        own(model, images, np.array([1, 2]))


def test_backward_passes_of_any_output_are_counted():
    model = Wrapped(lambda y: {"aux": 2 * y, "parts": Answer((), y)})
    with count_calls(model) as counts:
        output = model(PHOTOS)
        output["parts"].scores.sum().backward(retain_graph=True)
        (output["aux"].sum() + output["parts"].scores.sum()).backward()
        model(PHOTOS)["aux"].sum().backward()
    assert (counts.forwards, counts.backwards, counts.rows) == (2, 3, 4)


def lraspp():
    torch.manual_seed(0)
    return segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()


def test_a_pixel_of_a_segmentation():
    model, images = lraspp(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    layer = model.classifier.low_classifier
    ours = LayerContribution(model, "classifier.low_classifier").attribute(images, target=(2, 5, 7))
    agree(ours, autograd(model, layer, images, lambda y: y["out"][:, 2, 5, 7]))


def test_compare_of_a_segmentation_needs_output_fn():
    model, images = lraspp(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    cure = r"give output_fn=lambda output: output\['out'\].mean\(\(2, 3\)\), the mean over the pixels for each class"
    with pytest.raises(
        ValueError, match=rf"shape \(1, 4, 64, 64\) for 1 image; expected floats, \(1, classes\). .*{cure}"
    ):
        quick("Grad-CAM", model, images, 2)
    with pytest.raises(
        ValueError, match=r"give output_fn=lambda output: output_fn\(output\).mean\(\(2, 3\)\), the mean"
    ):
        quick("Grad-CAM", model, images, 2, output_fn=lambda output: output["out"])
    found = quick(
        {"Saliency": Saliency(model), "Grad-CAM": "Grad-CAM"}, model, images, 2, layer="backbone.16",
        output_fn=lambda output: output["out"].mean((2, 3)),
    )  # fmt: skip
    assert [row.error for row in found.table] == ["", ""]
    copy = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(copy)["out"][:, 2].mean((1, 2)).sum(), copy)
    agree(found.maps["Saliency"], slope.abs().sum(1))
    torch.testing.assert_close(found.confidence, model(images)["out"].mean((2, 3)).softmax(1)[:, 2].detach())
    with pytest.raises(TypeError, match=r"the model returned a dict with \['a'\] \(1, 4\), \['b'\] \(1, 4\)"):
        quick(
            "Grad-CAM", conv(), images, 2, output_fn=lambda y: {"a": y.repeat(1, 2)[:, :4], "b": y.repeat(1, 2)[:, :4]}
        )


@pytest.mark.filterwarnings("ignore:.*is in training mode")
@pytest.mark.parametrize(
    ("make", "layer", "size"),
    [(models.inception_v3, "Mixed_7c", 299), (models.googlenet, "inception5b", 64)],
    ids=["inception_v3", "googlenet"],
)
def test_auxiliary_outputs_in_training_mode(make, layer, size):
    torch.manual_seed(0)
    model = make(weights=None, init_weights=False, aux_logits=True, num_classes=5, transform_input=False).eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    pick = {True: lambda y: y.logits[:, 3], False: lambda y: y[:, 3]}
    assert isinstance(model(images), torch.Tensor)
    for training in (False, True):
        model.train(training)
        for module in model.modules():
            module.training &= not isinstance(module, nn.Dropout)
        assert hasattr(model(images), "aux_logits" if size == 299 else "aux_logits2") is training
        ours = LayerContribution(model, layer).attribute(images, target=3)
        agree(ours, autograd(model, model.get_submodule(layer), images, pick[training]))


TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def vit(transformers, kind="ViTForImageClassification"):
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=3, intermediate_size=32, **TINY)
    return getattr(transformers, kind)(config).eval()


def test_vit_for_classification(transformers):
    model = vit(transformers)
    for name in ("vit.layers.1", "vit.layers.0.attention"):  # the attention returns (output, None)
        ours = LayerContribution(model, name).attribute(IMAGES, target=2)
        agree(ours, autograd(model, model.get_submodule(name), IMAGES, lambda y: y.logits[:, 2]))
        canvas = NeuronCanvas(model, name, unit_axis=-1).attribute(IMAGES)
        agree(canvas[..., 2], ours.sum(1))
    found = quick(["Integrated Gradients"], model, IMAGES, 1, probability="softmax")
    assert not found.table[0].error
    torch.testing.assert_close(found.confidence, model(IMAGES).logits.softmax(1)[:, 1].detach())


def test_attention_weights_beside_the_output_are_ambiguous(transformers):
    model = vit(transformers)
    model.set_attn_implementation("eager")
    text = r"returns 2 floating-point tensors; .*is not clear \(0: \(2, 5, 16\), 1: \(2, 2, 5, 5\), for 2 rows\)"
    with pytest.raises(LayerError, match=f"{text}. Choose the module inside it that computes the one to explain"):
        NeuronCanvas(model, "vit.layers.0.attention", unit_axis=-1).attribute(IMAGES)


@pytest.mark.parametrize("kind", ["ViTModel", "Dinov2Model"])
def test_a_backbone_has_two_outputs(transformers, kind):
    torch.manual_seed(0)
    config = getattr(transformers, kind.replace("Model", "Config"))(**TINY)
    model = getattr(transformers, kind)(config).eval()
    text = (
        r"the model returned a BaseModelOutputWithPooling with last_hidden_state \(2, 5, 16\), pooler_output "
        r"\(2, 16\); .*output_fn=lambda output: output.pooler_output\."
    )
    with pytest.raises(TypeError, match=text):
        LayerContribution(model, "layernorm").attribute(IMAGES, target=1)
    with pytest.raises(TypeError, match=text.replace("2, 5", "1, 5").replace("2, 16", "1, 16")):
        quick(["Integrated Gradients"], model, IMAGES, 1)
    ours = LayerContribution(model, "layernorm", output_fn=lambda output: output.pooler_output)
    expected = autograd(model, model.layernorm, IMAGES, lambda y: y.pooler_output[:, 1])
    agree(ours.attribute(IMAGES, target=1), expected)


def test_clip_has_an_image_as_each_row(transformers):
    tower = {**TINY, "intermediate_size": 32}
    words = {"vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    text = {
        key: value for key, value in tower.items() if "size" not in key or key in ("hidden_size", "intermediate_size")
    }
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text | words, vision_config=tower, projection_dim=8)
    clip, prompts = transformers.CLIPModel(config).eval(), torch.tensor([[0, 3, 1], [0, 4, 1]])
    score = lambda images: clip(input_ids=prompts, pixel_values=images)  # as many prompts as images
    layer = clip.vision_model.encoder.layers[0]
    ours = LayerContribution(score, layer).attribute(IMAGES, target=1)
    agree(ours, autograd(score, layer, IMAGES, lambda y: y.logits_per_image[:, 1]))
    assert output_tensor(score(IMAGES), 2).shape == (2, 2)
    found = quick(["Integrated Gradients"], score, IMAGES, 0, probability="softmax")
    torch.testing.assert_close(found.confidence, score(IMAGES).logits_per_image.softmax(1)[:, 0].detach())


def test_segformer(transformers):
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=4,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    layer, images = model.decode_head.linear_fuse, torch.rand(2, 3, 64, 64)
    ours = LayerContribution(model, "decode_head.linear_fuse").attribute(images, target=(3, 1, 2))
    agree(ours, autograd(model, layer, images, lambda y: y.logits[:, 3, 1, 2]))
    with pytest.raises(ValueError, match=r"output_fn=lambda output: output.logits.mean\(\(2, 3\)\)"):
        quick("Grad-CAM", model, images, 3)


def test_hooks_that_a_model_registers_in_its_first_pass_are_registered_once(transformers):
    model = vit(transformers)
    LayerContribution(lambda x: model(x, output_hidden_states=True), model.vit.layernorm).attribute(IMAGES, target=1)
    assert len(model(IMAGES, output_hidden_states=True).hidden_states) == 3


class Siren(nn.Module):
    """Coordinates to values, with the dict that code for SIRENs returns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, coords):
        return {"model_out": self.net(coords)}


def test_a_canvas_of_an_image_in_a_dict():
    model, points = Siren(), torch.rand(12, 2, generator=torch.Generator().manual_seed(4))
    method = NeuronCanvas(model, "net.1")
    hidden, weight = model.net[:2](points), model.net[2].weight
    agree(method.attribute(points), (hidden[:, :, None] * weight.T).detach())
    assert method.canvas(points, (3, 4)).units == 8
    both = lambda coords: {"model_in": coords, **model(coords)}  # as SIREN's own code returns
    agree(NeuronCanvas(both, model.net[1]).attribute(points), method.attribute(points))
    unnamed = lambda coords: {"points": coords, "colours": model(coords)["model_out"]}
    with pytest.raises(TypeError, match=r"this dict has 2. .*output_fn=lambda output: output\['points'\]\."):
        NeuronCanvas(unnamed, model.net[1]).attribute(points)


class Packed(nn.Module):
    """A layer that returns its activation in a tuple; ``extra`` makes the rest of the tuple."""

    def __init__(self, extra):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.extra = nn.Linear(5, 6), extra

    def forward(self, x):
        return (y := self.linear(x), *self.extra(y))


class Unpacked(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.packed, self.head = Packed(extra), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(torch.relu(self.packed(x)[0]))


EXTRAS = {
    "None": lambda y: (None,),
    "a tuple": lambda y: ((y, y),),
    "a bias and None": lambda y: (torch.ones(1, 2, 4, 4), None),
    "a loss": lambda y: (y.sum(),),
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("rule", ["tangent", "ablation"])
def test_a_layer_is_read_by_its_tensor_of_samples(extra, rule):
    model, x = Unpacked(extra), torch.rand(3, 5, generator=torch.Generator().manual_seed(5))
    canvas = NeuronCanvas(model, "packed", rule=rule).attribute(x)
    inner = NeuronCanvas(model, "packed.linear", rule=rule).attribute(x)
    assert canvas.abs().sum() > 0
    torch.testing.assert_close(canvas, inner)
    encoder = Encoder(lambda images: model(images.flatten(1)[:, :5]), model.packed, attribute_to_neuron_input=False)
    torch.testing.assert_close(encoder(PHOTOS), model.packed.linear(PHOTOS.flatten(1)[:, :5]).detach())


def test_two_tensors_of_samples_are_ambiguous():
    model, x = Unpacked(lambda y: (2 * y[:, :4], None)), torch.rand(3, 5)
    with pytest.raises(
        LayerError, match=r"layer 'packed' returns 2 .*is not clear \(0: \(3, 6\), 1: \(3, 4\), for 3 rows\)"
    ):
        NeuronCanvas(model, "packed").attribute(x)


def test_the_state_of_a_gru_is_ambiguous_too():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.gru(x)[1][0])

    with pytest.raises(LayerError, match=r"layer 'gru' returns 2 .*\(0: \(3, 4, 6\), 1: \(1, 3, 6\), for 3 rows\)"):
        NeuronCanvas(Last(), "gru", unit_axis=-1).attribute(torch.rand(3, 4, 5))
