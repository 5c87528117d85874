import pytest
import torch

from xinc_captum.attributions.linking.counterfactuals import LinearHead, LinkingInStyle, MinimalShift
from xinc_captum.attributions.linking.counterfactuals.search import lead, probability, says


@pytest.mark.parametrize(("search", "name"), [(LinkingInStyle(), "linking_in_style"), (MinimalShift(), "minimal")])
def test_methods_that_want_a_linear_head_say_so(plane, rows, search, name):
    with pytest.raises(ValueError, match=f"method '{name}' wants class scores that are linear"):
        search(plane[0](*rows, with_head=False))


def test_the_shortest_shift_is_drawn_once(plane, rows):
    task = plane[0](*rows)
    found = MinimalShift()(task)
    assert (found.steps == 1).all() and (found.shift.norm(dim=1) <= 1.01 * found.bound).all()
    assert found.reached.all(), "here a picture shows all of its representation"
    further = MinimalShift(beyond=1.5)(task)
    assert (further.shift.norm(dim=1) > 1.4 * found.bound).all()


def test_the_papers_update_ends_by_itself(plane, rows):
    task = plane[0](*rows)
    found = LinkingInStyle(steps=40)(task)
    assert (found.steps <= 40).all() and (found.steps[~found.reached] == 40).all()
    assert says(found.shown.scores, task.target)[found.reached].all() and found.reached.any()
    alone = LinkingInStyle(steps=40)(task)
    assert (alone.shift == found.shift).all(), "seeded"


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


def test_a_head_knows_its_scores():
    linear = torch.nn.Linear(64, 10)
    head, r = LinearHead(linear.weight.detach(), linear.bias.detach()), torch.randn(5, 64)
    scores = linear(r).detach()
    torch.testing.assert_close(head(r), scores)
    assert head.explains(r, scores)
    assert not head.explains(r, scores + 1e-3), "other scores"
    assert not head.explains(r[:, :3], scores), "other units"
    assert not head.explains(r, scores[:, :4]), "other classes"
    assert head.explains(r.bfloat16(), linear.bfloat16()(r.bfloat16()).detach())


def test_small_scores_are_compared_on_their_own_scale():
    generator = torch.Generator().manual_seed(0)
    weight = 1e-7 * torch.randn(3, 8, generator=generator)
    head, r = LinearHead(weight, torch.zeros(3)), torch.randn(5, 8, generator=generator)
    assert head.explains(r, r @ weight.T)
    assert not head.explains(r, -(r @ weight.T))
