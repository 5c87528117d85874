"""Vectors, maps and tokens become rows as asked."""

import pytest
import torch

from xinc_captum.attributions.linking import pooled


def test_every_layout():
    vectors, maps, tokens = torch.rand(2, 5), torch.rand(2, 5, 3, 4), torch.rand(2, 7, 5)
    for pool in ("auto", "mean", "flatten"):
        assert torch.equal(pooled(vectors, pool), vectors)
    torch.testing.assert_close(pooled(maps), maps.mean((2, 3)))
    assert torch.equal(pooled(maps, "flatten"), maps.flatten(1))
    assert torch.equal(pooled(tokens), tokens[:, 0])
    assert torch.equal(pooled(tokens, "cls"), tokens[:, 0])
    torch.testing.assert_close(pooled(tokens, "mean"), tokens.mean(1))
    assert pooled(tokens, "flatten").shape == (2, 35)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="pool is 'max'; wanted 'auto', 'mean', 'flatten' or 'cls'"):
        pooled(torch.rand(2, 5), "max")
    with pytest.raises(ValueError, match="pool='cls' takes the first of some tokens"):
        pooled(torch.rand(2, 5, 3, 3), "cls")
    with pytest.raises(ValueError, match=r"activation has shape \(5,\)"):
        pooled(torch.rand(5))


def test_where_the_units_are():
    last, signal = torch.rand(2, 3, 4, 5), torch.rand(2, 5, 7)
    torch.testing.assert_close(pooled(last, unit_axis=-1), last.mean((1, 2)))
    torch.testing.assert_close(pooled(signal, unit_axis=1), signal.mean(2))
    assert torch.equal(pooled(signal, unit_axis=2), pooled(signal))
    with pytest.raises(ValueError, match="pool='cls' takes the first of some tokens"):
        pooled(signal, "cls", unit_axis=1)
