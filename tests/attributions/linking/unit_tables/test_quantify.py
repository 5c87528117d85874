"""quantify: bases, steps and changes, by hand and against a loop. screen: against quantify."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import quantify, screen, shuffled_directions
from xinc_captum.attributions.linking.unit_tables.quantify import Bases, Steps, resolve_units
from xinc_captum.generators import (
    EigenGenerator,
    FeatureParts,
    ImageParts,
    ProjectionHead,
    from_callable,
    images_in_unit_range,
    normal_latents,
)
from xinc_captum.metrics import MEASURES, Measure, spearman
from xinc_captum.metrics.parts import Movement

NAMES = ["luminance", "rgb"]


def test_equals_a_loop_over_units_and_bases(planted):
    bases, units = planted.latents[:5], [3, 150, 40]
    table = quantify(planted.generator, planted.link, bases, units, parts=planted.parts, measures=NAMES)
    assert table.change.shape == (3, 1, 3, 4) and table.measures == ("luminance", "red", "green", "blue")
    for u, unit in enumerate(units):
        far = 0.5 * planted.link.r_sd[unit] * planted.link.direction([unit])[0]
        frames = [images_in_unit_range(planted.generator, (bases + s * far).float()) for s in (-1, 1)]
        for q, mask in enumerate(planted.masks.bool()):
            means = [frame[:, :, mask].mean(2) for frame in frames]
            change = means[1] - means[0]
            torch.testing.assert_close(table.change[u, 0, q, 1:], change.mean(0), rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(table.spread[u, 0, q, 1:], change.std(0, correction=0), rtol=1e-3, atol=1e-6)


def test_chunks_make_no_difference_and_each_image_is_generated_once(planted):
    drawn = []

    def counted(latents):
        drawn.append(len(latents))
        return planted.generator.synthesize(latents)

    generator = from_callable(counted, normal_latents(30))
    held = [
        quantify(generator, planted.link, planted.latents[:7], range(9), parts=planted.parts, batch_size=size)
        for size in (2, 10, 500)
    ]
    assert sum(drawn) == 3 * (7 + 2 * 7 * 9), "the bases once, two frames for each unit and base"
    assert max(drawn[: 7 // 2 + 1 + 63]) == 2 and held[0].note["frames"] == 7 + 2 * 7 * 9
    for other in held[1:]:
        torch.testing.assert_close(other.change, held[0].change)
        torch.testing.assert_close(other.spread, held[0].spread)


def test_classes_are_separate(planted):
    bases, classes = planted.latents[:6], torch.tensor([7, 2, 7, 2, 2, 7])
    whole = {"parts": planted.parts, "measures": NAMES}
    table = quantify(planted.generator, planted.link, bases, [1, 2], classes=classes, **whole)
    assert table.classes == (2, 7) and (table.bases == 3).all()
    for k, label in enumerate(table.classes):
        alone = quantify(planted.generator, planted.link, bases[classes == label], [1, 2], **whole)
        torch.testing.assert_close(table.change[:, k], alone.change[:, 0])
        torch.testing.assert_close(table.base_value[k], alone.base_value[0])


def test_bounds_set_values_for_every_base(planted):
    bases, own = planted.latents[:4], planted.representations[:4]
    table = quantify(
        planted.generator, planted.link, bases, [5], measures=["luminance"], reach="minmax", representations=own
    )
    low, high = planted.link.bounds([5], "minmax")[0]
    way = planted.link.direction([5])
    frames = [planted.generator.synthesize((bases + way * (v - own[:, 5:6])).float()) for v in (low, high)]
    bright = [(f * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).mean((1, 2)) for f in frames]
    torch.testing.assert_close(table.change.flatten()[0], (bright[1] - bright[0]).mean())


def test_a_base_without_the_part_does_not_count_for_it():
    """Ink of digits that are not there."""
    images = torch.zeros(20, 1, 6, 6)
    images[::2, :, 2:4, 2:4] = torch.rand(10, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    images[1::2, :, 0, 0] = torch.rand(10, 1, generator=torch.Generator().manual_seed(1)) * 0.3
    generator = EigenGenerator(images, components=3)
    latents = generator.encode(images)
    link = LatentLink(ridge=0.0).fit(latents, latents)
    parts = ImageParts(lambda p: torch.cat([(p > 0.4), (p <= 0.4)], 1), ["ink", "paper"])
    table = quantify(generator, link, latents, [0], parts=parts, measures=["area", "luminance"], least_area=0.03)
    assert table.bases[0, 0, :, 0].tolist() == [10, 20]


def test_measures_of_ones_own_and_motion(planted):
    pytest.importorskip("skimage.registration")
    contrast = Measure(("contrast",), lambda x, m: x.flatten(1).std(1)[:, None, None].expand(-1, m.shape[1], 1))
    table = quantify(
        planted.generator,
        planted.link,
        planted.latents[:2],
        [0],
        parts=planted.parts,
        measures=["motion", contrast, "entropy"],
    )
    assert table.measures == ("down", "right", "speed", "contrast", "entropy")
    assert table.change.isfinite().all() and table.base_value[..., :3].isnan().all()
    assert MEASURES["area"].columns == ("area",), "the table of names is as it was"


def test_the_null_has_the_lengths_of_the_units(planted):
    null = planted.link.direction([8, 4]) * 7.0
    table = quantify(planted.generator, planted.link, planted.latents[:3], [4, 8], measures=NAMES, null=null)
    straight = quantify(planted.generator, planted.link, planted.latents[:3], [8], measures=NAMES)
    scale = planted.link.direction([4]).norm() * planted.link.r_sd[4]
    scale = scale / (planted.link.direction([8]).norm() * planted.link.r_sd[8])
    torch.testing.assert_close(table.null[0], straight.change[0] * scale.float(), rtol=0.02, atol=1e-5)
    assert table.null.shape == table.change.shape


def test_the_generator_is_restored():
    net = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.Unflatten(1, (3, 2, 2)), torch.nn.Sigmoid()).train()
    generator = from_callable(net, normal_latents(4))
    latents = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    link = LatentLink().fit(latents, latents)
    state = torch.get_rng_state()
    quantify(
        generator, link, latents[:3], null=shuffled_directions(latents, latents, [0, 1], generator=torch.Generator())
    )
    assert torch.equal(state, torch.get_rng_state()) and torch.is_grad_enabled()
    assert net.training and all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not net[0]._forward_hooks


def test_invalid_arguments_raise(planted):
    generator, link, bases = planted.generator, planted.link, planted.latents[:3]
    with pytest.raises(ValueError, match=r"units are \[200\]; expected some of 0 to 199"):
        quantify(generator, link, bases, [200])
    with pytest.raises(ValueError, match=r"latents are torch.float32 of shape \(0, 30\)"):
        quantify(generator, link, bases[:0])
    with pytest.raises(ValueError, match=r"latents have shape \(3, 29\), but the link returns latents of 30 numbers"):
        quantify(generator, link, bases[:, 1:])
    with pytest.raises(ValueError, match=r"null has shape \(2, 4\); expected directions \(any number, 30\)"):
        quantify(generator, link, bases, null=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="batch_size is 1; expected at least 2"):
        quantify(generator, link, bases, batch_size=1)
    with pytest.raises(ValueError, match=r"masks have shape \(3, 8, 12\) for images"):
        quantify(generator, link, bases, parts=ImageParts(lambda p: planted.masks, ["a", "b", "c"]))


# Four latents are the four pixels of a picture of 2 by 2, whose rows are the parts.
paint = from_callable(lambda w: w.view(-1, 1, 2, 2), normal_latents(4))
ROWS = ImageParts(torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]), ["top", "bottom"])
INK = ImageParts(lambda x: torch.cat([x > 0.5, x <= 0.5], 1), ["ink", "paper"])
LATENTS = torch.tensor([[0.0, 0.25, 0.5, 1.0], [0.75, 0.75, 0.0, 0.0], [0.5, 0.0, 0.0, 0.5]])
SHIFT = Movement(("shift",), lambda before, after, masks: masks.new_full((*masks.shape[:2], 1), 7.0))


def drawn(latents=LATENTS, classes=None, parts=ROWS, measures=("luminance",), least_area=0.001, size=64, watch=None):
    return Bases.draw(paint, latents, classes, parts, measures, least_area, size, watch)


def test_values_and_means_by_hand():
    bases = drawn(classes=torch.tensor([9, 4, 9]))
    assert (len(bases.latents), bases.labels, bases.columns) == (3, (4, 9), ("luminance",))
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
def test_default_measures(channels, parts, columns):
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


def test_errors():
    for call, text in (
        (
            lambda: drawn(LATENTS[:0]),
            r"latents are torch.float32 of shape \(0, 4\); expected finite floats \(n, latent_d",
        ),
        (lambda: drawn(LATENTS[0]), r"of shape \(4,\); expected finite floats .* one row per base image"),
        (lambda: drawn(LATENTS.long()), "latents are torch.int64"),
        (lambda: drawn(LATENTS * torch.nan), "expected finite floats"),
        (
            lambda: drawn(classes=torch.zeros(2).long()),
            r"classes are torch.int64 of shape \(2,\) for 3 bases; expected integers",
        ),
        (lambda: drawn(classes=torch.zeros(3)), r"classes are torch.float32 of shape \(3,\) for 3 bases"),
        (lambda: drawn(measures=["size"]), "measure 'size' is unknown"),
        (
            lambda: drawn(LATENTS[2:], parts=INK),
            "part 'ink' covers less than 0.001 of every base image; omit it, give bases that have it, or lower",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            call()


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


def test_null_directions_have_the_units_lengths(planted):
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
    assert resolve_units(link, None).tolist() == [0, 2, 3]
    assert resolve_units(link, torch.tensor([3, 0])).tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"units \[1\] are dead: they do not vary"):
        resolve_units(link, [0, 1])
    with pytest.raises(ValueError, match=r"units are \[-1\]; expected some of 0 to 3"):
        resolve_units(link, [-1])
    with pytest.raises(ValueError, match=r"units are \[\]; expected some"):
        resolve_units(link, [])
    with pytest.raises(ValueError, match=r"units are \[2, 2\]; expected each unit once"):
        resolve_units(link, [2, 2])


def test_steps_errors(planted):
    units = torch.tensor([0])
    with pytest.raises(ValueError, match="reach is 'far'; expected a number of standard deviations"):
        Steps(planted.link, units, 3, "far", "marginal")
    with pytest.raises(ValueError, match="reach is 0; expected a positive number"):
        Steps(planted.link, units, 3, 0, "marginal")
    with pytest.raises(ValueError, match=r"representations have shape None; .* those of the bases, \(3, 200\)"):
        Steps(planted.link, units, 3, "minmax", "marginal")
    with pytest.raises(ValueError, match=r"null has shape \(30,\)"):
        Steps(planted.link, units, 3, 0.5, "marginal", null=torch.zeros(30))


SMOOTH = ["area", "luminance", "rgb", "centroid", "ellipse", "smooth_entropy"]


def test_small_steps_are_what_the_sweep_measures(planted):
    """Every column, relative areas and turned axes too."""
    generator = from_callable(lambda w: planted.generator.synthesize(w), normal_latents(30))
    bases = planted.latents[:3].double()
    settings = {"parts": planted.soft, "measures": [m for m in SMOOTH if m != "smooth_entropy"], "reach": 1e-4}
    slow = quantify(generator, planted.link, bases, range(25, 35), **settings)
    fast = screen(generator, planted.link, bases, range(25, 35), **settings)
    assert fast.measures == slow.measures and fast.change.shape == slow.change.shape
    scale = slow.change.abs().amax(0, keepdim=True)
    assert ((fast.change - slow.change).abs() / scale).max() < 1e-3
    torch.testing.assert_close(fast.base_value, slow.base_value)
    assert torch.equal(fast.bases, slow.bases)


def test_units_rank_as_in_the_sweep_at_half_a_deviation(planted):
    settings = {"parts": planted.soft, "measures": SMOOTH}
    slow = quantify(planted.generator, planted.link, planted.latents[:4], **settings)
    fast = screen(planted.generator, planted.link, planted.latents[:4], **settings)
    for part in slow.parts:
        for measure in slow.measures:
            columns = [t.column(part, measure).abs()[None] for t in (fast, slow)]
            assert spearman(*columns).values.item() > 0.9, (part, measure)
    assert set(fast.strongest("left", "luminance", 10).tolist()) <= set(
        slow.strongest("left", "luminance", 35).tolist()
    )


def test_one_forward_pass_for_all_units(planted):
    drawn = []

    def counted(latents):
        drawn.append(len(latents))
        return planted.generator.synthesize(latents)

    table = screen(from_callable(counted, normal_latents(30)), planted.link, planted.latents[:6], parts=planted.soft)
    assert drawn == [6] and len(table.units) == 200


def test_screening_with_classes_and_a_null(planted):
    null = planted.link.direction([9, 8, 7])
    table = screen(
        planted.generator,
        planted.link,
        planted.latents[:6],
        [7, 8, 9],
        classes=planted.classes[:6],
        measures=["luminance"],
        null=null,
    )
    assert table.null.shape == (3, 2, 1, 1) and table.classes == (0, 1)
    torch.testing.assert_close(table.null[1], table.change[1])


def test_through_a_head_on_features():
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (2, 3, 3)), torch.nn.ConvTranspose2d(2, 3, 2, 2), torch.nn.Sigmoid()
    )
    generator = from_callable(net, normal_latents(18))
    from xinc_captum.attributions.linking import LatentLink

    latents = torch.randn(60, 18, generator=torch.Generator().manual_seed(0))
    link = LatentLink().fit(latents, latents)
    parts = FeatureParts(ProjectionHead([2, 3], 2), ["back", "front"], ["0", "1"])
    settings = {"parts": parts, "measures": ["area", "luminance"], "reach": 0.01}
    slow, fast = (f(generator, link, latents[:4], **settings) for f in (quantify, screen))
    assert (fast.change - slow.change).abs().max() < 0.02 * slow.change.abs().max()
    assert all(p.grad is None for p in (*net.parameters(), *parts.head.parameters()))


def test_measures_without_gradient_raise(planted):
    ask = (planted.generator, planted.link, planted.latents[:2])
    with pytest.raises(ValueError, match="entropy cannot be screened, because it has no gradient"):
        screen(*ask, measures=["entropy"])
    with pytest.raises(ValueError, match="down, right, speed cannot be screened"):
        screen(*ask, measures=["motion"])
    with pytest.raises(ValueError, match="area of part 0 has no gradient .* Give soft masks"):
        screen(*ask, parts=planted.parts, measures=["area"])
    stuck = from_callable(planted.generator.synthesize, normal_latents(30), differentiable=False)
    with pytest.raises(ValueError, match="the generator is not differentiable"):
        screen(stuck, *ask[1:])
    cut = from_callable(lambda w: planted.generator.synthesize(w.detach()), normal_latents(30))
    with pytest.raises(ValueError, match="luminance of part 0 has no gradient"):
        screen(cut, *ask[1:], parts=ImageParts(planted.masks, ["a", "b", "c"]), measures=["luminance"])
