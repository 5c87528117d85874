import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError
from xinc_captum.attributions.accentuation import Crops, Fourier
from xinc_captum.attributions.accentuation.activations import ModelInputs
from xinc_captum.attributions.accentuation.objectives import (
    Feature,
    Objective,
    ScoredModel,
    at_position,
    channel,
    cosine,
    direction,
    from_lucent,
    from_string,
    is_lucent,
    logit,
    neuron,
    positions,
    unit,
)

LAYERS = ("relu1", "relu2", "relu3", "conv1", "fc")


@pytest.fixture(scope="module")
def activations(recorded, tiny):
    """Activations of the recorded network for the recorded candidate and the seed."""
    candidate = Fourier(margin=1e-6).decode((recorded["perturbed_params"],), (64, 64))
    pair = torch.cat([candidate, recorded["seed_image"]])
    return tiny.run(pair, (), [tiny.module(name) for name in LAYERS], to_output=True)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("channel_fc_b0", lambda r: logit(3)),
        ("channel_relu3", lambda r: channel("relu3", 3)),
        ("channel_vec_relu3", lambda r: direction("relu3", r["direction24"])),
        ("channel_vec_fc", lambda r: direction("labels", r["direction10"])),
        ("neuron_center", lambda r: neuron("relu3", 3)),
        ("neuron_3_5", lambda r: neuron("relu3", 3, (3, 5))),
        ("neuron_vec", lambda r: direction("relu3", r["direction24"], position=(8, 8))),
        ("direction_relu3", lambda r: cosine("relu3", r["direction24"])),
        ("direction_fc", lambda r: cosine("fc", r["direction10"])),
        ("direction_pos", lambda r: cosine("relu3", r["direction24"], position=(2, 4))),
        ("cosim_p1", lambda r: direction("relu3", r["direction24"], power=1)),
        ("cosim_p2", lambda r: direction("relu3", r["direction24"], power=2)),
        ("cosim_fc_p1", lambda r: direction("fc", r["direction10"], power=1)),
        ("spatial_channel", lambda r: positions("relu3", r["target_map"])),
    ],
)
def test_recorded_losses(recorded, activations, name, objective):
    score = objective(recorded)(activations)
    assert score.shape == (2,)
    torch.testing.assert_close(-score[0].double(), recorded[f"loss_{name}"], atol=1e-8, rtol=1e-5)
    assert not torch.equal(score[0], score[1])


def test_recorded_outputs_and_gradient(recorded, tiny, activations):
    torch.testing.assert_close(activations.output, recorded["pair_logits"], atol=1e-6, rtol=1e-5)
    params = recorded["perturbed_params"].clone().requires_grad_()
    image = Fourier(margin=1e-6).decode((params,), (64, 64))
    (slope,) = torch.autograd.grad(-logit(3)(tiny.run(image, (), [], to_output=True)).sum(), params)
    theirs = recorded["grad_params_fc"]
    assert (slope - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture
def hand():
    """Two images of 2 channels and 2x3 positions, through an identity layer."""
    x = torch.arange(24.0).reshape(2, 2, 2, 3)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Identity())
    return ModelInputs(net).run(x, (), [net[0], net[2]], to_output=True), x


def test_by_hand(hand):
    activations, _ = hand
    assert channel("0", 1)(activations).tolist() == [8.5, 20.5]
    assert neuron("0", 0)(activations).tolist() == [4.0, 16.0], "row 1, column 1"
    assert neuron("0", 0, (0, -1))(activations).tolist() == [2.0, 14.0]
    assert unit("0", (1, slice(0, 2), 0))(activations).tolist() == [15.0, 39.0]
    assert unit("0", lambda a: a[:, 0, 0, 0])(activations).tolist() == [0.0, 12.0]
    assert direction("0", torch.tensor([1.0, -1.0]))(activations).tolist() == [-6.0, -6.0]
    assert direction("0", torch.tensor([[1.0, 0.0], [0.0, 1.0]]))(activations).tolist() == [2.5, 20.5], "one a row"
    assert positions("0", torch.ones(2, 2, 3))(activations).tolist() == [11.0, 35.0]
    assert channel("2", 5)(activations).tolist() == [5.0, 17.0], "of a flat layer, the unit"
    assert logit(5)(activations).tolist() == [5.0, 17.0]
    assert logit([5, 0])(activations).tolist() == [5.0, 12.0]
    assert logit(torch.tensor([5, 0]))(activations).tolist() == [5.0, 12.0]


