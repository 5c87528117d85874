import pytest
import torch
from torch import nn

from xinc_captum import NeuronCanvas
from xinc_captum.inr import HNeRV, reduced
from xinc_captum.inr.hnerv import ContentEncoder


def small(**arguments):
    wanted = {"size": (8, 12), "widths": (6, 5, 4), "strides": (2, 2), "embedding": 3, "encoder_width": 8, "seed": 0}
    return HNeRV(**{**wanted, **arguments})


def test_the_decoder_draws_from_embeddings_alone():
    model = small()
    frames = torch.rand(2, 3, 8, 12)
    embeddings = model.encoder(frames)
    assert embeddings.shape == (2, 3, 2, 3)
    assert torch.equal(model.decoder(embeddings), model(frames))


def test_the_decoder_can_be_explained_with_embeddings_as_rows():
    model, embeddings = small(), torch.rand(2, 3, 2, 3)
    parts = NeuronCanvas(model.decoder, "blocks.0.activation", rule="secant").attribute(embeddings)
    assert parts.shape == (2, 5 + 1, 3, 8, 12)
    torch.testing.assert_close(parts.sum(1), model.decoder(embeddings).detach())


def test_its_parts_have_names():
    model = small(squash=True)
    assert [name for name, _ in model.named_children()] == ["encoder", "decoder"]
    assert [name for name, _ in model.decoder.named_children()] == ["stem", "blocks", "head", "squash"]
    assert model.get_submodule("decoder.stem.conv").weight.shape == (6, 3, 1, 1)
    assert model.get_submodule("decoder.blocks.1.conv").weight.shape == (16, 5, 3, 3)
    assert model.get_submodule("encoder.stages.1.conv").stride == (2, 2)
    assert model(torch.rand(1, 3, 8, 12)).min() > 0


def test_the_papers_defaults():
    model = HNeRV((64, 128), strides=(4, 2, 2, 2), seed=0)
    blocks = model.decoder.blocks
    assert [block.conv.kernel_size[0] for block in blocks] == [1, 3, 5, 5]
    assert [block.shuffle.upscale_factor for block in blocks] == [4, 2, 2, 2]
    widths = [block.conv.out_channels // stride**2 for block, stride in zip(blocks, (4, 2, 2, 2), strict=True)]
    assert (model.decoder.stem.conv.out_channels, *widths) == reduced(36, 4) == (36, 30, 25, 21, 18)
    assert [stage.conv.stride[0] for stage in model.encoder.stages] == [2, 2, 2, 4]
    assert small(kernel_sizes=3).decoder.blocks[0].conv.kernel_size == (3, 3)
    assert small(kernel_sizes=(5, 1)).decoder.blocks[0].conv.kernel_size == (5, 5)


def test_every_pixel_is_seen_by_the_stage_over_it():
    """A stage's convolution is as wide as its stride: its windows tile the frame."""
    model = ContentEncoder((2, 3), width=4, embedding=2, channels=1)
    frame = torch.zeros(1, 1, 6, 12)
    frame[..., 2:4, 4:6] = 1
    difference = model.stages[0].conv(frame) - model.stages[0].conv(torch.zeros_like(frame))
    assert difference.abs().sum(1).nonzero().tolist() == [[0, 1, 2]]


def test_the_encoder_may_shrink_in_other_steps():
    model = small(encoder_strides=(4,))
    assert model(torch.rand(1, 3, 8, 12)).shape == (1, 3, 8, 12)
    with pytest.raises(ValueError, match=r"the encoder shrinks 6 times and the decoder enlarges 4 times; wanted"):
        small(encoder_strides=(2, 3))
    with pytest.raises(ValueError, match=r"size is \(8, 10\)"):
        small(size=(8, 10))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_and_activations(channels):
    model = small(channels=channels, activation=nn.SiLU)
    assert model(torch.rand(2, channels, 8, 12)).shape == (2, channels, 8, 12)
    assert isinstance(model.decoder.stem.activation, nn.SiLU)


def test_other_frames_are_refused():
    with pytest.raises(
        ValueError, match=r"frames have shape \(2, 3, 2, 3\); wanted \(rows, 3, 8, 12\). To draw from embeddings, call"
    ):
        small()(torch.rand(2, 3, 2, 3))


def test_the_seed_decides_and_leaves_torchs_own_alone():
    state = torch.get_rng_state()
    frames = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    first, second, third = small(), small(), small(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(frames), second(frames))
    assert not torch.equal(first(frames), third(frames))
