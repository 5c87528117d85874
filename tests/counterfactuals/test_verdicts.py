import torch

from xinc_captum.attributions.linking.counterfactuals.verdicts import lead, probability, says

SCORES = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0]])


def test_by_hand():
    target = torch.tensor([1, 1])
    assert lead(SCORES, target).tolist() == [1.0, -5.0]
    torch.testing.assert_close(probability(SCORES, target)[0], 1 / (1 + torch.tensor([-2.0, -1.0]).exp().sum()))
    assert says(SCORES, target).tolist() == [True, False]
    assert says(SCORES, target, 0.6).tolist() == [True, False]
    assert says(SCORES, target, 0.7).tolist() == [False, False]


def test_the_probability_follows_what_the_scores_are():
    target, shares = torch.tensor([1]), torch.tensor([[0.3, 0.7]])
    assert probability(shares, target, "identity").tolist() == shares[:, 1].tolist()
    torch.testing.assert_close(probability(shares, target, "sigmoid"), shares[:, 1].sigmoid())
    assert says(shares, target, 0.65, "identity").item() and not says(shares, target, 0.65).item()
