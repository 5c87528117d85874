import pytest

from xinc_captum.attributions.linking.counterfactuals import LinkingInStyle, MinimalShift
from xinc_captum.attributions.linking.counterfactuals.verdicts import says


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
