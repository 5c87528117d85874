import torch

from xinc_captum.attributions.canvas.rules.one_channel import OneChannel, Scale, Shuffle

MAPS = OneChannel(torch.tensor([[[[1.0, 2.0]]]]), channel=6, channels=8)


def test_a_shuffle_puts_one_channel_on_one_phase():
    fine = Shuffle(2)(MAPS, 1)  # 6 = channel 1, phase (1, 0)
    assert (fine.channel, fine.channels, fine.factor, fine.phase) == (1, 2, 2, (1, 0))
    assert fine.on_grid().maps.tolist() == [[[[0, 0, 0, 0], [1, 0, 2, 0]]]]
    assert torch.equal(fine.filled(), torch.pixel_shuffle(MAPS.filled(), 2))
    assert torch.equal(Shuffle(2)(MAPS.filled(), 1), fine.filled())


def test_a_scale_reads_its_channel_and_phase():
    slope = torch.arange(16.0).reshape(1, 2, 2, 4)
    fine = Scale(slope)(Shuffle(2)(MAPS, 1), 1)
    assert fine.maps.tolist() == [[[[12.0, 28.0]]]]
    assert torch.equal(fine.filled(), Scale(slope)(Shuffle(2)(MAPS, 1).filled(), 1))
