import base64
import zlib

import numpy as np
import torch

from xinc_captum.visualizers.explorer import pack_units
from xinc_captum.visualizers.explorer.embedded import blob


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