def test_targets_of_rows_repeat_in_every_view(hand):
    activations, x = hand
    views = ModelInputs(activations.model.forward_func).run(x.repeat(2, 1, 1, 1), (), [], to_output=True)
    assert logit([5, 0])(views).tolist() == [5.0, 12.0, 5.0, 12.0]


def test_arithmetic(hand):
    activations, _ = hand
    a, b = channel("0", 1), logit(5)
    for made, expected, name in (
        (a + b, [13.5, 37.5], "0:1 + logit 5"),
        (a - 2 * b, [-1.5, -13.5], "0:1 - 2 * logit 5"),
        (1 + a, [9.5, 21.5], "1 + 0:1"),
        (a + 1, [9.5, 21.5], "0:1 + 1"),
        (100 - a, [91.5, 79.5], "100 - 0:1"),
        (a * b, [42.5, 348.5], "0:1 * logit 5"),
        ((a + b) / 2, [6.75, 18.75], "(0:1 + logit 5) / 2"),
        (-a, [-8.5, -20.5], "-1 * 0:1"),
        (sum([a, b]), [13.5, 37.5], "0:1 + logit 5"),
    ):
        assert made(activations).tolist() == expected
        assert made.name == name
    assert a(activations).tolist() == [8.5, 20.5], "operands stay as they were"
    assert repr(Objective(a.score, "mine")) == "Objective(mine)"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (channel("relu3", 3), lambda o, v: o.channel("relu3", 3)),
        (channel("fc", 3), lambda o, v: o.channel("fc", 3)),
        (neuron("relu3", 3), lambda o, v: o.neuron("relu3", 3)),
        (neuron("relu3", 3, (2, 5)), lambda o, v: o.neuron("relu3", 3, x=5, y=2)),
        (lambda v: cosine("relu3", v), lambda o, v: o.direction("relu3", v)),
        (lambda v: cosine("relu3", v, position=(8, 8)), lambda o, v: o.direction_neuron("relu3", v)),
        (lambda v: direction("relu3", v) / 24, lambda o, v: o.channel_weight("relu3", v)),
        (lambda v: direction("relu3", v, position=(8, 8)) / 24, lambda o, v: o.neuron_weight("relu3", v)),
        (
            channel("relu3", 3) - 0.5 * channel("relu1", 2),
            lambda o, v: o.channel("relu3", 3) - 0.5 * o.channel("relu1", 2),
        ),
    ],
)
def test_equal_lucents(recorded, activations, ours, theirs):
    objectives = pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")
    vector = recorded["direction24"]
    ours = ours if isinstance(ours, Objective) else ours(vector)
    loss = theirs(objectives, vector)(activations.select(slice(0, 1)))
    torch.testing.assert_close(-ours(activations)[0], loss, atol=1e-7, rtol=1e-5)


def test_maps_of_another_size_are_resized(hand):
    activations, _ = hand
    torch.testing.assert_close(positions("0", torch.ones(2, 8, 9))(activations), torch.tensor([11.0, 35.0]))


def test_objectives_that_do_not_fit_the_layer_raise(hand):
    activations, x = hand
    with pytest.raises(ValueError, match=r"direction has shape \(3,\), but the layer has 2 channels; expected \(2,\)"):
        direction("0", torch.ones(3))(activations)
    with pytest.raises(IndexError, match=r"position \(2, 0\) is outside the layer's 2 x 3 positions"):
        neuron("0", 0, (2, 0))(activations)
    with pytest.raises(IndexError, match="2 must lie in"):
        channel("0", 2)(activations)
    with pytest.raises(ValueError, match="target 12 does not fit"):
        logit(12)(activations)
    with pytest.raises(ValueError, match="target is missing or incomplete"):
        logit(None)(activations)
    assert at_position(x.flatten(1), (5, 5)).shape == (2, 12), "flat activations have no positions"


def test_positions_of_volumes_and_sequences():
    volume, signal = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3, 7)
    assert torch.equal(at_position(volume, None), volume[:, :, 2, 2, 3])
    assert torch.equal(at_position(volume, (1, -1, 0)), volume[:, :, 1, -1, 0])
    assert torch.equal(at_position(signal, (6,)), signal[:, :, 6])
    with pytest.raises(
        ValueError, match=r"position is \(1, 2\) and the layer has 4 x 5 x 6 positions; expected 3 numbers"
    ):
        at_position(volume, (1, 2))
    with pytest.raises(ValueError, match="the layer has one axis of 7 positions"):
        at_position(signal, None)
    with pytest.raises(IndexError, match=r"position \(7,\) is outside the layer's 7 positions"):
        at_position(signal, (7,))


