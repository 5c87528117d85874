"""Bases are measured once, grouped by class, and what is missing in one is nan there and nowhere else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking.unit_tables.bases import Bases
from xinc_captum.generators import PictureParts, from_callable, normal_latents
from xinc_captum.metrics import Measure
from xinc_captum.metrics.measures import Movement

# Four latents are the four pixels of a picture of 2 by 2, whose rows are the parts.
paint = from_callable(lambda w: w.view(-1, 1, 2, 2), normal_latents(4))
ROWS = PictureParts(torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]), ["top", "bottom"])
INK = PictureParts(lambda x: torch.cat([x > 0.5, x <= 0.5], 1), ["ink", "paper"])
LATENTS = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.75, 0.75, 0.0, 0.0], [0.5, 0.0, 0.0, 0.5]])
SHIFT = Movement(("shift",), lambda before, after, masks: masks.new_full((*masks.shape[:2], 1), 7.0))


def drawn(latents=LATENTS, classes=None, parts=ROWS, measures=("luminance",), least_area=0.001, size=64, watch=None):
    return Bases.draw(paint, latents, classes, parts, measures, least_area, size, watch)


def test_values_and_means_by_hand():
    bases = drawn(classes=torch.tensor([9, 4, 9]))
    assert (bases.rows, bases.labels, bases.columns) == (3, (4, 9), ("luminance",))
    assert bases.groups.tolist() == [1, 0, 1]
    assert bases.values[0][..., 0].tolist() == [[0.125, 0.75], [0.75, 0.0], [0.25, 0.25]]
    assert bases.present.all()
    assert bases.means[..., 0].tolist() == [[0.75, 0.0], [0.1875, 0.5]], "class 4, then the mean of two of class 9"
    assert drawn().labels == (None,)
    assert drawn().means.shape == (1, 2, 1)


def test_changes_by_hand():
    bases = drawn(measures=["luminance", SHIFT])
    row = torch.tensor([0, 2])
    ends = torch.cat([LATENTS[row], torch.tensor([[0.5, 0.25, 0.5, 1.0], [0.5, 0.0, 0.25, 0.25]])])
    # Frames of the base on one side, so that what changes is the base against the other frame.
    assert bases.changes(paint, ends, row).tolist() == [[[0.25, 7.0], [0.0, 7.0]], [[0.0, 7.0], [0.0, 7.0]]]
    assert bases.columns == ("luminance", "shift")
    assert bases.means[0, 0].isnan().tolist() == [False, True], "a movement has no value at the base"
    assert len(bases.values[1]) == 0


def test_relative_changes_are_of_the_bases_own_value():
    bases = drawn(parts=INK, measures=["area"])
    assert bases.values[0][..., 0].tolist() == [[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]]
    ends = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    change = bases.changes(paint, ends, torch.tensor([1]))[0, :, 0]
    assert change.tolist() == [(0.75 - 0.25) / 0.5, (0.25 - 0.75) / 0.5]


def test_a_part_counts_where_it_is_large_enough():
    bases = drawn(parts=INK, measures=["luminance"], least_area=0.3)
    assert bases.present.tolist() == [[False, True], [True, True], [False, True]]
    assert bases.means[0, 0].tolist() == [0.75], "the only base with enough ink"
    change = bases.changes(paint, LATENTS.repeat(2, 1), torch.arange(3))[..., 0]
    assert change.isnan().tolist() == [[True, False], [False, False], [True, False]]
    alone = drawn(classes=torch.tensor([0, 1, 0]), parts=INK, least_area=0.3)
    assert alone.means[..., 0].isnan().tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("channels", "parts", "columns"),
    [
        (1, None, "luminance smooth_entropy"),
        (3, None, "luminance red green blue lightness green_red blue_yellow"),
        (1, ROWS, "area row column eccentricity orientation luminance smooth_entropy"),
    ],
)
def test_what_is_measured_where_nothing_is_asked_for(channels, parts, columns):
    wide = from_callable(lambda w: w.view(-1, 1, 2, 2).expand(-1, channels, -1, -1), normal_latents(4))
    bases = Bases.draw(wide, LATENTS, None, parts, None, 0.001, 64)
    assert bases.columns == tuple(columns.split())
    assert bases.parts.names == (("picture",) if parts is None else ("top", "bottom"))


@given(st.integers(1, 8), st.integers(0, 20))
def test_chunks_make_no_difference(size, seed):
    generator = torch.Generator().manual_seed(seed)
    latents, classes = torch.rand(7, 4, generator=generator), torch.randint(3, (7,), generator=generator)
    whole, parts = (drawn(latents, classes, measures=["luminance", SHIFT, "area"], size=k) for k in (64, size))
    for a, b in zip(whole.values, parts.values, strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(whole.present, parts.present)
    torch.testing.assert_close(whole.means, parts.means, equal_nan=True)


def test_gradients_pass_only_while_watched():
    slopes, sizes = [], []

    def watch(leaf, static, values, present):
        assert [m.columns for m in static] == [("luminance",)]
        assert present.tolist() == [[True, True]] * len(leaf)
        sizes.append(len(leaf))
        slopes.append(torch.autograd.grad(values[0][:, 0].sum(), leaf)[0])

    bases = drawn(measures=["luminance", SHIFT], size=2, watch=watch)
    assert sizes == [2, 1]
    assert torch.cat(slopes).tolist() == [[0.5, 0.5, 0.0, 0.0]] * 3
    assert not any(t.requires_grad for t in (bases.latents, bases.present, *bases.values))
    seen = []
    drawn(measures=[Measure(("own",), lambda x, m: seen.append(x.requires_grad) or m.mean((2, 3))[..., None])])
    assert seen == [False]


def test_what_it_refuses():
    for call, text in (
        (
            lambda: drawn(LATENTS[:0]),
            r"latents are torch.float32 of shape \(0, 4\); wanted finite floats \(n, latent_d",
        ),
        (lambda: drawn(LATENTS[0]), r"of shape \(4,\); wanted finite floats .* one row for each base"),
        (lambda: drawn(LATENTS.long()), "latents are torch.int64"),
        (lambda: drawn(LATENTS * torch.nan), "wanted finite floats"),
        (
            lambda: drawn(classes=torch.zeros(2).long()),
            r"classes are torch.int64 of shape \(2,\) for 3 bases; wanted wh",
        ),
        (lambda: drawn(classes=torch.zeros(3)), r"classes are torch.float32 of shape \(3,\) for 3 bases"),
        (lambda: drawn(measures=["size"]), "measure 'size' is unknown"),
        (
            lambda: drawn(LATENTS[2:], parts=INK),
            "part 'ink' takes less than 0.001 of every base picture; leave it out, give bases that have it, or lower",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            call()
