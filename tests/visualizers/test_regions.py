import pytest
import torch

from xinc_captum.visualizers import region_bars

H, W = 12, 18


def test_it_shows_what_it_was_given(shows_what_it_was_given, photo):
    def draw(g):
        labels = {"cells": torch.arange(H * W).view(H, W) // 9, "objects": torch.randint(-1, 3, (H, W), generator=g)}
        tests = {
            kind: [torch.rand(9, generator=g), *(torch.rand(4, 9, generator=g) / 9).expand(2, 4, 9)] for kind in labels
        }
        return region_bars(tests, labels, photo)

    shows_what_it_was_given(draw)


def test_it_says_how_much_beside_both_controls(words, photo):
    variance, scattered, shifted = torch.full((3,), 0.25), torch.full((2, 3), 0.01), torch.full((2, 3), 0.0625)
    labels = torch.arange(H * W).view(H, W) % 5
    said = words(region_bars({"kind": (variance, scattered, shifted)}, {"kind": labels}, photo))
    assert "kind, 5 regions" in said and "50 %" in said
    assert "25 %   (found: 2.0 × this)" in said and "10 %   (found: 5.0 × this)" in said
    assert said.index("same shapes elsewhere") < said.index("random pixels, same areas")


def test_what_does_not_fit_is_said(photo):
    with pytest.raises(ValueError, match="kinds are cells and labels for none"):
        region_bars({"cells": (torch.rand(2), torch.rand(1, 2), torch.rand(1, 2))}, {}, photo)
    with pytest.raises(ValueError, match=r"labels of cells have shape \(3, 3\)"):
        region_bars({"cells": torch.rand(3, 1, 2)}, {"cells": torch.zeros(3, 3).long()}, photo)
    with pytest.raises(ValueError, match="cells: no unit paints anything"):
        region_bars({"cells": (torch.full((2,), torch.nan),) * 3}, {"cells": torch.zeros(H, W).long()}, photo)
