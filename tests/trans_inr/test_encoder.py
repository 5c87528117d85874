import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from xinc_captum.attributions.trans_inr.encoder import Attention, Encoder


def test_attention_is_torchs_own():
    attention, x = Attention(12, 3).double(), torch.rand(2, 5, 12).double()
    q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    y, weights = attention(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5).double())


def test_tokens_that_are_not_seen_might_as_well_not_be_there():
    encoder, x = Encoder(12, 2, 3, 24).double(), torch.rand(2, 5, 12).double()
    seen = torch.tensor([True, False, True, True, False]).expand(2, -1)
    y, routing = encoder.routed(x, seen)
    assert torch.equal(encoder(x, seen), y) and routing.shape == (2, 2, 3, 5, 5)
    fewer = encoder(x[:, [0, 2, 3]])
    torch.testing.assert_close(y[:, [0, 2, 3]], fewer)
    assert (routing[..., [1, 4]] == 0).all()


def test_forward_mode_equals_reverse_mode():
    encoder, x, way = Encoder(8, 2, 2, 12).double(), torch.rand(1, 4, 8).double(), torch.rand(1, 4, 8).double()
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(encoder(forward_ad.make_dual(x, way))).tangent
    jacobian = torch.autograd.functional.jacobian(encoder, x)
    torch.testing.assert_close(moved, torch.einsum("abcdef,def->abc", jacobian, way))


def test_heads_must_divide():
    with pytest.raises(ValueError, match="dim 10 is not divisible by heads 3; wanted heads of equal width, or give"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="head_dim is 0; wanted at least 1, or None for dim / heads"):
        Attention(10, 3, 0)


def test_heads_of_any_width():
    """By hand: two heads of width 1 on one token of width 3, which attends to itself."""
    attention = Attention(3, 2, head_dim=1)
    with torch.no_grad():
        attention.value.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        attention.out.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 3.0], [5.0, 0.0]]))
        attention.out.bias.zero_()
    y, weights = attention(torch.tensor([[[1.0, 10.0, 100.0]]]))
    assert y.flatten().tolist() == [21, 60, 5] and weights.shape == (1, 2, 1, 1)
    assert attention.query.weight.shape == attention.key.weight.shape == (2, 3)
    attention, x = Attention(12, 3, head_dim=5).double(), torch.rand(2, 4, 12).double()
    q, k, v = (f(x).unflatten(-1, (3, 5)).transpose(1, 2) for f in (attention.query, attention.key, attention.value))
    expected = attention.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x)[0], expected)
