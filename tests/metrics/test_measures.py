import pytest
import torch

from xinc_captum.metrics import MEASURES, Measure, resolve_measures
from xinc_captum.metrics.measures import of_ellipses, relative


@pytest.mark.parametrize("name", MEASURES)
def test_each_gives_its_columns(name):
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 3, 16, 16)
    masks[:, 0, 2:9, 3:6], masks[:, 1] = 1, 0.5
    measure = MEASURES[name]
    values = measure.of(pictures, masks) if isinstance(measure, Measure) else measure.between(pictures, pictures, masks)
    assert values.shape == (2, 3, len(measure.columns))
    assert values[:, :2].isfinite().all() and (name == "area" or values[:, 2].isnan().all()), "the third is empty"


@pytest.mark.parametrize("name", [n for n, m in MEASURES.items() if isinstance(m, Measure) and m.smooth])
def test_gradients_of_smooth_measures_equal_finite_differences(name):
    g = torch.Generator().manual_seed(1)
    pictures, masks = torch.rand(1, 3, 12, 12, generator=g).double(), torch.rand(1, 1, 12, 12, generator=g).double()
    step = [1e-6 * torch.randn(t.shape, generator=g).double() for t in (pictures, masks)]
    leaves = [t.clone().requires_grad_() for t in (pictures, masks)]
    measure = MEASURES[name]
    for column in range(len(measure.columns)):
        value = measure.of(*leaves)[0, 0, column]
        slopes = torch.autograd.grad(value, leaves, allow_unused=True)
        expected = sum((s * d).sum() for s, d in zip(slopes, step, strict=True) if s is not None)
        after, before = (
            measure.of(*(t + sign * d for t, d in zip((pictures, masks), step, strict=True))) for sign in (1, -1)
        )
        assert float((after - before)[0, 0, column] / 2) == pytest.approx(float(expected), rel=1e-3, abs=1e-11)


def test_changes():
    before, after, base = torch.tensor([0.2, 0.0]), torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.0])
    torch.testing.assert_close(relative(before, after, base), torch.tensor([0.5, 0.1]))
    assert of_ellipses(torch.tensor([0.1, 80.0]), torch.tensor([0.2, -80.0]), base).tolist() == pytest.approx([0.1, 20])


def test_unknown_measures_raise_errors():
    with pytest.raises(ValueError, match="measure 'size' is unknown; expected one of area, luminance"):
        resolve_measures(["area", "size"])
    with pytest.raises(ValueError, match="column 'area' comes from two"):
        resolve_measures(["area", "area"])
    with pytest.raises(ValueError, match=r"measures is 'area'; expected a list"):
        resolve_measures("area")
    with pytest.raises(ValueError, match="expected a list"):
        resolve_measures([])
