import pytest
import torch

from xinc_captum.visualizers import association_rows

H, W = 12, 18


def test_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    def draw(g):
        fields = {name: torch.rand(H, W, generator=g) for name in ("intensity", "edges")}
        rhos = {name: (torch.rand(9, generator=g) - 0.5, torch.rand(5, 9, generator=g) - 0.5) for name in fields}
        rhos["edges"][0][:] = torch.nan
        return association_rows(photo, torch.rand(H, W, generator=g), fields, rhos)

    shows_what_it_was_given(draw)


def test_what_does_not_fit_is_said(photo):
    rho = {"edges": (torch.rand(3), torch.rand(2, 3))}
    with pytest.raises(ValueError, match=r"'edges': \(3, 3\).*wanted \(12, 18\) and the same names"):
        association_rows(photo, torch.rand(H, W), {"edges": torch.rand(3, 3)}, rho)
