"""JVPs of linearized chains against torch's forward derivative."""

import pytest
import torch
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.chain import OneChannel, Scale, Shuffle, chain
from xinc_captum.batch import Batch

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
    fine = Shuffle(2)(MAPS, 1)  # 6 = channel 1, phase (1, 0)
    assert (fine.channel, fine.channels, fine.factor, fine.phase) == (1, 2, 2, (1, 0))
    assert fine.on_grid().maps.tolist() == [[[[0, 0, 0, 0], [1, 0, 2, 0]]]]
    assert torch.equal(fine.all_channels(), torch.pixel_shuffle(MAPS.all_channels(), 2))
    assert torch.equal(Shuffle(2)(MAPS.all_channels(), 1), fine.all_channels())


def test_a_scale_reads_its_channel_and_phase():
    slope = torch.arange(16.0).reshape(1, 2, 2, 4)
    fine = Scale(slope)(Shuffle(2)(MAPS, 1), 1)
    assert fine.maps.tolist() == [[[[12.0, 28.0]]]]
    assert torch.equal(fine.all_channels(), Scale(slope)(Shuffle(2)(MAPS, 1).all_channels(), 1))
