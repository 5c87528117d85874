"""The table of architectures and classes: each cell is a correct result or a named refusal, and restores all state."""

import re

import architectures
import pytest

OUTPUTS = r"TypeError: the model returned .* with last_hidden_state .*, pooler_output .*output_fn=lambda output: output.pooler"
AXIS = r"LayerError: layer '.*' returns .* which axis holds the units cannot be determined: .*Give unit_axis=1 .*unit_axis=-1"
SCORES = r"ValueError: the model's output has shape .*; expected scores \(n, classes\). Select them with output_fn="
PIXELS = r"ValueError: the model returned .* For the maps of a segmentation, give output_fn=lambda output: output.*mean\(\(2, 3\)\)"
SEGMENTATION = {"Encoder, make_pairs": SCORES, "compare, Grad-CAM": PIXELS}
WITHOUT_OUTPUT = ("list_layers, default_layer", "NeuronFeatureAccentuation", "FeatureActivationMap")
BACKBONE = {check: OUTPUTS for check in architectures.CHECKS if check not in WITHOUT_OUTPUT}
REFUSED = {
    "torchvision:lraspp_mobilenet_v3_large": SEGMENTATION,
    "torchvision FCN": SEGMENTATION,
    "hf: SegFormer, segmentation": SEGMENTATION,
    "transformers DINOv2": BACKBONE,
    "transformers CLIP vision": BACKBONE,
    "timm Hiera": {
        "NeuronCanvas": AXIS,
        "NeuronFeatureAccentuation": AXIS + ".*Hiera orders its tokens by mask units",
        "FeatureActivationMap": r"ValueError: layer '.*' returns shape .*Hiera orders its tokens by mask units, not row by row",
        "compare, Grad-CAM": "ValueError: Grad-CAM needs a layer, but no layer of this model has maps .* Give layer=",
    },
}
FAST = (
    "torchvision:squeezenet1_1",
    "torchvision ConvNeXt",
    "torchvision ViT",
    "torchvision Swin",
    "timm ViT, registers",
    "transformers ViT",
    "transformers DINOv2",
    "transformers ConvNeXt",
    "transformers SegFormer",
    "hf: CLIP",
    "hf: SegFormer, segmentation",
    "open_clip: ViT",
)
pytestmark = pytest.mark.filterwarnings(
    "ignore:All outputs of the model:UserWarning", "ignore:Grad-CAM returned:UserWarning"
)
checks = pytest.mark.parametrize("check", architectures.CHECKS)


@pytest.fixture(scope="module")
def case(request):
    return architectures.build(request.param)


@pytest.fixture
def name(request):
    return request.node.callspec.params["case"]


def check_cell(case, name, check, found):
    state = found(case.network)
    outcome = architectures.outcome(check, case)
    expected = REFUSED.get(name, {}).get(check, "correct$")
    assert re.match(expected, outcome), outcome
    assert state.differences(case.network) == []


@checks
@pytest.mark.parametrize("case", FAST, indirect=True)
def test_cell(case, name, check, found):
    check_cell(case, name, check, found)


@checks
@pytest.mark.parametrize("case", [one for one in architectures.ARCHITECTURES if one not in FAST], indirect=True)
def test_further_cell(case, name, check, found):
    check_cell(case, name, check, found)


def test_the_table_covers_the_libraries():
    count = dict.fromkeys(("torchvision", "timm", "transformers", "hf", "open_clip"), 0)
    for one in architectures.ARCHITECTURES:
        count[re.split("[: ]", one)[0]] += 1
    assert count["torchvision"] >= 14 and count["timm"] >= 14 and count["transformers"] + count["hf"] >= 8
    assert count["open_clip"] == 2 and sum(":" in one for one in architectures.ARCHITECTURES) >= 10
    assert REFUSED.keys() | set(FAST) <= architectures.ARCHITECTURES.keys()
