import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.cli.verdicts import Judged, judged
from xinc_captum.inr import FourierMLP, Siren, coordinates
from xinc_captum.metrics.canvas_trust import CanvasTrust, judged_canvas

SIZE = (12, 16)


def canvas_of(model, rule, layer="activation1"):
    return NeuronCanvas(model, layer, rule=rule).canvas(coordinates(SIZE), SIZE)


def never():
    raise AssertionError("the tangent is not asked")


def test_a_layer_that_holds_says_its_reason_and_no_more():
    canvas = canvas_of(FourierMLP(hidden=6, seed=0), "secant", "activation2")
    found = judged(canvas, never)
    assert (found.layer, found.tangent, found.trust) == ("activation2", None, canvas.trust)
    assert (found.line.name, found.line.verdict) == ("activation2", "holds")
    assert found.line.rest == f", because {canvas.trust.because}."
    assert found.numbers() == {"verdict": "holds", "because": canvas.trust.because, "agreement": pytest.approx(1)}


def test_where_the_secant_does_not_hold_the_tangent_is_judged_too():
    model = Siren(hidden=24, layers=3, first_omega=40.0, seed=0)
    secant, tangent = canvas_of(model, "secant"), canvas_of(model, "tangent")
    found = judged(secant, lambda: tangent)
    assert found.trust.verdict != "holds"
    assert found.tangent == tangent.trust
    assert f"(ρ {tangent.trust.agreement:.2f}: {tangent.trust.verdict})" in found.line.rest


@pytest.mark.parametrize("rule", ["tangent", "ablation"])
def test_other_rules_get_no_advice(rule):
    model = Siren(hidden=24, layers=3, first_omega=40.0, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 8  # so steep that even the tangent ranks unlike removal
    found = judged(canvas_of(model, rule), never)
    assert found.tangent is None and (found.trust.verdict == "holds") == (rule == "ablation")


@pytest.mark.parametrize(
    ("tangent", "said"),
    [
        (0.97, " With --rule tangent it ranks as removal does (ρ 0.97: holds), but then the parts do not add up."),
        (0.6, " With --rule tangent it comes nearer to removal (ρ 0.60: weak), but then the parts do not add up."),
        (0.3, " --rule tangent does no better here (ρ 0.30: fails); --rule ablation is removal itself."),
        (None, ""),
    ],
)
def test_the_advice_is_what_the_tangent_does_here(tangent, said):
    trust = judged_canvas(agreement=0.4, gap=0.0)
    line = Judged("a", trust, judged_canvas(agreement=tangent)).line
    assert line.rest == f", because {trust.because}.{said}"


def test_what_was_not_compared_is_null_in_the_manifest():
    assert Judged("a", CanvasTrust("weak", "nothing")).numbers()["agreement"] is None
