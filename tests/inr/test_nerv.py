from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.inr import NeRV, Sine, times

RECORDED = Path(__file__).parents[1] / "data" / "nerv_small.npz"


@pytest.fixture(scope="module")
def recorded():
    """A random network of XINC's released code, with the maps that it passed through."""
    with np.load(RECORDED) as data:
        return {name: torch.from_numpy(data[name]) for name in data}


def test_it_is_the_originals_network(recorded):
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


def test_its_parts_have_names():
    model = NeRV((8, 12), (3, 4, 5), (2, 2), stem=(7,))
    assert [name for name, _ in model.named_children()] == ["encoding", "stem", "blocks", "head"]
    assert model.get_submodule("blocks.1.conv").weight.shape == (20, 4, 3, 3)
    assert model.get_submodule("stem.linear2").weight.shape == (3 * 2 * 3, 7)
    assert model.get_submodule("stem")(model.encoding(times(4))).shape == (4, 3, 2, 3)
    assert type(model[2:]) is nn.Sequential
    assert len({id(m) for m in model.modules() if isinstance(m, nn.GELU)}) == 4, "each can be captured"


def test_rows_are_times_in_two_shapes():
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
def test_any_shape(strides, widths, kernels, stem, activation, channels):
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


def test_the_seed_decides_and_leaves_torchs_own_alone():
    state = torch.get_rng_state()
    first, second, third = (NeRV((8, 8), (2, 2), (2,), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(times(2)), second(times(2)))
    assert not torch.equal(first(times(2)), third(times(2)))


def test_the_default_is_small():
    assert sum(p.numel() for p in NeRV((72, 88)).parameters()) <= 100_000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": (9, 8)}, r"size is \(9, 8\) and the strides \(2, 2\) enlarge 4 times; wanted .* that 4 divides"),
        ({"strides": (2, 2, 2)}, r"widths are \(3, 3, 3\) for 3 blocks; wanted 4 of at least 1"),
        ({"widths": (3, 0, 3)}, r"widths are \(3, 0, 3\) for 2 blocks; wanted 3 of at least 1"),
        ({"kernel_sizes": (3,)}, r"kernel_sizes are \(3,\) for 2 blocks; wanted one each, or one number"),
        ({"kernel_sizes": (3, 4)}, r"kernels are \(3, 4, 3\) wide, the head's last; wanted odd ones"),
        ({"head_kernel_size": 2}, r"kernels are \(3, 3, 2\) wide"),
        ({"activation": "step"}, "activation 'step' is unknown; wanted one of relu, gelu"),
    ],
)
def test_impossible_networks(arguments, text):
    with pytest.raises(ValueError, match=text):
        NeRV(**{"size": (8, 8), "widths": (3, 3, 3), "strides": (2, 2), **arguments})


@pytest.mark.parametrize("t", [torch.arange(3), torch.rand(2, 2), torch.rand(()), torch.rand(1, 1, 1)])
def test_times_that_are_none(t):
    with pytest.raises(ValueError, match=r"times are torch.*; wanted floats in \[0, 1\] of shape \(rows,\) or"):
        NeRV((8, 8), (2, 2), (2,))(t)
