"""The held-out choice is the one that fitting and measuring would make, and repeats stay on one side."""

import torch

from xinc_captum.attributions.linking.regression import Regression


def test_held_out_is_chosen_as_by_hand():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(80, 30, generator=generator, dtype=torch.float64)
    w = r[:, :2] + 2 * torch.randn(80, 2, generator=generator, dtype=torch.float64)
    regression = Regression(30, 2, ridge="held_out")
    regression.add(r, w)
    chosen = regression.solve()
    assert 5 <= regression.held.n <= 30

    from xinc_captum.attributions.linking.regression import FIFTH, mixed, row_hashes

    away = mixed(row_hashes(w)).remainder(FIFTH) == 0
    assert int(away.sum()) == regression.held.n
    x, y = r[~away] - r[~away].mean(0), w[~away] - w[~away].mean(0)

    def error(ridge):
        weight = torch.linalg.solve(x.T @ x + ridge * torch.eye(30), x.T @ y)
        fitted = (r[away] - r[~away].mean(0)) @ weight + w[~away].mean(0)
        return float((w[away] - fitted).square().sum())

    for factor in (0.3, 3.0):
        assert error(chosen.ridge) <= error(chosen.ridge * factor) + 1e-9
    x, y = r - r.mean(0), w - w.mean(0)
    weight = torch.linalg.solve(x.T @ x + chosen.ridge * torch.eye(30), x.T @ y)
    torch.testing.assert_close(chosen.weight, weight.T)


def test_repeated_latents_stay_on_one_side():
    w = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    regression = Regression(1, 2, ridge="held_out")
    regression.add(torch.randn(120, 1, generator=torch.Generator().manual_seed(1)), w)
    assert regression.held.n % 3 == 0
    assert regression.held.n > 0
