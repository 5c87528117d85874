"""Scatter between classes and within them add up to all of it."""

import torch

from xinc_captum.attributions.linking.class_means import ClassMeans
from xinc_captum.attributions.linking.moments import Moments


def test_between_and_within_add_up_whatever_the_chunks():
    generator = torch.Generator().manual_seed(0)
    r, w = (torch.randn(90, k, generator=generator, dtype=torch.float64) for k in (4, 3))
    classes = torch.randint(3, (90,), generator=generator) + 5
    moments, means, other = Moments(4, 3), ClassMeans(), ClassMeans()
    moments.add(r, w)
    for rows in torch.arange(60).split(7):
        means.add(r[rows], w[rows], classes[rows])
    other.add(r[60:], w[60:], classes[60:])
    means.merge(other)
    within = torch.zeros(4, 3, dtype=torch.float64)
    for c in (5, 6, 7):
        own = classes == c
        assert means.counts[c] == int(own.sum())
        torch.testing.assert_close(means.w_means[c], w[own].mean(0))
        within += (r[own] - r[own].mean(0)).T @ (w[own] - w[own].mean(0))
    torch.testing.assert_close(moments.rw - means.between(moments).rw, within)
    again = ClassMeans.restored(means.tensors())
    assert again.counts == means.counts
    torch.testing.assert_close(again.between(moments).rr, means.between(moments).rr)
