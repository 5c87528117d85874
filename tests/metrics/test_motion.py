import pytest
import scipy.stats
import torch

from xinc_captum.metrics import contribution_change, motion_agreement, optical_flow
from xinc_captum.zoo.sprite import Sprite, sprite_clip


def scene(frames=5, step=(0, 2)):
    photo = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(1))
    photo = torch.nn.functional.interpolate(photo[None], size=(48, 72), mode="bicubic")[0].clamp(0, 1)
    return sprite_clip(photo, (Sprite(8, (22, 16), step),), frames)


def test_change_by_hand():
    amounts = torch.tensor([[1.0, 2.0], [4.0, 2.0], [0.0, 3.0]]).view(3, 2, 1, 1)
    assert contribution_change(amounts).flatten(1).tolist() == [[3, 0], [4, 1]]
    assert contribution_change(amounts[:1].expand(4, 2, 1, 1)).abs().max() == 0


def test_flow_is_the_known_one():
    clip = scene()
    flow = optical_flow(clip.frames)
    assert flow.shape == (4, 2, 48, 72) and flow.dtype == torch.float32
    seen = clip.masks[:-1, 0]
    error = (flow - clip.flow).norm(dim=1)
    assert error[seen].mean() < 0.5 * clip.flow.norm(dim=1)[seen].mean(), "most of the motion of the sprite is found"
    assert error[~seen].mean() < 0.15, "and little where nothing moves"
    assert optical_flow(clip.frames[:1].expand(3, 3, 48, 72)).abs().max() == 0


def test_the_table_is_scipy_s():
    change, speed = torch.rand(3, 2, 4, 5), torch.rand(3, 4, 5)
    found = motion_agreement(change, speed)
    for u in range(2):
        for t in range(3):
            for s in range(3):
                expected = scipy.stats.spearmanr(change[t, u].flatten(), speed[s].flatten()).statistic
                assert found.table[u, t, s].item() == pytest.approx(expected, abs=1e-5)
        own = [found.table[u, t, t] for t in range(3)]
        other = [found.table[u, t, s] for t in range(3) for s in range(3) if s != t]
        assert found.matched[u].item() == pytest.approx(sum(own) / 3)
        assert found.shuffled[u].item() == pytest.approx(sum(other) / 6)


def test_a_planted_mover_beats_its_control_and_a_stayer_does_not():
    clip = scene(step=(0, 5))
    g = torch.Generator().manual_seed(2)
    stays = torch.rand(1, 1, 48, 72, generator=g) * torch.arange(1, 6).view(5, 1, 1, 1)
    amounts = torch.cat([clip.masks.float() * torch.rand(5, 1, 48, 72, generator=g), stays], 1)
    found = motion_agreement(contribution_change(amounts), clip.flow.norm(dim=1))
    assert found.matched[0] > 0.6 and found.matched[0] > found.shuffled[0] + 0.3
    assert abs(found.matched[1] - found.shuffled[1]) < 0.05


def test_a_clip_that_stands_still_has_nothing_to_say():
    clip = scene()
    amounts = torch.rand(1, 3, 48, 72).expand(5, 3, 48, 72)
    assert motion_agreement(contribution_change(amounts), clip.flow.norm(dim=1)).matched.isnan().all()
    changing = contribution_change(torch.rand(5, 3, 48, 72))
    assert motion_agreement(changing, torch.zeros(4, 48, 72)).matched.isnan().all()


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="amounts have 1 frame; wanted at least 2"):
        contribution_change(torch.rand(1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"clip has shape \(1, 3, 8, 8\); wanted .* at least 2 frames"):
        optical_flow(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="Divide 8-bit values by 255"):
        optical_flow(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"speed \(2, 2, 3, 4\); wanted .*Of a flow, take .norm\(dim=1\)"):
        motion_agreement(torch.rand(2, 1, 3, 4), torch.rand(2, 2, 3, 4))
    with pytest.raises(ValueError, match="single pair of frames; the shuffled control wants at least 3 frames"):
        motion_agreement(torch.rand(1, 1, 3, 4), torch.rand(1, 3, 4))
