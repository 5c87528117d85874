"""The audit and its controls, on a model in which images, representations and latents are the same four numbers."""

import json
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xinc_captum.attributions.linking import Encoder, LatentLink, LinkAudit, MLPLink, Pairs, latent_search
from xinc_captum.attributions.linking.moments import RankReport
from xinc_captum.generators import from_callable, normal_latents
from xinc_captum.metrics import r2, r2_within
from xinc_captum.metrics.links import SemanticOrder, class_means
from xinc_captum.metrics.statistics import Interval
from xinc_captum.store import StoreError

paint = from_callable(lambda w: w.float().view(-1, 1, 2, 2), lambda n, *_, generator=None: torch.rand(n, 4))


def brighter_half():
    """A model of pictures of 2 by 2: class 0 where the upper row is brighter, else class 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]))
        net[1].bias.zero_()
    return net.eval()


def paired(encoder, n, seed):
    w = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    seen = encoder.encode(w.float().view(-1, 1, 2, 2))
    return Pairs(w.clone(), w, seen.logits.argmax(1), seen.logits, 1.0, {"layer": "1"})


@pytest.fixture
def known():
    net = brighter_half()
    encoder = Encoder(net, "1")
    fit, held = paired(encoder, 200, 0), paired(encoder, 60, 1)
    link = LatentLink(ridge=0.0).fit(fit.representations, fit.latents, fit.classes, manifest=fit.manifest)
    return SimpleNamespace(net=net, encoder=encoder, fit=fit, held=held, link=link, real=held.latents.float())


def looked_at(known, link=None, held=None, **more):
    return (link or known.link).audit(held or known.held, encoder=known.encoder, generator=paint, **more)


def test_audit_of_the_identity_map(known):
    result = looked_at(known, fit=known.fit, real=known.real.view(-1, 1, 2, 2))
    held = known.held
    assert result.pairs == 60
    assert result.classes == 2
    assert result.r2 == result.r2_within == result.generated == result.real == pytest.approx((1.0, 1.0, 1.0))
    assert result.left_out_r2 == pytest.approx(1.0)
    assert result.cycle_r2 == pytest.approx(1.0)
    assert result.cycle_cosine == pytest.approx(1.0)
    torch.testing.assert_close(result.unit_cycle, torch.ones(4, dtype=torch.float64))
    assert result.class_mean_r2 == pytest.approx(float(r2(held.latents, class_means(held.latents, held.classes))))
    assert result.class_mean_agreement == 1.0
    assert result.leaked == result.duplicates == 0
    assert (result.unit_tolerance > 0.9).all(), "pixels drawn one by one say nothing of one another, but of the class"
    assert result.manifest == {"layer": "1"}
    assert result.report.rank == 4
    assert result.shuffled_within < 0.1
    assert result.trust.verdict == "holds"


def test_audit_of_a_reversed_map(known):
    """Linked to one minus the latents: every picture comes out as its negative."""
    link = LatentLink(ridge=0.0).fit(known.fit.representations, 1 - known.fit.latents, known.fit.classes)
    result, held = looked_at(known, link), known.held
    assert result.r2.value == pytest.approx(float(r2(held.latents, 1 - held.latents)))
    assert result.r2_within.value == pytest.approx(float(r2_within(held.latents, 1 - held.latents, held.classes)))
    assert result.cycle_r2 == pytest.approx(result.r2.value)
    torch.testing.assert_close(result.unit_cycle, -torch.ones(4, dtype=torch.float64))
    assert result.generated.value == 0, "the darker half is the brighter one now"
    assert result.class_mean_agreement == 0
    assert result.trust.verdict == "fails"


def test_leaks_and_repeats_are_counted(known):
    fit = known.fit.take(torch.arange(200).repeat(2))
    held = Pairs(
        *(torch.cat([getattr(known.held, name)[:45], getattr(known.fit, name)[:15]]) for name in HELD), 1.0, {}
    )
    result = LatentLink().fit(fit.representations, fit.latents).audit(held)
    assert (result.duplicates, result.leaked) == (0.5, 0.25)


def test_planted_repeats_weaken_the_verdict(known):
    """Nearly a quarter of the fitted pairs are copies; what the map explains stays as it was."""
    count = len(known.fit.latents)
    fit = known.fit.take(torch.cat([torch.arange(count), torch.arange(round(0.24 / 0.76 * count))]))
    link = LatentLink(ridge=0.0).fit(fit.representations, fit.latents, fit.classes)
    result = looked_at(known, link, fit=fit, real=known.real.view(-1, 1, 2, 2))
    assert result.duplicates == pytest.approx(0.24, abs=0.005) and result.held_out_duplicates == 0
    assert str(result.trust).startswith("weak, because 24% of the fitted pairs repeat others")
    held = known.held.take(torch.arange(60) // 2)
    again = looked_at(known, held=held, fit=known.fit, real=known.real.view(-1, 1, 2, 2))
    assert again.held_out_duplicates == 0.5 and again.duplicates == 0
    assert str(again.trust).startswith("weak, because 50% of the held-out pairs repeat others")


HELD = ("representations", "latents", "classes", "logits")


def test_figures_without_their_arguments_are_none(known):
    result = known.link.audit(known.held)
    for name in (
        "shuffled_within left_out_r2 generated real class_mean_agreement cycle_r2 cycle_cosine unit_cycle "
        "mlp_r2_within search_cycle_r2 search_from"
    ).split():
        assert getattr(result, name) is None
    assert result.searched == 0
    unclassed = LatentLink(ridge=0.0).fit(known.fit.representations, known.fit.latents)
    assert looked_at(known, unclassed).class_mean_agreement is None


def test_the_ceiling_trains_a_network_and_searches_latents(known):
    result = looked_at(known, fit=known.fit, ceiling=True, search_rows=5)
    assert 0.5 < result.mlp_r2_within <= 1
    assert result.search_from == pytest.approx(1.0)
    assert result.search_cycle_r2 >= result.search_from - 1e-9
    assert result.searched == 5
    assert known.link.audit(known.held, ceiling=True).mlp_r2_within is None


def test_a_class_without_a_map_counts_as_changed(known):
    own = known.fit.take(known.fit.classes == 1)
    link = LatentLink("per_class", 0.0).fit(own.representations, own.latents, own.classes)
    held = known.held.take(known.held.classes == 1)
    real = known.real.view(-1, 1, 2, 2)
    assert looked_at(known, link, held, real=real).real.value == pytest.approx(len(held) / len(known.held))
    assert looked_at(known, link, held, real=real[known.held.classes == 0]).real.value == 0


def test_figures_within_classes_are_none_without_variation(known):
    held = known.held.take(torch.stack([(known.held.classes == c).nonzero()[0, 0] for c in (0, 1)]))
    result = looked_at(known, held=held, fit=known.fit, ceiling=True)
    assert result.r2_within is result.shuffled_within is result.mlp_r2_within is None
    assert "nothing varies within the classes of the held-out pairs" in result.trust.because
    assert result.r2.value == pytest.approx(1.0)


def test_an_undetermined_leave_one_out_is_none(known):
    few = known.fit.take(torch.arange(4))
    link = LatentLink(ridge=0.0).fit(few.representations, few.latents)
    result = link.audit(known.held, few)
    assert result.left_out_r2 is None
    assert result.trust.because.startswith("a map of 4 live units was fitted to only 4 pairs;")
    assert result.shuffled_within is not None


def test_the_audit_depends_only_on_its_seed(known):
    noisy = replace(known.held, latents=known.held.latents + 0.1 * torch.randn(60, 4))
    first, again, other = (looked_at(known, held=noisy, fit=known.fit, seed=seed) for seed in (1, 1, 2))
    assert first.to_dict() == again.to_dict()
    assert first.r2.low != other.r2.low
    assert first.r2.value == other.r2.value


def test_the_ceiling_restores_model_and_generator(known, found):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).train()
    noisy = from_callable(lambda w: net(w.float() + 0.1 * torch.rand(4)).view(-1, 1, 2, 2), normal_latents(4))
    records = [(found(model), model) for model in (net, known.net)]
    real = known.real.view(-1, 1, 2, 2)
    settings = {"encoder": known.encoder, "generator": noisy, "real": real, "ceiling": True, "search_rows": 3}
    known.link.audit(known.held, known.fit, **settings)
    assert [record.differences(model) for record, model in records] == [[], []]
    with pytest.raises(ValueError, match=r"images have shape \(1, 2, 2\): expected"):
        known.link.audit(known.held, **settings | {"real": real[0]})
    assert [record.differences(model) for record, model in records] == [[], []]


def test_invalid_real_images_raise(known):
    real = known.real.view(-1, 1, 2, 2)
    for wrong, text in (
        (real.where(real > 0.1, torch.nan), "images hold NaN or infinity"),
        (255 * real, r"images lie in \[.*divide bytes by 255"),
        (
            torch.rand(3, 1, 4, 4),
            r"the model fails on images of shape \(1, 4, 4\) \(.*mat1 and mat2 .*\); the link's generator generates "
            r"\(1, 2, 2\)\. Give images of that size",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            looked_at(known, real=wrong)


def test_an_encoder_of_another_layer_raises(known):
    wide = nn.Sequential(*known.net, nn.Linear(2, 2))
    for encoder, text in (
        (Encoder(wide, "2"), "returns the input of layer '2', 2 units; the pairs have 4, the input of layer '1'. Give"),
        (
            Encoder(known.net, "1", attribute_to_neuron_input=False),
            "the encoder returns the output of layer '1', 2 units",
        ),
        (
            Encoder(nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(4, 2)), "2"),
            "returns the input of layer '2', 4",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            known.link.audit(known.held, encoder=encoder, generator=paint)


def test_errors(known):
    link, fit, held = known.link, known.fit, known.held
    own = LatentLink("per_class", 0.0).fit(fit.representations, fit.latents, fit.classes)
    third = fit.take(torch.arange(210) % 200)
    third.classes[200:] = 2  # the fit's own pairs, and ten of a class that it never saw
    narrow = LatentLink().fit(fit.representations, fit.latents[:, :3])
    for call, text in (
        (lambda: link.audit(held, encoder=known.encoder), "encoder and generator go together: give both, or neither"),
        (lambda: link.audit(held, generator=paint), "encoder and generator go together"),
        (lambda: link.audit(held, real=known.real), "real images need an encoder and a generator to be linked with"),
        (lambda: link.audit(held, held), "got 60 pairs that are not the 200 pairs of the fit"),
        (lambda: narrow.audit(held), r"got shapes \(60, 4\) and \(60, 3\)"),
        (lambda: own.audit(held, third), "class 2 is not linked; the classes of the fit are"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


@pytest.mark.parametrize("ends", [nn.Identity(), nn.Sigmoid()])
def test_a_single_logit_predicts_a_class_by_its_sign(known, ends):
    """One logit, lower minus upper row: as many pictures keep their class as with two."""
    net = brighter_half()
    with torch.no_grad():
        weight = net[1].weight[1:] - net[1].weight[:1]
        net[1] = nn.Linear(4, 1)
        net[1].weight.copy_(weight)
        net[1].bias.zero_()
    net.append(ends)
    encoder = Encoder(net, "1")
    link = LatentLink(ridge=0.0).fit(known.fit.representations, 1 - known.fit.latents, known.fit.classes)
    two = looked_at(known, link, real=known.real.view(-1, 1, 2, 2))
    held = replace(known.held, logits=encoder.encode(known.held.latents.float().view(-1, 1, 2, 2)).logits)
    one = link.audit(held, encoder=encoder, generator=paint, real=known.real.view(-1, 1, 2, 2))
    assert one.generated == two.generated and one.real == two.real and one.generated.value == 0
    assert one.class_mean_agreement is None and one.trust.verdict == "fails"


SOUND = {
    "pairs": 30,
    "classes": 10,
    "r2": Interval(0.9, 0.8, 0.95),
    "r2_within": Interval(0.7, 0.6, 0.8),
    "class_mean_r2": 0.5,
    "shuffled_within": -0.1,
    "left_out_r2": 0.9,
    "duplicates": 0.0,
    "leaked": 0.0,
    "generated": Interval(0.98, 0.95, 1.0),
    "real": Interval(0.9, 0.85, 0.95),
    "class_mean_agreement": 1.0,
    "cycle_r2": 0.8,
    "cycle_cosine": 0.9,
    "unit_cycle": torch.tensor([0.5, torch.nan], dtype=torch.float64),
    "unit_tolerance": torch.tensor([0.25, torch.nan], dtype=torch.float64),
    "order": SemanticOrder(None, None, 0.5, 0.01, 0.4, 0.1, 0.02),
    "mlp_r2_within": None,
    "search_cycle_r2": None,
    "search_from": None,
    "searched": 0,
    "report": RankReport(100, 2, 1, 1, 1.0, 1.0, 0),
    "manifest": {"layer": "fc"},
}


def audit(**changed):
    return LinkAudit(**SOUND | changed)


@pytest.mark.parametrize(
    ("changed", "verdict", "because"),
    [
        ({}, "holds", "it explains 0.70 .* within classes, shuffled -0.10, and 0.90 .* of real pictures keep their"),
        ({"leaked": 0.2}, "fails", "20% of the held-out pairs were in the fit"),
        ({"shuffled_within": 0.78}, "fails", "within classes it explains nothing .*shuffled 0.78"),
        ({"generated": Interval(0.3, 0.2, 0.4)}, "fails", "only 0.30 .* of generated pictures"),
        ({"real": None}, "weak", "no real pictures were looked at"),
        ({"duplicates": 0.24}, "weak", "24% of the fitted pairs repeat others"),
        ({"held_out_duplicates": 0.1}, "weak", "10% of the held-out pairs repeat others"),
        ({"cycle_r2": 0.2}, "weak", "gives back 0.20 of the representation"),
        ({"classes": 1}, "weak", "all held-out pairs are of one class, so that keeping it says nothing"),
        ({"r2_within": None}, "weak", "may be that of class means"),
    ],
)
def test_every_figure_of_the_verdict_is_passed_to_it(changed, verdict, because):
    result = audit(**changed)
    assert result.trust.verdict == verdict
    assert re.search(because, result.trust.because)
    assert result.trust is result.trust


def test_to_dict_by_hand():
    told = audit().to_dict()
    assert list(told) == ["trust", *(one.name for one in fields(LinkAudit))]
    assert told["trust"]["verdict"] == "holds"
    assert told["r2"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert told["unit_cycle"] == [0.5, None]
    assert told["unit_tolerance"] == [0.25, None]
    assert told["order"]["within"] == 0.5
    assert told["report"]["pairs"] == 100
    assert told["mlp_r2_within"] is None


def test_to_dict_has_none_instead_of_nan():
    nothing = float("nan")
    result = audit(r2=Interval(nothing, nothing, nothing), class_mean_r2=nothing, cycle_r2=-float("inf"))
    told = result.to_dict()
    assert told["r2"] == {"value": None, "low": None, "high": None}
    assert told["class_mean_r2"] is None
    assert told["cycle_r2"] is None
    json.dumps(told, allow_nan=False)


def test_an_audit_is_saved_in_a_folder(tmp_path):
    path = audit().save(str(tmp_path / "audit"))
    assert path == tmp_path / "audit"
    told = json.loads((path / "manifest.json").read_text(encoding="utf-8"))["audit"]
    whole = audit().to_dict()
    assert told == {name: value for name, value in whole.items() if not name.startswith("unit_")}
    held = load_file(path / "units.safetensors")
    assert torch.equal(held["unit_cycle"][:1], SOUND["unit_cycle"][:1])
    assert set(held) == {"unit_cycle", "unit_tolerance"}
    audit(unit_cycle=None).save(path)
    assert set(load_file(path / "units.safetensors")) == {"unit_tolerance"}


def test_save_does_not_overwrite_other_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="so it is not an earlier result and is not replaced"):
        audit().save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_mlp_link_beats_a_line_on_a_curve_and_is_deterministic():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(600, 3, generator=generator)
    r[:, 2] = 4.0
    w = torch.stack([r[:, 0] * r[:, 1], r[:, 0].square()], 1)
    state = torch.get_rng_state()
    link = MLPLink(64, seed=1).fit(r[:500], w[:500])
    assert torch.equal(torch.get_rng_state(), state)
    assert float(r2(w[500:], link(r[500:]))) > 0.8
    assert float(LatentLink().fit(r[:500], w[:500]).score(r[500:], w[500:])) < 0.3
    assert torch.equal(MLPLink(64, seed=1).fit(r[:500], w[:500])(r), link(r))
    assert not any(p.requires_grad for p in link.parameters())


def test_mlp_link_errors():
    with pytest.raises(ValueError, match="hidden is 0"):
        MLPLink(0)
    with pytest.raises(ValueError, match="the network is not fitted"):
        MLPLink()(torch.rand(2, 3))


def test_mlp_link_with_constant_units_and_large_means():
    generator = torch.Generator().manual_seed(0)
    r = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    w = r[:, :2] * 2 - 1
    plain = MLPLink(16).fit(r, w, epochs=20)(r)
    shifted = r + torch.tensor([1e8, 0.0, 0.0], dtype=torch.float64)  # float32 has no digits left for these
    torch.testing.assert_close(MLPLink(16).fit(shifted, w, epochs=20)(shifted), plain, rtol=0, atol=1e-3)


def test_latent_search_reaches_the_representation_and_restores_the_model(found):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)).eval()
    basis = torch.randn(4, 16)
    paint = from_callable(lambda w: (w @ basis).sigmoid().view(-1, 1, 4, 4), normal_latents(4))
    encode = Encoder(net, "4")
    truth = torch.randn(6, 4)
    r = encode(paint.synthesize(truth))
    start = truth + 0.5 * torch.randn(6, 4)
    record = found(net)
    done = latent_search(encode, paint, r, start, scale=r.std(0), steps=150)
    assert record.differences(net) == []
    assert (done.errors < 0.05 * done.before).all()
    stuck = latent_search(encode, paint, r, truth, scale=r.std(0), steps=3, lr=100.0)
    assert torch.equal(stuck.latents, truth)
    assert (stuck.errors <= stuck.before).all()


def test_a_generator_in_training_mode_is_restored(found):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).train()
    paint = from_callable(lambda w: net(w + 0.1 * torch.rand_like(w)).view(-1, 1, 2, 2), normal_latents(4))
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    r, start = torch.rand(3, 4), torch.randn(3, 4)
    record = found(net)
    latent_search(encode, paint, r, start, scale=torch.ones(4), steps=2)
    assert record.differences(net) == []


def test_latent_search_ignores_dead_units():
    paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    r = torch.tensor([[0.5, 0.5, 0.5, 9.0]])
    done = latent_search(encode, paint, r, torch.zeros(1, 4), scale=torch.tensor([1.0, 1.0, 1.0, 0.0]), steps=2)
    assert float(done.before) == 0


def test_latent_search_errors():
    blind = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4), differentiable=False)
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    with pytest.raises(ValueError, match="the generator is not differentiable"):
        latent_search(encode, blind, torch.ones(1, 4), torch.ones(1, 4), scale=torch.ones(4))
    seeing = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    with pytest.raises(ValueError, match="steps is 0"):
        latent_search(encode, seeing, torch.ones(1, 4), torch.ones(1, 4), scale=torch.ones(4), steps=0)