def test_a_map_of_weights_needs_a_map():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 4))
    model = ModelInputs(net)
    activations = model.run(torch.rand(1, 3, 4, 4), (), [net[2]], to_output=True)
    with pytest.raises(ValueError, match=r"has shape \(1, 4\) .*; a map of weights \(channels, h, w\) needs"):
        positions("2", torch.rand(4, 2, 2))(activations)


@pytest.fixture
def lucent_theirs():
    return pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")


@pytest.fixture
def lucent_activations():
    """Two views of three images."""
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    return ModelInputs(net).run(torch.rand(6, 4, 3, 3), (), [net[0]], to_output=True)


def test_lucent_objectives_are_recognised_by_their_package(lucent_theirs):
    assert is_lucent(lucent_theirs.channel("0", 1))
    assert not is_lucent(channel("0", 1)) and not is_lucent("0:1") and not is_lucent(lambda activations: activations)


def test_a_sum_of_two_lucent_objectives(lucent_theirs, lucent_activations):
    ours = from_lucent(lucent_theirs.channel("0", 1) + lucent_theirs.neuron("0", 2), rows=3)
    assert ours.name == "lucent channel, neuron"
    activation = lucent_activations("0")
    for view in (0, 1):
        select = activation[3 * view : 3 * view + 3]
        expected = select[:, 1].mean() + select[:, 2, 1, 1].mean()
        torch.testing.assert_close(ours(lucent_activations)[3 * view : 3 * view + 3], expected.expand(3))


def test_diversity_compares_images_not_views(lucent_theirs, lucent_activations):
    objective = lucent_theirs.diversity("0")
    ours = from_lucent(objective, rows=3)(lucent_activations)
    for view in (0, 1):
        torch.testing.assert_close(ours[3 * view], -objective(lucent_activations.select(slice(3 * view, 3 * view + 3))))


def test_strings(lucent_activations):
    torch.testing.assert_close(from_string("0:2")(lucent_activations), lucent_activations("0")[:, 2].mean((1, 2)))
    for wrong in ("fc", "0:", ":3", "0:x", "0:-1"):
        with pytest.raises(ValueError, match=f"objective '{wrong}' is not valid; expected \"layer:unit\" such as"):
            from_string(wrong)


NET = nn.Sequential(
    nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
)


@pytest.fixture
def changes():
    return pytest.importorskip("lucent.optvis.transform", reason="pip install torch-lucent")


@pytest.fixture
def parameters():
    return pytest.importorskip("lucent.optvis.param", reason="pip install torch-lucent")


@pytest.mark.parametrize("kind", ["jitter", "pad", "scale", "rotate", "list", "composed", "after crops"])
def test_lucent_transforms_are_the_same_for_candidate_and_seed(changes, kind):
    """At the first step the candidate is the seed, so their distance is zero; cutting the batch changes nothing."""
    transforms = {
        "jitter": [changes.jitter(8)],
        "pad": [changes.pad(5)],
        "scale": [changes.random_scale([0.8, 0.9, 1.0, 1.1, 1.2])],
        "rotate": [changes.random_rotate(list(range(-20, 21)))],
        "list": changes.standard_transforms,
        "composed": [changes.compose(changes.standard_transforms)],
        "after crops": [Crops(2), changes.jitter(4), changes.random_rotate([-5, 5])],
    }[kind]
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    options = {"n_steps": 2, "transforms": transforms, "seed": 3}
    result = FeatureAccentuation(NET).accentuate(x, [1, 2], **options)
    torch.testing.assert_close(result.distances[0], torch.zeros(2), atol=1e-6, rtol=0)
    assert result.images.shape == x.shape and (result.images != x).any()
    assert torch.equal(result.images, FeatureAccentuation(NET).perturb(x, [1, 2], **options))
    cut = FeatureAccentuation(NET).perturb(x, [1, 2], internal_batch_size=1, **options)
    torch.testing.assert_close(cut, result.images, atol=1e-4, rtol=0)  # 2 steps of lr .03; rounding by batch size


def test_lucent_transforms_with_a_model_of_one_size(changes):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    result = FeatureAccentuation(flat, size=16).accentuate(
        torch.rand(1, 3, 24, 24), 1, n_steps=2, transforms=changes.standard_transforms
    )
    assert result.after > result.before


