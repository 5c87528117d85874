import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.counterfactuals import Ray
from xinc_captum.attributions.linking.counterfactuals.search import Task
from xinc_captum.attributions.linking.counterfactuals.verdicts import says
from xinc_captum.attributions.linking.loop import Loop
from xinc_captum.generators import from_callable, normal_latents


def test_the_flip_point_is_where_the_picture_flips(plane, rows):
    make, loop, _ = plane
    task = make(*rows)
    found = Ray()(task)
    assert found.reached.all() and says(found.shown.scores, task.target).all()
    way = found.shift / found.flip[:, None]
    before = loop.shown(loop.latents(task.r + 0.98 * found.flip[:, None] * way, task.rows), task.rows)
    assert not says(before.scores, task.target).any(), "a little less does not do"
    assert found.steps.max() <= len(Ray().grid) + Ray().halvings, "nobody was looked at more closely"


def test_the_way_is_the_covariance_times_the_slope(plane, rows):
    task = plane[0](*rows)
    found = Ray()(task)
    expected = task.slope @ task.loop.link.covariance
    cosine = torch.cosine_similarity(found.shift, expected)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_between_two_classes_alpha_one_is_the_boundary(plane):
    task = plane[0](torch.tensor([[1.0, 0.6]], dtype=torch.float64), torch.tensor([1]))
    torch.testing.assert_close(Ray(halvings=20)(task).flip, torch.ones(1, dtype=torch.float64), atol=1e-5, rtol=0)


def test_rows_do_not_depend_on_one_another(plane, rows):
    r, target = rows
    whole = Ray()(plane[0](r, target))
    for row in range(6):
        alone = Ray()(plane[0](r[row : row + 1], target[row : row + 1]))
        # where the last picture lies on the boundary, rounding decides which value of the grid is the first
        torch.testing.assert_close(alone.shift[0], whole.shift[row], rtol=2**-7, atol=0)
        assert abs(alone.steps[0] - whole.steps[row]) <= 1


def test_a_row_that_is_there_does_not_move(plane):
    found = Ray()(plane[0](torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([0])))
    assert found.reached.all() and found.flip[0] == 0 and found.steps[0] == 0 and not found.shift.any()


def test_it_ends_where_nothing_is_reached(plane, rows):
    """The pictures end at ±10, where the target leads by 15 at most: this confidence is out of reach."""
    found = Ray()(plane[0](*rows, confidence=1 - 1e-9))
    assert not found.reached.any() and found.flip.isnan().all()
    assert (found.steps == len(Ray().grid) + 8).all()


def test_a_class_that_is_passed_between_two_values_is_found():
    """The target leads from 1.14 to 1.24 only, and the grid looks at 1 and at 1.25."""
    paint = from_callable(lambda w: (0.5 + w / 20).clamp(0, 1).view(-1, 1, 1, 2), normal_latents(2))
    r = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def look(pictures, rows):
        seen = (pictures.flatten(1) - 0.5) * 20
        return seen, torch.stack([torch.zeros(len(seen)).double(), 0.05**2 - (seen[:, 0] - 1.19) ** 2], 1)

    loop = Loop(LatentLink(ridge=0.0).fit(r, r), paint, look, torch.zeros(1, 2, dtype=torch.float64), limit=4)
    start, row = torch.zeros(1, 2, dtype=torch.float64), torch.arange(1)
    slope, gap = torch.tensor([[1.0, 0.0]]).double(), -torch.ones(1).double()
    base = loop.shown(start, row)
    found = Ray()(Task(loop, start, base, row, row + 1, slope, gap, None, 0.0, row))
    assert found.reached.all() and 1.14 <= float(found.flip) <= 1.145, "and then the flip point"


def test_confidence_goes_further(plane, rows):
    bare, sure = (Ray()(plane[0](*rows, confidence=c)) for c in (0.0, 0.9))
    assert (sure.flip > bare.flip).all()
    own = sure.shown.scores.softmax(1).gather(1, rows[1][:, None])
    assert (own >= 0.9).all() and (own < 0.93).all()


def test_few_units_carry_a_sparse_ray(plane, rows):
    found = Ray(top=1)(plane[0](*rows))
    assert ((found.shift != 0).sum(1) <= 1).all() and found.reached.sum() >= 4


def test_no_gradient_is_an_error(plane, rows):
    task = plane[0](*rows)
    task.slope.zero_()
    with pytest.raises(ValueError, match="row 0: no shift of the representation raises class 1 above 0"):
        Ray()(task)


@pytest.mark.parametrize("options", [{"grid": ()}, {"grid": (0.0, 1.0)}, {"grid": (2.0, 1.0)}])
def test_impossible_grids(options):
    with pytest.raises(ValueError, match="wanted ascending numbers above 0"):
        Ray(**options)


@pytest.mark.parametrize("options", [{"halvings": -1}, {"top": 0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="wanted at least 0 and at least 1"):
        Ray(**options)
