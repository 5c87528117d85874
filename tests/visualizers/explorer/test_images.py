import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers.explorer.images import album, masks_of, smaller


def opened(address):
    kind, _, text = address.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_pictures_are_exact_while_there_is_room(g):
    pictures = [torch.rand(3, 5, 7, generator=g), torch.rand(1, 4, 9, generator=g).double()]
    found = album(pictures, 10_000)
    for picture, address in zip(pictures, found.addresses, strict=True):
        kind, seen = opened(address)
        assert kind == "data:image/png"
        expected = (picture.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte()
        np.testing.assert_array_equal(seen, expected.numpy())
    assert found.exact and found.said == "" and found.size == found.own == (4, 9), "of the one with the longest side"


def test_beyond_it_they_are_compressed(g):
    picture = torch.rand(3, 8, 8, generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.rand(3, 64, 64, generator=g)
    found = album([picture, noise], 15_000)
    kind, seen = opened(found.addresses[0])
    assert kind == "data:image/jpeg" and seen.shape == (64, 64, 3) and sum(map(len, found.addresses)) <= 15_000
    assert np.abs(seen / 255 - picture.permute(1, 2, 0).numpy()).mean() < 0.01
    assert found.said.startswith("Its pictures are compressed, to keep the file small enough to send")


@pytest.mark.parametrize("room", [300_000, 60_000])
def test_and_beyond_that_they_are_smaller_but_all_there(g, room):
    pictures = [torch.rand(3, 300, 400, generator=g) for _ in range(6)]
    found = album(pictures, room)
    assert 0.6 * room < sum(map(len, found.addresses)) <= room, "as much as fits"
    sizes = {opened(address)[1].shape for address in found.addresses}
    assert sizes == {(*found.size, 3)} and len(found.addresses) == 6
    assert abs(found.size[1] / found.size[0] - 4 / 3) < 0.03
    assert f"reduced from 400 x 300 to {found.size[1]} x {found.size[0]} pixels" in found.said


def test_the_smaller_are_left_as_they_are(g):
    found = album([torch.rand(3, 40, 50, generator=g), torch.rand(3, 800, 600, generator=g)], 60_000)
    assert opened(found.addresses[0])[1].shape == (40, 50, 3)
    assert found.own == (800, 600) and found.size[0] < 800


def test_no_longer_than_a_page_shows():
    found = album([torch.linspace(0, 1, 1280).expand(3, 700, 1280)], 1_000_000, longest=640)
    assert found.size == (350, 640) and "from 1280 x 700 to 640 x 350" in found.said
    assert album([torch.zeros(1, 4, 640)], 10_000, longest=640).exact


def test_smaller_is_the_mean_of_what_falls_together():
    picture = torch.tensor([[[0.0, 1.0] * 4] * 8])
    torch.testing.assert_close(smaller(picture, 2)[:, :, 0], torch.full((1, 2), 0.5), atol=0.13, rtol=0)
    assert torch.equal(smaller(picture, 8), picture)
    strange = torch.tensor([[[torch.nan, 2.0, -1.0]]])
    assert smaller(strange, 9).tolist() == [[[0, 1, 0]]]


def test_masks_are_transparency():
    (address,) = masks_of([torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])], 1_000)
    kind, seen = opened(address)
    assert kind == "data:image/png" and seen[..., 1].tolist() == [[0, 255], [128, 255]] and not seen[..., 0].any()


def test_masks_are_smaller_where_they_must_be(g):
    masks = [torch.rand(1, 200, 300, generator=g) for _ in range(4)]
    found = masks_of(masks, 40_000)
    assert len(found) == 4 and sum(map(len, found)) <= 40_000
    assert opened(found[3])[1][..., 1].mean() == pytest.approx(127.5, abs=3)


def test_what_cannot_be():
    for wrong in ([], [torch.rand(2, 4, 4)], [torch.rand(4, 4)], [torch.rand(3, 0, 4)]):
        with pytest.raises(ValueError, match=r"expected \(1 or 3, H, W\), in \[0, 1\]"):
            album(wrong, 100)
    with pytest.raises(ValueError, match=r"3 pictures do not fit into 0.0 MB, not even at 32 pixels; make several"):
        album([torch.rand(3, 90, 90)] * 3, 900)
