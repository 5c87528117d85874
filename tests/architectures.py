"""Small models of every library, and a check of each class of the package on them, without a function of the user's own.

:func:`outcome` runs a check and returns "correct" or the package's refusal, and raises for anything else: a wrong result
(AssertionError), or an error of torch or of the model's library. ``benchmarks/architectures.py`` prints the table.
"""

import json
import re
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import torchvision
import vision_models as small
from torch import nn

import xinc_captum
from xinc_captum import (
    FeatureAccentuation,
    FeatureActivationMap,
    ImageModel,
    LayerContribution,
    NeRN,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    WeightContribution,
    compare,
    load_model,
)
from xinc_captum.attributions.linking.loop import Encoder
from xinc_captum.attributions.linking.pairs import make_pairs
from xinc_captum.comparison import last_map
from xinc_captum.generators import EigenGenerator
from xinc_captum.models import default_layer, list_layers

CLASSES = 5


class Architecture(NamedTuple):
    """How a model is built, and what its authors' code says about its default layer and output.

    ``tokens`` is the number of tokens before the patches, or the axis order of a map; ``output`` names the tensor of the
    scores in what the network returns.
    """

    build: Callable[[], Any]
    size: int
    layer: str
    map: tuple[int, int]
    tokens: int | str = "NCHW"
    output: str = ""
    target: Any = 1


def by_name(name):
    return lambda: load_model(name, weights="random", labels=[f"class {i}" for i in range(CLASSES)])


def timm(name, **options):
    return lambda: small.timm_model(name, **options)


def timm_vit(name):
    return lambda: small.timm_vit(name)


def timm_class(path, **options):
    """A class of timm itself, whose named models do not take other widths."""

    def build():
        models = pytest.importorskip("timm.models", reason="timm is not installed")
        module, _, name = path.partition(".")
        return getattr(getattr(models, module), name)(num_classes=CLASSES, **options)

    return build


def hf(kind, config, **options):
    return lambda: small.hugging_face(kind, config, **options).hf


def hf_vit(name, **options):
    return lambda: small.hf_vit(name, **options).hf


def hf_folder(kind, config, **options):
    """Write a configuration, and load it by the name of its folder."""

    def build():
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_normalize": True, "do_rescale": True}
        with tempfile.TemporaryDirectory() as folder:
            getattr(transformers, config)(**options, architectures=[kind]).save_pretrained(folder)
            (Path(folder) / "preprocessor_config.json").write_text(json.dumps(processor))
            return load_model(f"hf:{folder}", weights="random")

    return build


OPEN_CLIP = {
    "embed_dim": 6,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
}


def open_clip(tower):
    def build():
        library = pytest.importorskip("open_clip", reason="open_clip is not installed")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tiny-for-the-table.json").write_text(json.dumps(OPEN_CLIP))
            library.add_model_config(Path(folder) / "tiny-for-the-table.json")
            if tower:
                return load_model("open_clip:tiny-for-the-table", weights="random")
            return library.create_model("tiny-for-the-table")

    return build


def fcn():
    return torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)


TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
TEXT |= {"vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
WIDTHS = (8, 12, 20, 24)
STAGES = {"hidden_sizes": list(WIDTHS), "depths": [1, 1, 1, 1]}
SEGFORMER = STAGES | {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
PVT = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 20, 32), "num_heads": (1, 2, 2, 4)}
LEVIT = {"embed_dim": (32, 48, 64), "num_heads": (2, 3, 4), "depth": (1, 1, 1), "key_dim": 16, "img_size": 128}
HIERA = {"img_size": 64, "embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1)}
MIXER = {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32}
NEST = {"img_size": 64, "embed_dims": (16, 24, 32), "num_heads": (1, 2, 2), "depths": (1, 1, 1)}
VOLO = {"img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (1, 2, 2, 2)}
VOLO |= {"outlook_attention": (True, False, False, False)}
DAVIT = {"depths": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "num_heads": (1, 2, 2, 2)}

ARCHITECTURES = {
    "torchvision:resnet18": Architecture(by_name("torchvision:resnet18"), 64, "layer4", (2, 2)),
    "torchvision:alexnet": Architecture(by_name("torchvision:alexnet"), 64, "avgpool", (6, 6)),
    "torchvision:vgg11": Architecture(by_name("torchvision:vgg11"), 64, "avgpool", (7, 7)),
    "torchvision:squeezenet1_1": Architecture(by_name("torchvision:squeezenet1_1"), 64, "classifier.2", (3, 3)),
    "torchvision:densenet121": Architecture(by_name("torchvision:densenet121"), 64, "features", (2, 2)),
    "torchvision:inception_v3": Architecture(by_name("torchvision:inception_v3"), 128, "Mixed_7c", (2, 2)),
    "torchvision:googlenet": Architecture(by_name("torchvision:googlenet"), 64, "inception5b", (2, 2)),
    "torchvision:shufflenet_v2_x0_5": Architecture(by_name("torchvision:shufflenet_v2_x0_5"), 64, "conv5", (2, 2)),
    "torchvision:mobilenet_v2": Architecture(by_name("torchvision:mobilenet_v2"), 64, "features", (2, 2)),
    "torchvision:mobilenet_v3_small": Architecture(by_name("torchvision:mobilenet_v3_small"), 64, "features", (2, 2)),
    "torchvision:efficientnet_b0": Architecture(by_name("torchvision:efficientnet_b0"), 64, "features", (2, 2)),
    "torchvision:regnet_y_400mf": Architecture(by_name("torchvision:regnet_y_400mf"), 64, "trunk_output", (2, 2)),
    "torchvision:mnasnet0_5": Architecture(by_name("torchvision:mnasnet0_5"), 64, "layers", (2, 2)),
    "torchvision:lraspp_mobilenet_v3_large": Architecture(
        by_name("torchvision:lraspp_mobilenet_v3_large"), 64, "classifier.cbr", (4, 4), output="out", target=(1, 20, 30)
    ),
    "torchvision ConvNeXt": Architecture(small.torchvision_convnext, 64, "features", (8, 8)),
    "torchvision ViT": Architecture(small.torchvision_vit, 32, "encoder.layers.encoder_layer_1.ln_1", (4, 4), 1),
    "torchvision Swin": Architecture(small.torchvision_swin, 64, "permute", (8, 8)),
    "torchvision MaxViT": Architecture(small.torchvision_maxvit, 64, "blocks.1", (8, 8)),
    "torchvision FCN": Architecture(fcn, 64, "classifier.3", (8, 8), output="out", target=(1, 20, 30)),
    "timm:test_vit": Architecture(by_name("timm:test_vit"), 160, "blocks.5.norm1", (10, 10), 1),
    "timm:test_resnet": Architecture(by_name("timm:test_resnet"), 96, "layer4", (3, 3)),
    "timm:test_convnext": Architecture(by_name("timm:test_convnext"), 96, "stages", (3, 3)),
    "timm:test_efficientnet": Architecture(by_name("timm:test_efficientnet"), 96, "bn2", (3, 3)),
    "timm:test_byobnet": Architecture(by_name("timm:test_byobnet"), 96, "stages", (3, 3)),
    "timm:test_mambaout": Architecture(by_name("timm:test_mambaout"), 96, "stages", (3, 3), "NHWC"),
    "timm:test_coatnet": Architecture(by_name("timm:test_coatnet"), 160, "norm", (5, 5)),
    "timm:test_maxvit": Architecture(by_name("timm:test_maxvit"), 160, "norm", (5, 5)),
    "timm ViT": Architecture(small.timm_vit, 32, "blocks.1.norm1", (4, 4), 1),
    "timm ViT, registers": Architecture(timm_vit("vit_base_patch14_reg4_dinov2"), 32, "blocks.1.norm1", (4, 4), 5),
    "timm ViT, mean of patches": Architecture(
        lambda: small.timm_vit(class_token=False, global_pool="avg"), 32, "blocks", (4, 4), 0
    ),
    "timm DeiT, distilled": Architecture(timm_vit("deit_tiny_distilled_patch16_224"), 32, "blocks.1.norm1", (4, 4), 2),
    "timm BEiT": Architecture(timm_vit("beit_base_patch16_224"), 32, "blocks.1", (4, 4), 1),
    "timm EVA-02": Architecture(timm_vit("eva02_tiny_patch14_224"), 32, "blocks.1", (4, 4), 1),
    "timm CaiT": Architecture(timm_vit("cait_xxs24_224"), 32, "blocks", (4, 4), 0),
    "timm XCiT": Architecture(timm_vit("xcit_nano_12_p8_224"), 32, "cls_attn_blocks.1.norm1", (4, 4), 1),
    "timm Swin": Architecture(small.timm_swin, 64, "norm", (8, 8), "NHWC"),
    "timm SwinV2": Architecture(lambda: small.timm_swin("swinv2_tiny_window8_256"), 64, "norm", (8, 8), "NHWC"),
    "timm MLP-Mixer": Architecture(timm_class("mlp_mixer.MlpMixer", **MIXER), 32, "norm", (4, 4), 0),
    "timm NesT": Architecture(timm_class("nest.Nest", **NEST), 64, "norm", (4, 4), "NHWC"),
    "timm ConvNeXt": Architecture(timm("convnext_atto", dims=WIDTHS, depths=(1, 1, 1, 1)), 64, "stages", (2, 2)),
    "timm EfficientViT": Architecture(timm("efficientvit_b0"), 64, "head.in_conv", (2, 2)),
    "timm PVTv2": Architecture(timm("pvt_v2_b0", **PVT), 64, "stages", (2, 2)),
    "timm LeViT": Architecture(timm("levit_128s", **LEVIT), 128, "stages", (2, 2), 0),
    "timm MobileNetV4": Architecture(timm("mobilenetv4_conv_small"), 64, "blocks", (2, 2)),
    "timm Hiera": Architecture(timm("hiera_tiny_224", **HIERA), 64, "blocks.3", (2, 2), None),
    "timm MViTv2": Architecture(small.mvit, 64, "norm", (2, 2), 0),
    "timm PoolFormer": Architecture(
        timm_class("metaformer.MetaFormer", depths=(1, 1, 1, 1), dims=WIDTHS), 64, "stages", (2, 2)
    ),
    "timm VOLO": Architecture(timm_class("volo.VOLO", **VOLO), 64, "norm", (4, 4), 1),
    "timm Twins": Architecture(timm("twins_svt_small"), 64, "norm", (2, 2), 0),
    "timm FocalNet": Architecture(
        timm_class("focalnet.FocalNet", depths=(1, 1, 1, 1), embed_dim=8), 64, "norm", (2, 2)
    ),
    "timm DaViT": Architecture(timm("davit_tiny", **DAVIT), 64, "stages", (2, 2)),
    "timm TinyViT": Architecture(timm("tiny_vit_5m_224"), 64, "stages", (2, 2)),
    "timm RepViT": Architecture(timm("repvit_m0_9"), 64, "stages", (2, 2)),
    "timm GhostNet": Architecture(timm("ghostnet_050"), 64, "blocks", (2, 2)),
    "transformers ViT": Architecture(hf_vit("ViT"), 32, "vit.layers.1.layernorm_before", (4, 4), 1, "logits"),
    "transformers DeiT": Architecture(hf_vit("DeiT"), 32, "deit.layers.1.layernorm_before", (4, 4), 2, "logits"),
    "transformers DINOv2": Architecture(hf_vit("Dinov2Model"), 32, "layernorm", (4, 4), 1, "pooler_output"),
    "transformers CLIP vision": Architecture(hf_vit("CLIPVisionModel"), 32, "encoder", (4, 4), 1, "pooler_output"),
    "transformers SegFormer": Architecture(lambda: small.segformer().hf, 64, "segformer", (2, 2), output="logits"),
    "transformers Swin": Architecture(
        hf("SwinForImageClassification", "SwinConfig", **small.SWIN), 64, "swin.layernorm", (8, 8), 0, "logits"
    ),
    "transformers MobileViT": Architecture(
        lambda: small.mobilevit(initializer_range=0.2).hf, 64, "mobilevit.conv_1x1_exp", (2, 2), output="logits"
    ),
    "transformers ResNet": Architecture(
        hf("ResNetForImageClassification", "ResNetConfig", embedding_size=8, **STAGES),
        64, "resnet.encoder", (2, 2), output="logits",
    ),
    "transformers ConvNeXt": Architecture(
        hf("ConvNextForImageClassification", "ConvNextConfig", **STAGES),
        64, "convnext.encoder", (2, 2), output="logits",
    ),
    "hf: DINOv2": Architecture(
        hf_folder("Dinov2Model", "Dinov2Config", **small.VIT),
        32, "encoder.layer.1.norm1", (4, 4), 1, "pooler_output",
    ),
    "hf: CLIP": Architecture(
        hf_folder("CLIPModel", "CLIPConfig", text_config=TEXT, vision_config=small.VIT, projection_dim=8),
        32, "encoder.layers.1.layer_norm1", (4, 4), 1, "pooler_output",
    ),
    "hf: SigLIP": Architecture(
        hf_folder("SiglipModel", "SiglipConfig", text_config=TEXT, vision_config=small.VIT),
        32, "post_layernorm", (4, 4), 0, "pooler_output",
    ),
    "hf: SegFormer, segmentation": Architecture(
        hf_folder("SegformerForSemanticSegmentation", "SegformerConfig", num_labels=CLASSES, **SEGFORMER),
        64, "decode_head.dropout", (16, 16), output="logits", target=(1, 5, 7),
    ),
    "open_clip: ViT": Architecture(open_clip(True), 32, "transformer.resblocks.1.ln_1", (4, 4), 1),
    "open_clip CLIP": Architecture(
        open_clip(False), 32, "visual.transformer.resblocks.1.ln_1", (4, 4), 1, "image_features"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model with non-zero parameters, its images in [0, 1], and its default layer or, without one, a layer of the user's."""

    architecture: Architecture
    model: Any
    images: torch.Tensor
    references: torch.Tensor
    layer: str
    default: str | None

    @property
    def network(self):
        return self.model.model if isinstance(self.model, ImageModel) else self.model

    @property
    def target(self):
        return self.architecture.target

    def run(self, images):
        """Return the scores and the activation of the default layer, by PyTorch alone."""
        kept = []
        module = self.network.get_submodule(self.layer)

        def keep(_module, _args, output):
            kept.append(output if isinstance(output, torch.Tensor) else output[0])
            return output.clone() if isinstance(output, torch.Tensor) else output  # the model may change it in place

        handle = module.register_forward_hook(keep)
        output = self.network(self.model.preprocess(images) if isinstance(self.model, ImageModel) else images)
        handle.remove()
        return self.scores(output), kept[0]

    def scores(self, output):
        name = self.architecture.output
        return output if not name else output[name] if hasattr(output, "keys") else getattr(output, name, output[0])

    def picked(self, scores):
        target = self.target if isinstance(self.target, tuple) else (self.target,)
        return scores[(slice(None), *target)]

    def maps(self, activation):
        """Return an activation as (rows, channels, h, w), by the layout that the architecture states."""
        tokens = self.architecture.tokens or 0
        if isinstance(tokens, int):
            return activation[:, tokens:].mT.unflatten(2, self.architecture.map)
        return activation.movedim(3, 1) if tokens == "NHWC" else activation


def build(name):
    """Build an architecture with random weights of which no parameter is zero and batch norms fit the images."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[name]
    model = architecture.build()
    network = model.model if isinstance(model, ImageModel) else model
    network.eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() and parameter.abs().max() < 1e-3:  # zero heads, biases and small layer scales
                nn.init.normal_(parameter, std=0.1)
    coarse = torch.rand(4, 3, 9, 9)
    images, references = F.interpolate(coarse, (architecture.size,) * 2, mode="bilinear").split(2)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():  # models of transformers register hooks in their first pass
        model(torch.cat([images, references]))
    network.eval()
    if isinstance(model, ImageModel):
        model = replace(model, layer=default_layer(model))
        layer = model.layer
    else:
        module = last_map(model, images[:1])
        layer = next((name for name, one in network.named_modules() if one is module), None)
    return Case(architecture, model, images, references, layer or architecture.layer, layer)


def close(ours, expected, relative=1e-6, scale=None):
    """Compare relative to the largest expected value, which is not zero, or to a scale."""
    largest = expected.abs().max() if scale is None else scale
    assert ours.shape == expected.shape and (largest > 0).all()
    assert ((ours - expected).abs() <= relative * largest).all(), ((ours - expected).abs() / largest).max().item()


def check_layers(case):
    """The default layer is the one that the architecture's code suggests; its shape is listed."""
    name, architecture = case.layer, case.architecture
    shape = next(row.shape for row in list_layers(case.model, architecture.size) if row.name == name)
    if architecture.tokens is None:
        assert case.default is None
    else:
        assert case.default == architecture.layer, (name, shape)
        assert case.maps(torch.zeros(shape)).shape[2:] == architecture.map, (name, shape)


def check_contribution(case):
    """Activation x gradient, against autograd."""
    ours = LayerContribution(case.model, case.layer).attribute(case.images, target=case.target)
    scores, activation = case.run(case.images)
    (slope,) = torch.autograd.grad(case.picked(scores).sum(), activation)
    close(ours, (activation * slope).detach())


def check_canvas(case):
    """The contribution of each channel to each score is the sum over positions of activation x gradient."""
    canvas = NeuronCanvas(case.model, case.layer).attribute(case.images)
    scores, activation = case.run(case.images)
    (slope,) = torch.autograd.grad(case.picked(scores).sum(), activation)
    target = case.target if isinstance(case.target, tuple) else (case.target,)
    product = (activation * slope).detach()
    positions = (2, 3) if case.architecture.tokens == "NCHW" else tuple(range(1, product.dim() - 1))
    close(canvas[(slice(None), slice(None), *target)], product.sum(positions), 1e-4)


def check_rise(accentuate, seeds, score):
    """Images stay in [0, 1], and the scores are those of PyTorch alone; two small steps without random crops raise them."""
    for options in ({}, {"transforms": (), "lr": 1e-3}):
        result = accentuate(seeds, n_steps=2, **options)
        images = result.images
        assert images.shape == seeds.shape and images.min() >= 0 and images.max() <= 1 and not images.equal(seeds)
        with torch.no_grad():
            before, after = score(seeds), score(images)
        scale = torch.stack([before, after]).abs().amax(0)
        close(result.before, before, 1e-3, scale)
        close(result.after, after, 1e-3, scale)
    assert (result.after > result.before).all()


def check_accentuation(case):
    """The score of the target rises."""
    accentuate = partial(FeatureAccentuation(case.model).accentuate, target=case.target)
    check_rise(accentuate, case.images[:1], lambda images: case.picked(case.run(images)[0]))


def check_neuron_accentuation(case):
    """The mean of a channel over the map's positions rises."""
    accentuate = NeuronFeatureAccentuation(case.model, case.layer).accentuate
    with torch.no_grad():
        unit = int(case.maps(case.run(case.images)[1])[0].mean((1, 2)).argmax())
    score = lambda images: case.maps(case.run(images)[1])[:, unit].mean((1, 2))
    check_rise(partial(accentuate, neuron_selector=unit), case.images[:1], score)


def check_activation_map(case):
    """The weights sum to the cosine of the mean features, and the map is their weighted sum."""
    method = FeatureActivationMap(case.model, case.layer, case.references)
    with torch.no_grad():
        maps, others = (case.maps(case.run(images)[1]) for images in (case.images, case.references))
    f, g = maps.mean((2, 3)), others.mean((2, 3))[[1, 0]]
    cosine = F.cosine_similarity(f, g)
    torch.testing.assert_close(method.weights(case.images, target=[1, 0]).sum(1), cosine, atol=1e-5, rtol=0)
    alpha = f * g / (f.norm(dim=1) * g.norm(dim=1))[:, None]
    expected = (maps * (alpha * f.sign())[:, :, None, None]).sum(1, keepdim=True)
    close(method.attribute(case.images, target=[1, 0]), expected.relu(), 1e-4, expected.abs().max())


def penultimate(case):
    """Return the name of the last linear layer that runs, or of the last convolution."""
    rows = list_layers(case.model, case.architecture.size)
    linear = [row.name for row in rows if row.kind == "Linear"]
    return (linear or [row.name for row in rows if row.kind == "Conv2d"])[-1]


def check_links(case):
    """Representations of generated images are the input of the last linear layer."""
    generator = EigenGenerator(torch.cat([case.images, case.references]), torch.arange(4) % 2, components=2)
    layer, kept = penultimate(case), []
    pairs = make_pairs(case.model, layer, generator, 4, keep_class=False, batch_size=4)
    images = generator.synthesize(pairs.latents)
    handle = case.network.get_submodule(layer).register_forward_pre_hook(lambda m, a: kept.append(a[0].detach()))
    with torch.no_grad():
        scores = case.run(images)[0]
    handle.remove()
    close(pairs.logits, scores, 1e-3)
    entered = kept[0]
    close(Encoder(case.model, layer)(images), pairs.representations, 1e-3)
    pooled = entered[:, 0] if entered.dim() == 3 else entered.mean((2, 3)) if entered.dim() == 4 else entered
    close(pairs.representations, pooled, 1e-3)


def check_weights(case):
    """The contributions of the predictor's neurons and bias sum to <W, dy/dW> of the rebuilt network."""
    kernels = {n: m.weight[:, :, 0, 0].numel() for n, m in case.network.named_modules() if isinstance(m, nn.Conv2d)}
    nern = NeRN(case.model, layers=sorted(kernels, key=kernels.get)[:2] or None, hidden=4)
    rebuilt = nern.rebuild()
    model = replace(case.model, model=rebuilt) if isinstance(case.model, ImageModel) else rebuilt
    weights = [rebuilt.get_parameter(f"{layer.name}.weight") for layer in nern.layers]
    for canvas, weight in zip(WeightContribution(nern).attribute(), weights, strict=True):
        close(canvas.sum(0), weight.detach(), 1e-5)
    ours = WeightContribution(nern, mode="gradient").attribute(case.images[:1], target=case.target)
    scores = case.picked(replace(case, model=model).run(case.images[:1])[0]).sum()
    products = [w * slope for w, slope in zip(weights, torch.autograd.grad(scores, weights), strict=True)]
    expected = torch.stack([product.sum() for product in products])
    scale = torch.stack([product.abs().sum() for product in products])
    close(ours.sum(1)[0], expected, 1e-4, scale + 1e-20)  # random kernels may turn all activations off


def check_comparison(case):
    """The Grad-CAM map is that of Selvaraju et al. in PyTorch alone, resized; for the first class with a map."""
    image = case.images[:1]
    for target in range(CLASSES):
        found = compare(["Grad-CAM"], case.model, image, target, rounds=1, steps=2, baselines=(), metrics=("deletion",))
        if error := found.table[0].error:
            raise REFUSALS[error.partition(":")[0]](error.partition(": ")[2])
        ours = found.maps["Grad-CAM"]
        assert ours.shape == (1, *image.shape[2:]) and ours.isfinite().all()
        if ours.std() > 0:
            break
    scores, activation = case.run(image)
    (slope,) = torch.autograd.grad(scores[:, target].sum(), activation)
    maps, slopes = case.maps(activation.detach()), case.maps(slope)
    cam = (maps * slopes.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()
    assert ours.std() > 0
    close(ours, F.interpolate(cam, image.shape[2:], mode="bilinear", align_corners=False)[:, 0], 1e-3)


REFUSALS = {"LayerError": xinc_captum.LayerError, "TypeError": TypeError, "ValueError": ValueError}
CHECKS = {
    "list_layers, default_layer": check_layers,
    "LayerContribution": check_contribution,
    "NeuronCanvas": check_canvas,
    "FeatureAccentuation": check_accentuation,
    "NeuronFeatureAccentuation": check_neuron_accentuation,
    "FeatureActivationMap": check_activation_map,
    "Encoder, make_pairs": check_links,
    "NeRN, WeightContribution": check_weights,
    "compare, Grad-CAM": check_comparison,
}


def outcome(check, case):
    """Return "correct", or the class and the sentence of the package's refusal."""
    try:
        CHECKS[check](case)
    except tuple(REFUSALS.values()) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        package = str(Path(xinc_captum.__file__).parent)
        if not last.startswith(package) and check != "compare, Grad-CAM":
            raise
        return f"{type(error).__name__}: {error}"
    return "correct"


def general(sentence):
    """Return a sentence without the numbers and names of one model."""
    sentence = re.sub(r"layer '[^']*'", "layer '…'", re.sub(r"(?<!mean\()\(\d+(, \d+)+\)", "(n, …)", sentence))
    return re.sub(r"\b\d+ (samples?|images?|rows?)\b", r"n \1", sentence)
