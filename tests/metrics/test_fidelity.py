import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.metrics import fidelity


def swept(slopes, values=(0.0, 1.0, 2.0), rows=2):
    """Units that go along with the value by their slopes, from a base at 0."""
    values = torch.tensor(values)
    frames = (values[:, None] * torch.tensor(slopes)).expand(rows, -1, -1)
    return frames, torch.zeros(rows, len(slopes)), values


def test_by_hand():
    frames, base, values = swept([0.5, 2.0, 0.0])
    found = fidelity(frames, base, values, 0, sd=torch.tensor([1.0, 1.0, 1.0]))
    assert (found.rank, found.alive, found.rho, found.gain) == (2, 3, pytest.approx(1), pytest.approx(0.5))
    torch.testing.assert_close(found.moved, torch.tensor([0.5, 2.0, 0.0]).double() * (5 / 3) ** 0.5)
    assert found.ranks.tolist() == [2, 2] and not found.moves_most and found.flips != found.flips
    scaled = fidelity(frames, base, values, 0, sd=torch.tensor([0.1, 1.0, 1.0]))
    assert scaled.rank == 1, "changes are counted in standard deviations"
    assert fidelity(frames, base, values, 0, sd=torch.ones(3), alive=torch.tensor([1, 0, 1]).bool()).rank == 1


def test_a_constant_unit_has_no_correlation():
    frames, base, values = swept([0.0, 1.0])
    found = fidelity(frames, base, values, 0, sd=torch.ones(2))
    assert found.rho == 0 and found.gain == 0 and found.rank == 2
    assert found.verdict[0] == "fails" and "hardly follows what is set with Spearman 0.00" in found.verdict[1]


def test_flips_are_of_the_base():
    frames, base, values = swept([1.0, 0.0], rows=1)
    scores = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    found = fidelity(frames, base, values, 0, sd=torch.ones(2), scores=scores, base_scores=torch.tensor([[1.0, 0.0]]))
    assert found.flips == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("slopes", "values", "verdict", "clause"),
    [
        (
            [1.0] + [0.1] * 39,
            (0.0, 1.0, 2.0),
            "holds",
            "it moves most of 40 units over 2 pictures (in 2 of them most by itself) and follows",
        ),
        ([1.0, 2.0] + [0.1] * 38, (0.0, 1.0, 2.0), "weak", "it moves as no. 2 of 40 units"),
        ([1.0] + [2.0] * 3 + [0.1] * 36, (0.0, 1.0, 2.0), "weak", "it moves as no. 4 of 40 units"),
        ([1.0] + [2.0] * 4 + [0.1] * 35, (0.0, 1.0, 2.0), "fails", "it moves as no. 5 of 40 units"),
        ([1.0] + [2.0] * 39, (0.0, 1.0, 2.0), "fails", "the pictures are of other units"),
        ([-1.0] + [0.1] * 39, (0.0, 1.0, 2.0), "fails", "Spearman -1.00"),
        ([1.0] + [0.1] * 39, (1.0,), "weak", "one value alone"),
    ],
)
def test_verdicts(slopes, values, verdict, clause):
    frames, base, told = swept(slopes, values)
    found = fidelity(frames, base, told, 0, sd=torch.ones(40))
    assert found.verdict[0] == verdict and clause in found.verdict[1]


def rowwise(own, others, rows):
    """Units in ``rows`` rows, the named one moving by ``own`` and two others by ``others``, given row by row."""
    ends = torch.stack([own.expand(rows), *(others.expand(rows) for _ in range(2)), *[torch.zeros(rows)] * 37], 1)
    frames = torch.stack([torch.zeros_like(ends), ends], 1)
    return fidelity(frames, torch.zeros(rows, 40), torch.tensor([0.0, 1.0]), 0, sd=torch.ones(40))


def test_a_single_sample_does_not_make_the_verdict_hold():
    """In one row of five the unit moves far, in four it is beaten: most when pooled, but not where that row is left
    out, which is so in (4/5)^5 = .33 of the resamples."""
    found = rowwise(torch.tensor([9.0, 1, 1, 1, 1]), torch.tensor(2.0), 5)
    assert (found.rank, found.most_in, found.ranks.tolist()) == (1, 1, [1, 3, 3, 3, 3])
    assert found.first == pytest.approx(1 - 0.8**5, abs=0.1) and found.among == 1
    assert found.verdict[0] == "weak"
    assert (
        f"over 5 pictures (in 1 of them most by itself) and follows what is set with Spearman 1.00; in only {found.first:.0%} of"
        in (found.verdict[1])
    )
    sure = rowwise(torch.tensor(3.0), torch.tensor(2.0), 25)
    assert sure.first == 1 and sure.verdict == (
        "holds",
        "re-encoded, it moves most of 40 units over 25 pictures (in 25 of them most by itself) and "
        "follows what is set with Spearman 1.00",
    )


