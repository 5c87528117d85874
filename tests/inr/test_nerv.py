from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import NeuronCanvas
from xinc_captum.inr import HNeRV, NeRV, Sine, shrinking_widths, times
from xinc_captum.inr.nerv import ContentEncoder, UpsamplingBlock, blocks_from_config, grid_of

RECORDED = Path(__file__).parents[1] / "data" / "nerv_small.npz"


@pytest.fixture(scope="module")
def recorded():
    """A random network of XINC's released code, with the maps that it passed through."""
    with np.load(RECORDED) as data:
        return {name: torch.from_numpy(data[name]) for name in data}


def test_outputs_equal_the_original_implementation(recorded):
    strides, grid = recorded["strides"].tolist(), recorded["fc_hw"].tolist()
    size = (grid[0] * 16, grid[1] * 16)
    model = NeRV(size, (6, 5, 4, 4), strides, stem=(), octaves=20, base=1.25)
    names = {"decoder.0.conv.downconv": "stem.linear1", "head_layer": "head"}
    names |= {f"decoder.{i + 1}.conv.upconv.0": f"blocks.{i}.conv" for i in range(3)}
    own = model.state_dict()
    state = {f"{to}.{kind}": recorded[f"state/{of}.{kind}"] for of, to in names.items() for kind in ("weight", "bias")}
    state = {name: value.reshape(own[name].shape) for name, value in state.items()}
    model.load_state_dict({**state, "encoding.frequencies": own["encoding.frequencies"]})
    t = recorded["t"].reshape(1, 1)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(model.encoding(t)[0], recorded["embed"].flatten(), **close)
    torch.testing.assert_close(model[:2](t), recorded["dec1"], **close)
    for i in range(3):
        drawn = model.blocks[i](recorded[f"dec{i + 1}"])
        torch.testing.assert_close(drawn, recorded[f"dec{i + 2}"], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(model.head(recorded["dec4"]), recorded["img"], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(model(t), recorded["img"], **close)


def test_modules_have_names():
    model = NeRV((8, 12), (3, 4, 5), (2, 2), stem=(7,))
    assert [name for name, _ in model.named_children()] == ["encoding", "stem", "blocks", "head"]
    assert model.get_submodule("blocks.1.conv").weight.shape == (20, 4, 3, 3)
    assert model.get_submodule("stem.linear2").weight.shape == (3 * 2 * 3, 7)
    assert model.get_submodule("stem")(model.encoding(times(4))).shape == (4, 3, 2, 3)
    assert type(model[2:]) is nn.Sequential
    assert len({id(m) for m in model.modules() if isinstance(m, nn.GELU)}) == 4, "each can be captured"


def test_times_may_have_one_or_two_dims():
    model = NeRV((8, 12), (3, 4), (2,), channels=1)
    frames = model(times(5))
    assert frames.shape == (5, 1, 8, 12)
    assert torch.equal(model(times(5)[:, 0]), frames)
    torch.testing.assert_close(model(torch.tensor([0.5])), frames[2:3])


@given(
    strides=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    widths=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    kernels=st.lists(st.sampled_from([1, 3, 5]), min_size=3, max_size=3),
    stem=st.lists(st.integers(1, 5), max_size=2),
    activation=st.sampled_from(["gelu", "relu", "leaky_relu", Sine, nn.Mish]),
    channels=st.integers(1, 4),
)
def test_output_shape_follows_from_the_settings(strides, widths, kernels, stem, activation, channels):
    factor = int(np.prod(strides))
    n = len(strides)
    model = NeRV(
        (2 * factor, 3 * factor),
        widths[: n + 1],
        strides,
        kernel_sizes=kernels[:n],
        stem=stem,
        activation=activation,
        channels=channels,
        head_kernel_size=1,
    )
    assert model(torch.rand(2)).shape == (2, channels, 2 * factor, 3 * factor)
    assert [block.conv.kernel_size[0] for block in model.blocks] == kernels[:n]


def test_seed_determines_weights_and_keeps_the_global_state():
    state = torch.get_rng_state()
    first, second, third = (NeRV((8, 8), (2, 2), (2,), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(times(2)), second(times(2)))
    assert not torch.equal(first(times(2)), third(times(2)))


def test_default_is_small():
    assert sum(p.numel() for p in NeRV((72, 88)).parameters()) <= 100_000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": (9, 8)}, r"size is \(9, 8\) and the strides \(2, 2\) enlarge 4 times; expected .* that 4 divides"),
        ({"strides": (2, 2, 2)}, r"widths are \(3, 3, 3\) for 3 blocks; expected 4 of at least 1"),
        ({"widths": (3, 0, 3)}, r"widths are \(3, 0, 3\) for 2 blocks; expected 3 of at least 1"),
        ({"kernel_sizes": (3,)}, r"kernel_sizes are \(3,\) for 2 blocks; expected one each, or one number"),
        ({"kernel_sizes": (3, 4)}, r"kernels are \(3, 4, 3\) wide \(the last one is the head's\); expected odd sizes"),
        ({"head_kernel_size": 2}, r"kernels are \(3, 3, 2\) wide"),
        ({"activation": "step"}, "activation 'step' is unknown; expected one of relu, gelu"),
    ],
)
def test_invalid_settings_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        NeRV(**{"size": (8, 8), "widths": (3, 3, 3), "strides": (2, 2), **arguments})


@pytest.mark.parametrize("t", [torch.arange(3), torch.rand(2, 2), torch.rand(()), torch.rand(1, 1, 1)])
def test_invalid_times_are_refused(t):
    with pytest.raises(ValueError, match=r"times are torch.*; expected floats in \[0, 1\] of shape \(rows,\) or"):
        NeRV((8, 8), (2, 2), (2,))(t)


def small(**arguments):
    expected = {"size": (8, 12), "widths": (6, 5, 4), "strides": (2, 2), "embedding": 3, "encoder_width": 8, "seed": 0}
    return HNeRV(**{**expected, **arguments})


def test_decoder_needs_only_embeddings():
    model = small()
    frames = torch.rand(2, 3, 8, 12)
    embeddings = model.encoder(frames)
    assert embeddings.shape == (2, 3, 2, 3)
    assert torch.equal(model.decoder(embeddings), model(frames))


def test_decoder_can_be_explained_with_embeddings_as_rows():
    model, embeddings = small(), torch.rand(2, 3, 2, 3)
    parts = NeuronCanvas(model.decoder, "blocks.0.activation", rule="secant").attribute(embeddings)
    assert parts.shape == (2, 5 + 1, 3, 8, 12)
    torch.testing.assert_close(parts.sum(1), model.decoder(embeddings).detach())


def test_hnerv_modules_have_names():
    model = small(squash=True)
    assert [name for name, _ in model.named_children()] == ["encoder", "decoder"]
    assert [name for name, _ in model.decoder.named_children()] == ["stem", "blocks", "head", "squash"]
    assert model.get_submodule("decoder.stem.conv").weight.shape == (6, 3, 1, 1)
    assert model.get_submodule("decoder.blocks.1.conv").weight.shape == (16, 5, 3, 3)
    assert model.get_submodule("encoder.stages.1.conv").stride == (2, 2)
    assert model(torch.rand(1, 3, 8, 12)).min() > 0


def test_defaults_of_the_paper():
    model = HNeRV((64, 128), strides=(4, 2, 2, 2), seed=0)
    blocks = model.decoder.blocks
    assert [block.conv.kernel_size[0] for block in blocks] == [1, 3, 5, 5]
    assert [block.shuffle.upscale_factor for block in blocks] == [4, 2, 2, 2]
    widths = [block.conv.out_channels // stride**2 for block, stride in zip(blocks, (4, 2, 2, 2), strict=True)]
    assert (model.decoder.stem.conv.out_channels, *widths) == shrinking_widths(36, 4) == (36, 30, 25, 21, 18)
    assert [stage.conv.stride[0] for stage in model.encoder.stages] == [2, 2, 2, 4]
    assert small(kernel_sizes=3).decoder.blocks[0].conv.kernel_size == (3, 3)
    assert small(kernel_sizes=(5, 1)).decoder.blocks[0].conv.kernel_size == (5, 5)


def test_every_pixel_reaches_its_embedding():
    """A stage's convolution is as wide as its stride: its windows tile the frame."""
    model = ContentEncoder((2, 3), width=4, embedding=2, channels=1)
    frame = torch.zeros(1, 1, 6, 12)
    frame[..., 2:4, 4:6] = 1
    difference = model.stages[0].conv(frame) - model.stages[0].conv(torch.zeros_like(frame))
    assert difference.abs().sum(1).nonzero().tolist() == [[0, 1, 2]]


def test_encoder_strides_may_differ():
    model = small(encoder_strides=(4,))
    assert model(torch.rand(1, 3, 8, 12)).shape == (1, 3, 8, 12)
    with pytest.raises(ValueError, match=r"the encoder shrinks 6 times and the decoder enlarges 4 times; expected"):
        small(encoder_strides=(2, 3))
    with pytest.raises(ValueError, match=r"size is \(8, 10\)"):
        small(size=(8, 10))


@pytest.mark.parametrize("channels", [1, 4])
def test_hnerv_accepts_other_channels_and_activations(channels):
    model = small(channels=channels, activation=nn.SiLU)
    assert model(torch.rand(2, channels, 8, 12)).shape == (2, channels, 8, 12)
    assert isinstance(model.decoder.stem.activation, nn.SiLU)


def test_hnerv_refuses_other_frames():
    with pytest.raises(
        ValueError,
        match=r"frames have shape \(2, 3, 2, 3\); expected \(rows, 3, 8, 12\). For embeddings, call",
    ):
        small()(torch.rand(2, 3, 2, 3))


def test_hnerv_seed_determines_weights_and_keeps_the_global_state():
    state = torch.get_rng_state()
    frames = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    first, second, third = small(), small(), small(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(frames), second(frames))
    assert not torch.equal(first(frames), third(frames))


def test_block_equals_a_hand_computed_one():
    """Channel o s² + a s + b of the convolution lands at row offset a, column offset b of channel o."""
    block = UpsamplingBlock(1, 2, stride=2, kernel_size=1, activation=nn.Identity)
    with torch.no_grad():
        block.conv.weight.copy_(torch.arange(8.0).reshape(8, 1, 1, 1))
        block.conv.bias.zero_()
    drawn = block(torch.tensor([[[[1.0, 10.0]]]]))
    assert drawn[0, 0].tolist() == [[0, 1, 0, 10], [2, 3, 20, 30]]
    assert drawn[0, 1].tolist() == [[4, 5, 40, 50], [6, 7, 60, 70]]


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_blocks_accept_any_stride_and_odd_kernel(stride, kernel_size):
    block = UpsamplingBlock(3, 4, stride, kernel_size, "relu")
    assert [name for name, _ in block.named_children()] == ["conv", "shuffle", "activation"]
    drawn = block(torch.randn(2, 3, 4, 6))
    assert drawn.shape == (2, 4, 4 * stride, 6 * stride)
    assert drawn.min() == 0


def test_shrinking_widths():
    assert shrinking_widths(100, 3, 2.0, least=20) == (100, 50, 25, 20)
    assert shrinking_widths(8, 2) == (8, 12, 12)
    assert shrinking_widths(8, 0) == (8,)
    with pytest.raises(ValueError, match="width is 8, least is 12 and reduction is 0; expected all three above 0"):
        shrinking_widths(8, 2, reduction=0.0)


def test_first_grid_divides_the_size():
    assert grid_of((72, 88), (2, 2, 2)) == (9, 11)
    assert grid_of((12, 30), (3, 2)) == (2, 5)
    for strides in ((), (2, 0)):
        with pytest.raises(ValueError, match=r"expected at least one block, each with a stride of at least 1"):
            grid_of((8, 8), strides)
    for size in ((72, 90), (0, 8), (72,)):
        with pytest.raises(
            ValueError, match=r"the strides \(2, 2, 2\) enlarge 8 times; expected a height and a width that"
        ):
            grid_of(size, (2, 2, 2))


def test_squash_keeps_pixels_within_bounds():
    model = NeRV((8, 8), (2, 2), (2,), squash=True)
    assert isinstance(model.squash, nn.Sigmoid)
    nn.init.constant_(model.head.bias, 1000.0)
    assert model(torch.rand(2)).max() == 1
    assert not hasattr(NeRV((8, 8), (2, 2), (2,)), "squash")


def test_config_describes_the_same_modules():
    named = {"widths": [4, 3, 2], "strides": [2, 1], "kernel_sizes": 3, "head_kernel_size": 1, "channels": 2}
    parts = blocks_from_config(named | {"activation": "relu", "squash": True, "size": [8, 12], "stem": [64]})
    assert list(parts) == ["blocks", "head", "squash"]
    x = torch.rand(1, 4, 2, 3)
    assert parts["blocks"](x).shape == (1, 2, 4, 6) and parts["head"].weight.shape == (2, 2, 1, 1)
    with pytest.raises(KeyError, match="squash"):
        blocks_from_config(named | {"activation": "relu"})
