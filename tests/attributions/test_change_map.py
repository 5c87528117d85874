import torch
from torch import nn

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking.change_map import laid_over
from xinc_captum.generators import from_callable

NET = nn.Sequential(nn.Flatten(), nn.Identity())


class Untraceable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("nobody asked for this")


def units(paint):
    r = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)).double()
    return LinkedUnitVisualization(NET, "1", paint, LatentLink(ridge=0.0).fit(r, 3 * r))


def painted(draw, **kw):
    paint = from_callable(lambda w: draw(w).view(-1, 1, 2, 2), lambda n, *_, **__: torch.zeros(n, 4).double(), **kw)
    return units(paint)


def test_by_hand():
    """Each unit draws one pixel, σ(3 r): its derivative is 3 σ (1 − σ) there and nothing elsewhere."""
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    for method in (
        painted(torch.sigmoid),
        painted(Untraceable.apply),
        painted(lambda w: w.detach().sigmoid(), differentiable=False),
    ):
        found = method.attribute(x, 1)
        s = (3 * x[:, 0, 0, 1]).sigmoid()
        torch.testing.assert_close(found[:, 0, 0, 1], 3 * s * (1 - s), rtol=1e-3, atol=0)
        assert found.flatten(1)[:, [0, 2, 3]].abs().max() < 1e-9


def test_slices_raise_units_together():
    x, method = torch.rand(2, 1, 2, 2, dtype=torch.float64), painted(torch.sigmoid)
    both = method.attribute(x, (slice(1, 3),))
    torch.testing.assert_close(both, method.attribute(x, 1) + method.attribute(x, 2))


def test_marginal_goes_where_the_sweep_goes():
    x, method = torch.rand(2, 1, 2, 2, dtype=torch.float64), painted(torch.sigmoid)
    found = method.attribute(x, 1, direction="marginal")
    r, h = x.flatten(1), 1e-4
    for row in range(2):
        ends = [float(r[row, 1]) - h, float(r[row, 1]) + h]
        frames = method.sweep(x[row : row + 1], 1, ends, mode="replace").images[0]
        torch.testing.assert_close(found[row], (frames[1] - frames[0]).abs() / (2 * h), rtol=1e-3, atol=1e-6)


def test_laid_over_the_input():
    pictures = torch.rand(2, 3, 8, 8)
    same = laid_over(pictures, torch.zeros(2, 3, 8, 8))
    assert torch.equal(same, pictures)
    grey = laid_over(pictures, torch.zeros(2, 1, 16, 16, dtype=torch.float64))
    assert grey.shape == (2, 1, 16, 16) and grey.dtype == torch.float64
    torch.testing.assert_close(grey.mean().float(), pictures.mean(), rtol=0.05, atol=0)
    assert laid_over(pictures[:, :1], torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
