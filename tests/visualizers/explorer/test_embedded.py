import base64
import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.embedded import blob, pictures, through


def opened(address):
    kind, _, text = address.partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_a_layer_is_taken_apart_as_the_page_does_it(g):
    packed = pack_units(torch.randn(2, 5, 3, 4, 6, generator=g))
    content = zlib.decompress(base64.b64decode(blob(packed)), -15)
    at = 0
    order = ["amounts", "extremes", "scale", "places", "top", "shares", "near", "maps"]
    for name, kind in zip(order, ["<f4"] * 4 + ["<u2"] * 3 + ["<i1"], strict=True):
        expected = getattr(packed, name).numpy()
        found = np.frombuffer(content, kind, expected.size, at).reshape(expected.shape)
        at += found.nbytes
        if name == "maps":
            found = np.cumsum(found.astype(np.int64), axis=-1).astype(np.int8)  # wraps around
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert at == len(content)


def test_pictures_are_exact_while_there_is_room(g):
    frames = torch.rand(2, 3, 5, 7, generator=g)
    for frame, address in zip(frames, pictures(frames), strict=True):
        kind, found = opened(address)
        assert kind == "data:image/png"
        np.testing.assert_array_equal(found, (frame.permute(1, 2, 0) * 255).round().byte().numpy())
    kind, found = opened(pictures(frames[:1, :1], most=10)[0])
    assert kind == "data:image/jpeg" and found.shape == (5, 7, 3), "grey becomes three channels, and large becomes JPEG"


def test_no_pictures():
    with pytest.raises(ValueError, match=r"wanted \(N, 1 or 3, H, W\)"):
        pictures(torch.rand(1, 2, 4, 4))


def test_a_mask_is_transparency():
    _, found = opened(through(torch.ones(1, 2, 2), torch.tensor([[[0.0, 1.0], [0.5, 2.0]]])))
    assert found[..., 3].tolist() == [[0, 255], [128, 255]] and found[..., :3].min() == 255
