"""Results are pickled and copied completely, verdict included, or raise an error with the alternative."""

import copy
import pickle
import warnings
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from contract.methods import PAINT, linked
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    TransINR,
    compare,
    untouched,
)
from xinc_captum.attributions import open_canvas
from xinc_captum.attributions.linking import Encoder, LatentLink, make_pairs
from xinc_captum.attributions.linking.unit_tables import quantify
from xinc_captum.attributions.nern import NeRN
from xinc_captum.comparison import COLUMNS, Column
from xinc_captum.inr import FourierMLP, coordinates, fit
from xinc_captum.metrics import Interval, deletion_insertion


def parts(thing, seen=()):
    """All tensors, numbers and words in a result, by where they are."""
    if isinstance(thing, torch.Tensor | int | float | str | None):
        yield seen, thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from parts(value, (*seen, key))
    elif isinstance(thing, list | tuple):
        for place, value in enumerate(thing):
            yield from parts(value, (*seen, place))
    elif is_dataclass(thing):
        for one in fields(thing):
            yield from parts(getattr(thing, one.name), (*seen, one.name))
    elif isinstance(thing, nn.Module):
        yield from parts(dict(thing.state_dict()), (*seen, "state"))


def assert_same(found, expected):
    assert type(found) is type(expected)
    one, other = dict(parts(found)), dict(parts(expected))
    assert one.keys() == other.keys() and one
    for place, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[place], rtol=0, atol=0, equal_nan=True, msg=str(place))
        else:
            assert value == other[place] or (value != value and other[place] != other[place]), place


def accentuation(net, x):
    return FeatureAccentuation(net).accentuate(x, 1, n_steps=2, natural=torch.rand(4, 3, 6, 6))


def pairs(net):
    return make_pairs(net, "relu", PAINT, 40, keep_class=False, attribute_to_neuron_input=False)


def audit(net):
    made = pairs(net)
    return LatentLink().fit(made.representations, made.latents).audit(made, fit=made)


def table(net):
    link = linked(net, "relu")._link
    return quantify(PAINT, link, torch.rand(3, 5), [0, 2], measures=["luminance"])


def nern(net):
    return NeRN(net, ["conv"], hidden=6, levels=4).fit(torch.rand(8, 3, 6, 6), steps=4, every=2, batch_size=4)


def trans_inr():
    return TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0)


def compared(net, x, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compare(["Grad-CAM"], net, x, 1, "relu", rounds=1, steps=4, **kwargs)


RESULTS = {
    "Accentuation": accentuation,
    "Accentuation of a neuron": lambda net, x: NeuronFeatureAccentuation(net, "relu").accentuate(x, 2, n_steps=2),
    "UnitSweep": lambda net, x: linked(net, "relu").sweep(x, 2, [0.0, 0.5]),
    "Counterfactual": lambda net, x: linked(net, "relu").counterfactual(x, 1),
    "Counterfactual minimal": lambda net, x: linked(net, "relu").counterfactual(x, 1, "latent"),
    "Comparison": compared,
    "Pairs": lambda net, x: pairs(net),
    "Encoded": lambda net, x: Encoder(net, "fc").encode(x),
    "LinkAudit": lambda net, x: audit(net),
    "LatentLink": lambda net, x: linked(net, "relu")._link,
    "UnitTable": lambda net, x: table(net),
    "NernFit": lambda net, x: nern(net),
    "TransFit": lambda net, x: trans_inr().fit(torch.rand(6, 3, 6, 6), steps=2, batch_size=2, show_progress=False),
    "Routing": lambda net, x: trans_inr().routing(x),
    "Fit": lambda net, x: fit(FourierMLP(seed=0), torch.rand(3, 4, 4), steps=2, show_progress=False),
    "DeletionInsertion": lambda net, x: deletion_insertion(net, x, x.mean(1), 1, steps=4),
    "TopUnits": lambda net, x: (
        NeuronCanvas(FourierMLP(), "activation1").canvas(coordinates((4, 4)), (4, 4)).top_units(2)
    ),
    "Interval": lambda net, x: Interval(1.0, 0.5, 1.5),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_pickles_and_copies_are_complete(make, net, x):
    result = make(net, x)
    said = str(result.trust) if hasattr(result, "trust") else ""
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result), copy.copy(result)):
        assert_same(again, result)
        assert not said or str(again.trust) == said


