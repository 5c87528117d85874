"""The recorded arrays, a model with the recorded weights, and a small fitted one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR


@pytest.fixture(scope="session")
def recorded():
    with np.load(Path(__file__).parents[2] / "data" / "transinr.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def ours(recorded):
    """The recorded state under this package's names."""
    state = {name.removeprefix("state/"): value for name, value in recorded.items() if name.startswith("state/")}
    renamed = {
        "writer.tokens": state["wtokens"],
        "tokens.places": state["tokenizer.posemb"].T.reshape(1, 24, 4, 4),
        "tokens.linear.weight": state["tokenizer.prefc.weight"],
        "tokens.linear.bias": state["tokenizer.prefc.bias"],
    }
    for block in (0, 1):
        theirs, mine = f"transformer_encoder.layers.{block}.", f"writer.encoder.blocks.{block}."
        renamed[mine + "attention.key.weight"], renamed[mine + "attention.value.weight"] = state[
            theirs + "0.fn.to_kv.weight"
        ].chunk(2)
        for a, b in (
            ("0.norm.weight", "norm1.weight"),
            ("0.norm.bias", "norm1.bias"),
            ("0.fn.to_q.weight", "attention.query.weight"),
            ("0.fn.to_out.0.weight", "attention.out.weight"),
            ("0.fn.to_out.0.bias", "attention.out.bias"),
            ("1.norm.weight", "norm2.weight"),
            ("1.norm.bias", "norm2.bias"),
            ("1.fn.net.0.weight", "ff.0.weight"),
            ("1.fn.net.0.bias", "ff.0.bias"),
            ("1.fn.net.3.weight", "ff.2.weight"),
            ("1.fn.net.3.bias", "ff.2.bias"),
        ):
            renamed[mine + b] = state[theirs + a]
    for i, layer in enumerate(("linear1", "linear2", "output")):
        wb = state[f"base_params.wb{i}"]
        renamed[f"writer.base.{layer}.weight"], renamed[f"writer.base.{layer}.bias"] = wb[:-1].T, wb[-1]
        for part, name in (
            ("0.weight", "0.weight"),
            ("0.bias", "0.bias"),
            ("1.weight", "1.weight"),
            ("1.bias", "1.bias"),
        ):
            renamed[f"writer.heads.{i}.{name}"] = state[f"wtoken_postfc.wb{i}.{part}"]
    return renamed


@pytest.fixture
def original(recorded):
    """A model of the recorded configuration, with the recorded weights."""
    side, patch, padding, channels = recorded["cfg/S_patch_pad_C"].tolist()
    dim, depth, heads, width, ff = recorded["cfg/dim_depth_heads_headdim_ff"].tolist()
    layers, hidden, frequencies, highest, groups = recorded["cfg/hypdepth_hidden_pedim_sigma_groups"].tolist()
    assert width * heads == dim
    model = TransINR(
        channels, (side, side), patch, padding=padding, dim=dim, depth=depth, heads=heads, ff=ff, hidden=hidden,
        layers=layers, count=frequencies // 2, highest=float(highest), groups=groups,
    )  # fmt: skip
    missing = model.load_state_dict(ours(recorded), strict=False)
    assert not missing.unexpected_keys
    assert all("mean" in name or "frequencies" in name for name in missing.missing_keys)
    return model


@pytest.fixture
def tiny():
    """Four patches, two layers, two groups: small enough to look at, in float64."""
    return TransINR(
        3, (6, 6), 3, dim=8, depth=1, heads=2, ff=12, hidden=6, layers=3, count=2, groups=3, seed=0
    ).double()


def make_small(**arguments):
    return TransINR(**{"dim": 16, "depth": 1, "ff": 16, "hidden": 8, "count": 2, "groups": 4, "seed": 0, **arguments})


def make_bars(count=24):
    """A bright column or row on grey, one a picture."""
    images = torch.full((count, 1, 8, 8), 0.3)
    for i in range(count):
        if i % 2:
            images[i, :, i % 8] = 1.0
        else:
            images[i, :, :, i % 8] = 1.0
    return images


@pytest.fixture
def small():
    return make_small


@pytest.fixture
def bars():
    return make_bars


@pytest.fixture
def ramps():
    """Planes of random slopes around a random grey."""

    def make(count):
        a, b, c = torch.rand(3, count, 1, 1, 1, generator=torch.Generator().manual_seed(0))
        x = torch.linspace(-0.4, 0.4, 8)
        return 0.4 + 0.2 * c + (a - 0.5) * x + (b - 0.5) * x[:, None]

    return make
