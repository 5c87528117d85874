import stat

import pytest
import torch

from xinc_captum.generators import StyleGenerator, load_style_generator, save_style_generator
from xinc_captum.store import tensors_sha256

RECIPE = {"data": "noise", "seed": 3, "steps": 7}


@pytest.fixture
def saved(tmp_path):
    model = StyleGenerator(3, 8, channels=(6, 4), generator=torch.Generator().manual_seed(0)).eval()
    save_style_generator(model, tmp_path / "g.safetensors", recipe=RECIPE)
    return model, tmp_path / "g.safetensors"


def test_what_is_saved_comes_back_to_the_bit(saved):
    model, path = saved
    again, recipe = load_style_generator(path)
    assert recipe == RECIPE and not again.training and again.config == model.config
    latents = model.sample_latents(4, 2, 0.7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(latents, again.sample_latents(4, 2, 0.7, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(model.synthesize(latents), again.synthesize(latents))
    assert [p.name for p in path.parent.iterdir()] == ["g.safetensors"], "no half-written file is left"
    assert path.stat().st_mode & stat.S_IRUSR


def test_equal_generators_make_equal_files(saved, tmp_path):
    model, path = saved
    save_style_generator(model, tmp_path / "again.safetensors", recipe=RECIPE)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_loading_leaves_the_random_state(saved):
    state = torch.get_rng_state()
    load_style_generator(saved[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hash_is_of_names_types_shapes_and_numbers():
    base = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"].double(), "b": base["b"]},
        {"a": base["a"].view(2, 2), "b": base["b"]},
        {"a": base["a"] + 1, "b": base["b"]},
    ]
    assert len({tensors_sha256(tensors) for tensors in (base, *others)}) == 5
    assert tensors_sha256(dict(reversed(base.items()))) == tensors_sha256(base)
