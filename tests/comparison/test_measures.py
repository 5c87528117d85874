import pytest
import torch

from xinc_captum.comparison import ALL, COLUMNS, Case
from xinc_captum.comparison.measures import DEFAULT, select_columns
from xinc_captum.metrics import deletion_insertion, gini, road

PHOTOS = torch.rand(2, 3, 16, 16)
MAPS = torch.rand(2, 16, 16)


def case(model, **other):
    fields = {"explain": lambda x: x.mean(1), "classify": model, "photos": PHOTOS, "maps": MAPS, "target": torch.tensor([0, 2]),
              "reference": None, "segmentation": None, "steps": 4, "seed": 0}  # fmt: skip
    return Case(**fields | other)


def test_every_column_returns_one_value_per_image(conv):
    given = case(conv, reference=MAPS, segmentation=torch.ones(2, 16, 16))
    for column in COLUMNS:
        values = column.of(given)
        assert values.shape == (2,) and values.isfinite().all(), column.name


def test_columns_without_their_input_return_none(conv):
    assert {c.name for c in COLUMNS if c.of(case(conv)) is None} == {"agreement", "overlap", "pointing", "energy"}


def test_columns_equal_the_functions_of_metrics(conv):
    sparse, debiased = select_columns(["sparseness", "road"])
    assert torch.equal(sparse.of(case(conv)), gini(MAPS))
    assert torch.equal(debiased.of(case(conv)), road(conv, PHOTOS, MAPS, [0, 2]))


def test_measures_ignore_scale_and_negative_values(conv):
    for name in ("infidelity", "road", "deletion"):
        (column,) = select_columns([name])
        torch.testing.assert_close(column.of(case(conv)), column.of(case(conv, maps=7 * MAPS)), atol=1e-5, rtol=1e-4)


def test_infidelity_of_exact_attributions_is_zero():
    """A linear model: removing pixels changes the score by what they add, so these parts foretell every square."""
    weights = torch.rand(16, 16)

    class Sum(torch.nn.Module):
        def forward(self, x):
            score = (x.mean(1) * weights).sum((1, 2))
            p = 0.5 + 1e-3 * score  # made linear after the softmax, which the measure looks at
            return torch.stack([(p / (1 - p)).log(), torch.zeros_like(p)], 1)

    (column,) = select_columns(["infidelity"])
    grey = PHOTOS.mean((2, 3), keepdim=True)
    truth = ((PHOTOS - grey).mean(1)) * weights
    zero = torch.zeros(2, dtype=torch.long)
    right = column.of(case(Sum(), maps=truth, target=zero))
    wrong = column.of(case(Sum(), maps=truth.flip(2), target=zero))
    assert (right < 1e-6 * wrong.clamp_min(1e-3)).all() or (right < 1e-3 * wrong).all()


def test_expensive_measures_are_not_default():
    assert set(ALL) - set(DEFAULT) == {"sensitivity", "infidelity"}


def test_random_measures_use_the_seed_and_restore_the_state(conv):
    state = torch.get_rng_state()
    for name in ("sensitivity", "infidelity", "road"):
        (column,) = select_columns([name])
        assert torch.equal(column.of(case(conv)), column.of(case(conv))), name
    assert torch.equal(torch.get_rng_state(), state)


def test_deletion_and_insertion_share_one_run(conv):
    calls = []

    def counted(photos):
        calls.append(len(photos))
        return conv(photos)

    given = case(counted)
    deletion, insertion = (column.of(given) for column in select_columns(["deletion", "insertion"]))
    once = len(calls)
    grey = PHOTOS.mean((2, 3), keepdim=True)
    expected = deletion_insertion(counted, PHOTOS, MAPS, given.target, baseline=grey, steps=given.steps)
    assert len(calls) == 2 * once
    assert torch.equal(deletion, expected.deletion) and torch.equal(insertion, expected.insertion)


def test_sensitivity_does_not_depend_on_the_batch_index():
    """What draws at random answers the same for a photo that stayed the same, wherever Captum's copies lie."""
    drawn = torch.rand(2, 16, 16)
    (column,) = select_columns(["sensitivity"])
    torch.testing.assert_close(column.of(case(None, explain=lambda x: drawn)), torch.zeros(2))
    seen = []
    own = case(None, explain=lambda x: seen.append(x) or x.mean(1) * torch.tensor([1.0, 3.0])[:, None, None])
    torch.testing.assert_close(column.of(own), column.of(case(None)), msg="a factor of the row does not matter")
    assert all((x - PHOTOS).abs().max() <= 0.02 for x in seen), "each copy stands where its photo stands"
    torch.testing.assert_close(seen[0], PHOTOS)


def test_sensitivity_keeps_half_precision():
    (column,) = select_columns(["sensitivity"])
    given = []
    half = case(None, photos=PHOTOS.half(), explain=lambda x: given.append(x.dtype) or x.float().mean(1))
    assert column.of(half).shape == (2,) and set(given) == {torch.float16}


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_overlap_with_an_invalid_reference_is_nan(value):
    reference = MAPS.clone()
    reference[0] = value
    (column,) = select_columns(["overlap"])
    found = column.of(case(None, maps=MAPS, reference=reference))
    assert found.isnan().tolist() == [True, False] and found[1] == 1


def test_reserved_names_of_measures_are_rejected():
    with pytest.raises(
        ValueError, match="a measure is named 'seconds', which is reserved for a cost or remark of every row"
    ):
        select_columns([COLUMNS[0].__class__("seconds", "s", "", lambda c: None)])
