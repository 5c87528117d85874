import pytest
import torch

from xinc_captum.attributions.nern import KernelPredictor
from xinc_captum.hooks import capture


def test_as_recorded(arrays, recorded_nern):
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


def test_seeds():
    before = torch.get_rng_state()
    a, b, c = (KernelPredictor(6, 5, seed=s).output.weight for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kwargs", [{"blocks": 1}, {"hidden": 0}, {"kernel_size": 0}])
def test_errors(kwargs):
    name, value = next(iter(kwargs.items()))
    with pytest.raises(ValueError, match=rf"{name} {value}.*; wanted at least 2 blocks"):
        KernelPredictor(6, **kwargs)
