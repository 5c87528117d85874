import pytest
import torch
from torch import nn

from xinc_captum.attributions.accentuation import Fourier
from xinc_captum.attributions.accentuation.objectives import (
    Objective,
    at_position,
    channel,
    cosine,
    direction,
    logit,
    neuron,
    positions,
    unit,
)
from xinc_captum.attributions.accentuation.reading import Reader

LAYERS = ("relu1", "relu2", "relu3", "conv1", "fc")


@pytest.fixture(scope="module")
def seen(recorded, tiny):
    """What the recorded network shows of the recorded candidate and the seed."""
    candidate = Fourier(margin=1e-6).decode((recorded["perturbed_params"],), (64, 64))
    pair = torch.cat([candidate, recorded["seed_image"]])
    return tiny.read(pair, (), [tiny.module(name) for name in LAYERS], whole=True)


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
def test_recorded_losses(recorded, seen, name, objective):
    score = objective(recorded)(seen)
    assert score.shape == (2,)
    torch.testing.assert_close(-score[0].double(), recorded[f"loss_{name}"], atol=1e-8, rtol=1e-5)
    assert not torch.equal(score[0], score[1])


def test_recorded_outputs_and_gradient(recorded, tiny, seen):
    torch.testing.assert_close(seen.output, recorded["pair_logits"], atol=1e-6, rtol=1e-5)
    params = recorded["perturbed_params"].clone().requires_grad_()
    image = Fourier(margin=1e-6).decode((params,), (64, 64))
    (slope,) = torch.autograd.grad(-logit(3)(tiny.read(image, (), [], whole=True)).sum(), params)
    theirs = recorded["grad_params_fc"]
    assert (slope - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture
def hand():
    """Two images of 2 channels and 2x3 positions, through one layer that hands them on."""
    x = torch.arange(24.0).reshape(2, 2, 2, 3)
    net = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Identity())
    return Reader(net).read(x, (), [net[0], net[2]], whole=True), x


def test_by_hand(hand):
    seen, _ = hand
    assert channel("0", 1)(seen).tolist() == [8.5, 20.5]
    assert neuron("0", 0)(seen).tolist() == [4.0, 16.0], "row 1, column 1"
    assert neuron("0", 0, (0, -1))(seen).tolist() == [2.0, 14.0]
    assert unit("0", (1, slice(0, 2), 0))(seen).tolist() == [15.0, 39.0]
    assert unit("0", lambda a: a[:, 0, 0, 0])(seen).tolist() == [0.0, 12.0]
    assert direction("0", torch.tensor([1.0, -1.0]))(seen).tolist() == [-6.0, -6.0]
    assert direction("0", torch.tensor([[1.0, 0.0], [0.0, 1.0]]))(seen).tolist() == [2.5, 20.5], "one a row"
    assert positions("0", torch.ones(2, 2, 3))(seen).tolist() == [11.0, 35.0]
    assert channel("2", 5)(seen).tolist() == [5.0, 17.0], "of a flat layer, the unit"
    assert logit(5)(seen).tolist() == [5.0, 17.0]
    assert logit([5, 0])(seen).tolist() == [5.0, 12.0]
    assert logit(torch.tensor([5, 0]))(seen).tolist() == [5.0, 12.0]


def test_the_rows_targets_come_again_in_every_view(hand):
    seen, x = hand
    views = Reader(seen.reader.forward_func).read(x.repeat(2, 1, 1, 1), (), [], whole=True)
    assert logit([5, 0])(views).tolist() == [5.0, 12.0, 5.0, 12.0]


def test_arithmetic(hand):
    seen, _ = hand
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
        assert made(seen).tolist() == expected
        assert made.name == name
    assert a(seen).tolist() == [8.5, 20.5], "operands stay as they were"
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
def test_equal_lucents(recorded, seen, ours, theirs):
    objectives = pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")
    vector = recorded["direction24"]
    ours = ours if isinstance(ours, Objective) else ours(vector)
    loss = theirs(objectives, vector)(seen.part(slice(0, 1)))
    torch.testing.assert_close(-ours(seen)[0], loss, atol=1e-7, rtol=1e-5)


def test_maps_of_another_size_are_resized(hand):
    seen, _ = hand
    torch.testing.assert_close(positions("0", torch.ones(2, 8, 9))(seen), torch.tensor([11.0, 35.0]))


def test_what_does_not_fit(hand):
    seen, x = hand
    with pytest.raises(ValueError, match=r"direction has shape \(3,\), but the layer has 2 channels; wanted \(2,\)"):
        direction("0", torch.ones(3))(seen)
    with pytest.raises(IndexError, match=r"position \(2, 0\) lies outside the layer's 2 x 3 positions"):
        neuron("0", 0, (2, 0))(seen)
    with pytest.raises(IndexError, match="2 must lie in"):
        channel("0", 2)(seen)
    with pytest.raises(ValueError, match="target 12 does not fit"):
        logit(12)(seen)
    with pytest.raises(ValueError, match="target is missing or incomplete"):
        logit(None)(seen)
    assert at_position(x.flatten(1), (5, 5)).shape == (2, 12), "flat activations have no positions"


def test_positions_of_volumes_and_of_rows():
    volume, signal = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3, 7)
    assert torch.equal(at_position(volume, None), volume[:, :, 2, 2, 3])
    assert torch.equal(at_position(volume, (1, -1, 0)), volume[:, :, 1, -1, 0])
    assert torch.equal(at_position(signal, (6,)), signal[:, :, 6])
    with pytest.raises(ValueError, match=r"position is \(1, 2\) and the layer has places 4 x 5 x 6; wanted 3 numbers"):
        at_position(volume, (1, 2))
    with pytest.raises(ValueError, match="the layer has 7 positions in a row"):
        at_position(signal, None)
    with pytest.raises(IndexError, match=r"position \(7,\) lies outside the layer's 7 positions"):
        at_position(signal, (7,))


def test_a_map_of_weights_needs_a_map():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 4))
    reader = Reader(net)
    seen = reader.read(torch.rand(1, 3, 4, 4), (), [net[2]], whole=True)
    with pytest.raises(ValueError, match=r"has shape \(1, 4\) .*; a map of weights \(channels, h, w\) needs"):
        positions("2", torch.rand(4, 2, 2))(seen)
