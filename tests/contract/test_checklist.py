"""Every line of the drop-in checklist is tested for every public attribution class, or has a reason why it cannot hold."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from captum.attr import Attribution
from contract.methods import METHODS, Net

import xinc_captum

LINES = {
    1: "NoiseTunnel", 2: "sensitivity_max", 3: "infidelity", 4: "Captum's plots", 5: "LayerAttribution.interpolate",
    6: "Captum Insights", 7: "a metric of Quantus", 8: "quantus.evaluate", 9: "grad-cam's ROAD",
    10: "AttackComparator, MinParamPerturbation", 11: "zennit's rules", 12: "active grad-cam hooks", 13: "active torchcam hooks",
    14: "DataParallel", 15: "torch.compile", 16: "traced models", 17: "autocast, bfloat16, float64",
    18: "memory formats", 19: "no_grad, inference_mode, frozen", 20: "tuples, forward arguments, output_fn",
    21: "a layer that runs twice, operations in place",
}  # fmt: skip
CLASSES = sorted(
    name for name, thing in vars(xinc_captum).items() if inspect.isclass(thing) and issubclass(thing, Attribution)
)
LAYERS, INPUTS = {"LayerContribution", "FeatureActivationMap"}, {"FeatureAccentuation", "NeuronFeatureAccentuation"}
INPUTS = INPUTS | {"LinkedUnitVisualization"}
CANVAS, TOKEN, WEIGHT = "NeuronCanvas", "TokenContribution", "WeightContribution"
NO_PICTURE = "its result has axes of neurons and outputs, not of the input's pixels"
WHY_NOT = {
    3: {
        **dict.fromkeys([CANVAS, TOKEN, WEIGHT], NO_PICTURE),
        "FeatureActivationMap": "its result belongs to a layer and explains no output that could be perturbed",
    },
    4: {TOKEN: "its result is an image for each token, not a single map"},
    5: dict.fromkeys([CANVAS, TOKEN, WEIGHT, *INPUTS], "its result does not have the shape of a layer"),
    6: dict.fromkeys(CLASSES, "captum.insights was removed in captum 0.9"),
    7: dict.fromkeys([CANVAS, TOKEN, WEIGHT], NO_PICTURE),
    8: dict.fromkeys([CANVAS, TOKEN, WEIGHT], NO_PICTURE),
    9: dict.fromkeys([CANVAS, TOKEN, WEIGHT], NO_PICTURE),
    10: dict.fromkeys([CANVAS, TOKEN, WEIGHT, *LAYERS], "its result has no pixels to perturb"),
    11: {
        **dict.fromkeys(
            [TOKEN, WEIGHT], "it attributes to a network's weights; zennit's rules change the model's backward pass"
        ),
        **dict.fromkeys(INPUTS, "its gradients optimize or edit the image; rules would change the optimization"),
        "FeatureActivationMap": "it makes no backward pass",
    },
    12: {TOKEN: "grad-cam requires a classifier, and this explains a network that outputs images"},
    13: {TOKEN: "torchcam requires a classifier, and this explains a network that outputs images"},
    20: {TOKEN: "it accepts a TransINR and its tensor of images, and no function around the model"},
    21: {TOKEN: "it has no layer argument"},
}


def covered():
    """(class, line) of every test of this folder whose name says a line."""
    made_by = {m.name: type(m.on(Net().eval())).__name__ for m in METHODS}
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.stem == Path(__file__).stem:
            continue
        for name, test in vars(importlib.import_module(f"contract.{path.stem}")).items():
            found = re.match(r"test_(tokens_)?lines?_(\d+)(?:_and_(\d+))?", name)
            if not found:
                continue
            marks = [m.args for m in getattr(test, "pytestmark", []) if m.name == "parametrize"]
            methods = [m.name for names, values, *_ in marks if names == "method" for m in values]
            about = {made_by[one] for one in methods} | ({TOKEN} if found[1] else set())
            about |= {name for name in CLASSES if not about and name in inspect.getsource(test)}
            yield from ((one, int(line)) for one in about for line in found.groups()[1:] if line)


TESTED = set(covered())


def test_every_public_attribution_is_in_the_table():
    assert {name for name, _ in TESTED} == set(CLASSES)


@pytest.mark.parametrize("line", LINES, ids=lambda n: f"{n}: {LINES[n]}")
@pytest.mark.parametrize("name", CLASSES)
def test_each_requirement_has_a_test_or_a_reason(name, line):
    reason = WHY_NOT.get(line, {}).get(name)
    assert ((name, line) in TESTED) is not bool(reason), f"line {line}, {LINES[line]}: a test for {name}, or a reason"
    if reason:
        pytest.skip(f"line {line}, {LINES[line]}: {reason}")
