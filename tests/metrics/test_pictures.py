import pytest
import torch

from xinc_captum.metrics import edges, intensity, opponents


def test_by_hand():
    red, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    red[0] = 1
    assert intensity(red).item() == pytest.approx(0.299) and intensity(white).item() == pytest.approx(1)
    assert intensity(torch.tensor([0.2, 0.6]).view(2, 1, 1)).item() == pytest.approx(0.4)
    assert opponents(white).flatten().tolist() == pytest.approx([1, 0, 0])
    assert opponents(red.roll(2, 0)).flatten().tolist() == pytest.approx([0.114, 0, 1]), "blue"


def test_an_edge_is_where_brightness_steps():
    picture = torch.zeros(3, 6, 8)
    picture[:, :, 4:] = 1
    found = edges(picture)
    assert (found[:, 3:5] > 0.5).all() and (found[:, :3] == 0).all() and (found[:, 5:] == 0).all()
    torch.testing.assert_close(edges(picture.mT), found.T)
    assert found.dtype == torch.float32


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"picture is torch.uint8 of shape \(3, 2, 2\).*Divide 8-bit values by 255"):
        intensity(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="picture has 1 channels; colours want 3"):
        opponents(torch.zeros(1, 2, 2))
