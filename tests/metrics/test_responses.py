import pytest
import torch

from xinc_captum.metrics import edges, opponents, unit_responses
from xinc_captum.zoo.sprite import Sprite, sprite_clip


def test_planted_units_respond_to_what_they_were_made_of():
    photo = torch.rand(3, 6, 9, generator=torch.Generator().manual_seed(1))
    photo = torch.nn.functional.interpolate(photo[None], size=(24, 36), mode="bicubic")[0].clamp(0, 1)
    clip = sprite_clip(photo, (Sprite(5, (10, 8), (0, 4)),), 5)
    noise = torch.rand(5, 1, 24, 36, generator=torch.Generator().manual_seed(2))
    bright, red, _ = torch.stack([opponents(frame) for frame in clip.frames]).unbind(1)
    units = {
        "mover": clip.masks.float() * noise,
        "bright": bright[:, None],
        "red": red[:, None] - red.min(),
        "edge": torch.stack([edges(frame) for frame in clip.frames])[:, None],
        "corner": torch.zeros(5, 1, 24, 36).index_fill(3, torch.arange(30, 36), 1.0),
        "nothing": torch.zeros(5, 1, 24, 36),
    }
    found = unit_responses(torch.cat(list(units.values()), 1), clip.frames, clip.flow)
    names = list(units)
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        "motion": (6, 2), "colour": (6, 3), "edge": (6, 1), "position": (6, 2)
    }  # fmt: skip
    assert names[int(found["motion"][:5, 1].nan_to_num().argmax())] == "mover"
    assert found["colour"][names.index("bright"), 0] == pytest.approx(1, abs=1e-6)
    assert found["colour"][names.index("red"), 1] == pytest.approx(1, abs=1e-6)
    assert found["edge"][names.index("edge"), 0] == pytest.approx(1, abs=1e-6)
    corner = found["position"][names.index("corner")].tolist()
    assert corner == pytest.approx([0.5, 32.5 / 35])
    assert all(v[names.index("nothing")].isnan().all() for v in found.values())


def test_still_clips_have_no_motion():
    frames = torch.rand(1, 3, 6, 8).expand(3, 3, 6, 8)
    found = unit_responses(torch.rand(3, 4, 6, 8), frames, torch.zeros(2, 2, 6, 8))
    assert found["motion"].isnan().all() and found["colour"].isfinite().all()


def test_what_does_not_fit_is_said():
    message = (
        r"flow has shape .*wanted \(3, 3, 6, 8\) and \(2, 2, 6, 8\)|and flow \(3, 2, 6, 8\) .*wanted \(3, 3, 6, 8\)"
    )
    with pytest.raises(ValueError, match=message):
        unit_responses(torch.rand(3, 4, 6, 8), torch.rand(3, 3, 6, 8), torch.rand(3, 2, 6, 8))
    with pytest.raises(ValueError, match="amounts have 1 frame"):
        unit_responses(torch.rand(1, 4, 6, 8), torch.rand(1, 3, 6, 8), torch.rand(0, 2, 6, 8))
