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


def test_images_are_exact_if_they_fit(g):
    pictures = [torch.rand(3, 5, 7, generator=g), torch.rand(1, 4, 9, generator=g).double()]
    result = album(pictures, 10_000)
    for picture, address in zip(pictures, result.addresses, strict=True):
        kind, pixels = opened(address)
        assert kind == "data:image/png"
        expected = (picture.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte()
        np.testing.assert_array_equal(pixels, expected.numpy())
    assert result.exact and result.caption == "" and result.size == result.original_size == (4, 9), (
        "of the image with the longest side"
    )


def test_images_are_compressed_if_necessary(g):
    picture = torch.rand(3, 8, 8, generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.rand(3, 64, 64, generator=g)
    result = album([picture, noise], 15_000)
    kind, pixels = opened(result.addresses[0])
    assert kind == "data:image/jpeg" and pixels.shape == (64, 64, 3) and sum(map(len, result.addresses)) <= 15_000
    assert np.abs(pixels / 255 - picture.permute(1, 2, 0).numpy()).mean() < 0.01
    assert result.caption.startswith("Its pictures are compressed, to keep the file small enough to send")


@pytest.mark.parametrize("room", [300_000, 60_000])
def test_images_are_reduced_if_necessary(g, room):
    pictures = [torch.rand(3, 300, 400, generator=g) for _ in range(6)]
    result = album(pictures, room)
    assert 0.6 * room < sum(map(len, result.addresses)) <= room, "as much as fits"
    sizes = {opened(address)[1].shape for address in result.addresses}
    assert sizes == {(*result.size, 3)} and len(result.addresses) == 6
    assert abs(result.size[1] / result.size[0] - 4 / 3) < 0.03
    assert f"reduced from 400 x 300 to {result.size[1]} x {result.size[0]} pixels" in result.caption


def test_small_images_are_not_reduced(g):
    result = album([torch.rand(3, 40, 50, generator=g), torch.rand(3, 800, 600, generator=g)], 60_000)
    assert opened(result.addresses[0])[1].shape == (40, 50, 3)
    assert result.original_size == (800, 600) and result.size[0] < 800


def test_images_have_at_most_the_given_side():
    result = album([torch.linspace(0, 1, 1280).expand(3, 700, 1280)], 1_000_000, longest=640)
    assert result.size == (350, 640) and "from 1280 x 700 to 640 x 350" in result.caption
    assert album([torch.zeros(1, 4, 640)], 10_000, longest=640).exact


def test_smaller_averages_pixels():
    picture = torch.tensor([[[0.0, 1.0] * 4] * 8])
    torch.testing.assert_close(smaller(picture, 2)[:, :, 0], torch.full((1, 2), 0.5), atol=0.13, rtol=0)
    assert torch.equal(smaller(picture, 8), picture)
    strange = torch.tensor([[[torch.nan, 2.0, -1.0]]])
    assert smaller(strange, 9).tolist() == [[[0, 1, 0]]]


def test_masks_are_transparency():
    (address,) = masks_of([torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])], 1_000)
    kind, pixels = opened(address)
    assert kind == "data:image/png" and pixels[..., 1].tolist() == [[0, 255], [128, 255]] and not pixels[..., 0].any()


def test_masks_are_reduced_if_necessary(g):
    masks = [torch.rand(1, 200, 300, generator=g) for _ in range(4)]
    result = masks_of(masks, 40_000)
    assert len(result) == 4 and sum(map(len, result)) <= 40_000
    assert opened(result[3])[1][..., 1].mean() == pytest.approx(127.5, abs=3)


def test_album_rejects_wrong_inputs():
    for wrong in ([], [torch.rand(2, 4, 4)], [torch.rand(4, 4)], [torch.rand(3, 0, 4)]):
        with pytest.raises(ValueError, match=r"expected \(1 or 3, H, W\), in \[0, 1\]"):
            album(wrong, 100)
    with pytest.raises(
        ValueError, match=r"3 pictures do not fit into 0.0 MB, not even at 32 pixels; make several pages"
    ):
        album([torch.rand(3, 90, 90)] * 3, 900)
