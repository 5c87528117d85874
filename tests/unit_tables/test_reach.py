import pytest
import torch

from xinc_captum.attributions.linking.unit_tables.reach import Steps, chosen_units


def test_a_step_is_a_deviation_along_the_links_direction(planted):
    steps = Steps(planted.link, torch.tensor([4, 9]), 3, 2.0, "within_class")
    moves, far = steps.block(0, 2)
    torch.testing.assert_close(moves, planted.link.direction([4, 9], "within_class"))
    torch.testing.assert_close(far[:, 0, 1], 2 * planted.link.r_sd[[4, 9]])
    assert torch.equal(far[..., 0], -far[..., 1]) and len(steps) == 2


def test_bounds_are_counted_from_the_bases_own_value(planted):
    own = planted.representations[:3]
    moves, far = Steps(planted.link, torch.tensor([4, 9]), 3, "quantile", "marginal", own).block(1, 2)
    assert moves.shape == (1, 30) and far.shape == (1, 3, 2)
    torch.testing.assert_close(far[0] + own[:, 9:10], planted.link.bounds([9], "quantile").expand(3, 2))


def test_a_null_leads_elsewhere_and_as_far(planted):
    other = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    steps = Steps(planted.link, torch.tensor([4, 9]), 3, 0.5, "marginal", null=other)
    moves, far = steps.block(1, 5)
    assert len(steps) == 5
    expected = planted.link.direction([9, 4, 9, 4])
    torch.testing.assert_close(moves.norm(dim=1), expected.norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(moves, other[1:].double()), torch.ones(4).double())
    torch.testing.assert_close(far[:, 0, 1], 0.5 * planted.link.r_sd[[9, 4, 9, 4]])


def test_units(planted):
    from xinc_captum.attributions.linking import LatentLink

    r = planted.representations[:, :4] * torch.tensor([1.0, 0.0, 1.0, 1.0])
    link = LatentLink().fit(r, planted.latents)
    assert chosen_units(link, None).tolist() == [0, 2, 3]
    assert chosen_units(link, torch.tensor([3, 0])).tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"units \[1\] are dead: they never varied"):
        chosen_units(link, [0, 1])
    with pytest.raises(ValueError, match=r"units are \[-1\]; wanted some of 0 to 3"):
        chosen_units(link, [-1])
    with pytest.raises(ValueError, match=r"units are \[\]; wanted some"):
        chosen_units(link, [])
    with pytest.raises(ValueError, match=r"units are \[2, 2\]; one is asked for twice"):
        chosen_units(link, [2, 2])


def test_what_does_not_fit_is_said(planted):
    units = torch.tensor([0])
    with pytest.raises(ValueError, match="reach is 'far'; wanted a number of standard deviations"):
        Steps(planted.link, units, 3, "far", "marginal")
    with pytest.raises(ValueError, match="reach is 0; wanted a positive number"):
        Steps(planted.link, units, 3, 0, "marginal")
    with pytest.raises(ValueError, match=r"representations are needed, \(3, 200\); got None"):
        Steps(planted.link, units, 3, "minmax", "marginal")
    with pytest.raises(ValueError, match=r"null has shape \(30,\)"):
        Steps(planted.link, units, 3, 0.5, "marginal", null=torch.zeros(30))
