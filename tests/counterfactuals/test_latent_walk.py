import pytest
import torch

from xinc_captum.attributions.linking.counterfactuals import LatentWalk
from xinc_captum.attributions.linking.counterfactuals.verdicts import says


def test_it_arrives_and_comes_back_to_the_flip_point(plane, rows):
    make, loop, _ = plane
    task = make(*rows)
    found = LatentWalk()(task)
    assert found.reached.all() and says(found.shown.scores, task.target).all()
    start = task.base.latents
    back = loop.shown(start + 0.97 * (found.shown.latents - start), task.rows)
    assert not says(back.scores, task.target).any(), "a little less does not do"
    torch.testing.assert_close(found.shift, found.shown.representations - task.base.representations)


def test_rows_do_not_depend_on_one_another(plane, rows):
    r, target = rows
    whole = LatentWalk()(plane[0](r, target))
    for row in range(6):
        alone = LatentWalk()(plane[0](r[row : row + 1], target[row : row + 1]))
        torch.testing.assert_close(alone.shown.latents[0], whole.shown.latents[row])


def test_it_is_adam(plane):
    """Two steps against torch's own optimiser, on the same loss."""
    task = plane[0](torch.tensor([[2.0, 0.1]], dtype=torch.float64), torch.tensor([1]))
    found = LatentWalk(steps=3, halvings=0, lr=0.1, pull=0.3, margin=2.0)(task)
    moments = task.loop.link.moments
    scale = (moments.ww / (moments.n - 1)).sqrt()
    u = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], lr=0.1)
    for _ in range(2):
        scores = task.loop.look(task.loop.draw(task.base.latents + u * scale), task.rows)[1][0]
        loss = (2.0 - (scores[1] - torch.maximum(scores[0], scores[2]))).clamp_min(0) + 0.3 * u.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(found.shown.latents, (task.base.latents + u * scale).detach())


def test_it_ends_where_nothing_is_reached(plane, rows):
    found = LatentWalk(steps=5)(plane[0](*rows, confidence=0.999999))
    assert not found.reached.any() and found.flip.isnan().all() and (found.steps == 5).all()


def test_a_row_that_is_there_does_not_move(plane):
    found = LatentWalk()(plane[0](torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([0])))
    assert found.reached.all() and found.flip[0] == 0 and found.steps[0] == 0 and not found.shift.any()


def test_it_wants_a_gradient(plane, rows):
    task = plane[0](*rows)
    task.loop.generator.differentiable = False
    with pytest.raises(ValueError, match="wants a generator that gradients go through; take method='ray'"):
        LatentWalk()(task)


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": 0.0}, {"pull": -1.0}, {"margin": -1.0}, {"halvings": -1}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="wanted at least one step, a positive lr, and nothing negative"):
        LatentWalk(**options)
