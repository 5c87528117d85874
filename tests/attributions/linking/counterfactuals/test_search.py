import pytest
import torch

from xinc_captum.attributions.linking.counterfactuals import LinearHead, LinkingInStyle, MinimalShift
from xinc_captum.attributions.linking.counterfactuals.search import Task, lead, probability


@pytest.mark.parametrize(("search", "name"), [(LinkingInStyle(), "linking_in_style"), (MinimalShift(), "minimal")])
def test_methods_without_their_linear_head_raise(plane, rows, search, name):
    with pytest.raises(ValueError, match=f"method '{name}' needs class scores that are linear"):
        search(plane(*rows, with_head=False))


def test_minimal_shift_generates_one_image(plane, rows):
    task = plane(*rows)
    result = MinimalShift()(task)
    assert (result.steps == 1).all() and (result.shift.norm(dim=1) <= 1.01 * result.bound).all()
    assert result.reached.all(), "here a picture shows all of its representation"
    further = MinimalShift(beyond=1.5)(task)
    assert (further.shift.norm(dim=1) > 1.4 * result.bound).all()


def test_the_papers_update_stops_at_its_number_of_steps(plane, rows):
    task = plane(*rows)
    result = LinkingInStyle(steps=40)(task)
    assert (result.steps <= 40).all() and (result.steps[~result.reached] == 40).all()
    assert task.reaches(result.trip.scores)[result.reached].all() and result.reached.any()
    alone = LinkingInStyle(steps=40)(task)
    assert (alone.shift == result.shift).all(), "seeded"


SCORES = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0]])


def reaches(scores, target, confidence=0.0, kind="softmax"):
    return Task(None, None, target, None, None, None, confidence, kind).reaches(scores)


def test_by_hand():
    target = torch.tensor([1, 1])
    assert lead(SCORES, target).tolist() == [1.0, -5.0]
    torch.testing.assert_close(probability(SCORES, target)[0], 1 / (1 + torch.tensor([-2.0, -1.0]).exp().sum()))
    assert reaches(SCORES, target).tolist() == [True, False]
    assert reaches(SCORES, target, 0.6).tolist() == [True, False]
    assert reaches(SCORES, target, 0.7).tolist() == [False, False]


def test_the_probability_depends_on_the_kind_of_scores():
    target, shares = torch.tensor([1]), torch.tensor([[0.3, 0.7]])
    assert probability(shares, target, "identity").tolist() == shares[:, 1].tolist()
    torch.testing.assert_close(probability(shares, target, "sigmoid"), shares[:, 1].sigmoid())
    assert reaches(shares, target, 0.65, "identity").item() and not reaches(shares, target, 0.65).item()


def test_a_head_explains_only_its_scores():
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