@pytest.mark.parametrize("kind", ["cppn", "fft", "pixel", "correlated", "two"])
@pytest.mark.parametrize("optimizer", [None, torch.optim.Adam])
def test_lucent_parameterizations_with_any_optimizer(parameters, kind, optimizer):
    rows = 2 if kind == "two" else 1
    param_f = {
        "cppn": lambda: parameters.cppn(12),
        "fft": lambda: parameters.image(12),
        "pixel": lambda: parameters.image(12, fft=False),
        "correlated": lambda: parameters.image(12, decorrelate=False),
        "two": lambda: parameters.image(12, batch=2),
    }[kind]
    options = {} if optimizer is None else {"optimizer": optimizer}
    options |= {"n_steps": 6, "lr": 0.003 if kind == "cppn" else 0.03, "transforms": (), "parameterization": param_f}
    method = FeatureAccentuation(NET)
    result = method.accentuate(None, "1:2", shape=(rows, 3, 12, 12), **options)
    assert result.images.shape == (rows, 3, 12, 12)
    assert (result.after > result.scores[0]).all()
    again = method.accentuate(None, "1:2", shape=(rows, 3, 12, 12), **options)
    assert torch.equal(again.images, result.images), "one seed, one result"


def test_a_parameterization_of_other_images_raises(parameters):
    method = FeatureAccentuation(NET)
    with pytest.raises(
        ValueError, match=r"returns images of shape \(1, 3, 12, 12\) on cpu; expected the numbers of images and chan"
    ):
        method.accentuate(None, "1:2", shape=(2, 3, 12, 12), n_steps=1, parameterization=lambda: parameters.image(12))
    two = lambda: parameters.image(12, batch=2)
    with pytest.raises(ValueError, match="internal_batch_size cuts the batch; leave it out"):
        method.accentuate(None, "1:2", shape=(2, 3, 12, 12), n_steps=1, parameterization=two, internal_batch_size=1)
    with pytest.raises(
        ValueError, match=r"the parameterization returns a torch.float32 \(3, 4\); expected float images"
    ):
        leaf = torch.zeros(3, 4, requires_grad=True)
        method.accentuate(None, "1:2", shape=(1, 3, 4, 4), parameterization=lambda: ([leaf], lambda: leaf))