def test_a_single_sample_does_not_change_the_verdict_to_fails():
    own, others = torch.ones(30), torch.full((30,), 0.5)
    others[0] = 9.0
    many = torch.cat([others.expand(1, 30)] * 8).T
    frames = torch.stack([torch.zeros(30, 40), torch.cat([own[:, None], many, torch.zeros(30, 31)], 1)], 1)
    found = fidelity(frames, torch.zeros(30, 40), torch.tensor([0.0, 1.0]), 0, sd=torch.ones(40))
    assert found.rank == 9 and found.most_in == 29
    assert found.among == pytest.approx((29 / 30) ** 30, abs=0.1), "where the first row is left out"
    assert found.verdict[0] == "weak" and "of resamples of the pictures it is among the first" in found.verdict[1]


def test_large_changes_in_some_rows_are_not_those_of_most():
    """Pooled, the unit moves most in every resample, but in 18 of 30 rows five others move more."""
    own = torch.ones(30)
    own[:12] = 50.0
    frames = torch.stack(
        [torch.zeros(30, 40), torch.cat([own[:, None], 2 * torch.ones(30, 5), own[:, None] * torch.zeros(34)], 1)], 1
    )
    found = fidelity(frames, torch.zeros(30, 40), torch.tensor([0.0, 1.0]), 0, sd=torch.ones(40))
    assert (found.rank, found.first, found.most_in) == (1, 1.0, 12) and found.verdict[0] == "weak"
    assert "in only 12 of them is it among the first by itself" in found.verdict[1]


def test_few_images_are_mentioned_in_the_reason():
    one, few, many = (rowwise(torch.tensor(3.0), torch.tensor(2.0), n).verdict[1] for n in (1, 19, 20))
    assert "most of 40 units in one picture and" in one
    assert one.endswith("; so few pictures say little of others") and few.endswith(one[-20:])
    assert "few" not in many


def test_resamples_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    first, again = (rowwise(torch.rand(8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.5), 8),) * 2
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(first.places, again.places)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_scales_of_units_make_no_difference(seed, scale):
    g = torch.Generator().manual_seed(seed)
    frames, base = torch.randn(3, 4, 6, generator=g), torch.randn(3, 6, generator=g)
    values, sd = torch.arange(4.0), torch.rand(6, generator=g) + 0.5
    plain = fidelity(frames, base, values, 2, sd=sd)
    scaled = fidelity(frames * scale, base * scale, values, 2, sd=sd * scale)
    assert plain.rank == scaled.rank and plain.rho == pytest.approx(scaled.rho)
    assert scaled.gain == pytest.approx(plain.gain * scale, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"base": torch.zeros(2, 3)}, r"expected \(N, S, units\), \(N, units\) and \(units,\)"),
        ({"values": torch.zeros(4)}, r"values have shape \(4,\); expected \(3,\) or \(2, 3\)"),
        ({"unit": 2}, "unit is 2; expected 0 to 1"),
        ({"sd": torch.tensor([0.0, 1.0])}, "unit 0 is dead"),
    ],
)
def test_bad_input(change, text):
    frames, base, values = swept([1.0, 0.0])
    given_ = {"representations": frames, "base": base, "values": values, "unit": 0, "sd": torch.ones(2)} | change
    with pytest.raises(ValueError, match=text):
        fidelity(**given_)


def test_the_repr_of_fidelity_is_one_line():
    frames, base, values = swept([0.5] + [0.1] * 500)
    found = fidelity(frames, base, values, 0, sd=torch.ones(501))
    assert repr(found) == "Fidelity(holds: rank=1 of 501, rho=1.00, gain=0.50, flips=nan, 2 rows)"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_frames_that_are_not_finite_are_refused(place):
    frames = torch.rand(2, 3, 4)
    given = [frames, frames[:, 0].clone(), torch.arange(3.0)]
    given[place].view(-1)[1] = torch.nan
    name = ("representations", "base", "values")[place]
    with pytest.raises(ValueError, match=f"{name} hold nan or infinity; expected finite numbers"):
        fidelity(*given, 2, sd=torch.ones(4))
