"""Calls in several threads: each result equals that of a single thread, and the model is restored."""

import copy
import sys
import threading
import warnings

import pytest
import torch
from contract.methods import METHODS, PAINT, Broken, attribute, every, having, linked
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    LayerContribution,
    NeuronCanvas,
    TokenContribution,
    TransINR,
    WeightContribution,
    canvases,
    compare,
)
from xinc_captum.attributions.linking import Encoder, make_pairs
from xinc_captum.attributions.nern import NeRN, with_noise
from xinc_captum.inr import FourierMLP, coordinates, fit
from xinc_captum.metrics import deletion_insertion

FOUR = lambda: torch.rand(4, 2, 3, 6, 6, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def _short_turns():
    """Threads change places twenty times more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 20)
    yield
    sys.setswitchinterval(usual)


def in_threads(*calls, seconds=60):
    """Run each in a thread of its own, all at once; results in order. Fails on a deadlock and raises what one raised."""
    found, begin = [None] * len(calls), threading.Barrier(len(calls))

    def run(place):
        begin.wait()
        try:
            found[place] = (calls[place](), None)
        except BaseException as error:
            found[place] = (None, error)

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    for _, error in found:
        if error is not None:
            raise error
    return [answer for answer, _ in found]


def check(calls, model, found):
    """Four threads run all calls, each begins with another one; the results are those of one thread."""
    expected = [call() for call in calls]
    before = found(model)
    each = max(2, -(-len(calls) // 2))  # of four threads: every call runs twice
    turn = lambda start: lambda: {i % len(calls): calls[i % len(calls)]() for i in range(start, start + each)}
    for answers in in_threads(*[turn(place * each // 2) for place in range(4)]):
        for place, answer in answers.items():
            torch.testing.assert_close(answer, expected[place], rtol=0, atol=0)
    assert before.differences(model) == []


@every
def test_four_threads_on_one_model(method, net, found):
    check([lambda x=x: attribute(method, net, x) for x in FOUR()], net, found)


def test_four_threads_of_different_classes(net, found):
    check(
        [lambda m=m, x=x: attribute(m, net, x) for m, x in zip(METHODS[::2], [*FOUR(), *FOUR()], strict=False)],
        net,
        found,
    )


@having("perturb")
def test_four_threads_perturb(method, net, found):
    name, least, _, step = method.dose
    calls = [lambda x=x: method.on(net).perturb(x, **method.perturbed, **{name: least + step}) for x in FOUR()]
    check(calls, net, found)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation", "xinc"])
def test_four_threads_query_one_canvas(rule, net, found):
    model = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    at_input = rule == "xinc"
    kwargs = {"attribute_to_layer_input": at_input, "memory_budget": 6000}
    make = lambda: NeuronCanvas(model, "4" if at_input else "3", rule=rule).canvas(
        coordinates((6, 8)), (6, 8), **kwargs
    )
    one = make()
    masks = torch.rand(2, 6, 8)
    calls = [
        lambda: one.totals(),
        lambda: one.map(2),
        lambda: make().regions(masks, signed=True),
        lambda: torch.tensor([make().trust.agreement or 0.0, one.trust.agreement or 0.0]),
        lambda: canvases(model, ["2", "4"], coordinates((6, 8)), (6, 8), rule=rule, **kwargs)["4"].totals(),
    ]
    check(calls, model, found)


def test_four_threads_query_a_canvas_of_frames(net, x, found):
    canvas = NeuronCanvas(nn.Sequential(net.conv, net.norm), "0").canvas(x, (6, 6))
    calls = [lambda: canvas.totals(), lambda: canvas.map(1), lambda: canvas.to_tensor(), lambda: canvas.map(2, 0, 1)]
    check(calls, net, found)


def test_four_threads_accentuate_and_judge(net, found):
    natural = torch.rand(4, 3, 6, 6)

    def call(x):
        found = FeatureAccentuation(net).accentuate(x, 1, n_steps=2, natural=natural, transfer=net)
        evidence = found.trust.rows[0]
        return torch.tensor([float(found.after[0]), evidence.transfer, evidence.path or 0.0])

    check([lambda x=x: call(x) for x in FOUR()], net, found)


def test_seeded_objectives_draw_the_same_in_every_thread(net, found):
    """The objective and the model draw from torch's global generator, which belongs to all threads."""
    net.fc = nn.Sequential(nn.Dropout(0.5), net.fc)
    net.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = lambda x, seed: FeatureAccentuation(net).accentuate(x, 1, n_steps=2, seed=seed).images
        check([lambda x=x, s=s: call(x, s) for s, x in enumerate(FOUR())], net, found)


def test_seeded_networks_are_the_same_in_every_thread(net, found):
    calls = [lambda s=s: torch.cat([p.flatten() for p in FourierMLP(seed=s).parameters()]) for s in range(4)]
    check(calls, net, found)


def test_four_threads_link(net, found):
    units = linked(net, "relu")
    check(
        [
            lambda: units.sweep(FOUR()[0], 2, [0.0, 0.5]).images,
            lambda: torch.stack([one.scores for one in units.sweeps(FOUR()[1], [0, 1, 3], [0.1, 0.4])]),
            lambda: units.counterfactual(FOUR()[2], 1).images,
            lambda: units.counterfactual(FOUR()[3], 2, "latent").scores,
            lambda: make_pairs(net, "relu", PAINT, 6, keep_class=False, attribute_to_neuron_input=False).latents,
            lambda: Encoder(net, "fc")(FOUR()[0]),
        ],
        net,
        found,
    )


def test_four_threads_measure(net, found):
    calls = [lambda x=x: torch.cat([*deletion_insertion(net, x, x.mean(1), 1, steps=4)]) for x in FOUR()[:2]]
    calls += [
        lambda x=x: compare(["Grad-CAM"], net, x, 1, "relu", rounds=1, steps=4).maps["Grad-CAM"] for x in FOUR()[:2]
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(calls, net, found)


def test_a_nern_is_fitted_while_others_explain_its_target(net, x, found):
    def fitted():
        nern = NeRN(net, ["conv"], hidden=6, levels=4)
        nern.fit(torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), steps=6, every=3, batch_size=4)
        return nern.rebuild()(x).detach()

    check(
        [
            fitted,
            lambda: attribute(METHODS[0], net, x),
            lambda: WeightContribution(NeRN(net, ["conv"], hidden=6, levels=4), "conv", mode="gradient").attribute(
                x, 1
            ),
            lambda: with_noise(net, 0.1)(x).detach(),
        ],
        net,
        found,
    )


def test_four_threads_on_one_trans_inr(found):
    model = TransINR(3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, count=2, groups=3, seed=0).eval()
    xs = FOUR()
    calls = [
        lambda: TokenContribution(model, "token").attribute(xs[0], 1),
        lambda: TokenContribution(model, "modulation").attribute(xs[1], 1, n_steps=2),
        lambda: TokenContribution(model, "patch").attribute(xs[2], 1, n_steps=2),
        lambda: TokenContribution(model, "patch").composed(xs[3], 1, n_steps=2),
    ]
    check(calls, model, found)


def test_a_fit_in_one_thread_and_contributions_in_another():
    """A step of a fit is never met in its middle: gradients are not taken away from it."""
    image = torch.rand(3, 6, 8)

    def fitted(model):
        fit(model, image, steps=40, show_progress=False)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    expected, model = fitted(FourierMLP(seed=0)), FourierMLP(seed=0)
    asked = lambda: [LayerContribution(model, "activation1").attribute(coordinates((6, 8)), 0).sum() for _ in range(30)]
    torch.testing.assert_close(in_threads(lambda: fitted(model), asked)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["tangent", "ablation"])
def test_two_models_in_two_threads(mode, net, x, found):
    """Forward-mode differentiation has one level for the whole process."""
    other, tall = copy.deepcopy(net), torch.rand(2, 3, 12, 12)
    head = lambda model: nn.Sequential(model.conv, model.norm, nn.Upsample(scale_factor=3))
    models = [head(net).eval(), head(other).eval()]
    call = lambda model, x: NeuronCanvas(model, "1", rule=mode).attribute(x, [0, 2], perturbations_per_eval=1)
    check([lambda: call(models[0], x), lambda: call(models[1], x), lambda: call(models[0], tall)], net, found)


def test_two_models_that_share_a_module(net, x, found):
    shared = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    models = [nn.Sequential(shared, nn.Flatten(), nn.Linear(144, k)).eval() for k in (2, 3)]
    calls = [lambda m=m, x=x: FeatureAccentuation(m).attribute(x, 1, n_steps=2) for m in models for x in FOUR()[:2]]
    calls += [lambda m=m: LayerContribution(m, "0").attribute(x, 1) for m in models]
    check(calls, nn.ModuleList(models), found)


def test_a_forward_function_that_hides_its_model(net, x, found):
    hidden = {"model": net}
    check(
        [lambda x=x: LayerContribution(lambda a: hidden["model"](a), net.relu).attribute(x, 1) for x in FOUR()],
        net,
        found,
    )


def test_an_exception_in_one_thread_lets_the_others_go_on(net, x, found):
    expected, before = LayerContribution(net, "relu").attribute(x, 1), found(net)

    def failing(*_):
        raise Broken

    def fails():
        for _ in range(5):
            with pytest.raises(Broken):
                FeatureAccentuation(lambda x: failing(net(x))).attribute(x, 1, n_steps=2)

    answers = in_threads(fails, *[lambda: LayerContribution(net, "relu").attribute(x, 1)] * 3)
    for answer in answers[1:]:
        assert torch.equal(answer, expected)
    assert before.differences(net) == []


def test_a_user_runs_the_model_meanwhile(net, x, found):
    """Hooks act on their own call only: the user's outputs are the same as ever."""
    other = torch.rand(2, 3, 6, 6)
    expected, before, stop = net(x).detach(), found(net), threading.Event()
    alone = {m.name: attribute(m, net, other) for m in METHODS if "weights" not in m.promises}

    def user():
        outputs = []
        while not stop.is_set() or len(outputs) < 3:
            outputs.append(net(x).detach())
        return outputs

    def explaining():
        try:
            return {m.name: attribute(m, net, other) for m in METHODS if "weights" not in m.promises}
        finally:
            stop.set()

    outputs, answers = in_threads(user, explaining)
    for output in outputs:
        torch.testing.assert_close(output, expected, rtol=0, atol=0)
    for name, answer in answers.items():
        torch.testing.assert_close(answer, alone[name], rtol=0, atol=0, msg=name)
    assert before.differences(net) == []


def test_a_stream_of_sweeps_holds_no_lock_between_two_of_them(net, found):
    """Another thread explains while the user looks at the first sweep."""
    units, x = linked(net, "relu"), FOUR()[0]
    stream = units.sweeps(x, [0, 1], [0.1, 0.4], internal_batch_size=1)
    first = next(stream)
    (between,) = in_threads(lambda: attribute(METHODS[0], net, x), seconds=10)
    assert torch.equal(between, attribute(METHODS[0], net, x))
    assert first.unit == 0 and next(stream).unit == 1


def test_a_pool_inside_the_users_own_protection(net, x):
    """The thread that holds ``untouched`` waits for workers that explain: it must not hold what they wait for."""
    from xinc_captum import untouched

    with untouched(net):
        net.eval()
        answers = in_threads(*[lambda: LayerContribution(net, "relu").attribute(x, 1)] * 4, seconds=10)
    assert all(torch.equal(one, answers[0]) for one in answers)
