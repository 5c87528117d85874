import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import shuffled_directions


def pairs(n=300):
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (n,), generator=g)
    w = torch.randn(n, 4, generator=g).double() + 5 * classes[:, None]
    r = w @ torch.randn(4, 6, generator=g).double()
    return r, w, classes


def test_each_is_the_direction_of_a_link_fitted_on_exchanged_pairs():
    """Few pairs, so that the exchange can be found again among all."""
    from itertools import permutations

    r, w, _ = pairs(5)
    (found,) = shuffled_directions(r, w, [2], generator=torch.Generator().manual_seed(3))
    candidates = [LatentLink(ridge=1.0).fit(r, w[list(order)]).direction([2])[0] for order in permutations(range(5))]
    assert min((c - found).norm() for c in candidates) < 1e-9


def test_within_classes_what_the_classes_say_is_gone():
    r, w, classes = pairs()
    g = torch.Generator().manual_seed(1)
    within = shuffled_directions(r, w, range(6), classes=classes, repeats=200, generator=g)
    assert within.shape == (1200, 4)
    residual_w = w - torch.stack([w[classes == c].mean(0) for c in range(3)])[classes]
    residual_r = r - torch.stack([r[classes == c].mean(0) for c in range(3)])[classes]
    square = residual_r.square().sum(0)
    for u in range(6):
        own = within.view(200, 6, 4)[:, u]
        expected = (
            sum(
                residual_r[classes == c, u].square().sum()
                * residual_w[classes == c].square().sum(0)
                / (int((classes == c).sum()) - 1)
                for c in range(3)
            )
            / square[u] ** 2
        )
        assert own.mean(0).abs().max() < 4 * (expected / 200).sqrt().max()
        torch.testing.assert_close(own.var(0), expected, rtol=0.45, atol=0)


def test_units_that_say_the_same_get_directions_of_their_own():
    r, w, _ = pairs()
    twins = r[:, :1].expand(-1, 40)
    found = shuffled_directions(twins, w, range(40), generator=torch.Generator().manual_seed(2))
    others = torch.corrcoef(found[:, :2].T)
    assert others.shape == (2, 2) and torch.linalg.matrix_rank(found) == 4
    assert len(found.unique(dim=0)) == 40


def test_what_does_not_fit_is_said():
    r, w, classes = pairs(20)
    g = torch.Generator()
    with pytest.raises(ValueError, match="with 0 repeats"):
        shuffled_directions(r, w, [0], repeats=0, generator=g)
    with pytest.raises(ValueError, match=r"wanted \(n, units\) and \(n, latent_dim\) of the same pairs"):
        shuffled_directions(r[:3], w, [0], generator=g)
    with pytest.raises(ValueError, match=r"classes have shape \(3,\) for 20 pairs"):
        shuffled_directions(r, w, [0], classes=classes[:3], generator=g)
    with pytest.raises(ValueError, match="unit 1 does not vary"):
        shuffled_directions(r * torch.tensor([1.0, 0, 1, 1, 1, 1]), w, [0, 1], generator=g)


def test_constant_units_are_refused_whatever_rounding_makes_of_their_mean():
    r, w, classes = pairs()
    for value in (0.1, -7.7, 1e6 / 3):
        r[:, 2] = value
        for labels in (None, classes):
            with pytest.raises(ValueError, match="unit 2 does not vary within classes; leave it out"):
                shuffled_directions(r, w, [1, 2], classes=labels, generator=torch.Generator())
    r[:, 2] = 1e-9 * r[:, 1] + 1  # small beside its mean, but no rounding
    shuffled_directions(r, w, [2], generator=torch.Generator())
