"""Chains of operations are recorded by running the model; their JVPs equal torch's forward derivative."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.chain import OneChannel, chain, scale, shuffle, trace
from xinc_captum.batch import Batch


class Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.second, self.body = nn.Conv2d(2, 4, 1), nn.Conv2d(1, 1, 1), body

    def forward(self, x):
        return self.body(self, self.first(x))


def steps(body, target=None):
    net = Net(body)
    seen = trace(Tail(net, net.first), Batch.of(torch.rand(2, 2, 4, 5), None, target))
    return None if seen is None else [step.name for step in seen.steps]


def test_a_chain_of_modules_and_functions():
    body = lambda n, x: torch.sigmoid(n.second(F.gelu(F.pixel_shuffle(x, 2)))).mul_(2)
    assert steps(body) == ["pixel_shuffle", "gelu", "conv2d", "sigmoid", "mul"]
    assert steps(body, target=(0, slice(1, 3))) == ["pixel_shuffle", "gelu", "conv2d", "sigmoid", "mul", "getitem"]


def test_step_input_survives_an_in_place_operation():
    net = Net(lambda n, x: F.relu(x - 5, inplace=True))
    seen = trace(Tail(net, net.first), Batch.of(torch.rand(1, 2, 3, 3)))
    assert (seen.steps[1].input < 0).all()
    assert torch.equal(seen.steps[1].apply(seen.steps[1].input), seen.output)


def without_gradients(n, x):
    with torch.no_grad():
        return x * 2


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.parametrize(
    "body",
    [
        lambda n, x: F.relu(x) + x,
        lambda n, x: torch.cat(x.chunk(2, 1)[::-1], 1),
        without_gradients,
        lambda n, x: Own.apply(x),
        lambda n, x: torch.autograd.grad(x.sum(), n.first.weight, create_graph=True)[0].sum() + x,
        lambda n, x: (2.0 * F.relu(x), x)[1].detach(),
    ],
    ids=["skip", "branches", "no_grad", "custom", "gradients inside", "thrown away"],
)
def test_other_models_are_not_chains(body):
    seen = steps(body)
    assert seen is None or seen == ["detach"], "a step that nobody can linearise ends the chain later"


TAILS = {
    "decoder": [nn.PixelShuffle(3), nn.Softplus(), nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2), nn.GELU(),
                nn.Conv2d(2, 3, 5, padding=2), nn.Sigmoid()],
    "norms": [nn.BatchNorm2d(18), nn.PixelShuffle(3), nn.BatchNorm2d(2), nn.PReLU(2), nn.Dropout(), nn.Conv2d(2, 3, 1)],
    "resampled": [nn.Upsample(scale_factor=2, mode="bilinear"), nn.AvgPool2d(2), nn.Conv2d(18, 2, 3, 2, 1),
                  nn.Tanh(), nn.AdaptiveAvgPool2d(3)],
    "transposed": [nn.SiLU(), nn.ConvTranspose2d(18, 4, 3, 2), nn.GELU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(True)],
    "shuffles": [nn.PixelShuffle(3), nn.Upsample(scale_factor=2), nn.Conv2d(2, 8, 3, padding="same"),
                 nn.PixelShuffle(2), nn.Hardtanh()],
    "twice": [nn.Conv2d(18, 32, 1), nn.PixelShuffle(2), nn.PixelShuffle(2), nn.Conv2d(2, 3, (3, 5), padding=(0, 2))],
    "bare": [nn.Sigmoid()],
}  # fmt: skip


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("slope", ["tangent", "secant"])
def test_jvp_of_one_channel(name, slope):
    model = nn.Sequential(nn.Conv2d(3, 18, 3, padding=1), *TAILS[name]).double().eval()
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    made = chain(Tail(model, model[0]), Batch.of(x), slope)
    a = made.activation
    alone = [made.jvp(a[:, u : u + 1], u)[:, 0] for u in range(18)]
    if slope == "tangent":
        for u in (0, 7, 17):
            only = torch.zeros_like(a)
            only[:, u] = a[:, u]
            expected = torch.func.jvp(lambda z: model[1:](z.clone()), (a,), (only,))[1]
            torch.testing.assert_close(alone[u], expected, atol=1e-13, rtol=1e-10)
        return
    total = torch.stack(alone).sum(0)
    torch.testing.assert_close(total, made.jvp_all(a), atol=1e-13, rtol=1e-10)
    assert (total + made.remainder - made.output).abs().max() <= 1e-13
    several = made.jvp(torch.stack([a[:, 3], 2 * a[:, 3]], 1), 3)
    torch.testing.assert_close(several[:, 1], 2 * alone[3], atol=1e-13, rtol=1e-10)


@pytest.mark.parametrize(
    "tail", [[nn.Flatten(), nn.Linear(360, 2)], [nn.Softmax(1)], [nn.MaxPool2d(2)], [nn.Dropout()]], ids=str
)
def test_other_tails_are_not_chains(tail):
    model = nn.Sequential(nn.Conv2d(3, 18, 3, padding=1), *tail)
    assert chain(Tail(model, model[0]), Batch.of(torch.rand(2, 3, 4, 5)), "tangent") is None


MAPS = OneChannel(torch.tensor([[[[1.0, 2.0]]]]), channel=6, channels=8)


def test_a_shuffle_puts_one_channel_on_one_phase():
    fine = shuffle(2, MAPS)  # 6 = channel 1, phase (1, 0)
    assert (fine.channel, fine.channels, fine.factor, fine.phase) == (1, 2, 2, (1, 0))
    assert fine.on_grid().maps.tolist() == [[[[0, 0, 0, 0], [1, 0, 2, 0]]]]
    assert torch.equal(fine.all_channels(), torch.pixel_shuffle(MAPS.all_channels(), 2))
    assert torch.equal(shuffle(2, MAPS.all_channels()), fine.all_channels())


def test_a_scale_reads_its_channel_and_phase():
    slope = torch.arange(16.0).reshape(1, 2, 2, 4)
    fine = scale(slope, shuffle(2, MAPS))
    assert fine.maps.tolist() == [[[[12.0, 28.0]]]]
    assert torch.equal(fine.all_channels(), scale(slope, shuffle(2, MAPS).all_channels()))