class Last(nn.Module):
    """Maps (N, h, w, channels)."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    def forward(self, x):
        return self.block(x.permute(0, 2, 3, 1)).mean((1, 2))


def test_channels_on_the_last_axis_need_unit_axis():
    """An objective that takes channel 2 from axis 1, as Lucent's do."""
    net, x = Last(), torch.rand(2, 3, 5, 6)
    objective = from_lucent(lambda model: -model("block")[:, 2].mean(), 1)
    score = lambda axis: objective(ModelInputs(net, unit_axis=axis).run(x, (), [net.block], to_output=True))
    with pytest.raises(LayerError, match=r"returns shape \(2, 5, 6, 4\) with its units on the last axis; Lucent's"):
        score(None)
    a = net.block(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(score(-1), a[..., 2].mean((1, 2)))
    torch.testing.assert_close(score(1), a[:, 2].mean((1, 2)))


FEATURE_NET = nn.Sequential(nn.Identity(), nn.Flatten())
X = torch.arange(24.0).reshape(2, 2, 2, 3)


def feature_activations(images=X):
    return ModelInputs(FEATURE_NET).run(images, (), [FEATURE_NET[0]], to_output=True)


def feature_unit(selector):
    return Feature(selector, FEATURE_NET[0])


@pytest.mark.parametrize("target", [[5, 0], torch.tensor([5, 0])])
def test_one_target_for_each_row(target):
    feature = Feature(target)
    assert feature.is_per_row(2) and not feature.is_per_row(3) and not Feature(5).is_per_row(2)
    assert feature.objective(2)(feature_activations()).tolist() == [5.0, 12.0]
    one = feature.cut(1, 2, 2)
    assert one.objective(1)(feature_activations(X[1:])).tolist() == [12.0]
    assert Feature((5,)).cut(0, 1, 2) == Feature((5,))


def test_every_kind_of_target():
    for target, name in (
        (channel("0", 1), "0:1"),
        ("0:1", "0:1"),
        (lambda activations: activations("0")[:, 1].mean((1, 2)), "<lambda>"),
    ):
        objective = Feature(target).objective(2)
        assert objective.name == name
        assert objective(feature_activations()).tolist() == [8.5, 20.5]
        assert Feature(target).peer_deviation(feature_activations()) is None


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (1, [8.5, 20.5]),
        ((1,), [8.5, 20.5]),
        ((1, 0, 2), [8.0, 20.0]),
        ((slice(0, 2), 0, 0), [6.0, 30.0]),
        (lambda a: a[:, 0, 0, 0], [0.0, 12.0]),
        (torch.tensor([1.0, -1.0]), [-6.0, -6.0]),
        (channel("0", 1) * 2, [17.0, 41.0]),
        ([1, (0, 0, 0)], [8.5, 12.0]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_every_kind_of_selector(selector, expected):
    assert feature_unit(selector).objective(2)(feature_activations()).tolist() == expected


def test_a_list_holds_one_selector_for_each_row_of_a_view():
    objective = feature_unit([1, (0, 0, 0)]).objective(2)
    assert objective.name == "Identity:1 | Identity:(0, 0, 0)"
    assert objective(feature_activations(X.repeat(3, 1, 1, 1))).tolist() == [8.5, 12.0] * 3
    assert feature_unit([1, (0, 0, 0)]).cut(1, 2, 2).objective(1)(feature_activations(X[1:])).tolist() == [12.0]


def test_standard_deviation_of_peers():
    assert Feature(1).peer_deviation(feature_activations()).tolist() == pytest.approx(
        [float(torch.arange(12.0).std())] * 2
    )
    assert feature_unit(1).peer_deviation(feature_activations()).tolist() == pytest.approx(
        [float(torch.tensor([2.5, 8.5]).std())] * 2
    )
    assert feature_unit([1, 0]).peer_deviation(feature_activations()).shape == (2,)
    assert feature_unit((1, 0, 0)).peer_deviation(feature_activations()) is None
    alone = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    outputs = ModelInputs(alone).run(-X[:, :1], (), [], to_output=True)
    assert Feature(0).peer_deviation(outputs).tolist() == [2.5, 14.5], "a single output has its size for a scale"


def test_a_wrong_number_of_targets_raises():
    for wrong in ([0], [0, 1, 2], torch.tensor([0, 1, 2])):
        with pytest.raises(
            ValueError, match="target has . entries, but there are 2 images; give one target for each row"
        ):
            Feature(wrong).objective(2)
    assert Feature(torch.tensor([5])).objective(2)(feature_activations()).tolist() == [5.0, 17.0], "as in Captum"


def test_invalid_selectors_raise():
    with pytest.raises(
        ValueError, match="neuron_selector is a list of 3, but there are 2 images; give one selector for"
    ):
        feature_unit([0, 1, 2]).objective(2)
    for wrong in (None, True):
        with pytest.raises(TypeError, match=f"neuron_selector is {wrong}; expected an int"):
            feature_unit(wrong).objective(2)
    with pytest.raises(TypeError, match="is a str; expected an int"):
        feature_unit("fc").objective(2)(feature_activations())


SQUARES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("objective", "layers", "to_output"),
    [
        (lambda activations: activations.output[:, 0], [], True),
        (lambda activations: activations("norm").mean((1, 2, 3)), ["norm"], False),
        (
            lambda activations: activations("norm").mean((1, 2, 3)) + activations("pool").sum((1, 2, 3)),
            ["norm", "pool"],
            False,
        ),
        (lambda activations: activations("norm").mean((1, 2, 3)) * activations("labels")[:, 1], ["norm"], True),
        (lambda activations: -activations("input").mean((1, 2, 3)), [], True),
    ],
)
def test_required_layers_are_determined_by_a_trial_run(conv, objective, layers, to_output):
    model = ModelInputs(conv)
    scored = ScoredModel.of(model, objective, SQUARES, ())
    assert scored.layers == tuple(conv.get_submodule(name) for name in layers) and scored.to_output == to_output


def test_layers_that_run_twice_or_never_raise(conv):
    conv.idle = nn.Linear(2, 2)
    twice = nn.Sequential(conv.conv, conv.relu, nn.Conv2d(4, 4, 1), conv.relu)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        ScoredModel.of(ModelInputs(conv), lambda activations: activations("idle"), SQUARES, ())
    with pytest.raises(LayerError, match="layer '1' runs more than once"):
        ScoredModel.of(ModelInputs(twice), lambda activations: activations("1"), SQUARES, ())


def test_images_that_the_model_cannot_process_raise(conv):
    with pytest.raises(
        ValueError, match=r"the model cannot process images of shape \(2, 1, 6, 6\): .*channels.*preprocess="
    ):
        ScoredModel.of(ModelInputs(conv), lambda activations: activations.output, SQUARES[:, :1], ())
