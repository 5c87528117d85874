"""The name of a model's weights changes with any of them."""

import torch

from xinc_captum.links.model_hash import model_sha256


def test_any_weight_or_buffer_counts(conv):
    first = model_sha256(conv)
    assert first == model_sha256(lambda x: conv(x))
    conv.norm.running_mean[0] += 1
    assert model_sha256(conv) != first
    assert model_sha256(torch.sin) is None
