import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import quantify, shuffled_directions
from xinc_captum.generators import EigenGenerator, PictureParts, from_callable, normal_latents, pictures_in_unit_range
from xinc_captum.metrics import MEASURES, Measure

NAMES = ["luminance", "rgb"]


def test_equals_a_loop_over_units_and_bases(planted):
    bases, units = planted.latents[:5], [3, 150, 40]
    table = quantify(planted.generator, planted.link, bases, units, parts=planted.parts, measures=NAMES)
    assert table.change.shape == (3, 1, 3, 4) and table.measures == ("luminance", "red", "green", "blue")
    for u, unit in enumerate(units):
        far = 0.5 * planted.link.r_sd[unit] * planted.link.direction([unit])[0]
        frames = [pictures_in_unit_range(planted.generator, (bases + s * far).float()) for s in (-1, 1)]
        for q, mask in enumerate(planted.masks.bool()):
            means = [frame[:, :, mask].mean(2) for frame in frames]
            change = means[1] - means[0]
            torch.testing.assert_close(table.change[u, 0, q, 1:], change.mean(0), rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(table.spread[u, 0, q, 1:], change.std(0, correction=0), rtol=1e-3, atol=1e-6)


def test_chunks_make_no_difference_and_each_picture_is_drawn_once(planted):
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


def test_classes_are_kept_apart(planted):
    bases, classes = planted.latents[:6], torch.tensor([7, 2, 7, 2, 2, 7])
    whole = {"parts": planted.parts, "measures": NAMES}
    table = quantify(planted.generator, planted.link, bases, [1, 2], classes=classes, **whole)
    assert table.classes == (2, 7) and (table.bases == 3).all()
    for k, label in enumerate(table.classes):
        alone = quantify(planted.generator, planted.link, bases[classes == label], [1, 2], **whole)
        torch.testing.assert_close(table.change[:, k], alone.change[:, 0])
        torch.testing.assert_close(table.base_value[k], alone.base_value[0])


def test_bounds_set_values_whatever_the_base_has(planted):
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
    parts = PictureParts(lambda p: torch.cat([(p > 0.4), (p <= 0.4)], 1), ["ink", "paper"])
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


def test_the_null_is_swept_likewise_at_the_lengths_of_the_units(planted):
    null = planted.link.direction([8, 4]) * 7.0
    table = quantify(planted.generator, planted.link, planted.latents[:3], [4, 8], measures=NAMES, null=null)
    straight = quantify(planted.generator, planted.link, planted.latents[:3], [8], measures=NAMES)
    scale = planted.link.direction([4]).norm() * planted.link.r_sd[4]
    scale = scale / (planted.link.direction([8]).norm() * planted.link.r_sd[8])
    torch.testing.assert_close(table.null[0], straight.change[0] * scale.float(), rtol=0.02, atol=1e-5)
    assert table.null.shape == table.change.shape


def test_the_generator_is_left_as_found():
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


def test_what_does_not_fit_is_said(planted):
    generator, link, bases = planted.generator, planted.link, planted.latents[:3]
    with pytest.raises(ValueError, match=r"units are \[200\]; wanted some of 0 to 199"):
        quantify(generator, link, bases, [200])
    with pytest.raises(ValueError, match=r"latents are torch.float32 of shape \(0, 30\)"):
        quantify(generator, link, bases[:0])
    with pytest.raises(ValueError, match=r"latents have shape \(3, 29\), but the link makes latents of 30 numbers"):
        quantify(generator, link, bases[:, 1:])
    with pytest.raises(ValueError, match=r"null has shape \(2, 4\); wanted directions \(any number, 30\)"):
        quantify(generator, link, bases, null=torch.zeros(2, 4))
    with pytest.raises(ValueError, match="batch_size is 1; wanted at least 2"):
        quantify(generator, link, bases, batch_size=1)
    with pytest.raises(ValueError, match=r"masks have shape \(3, 8, 12\) for pictures"):
        quantify(generator, link, bases, parts=PictureParts(lambda p: planted.masks, ["a", "b", "c"]))