def test_a_missing_verdict_is_computed_before_pickling(net, x, found):
    result, before = accentuation(net, x), found(net)
    again = pickle.loads(pickle.dumps(result))
    assert before.differences(net) == []
    with torch.no_grad():
        net.fc.weight.zero_()  # the unpickled result does not look at the model
    assert again.trust == result.trust and again.trust.rows[0].path is not None
    with pytest.raises(RuntimeError, match="was changed after it was unpickled, so its verdict is not valid"):
        replace(again, images=1 - again.images).trust  # noqa: B018


def test_an_unpickled_accentuation_saves_itself(net, x, tmp_path):
    again = pickle.loads(pickle.dumps(accentuation(net, x)))
    assert (again.save(tmp_path / "one") / "accentuation.safetensors").is_file()


def test_a_copied_accentuation_uses_the_same_model(net, x, found):
    result, before = accentuation(net, x), found(net)
    calls = []
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    assert str(copy.deepcopy(result).trust) == str(result.trust)
    assert calls
    handle.remove()
    assert before.differences(net) == []


@pytest.mark.parametrize("frames", [False, True])
def test_a_canvas_that_cannot_be_pickled_names_the_remedy(frames, net, x):
    if frames:
        canvas = NeuronCanvas(nn.Sequential(net.conv, net.norm), "0").canvas(x, (6, 6))
    else:
        canvas = NeuronCanvas(FourierMLP(), "activation1").canvas(coordinates((4, 6)), (4, 6))
    with pytest.raises(
        TypeError, match=r"a (Frame)?Canvas holds no maps, .* cannot be pickled\. Write it with canvas.save"
    ):
        pickle.dumps(canvas)


def test_copies_of_a_canvas_share_its_model_and_protect_it(net, x, found):
    model = nn.Sequential(net.conv, net.norm).train()
    with untouched(model):
        model.eval()
        canvas = NeuronCanvas(model, "0").canvas(x, (6, 6))
    before = found(model)
    for other in (copy.copy(canvas), copy.deepcopy(canvas)):
        torch.testing.assert_close(other.totals(), canvas.totals())
        assert other._surroundings is canvas._surroundings and str(other.trust) == str(canvas.trust)
    assert before.differences(model) == []


@pytest.mark.parametrize("frames", [False, True])
def test_a_canvas_on_disk_is_pickled_by_its_path(frames, net, x, tmp_path, monkeypatch):
    pytest.importorskip("zarr", reason="pip install 'xinc-captum[store]'")
    if frames:
        canvas = NeuronCanvas(nn.Sequential(net.conv, net.norm), "0").canvas(x, (6, 6))
    else:
        canvas = NeuronCanvas(FourierMLP(), "activation1").canvas(coordinates((4, 6)), (4, 6))
    monkeypatch.chdir(tmp_path)
    canvas.save("one")
    opened = open_canvas("one")
    content, expected = pickle.dumps(opened), (opened.totals(), opened.map(2), str(opened.trust))
    monkeypatch.chdir("/")
    again = pickle.loads(content)
    assert type(again) is type(canvas) and torch.equal(again.totals(), expected[0])
    assert torch.equal(again.map(2), expected[1]) and str(again.trust) == expected[2]
    (tmp_path / "one").rename(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="there is no canvas at"):
        pickle.loads(content)


def steepest(case):
    """A measure at the top of a module."""
    return case.maps.flatten(1).amax(1)


def test_a_comparison_with_measures_of_ones_own(net, x):
    own = [
        Column("steepest", "steepest", "", steepest),
        Column("mean", "mean", "", lambda c: c.maps.flatten(1).mean(1)),
    ]
    result = compared(net, x, metrics=["sparseness", *own])
    again = pickle.loads(pickle.dumps(result))
    assert_same(again, result)
    assert str(again) == str(result) and again.to_dict() == result.to_dict()
    by_name = {column.name: column for column in again.columns}
    assert by_name["sparseness"] is next(c for c in COLUMNS if c.name == "sparseness")
    assert by_name["steepest"].of is steepest
    with pytest.raises(TypeError, match="This measure was unpickled without its function, which was a lambda"):
        by_name["mean"].of(None)
    assert copy.deepcopy(result).columns == result.columns
