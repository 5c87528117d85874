import math
from fractions import Fraction

import pytest
import torch

from xinc_captum.attributions.nern import KernelPredictor, SmoothEmbedding
from xinc_captum.hooks import capture


def test_activations_equal_the_recorded_ones(arrays, recorded_nern):
    predictor = recorded_nern.predictor
    assert sum(p.numel() for p in predictor.parameters()) == int(arrays["predictor/num_params"])
    names = [f"linear{i}" for i in (1, 2, 3, 4)] + ["output"]
    with capture(predictor, names) as captured:
        answer = predictor(arrays["predictor/input"])
    for i, name in enumerate(names):
        found = captured[predictor.get_submodule(name)].detach()
        torch.testing.assert_close(found, arrays[f"predictor/preact{i}"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(answer.detach(), arrays["predictor/output"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "hidden", "count"), [(240, 160, 117_289), (240, 1256, 5_050_385)])
def test_sizes_of_the_paper(inputs, hidden, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in KernelPredictor(inputs, hidden).parameters()) == count


def test_seed_determines_weights_and_keeps_the_global_state():
    before = torch.get_rng_state()
    a, b, c = (KernelPredictor(6, 5, seed=s).output.weight for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kwargs", [{"blocks": 1}, {"hidden": 0}, {"kernel_size": 0}])
def test_invalid_sizes_are_refused(kwargs):
    name, value = next(iter(kwargs.items()))
    with pytest.raises(ValueError, match=rf"{name} {value}.*; expected at least 2 blocks"):
        KernelPredictor(6, **kwargs)


@pytest.mark.parametrize("name", ["smooth", "default", "this"])
@pytest.mark.parametrize("fusion", ["concat", "sum"])
def test_embedding_equals_the_recorded_one(arrays, name, fusion):
    base, levels = arrays[f"pe/{name}_{fusion}/base_levels"].tolist()
    embed = SmoothEmbedding(base, int(levels), fusion)
    for kind in ("unit", "int"):
        if f"pe/{name}_{fusion}/{kind}" in arrays:
            expected = arrays[f"pe/{name}_{fusion}/{kind}"]
            found = embed(arrays[f"pe/coords_{kind}"])
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
            assert found.shape[1] == embed.out_features


@pytest.mark.parametrize(("base", "levels"), [(1.25, 80), (0.95, 80), (0.85, 20), (3.7, 30)])
def test_every_frequency_is_the_float_nearest_to_the_power(base, levels):
    """On every processor: a frequency of 1e7 that is one unit in the last place off turns an angle about."""
    exact = Fraction(float(torch.tensor(base)))
    expected = torch.tensor([float(exact**level) for level in range(levels)], dtype=torch.float64).float()
    assert torch.equal(SmoothEmbedding(base, levels).frequencies, expected)


def test_embedding_equals_hand_computed_values():
    found = SmoothEmbedding(0.5, 2)(torch.tensor([[0.0, 1.0, 1.0]]))[0]
    level0, level1 = [math.sin(math.pi), math.cos(math.pi)], [1.0, 0.0]
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0, *level0, *level1, *level0, *level1])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"base": 0.0}, "base is 0.0 and levels is 20; expected base > 0"),
        ({"levels": 0}, "levels is 0; expected base > 0 and at least 1 level"),
        ({"fusion": "mean"}, "fusion is 'mean'; expected 'concat' or 'sum'"),
    ],
)
def test_invalid_embeddings_are_refused(kwargs, text):
    with pytest.raises(ValueError, match=text):
        SmoothEmbedding(**kwargs)
