import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import (
    contribution_change,
    control_tracks,
    motion_agreement,
    object_track,
    optical_flow,
    preference,
)
from xinc_captum.zoo.videos import Sprite, sprite_clip


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


def test_a_still_clip_gives_nan():
    clip = scene()
    amounts = torch.rand(1, 3, 48, 72).expand(5, 3, 48, 72)
    assert motion_agreement(contribution_change(amounts), clip.flow.norm(dim=1)).matched.isnan().all()
    changing = contribution_change(torch.rand(5, 3, 48, 72))
    assert motion_agreement(changing, torch.zeros(4, 48, 72)).matched.isnan().all()


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match="magnitudes have 1 frame; expected at least 2"):
        contribution_change(torch.rand(1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"clip has shape \(1, 3, 8, 8\); expected .* at least 2 frames"):
        optical_flow(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="Divide 8-bit values by 255"):
        optical_flow(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"speed \(2, 2, 3, 4\); expected .*Of a flow, take .norm\(dim=1\)"):
        motion_agreement(torch.rand(2, 1, 3, 4), torch.rand(2, 2, 3, 4))
    with pytest.raises(ValueError, match="single pair of frames; the shuffled control needs at least 3 frames"):
        motion_agreement(torch.rand(1, 1, 3, 4), torch.rand(1, 3, 4))


def test_by_hand():
    """Unit 0 goes along with the object, unit 1 always paints pixel 0, unit 2 paints evenly, unit 3 nothing."""
    amounts = torch.zeros(3, 4, 1, 4)
    masks = torch.zeros(3, 1, 1, 4)
    for t in range(3):
        amounts[t, 0, 0, t] = 2.0
        amounts[t, 1, 0, 0] = 1.0
        masks[t, 0, 0, t] = 1
    amounts[:, 2] = 0.5
    track = object_track(amounts, masks)
    assert track.density[:, 0].tolist() == [[2, 1, 0.5, 0], [2, 0, 0.5, 0], [2, 0, 0.5, 0]]
    assert track.matched[:, 0, 0].tolist() == [3, 3, 3], "four times as much as its area"
    assert track.matched[:, 0, 1].tolist() == [3, -1, -1]
    assert track.shuffled[:, 0, 0].tolist() == [-1, -1, -1]
    assert track.shuffled[:, 0, 1].tolist() == [-1, 1, 1], "at two of its other times the object is not there"
    assert track.matched[:, 0, 2].tolist() == track.shuffled[:, 0, 2].tolist() == [0, 0, 0]
    assert track.carried[0, :3].tolist() == pytest.approx([4, 0, 0]), "always the same place is not going along"
    assert track.carried[0, 3].isnan() and track.matched[:, 0, 3].isnan().all()
    assert track.shares[:, 0, 0].tolist() == pytest.approx([1 / 3] * 3)


@given(seed=st.integers(0, 99))
def test_matched_is_the_regions_preference_frame_by_frame(seed):
    g = torch.Generator().manual_seed(seed)
    amounts, masks = torch.rand(3, 4, 5, 6, generator=g), torch.rand(3, 2, 5, 6, generator=g)
    track = object_track(amounts, masks)
    for t in range(3):
        torch.testing.assert_close(track.matched[t], preference(amounts[t], masks[t]).T)
        others = [preference(amounts[t], masks[s]).T for s in range(3) if s != t]
        torch.testing.assert_close(track.shuffled[t], torch.stack(others).mean(0))


def test_frames_without_the_object_are_not_counted():
    amounts = torch.rand(3, 2, 2, 3) + 0.1
    masks = torch.ones(3, 1, 2, 3)
    masks[0, ..., 0], masks[1] = 0, 0
    track = object_track(amounts, masks)
    assert track.density[1].isnan().all() and track.matched[1].isnan().all()
    assert track.carried.isfinite().all() and track.shares[1].abs().sum() == 0
    torch.testing.assert_close(track.shuffled[0, 0], preference(amounts[0], masks[2])[:, 0])


def test_a_still_object_gives_zero():
    amounts = torch.rand(4, 3, 5, 6)
    assert object_track(amounts, torch.rand(1, 2, 5, 6).expand(4, 2, 5, 6)).carried.abs().max() < 1e-12


def test_a_planted_carrier_is_found_and_elsewhere_none_is():
    clip = sprite_clip(torch.rand(3, 40, 60), (Sprite(5, (10, 8), (0, 4)), Sprite(4, (30, 50), (0, -4))), frames=10)
    g = torch.Generator().manual_seed(0)
    amounts = torch.rand(10, 8, 40, 60, generator=g)
    amounts[:, 3] += 2 * clip.masks[:, 0]
    track = object_track(amounts, clip.masks)
    assert track.carried[0].argmax() == 3 and track.carried[0, 3] > 1
    assert track.carried[1].abs().max() < 0.2, "nobody carries the other one"
    elsewhere = control_tracks(amounts, clip.masks, generator=g, repeats=8)
    assert elsewhere.shape == (8, 2, 8)
    assert track.carried[0, 3] > 5 * elsewhere[:, 0].amax(), "nor is the finding among its own controls"


def test_tracks_mismatched_arguments_raise_errors():
    amounts = torch.rand(3, 2, 4, 5)
    with pytest.raises(ValueError, match=r"masks have shape \(3, 4, 5\) for 3 frames of 4 x 5; .*masks\[:, None\]"):
        object_track(amounts, torch.ones(3, 4, 5))
    with pytest.raises(
        ValueError, match=r"masks have shape \(2, 1, 4, 5\) for 3 frames of 4 x 5; expected \(3, objects, 4"
    ):
        object_track(amounts, torch.ones(2, 1, 4, 5))
    with pytest.raises(ValueError, match="masks go from 0 to 255"):
        object_track(amounts, 255 * torch.eye(5)[:4].expand(3, 1, 4, 5))
    with pytest.raises(ValueError, match=r"objects \[1\] are visible in no frame; drop them"):
        object_track(amounts, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5))
    with pytest.raises(ValueError, match="magnitudes have 1 frame; expected at least 2"):
        object_track(amounts[:1], torch.ones(1, 1, 4, 5))


def test_masks_that_are_no_numbers_are_refused():
    masks = torch.ones(3, 1, 2, 2)
    masks[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="masks go from nan to nan"):
        object_track(torch.rand(3, 2, 2, 2), masks)
