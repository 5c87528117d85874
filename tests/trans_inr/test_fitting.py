import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR, mean_psnr, neuron_canvases, own_starts, tuned
from xinc_captum.attributions.trans_inr.fitting import drawn_seen
from xinc_captum.metrics import correspondence


def test_it_learns_pictures_and_is_judged_on_others(small, ramps):
    images = ramps(64)
    model = small()
    result = model.fit(images[:48], validation=images[48:], steps=250, lr=1e-2, warmup=10, show_progress=False)
    assert result.psnr > mean_psnr(images[:48].mean(0).expand(16, -1, -1, -1), images[48:]) + 8
    with torch.no_grad():
        assert result.psnr == pytest.approx(mean_psnr(model(images[48:]), images[48:]), abs=1e-4)
    assert [step for step, _ in result.validation] == [100, 200, 250]
    assert len(result.curve) == result.steps == 250 and result.curve[-1] > result.curve[0] + 3
    # What benchmarks/trans_inr.py asks of digits: ten steps further, and neurons that find themselves.
    own = own_starts(model, 16)
    written, scratch = tuned(model.generate(images[48:]), images[48:], 10, 3e-3), tuned(own, images[48:], 10)
    assert written.psnr > scratch.psnr + 10
    found, control = (correspondence(neuron_canvases(nets, (8, 8))) for nets in (written.inrs, scratch.inrs))
    assert found.retrieval > 0.7 and control.retrieval < 2 * control.chance


def test_the_means_are_those_of_the_pictures_it_was_fitted_to(small, bars):
    model, images = small(), bars(20)
    assert (model.mean_image == 0.5).all() and all((x == 1).all() for x in model.mean_modulations)
    model.fit(images, validation=None, steps=2, show_progress=False)
    torch.testing.assert_close(model.mean_image, images.mean(0))
    with torch.no_grad():
        for mean, each in zip(model.mean_modulations, model.modulations(images), strict=True):
            torch.testing.assert_close(mean, each.mean(0))
    larger = bars(4).repeat_interleave(2, -1)
    model.fit(larger, validation=None, steps=1, show_progress=False)
    assert model.mean_image.shape == (1, 8, 8), "of the size it was built for"


def test_the_split_is_the_seeds_and_held_out_pictures_are_not_trained_on(small, bars):
    images = bars(20)
    spoilt = images.clone()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    spoilt[order[:4]] = 0.0
    first, second = small(), small()
    first.fit(images, validation=0.2, steps=3, seed=5, show_progress=False)
    second.fit(spoilt, validation=0.2, steps=3, seed=5, show_progress=False)
    assert torch.equal(first.tokens.places, second.tokens.places)


def test_what_is_seen_is_drawn_between_keep_and_all():
    seen = drawn_seen((500, 4, 4), 0.25, torch.Generator().manual_seed(0))
    counts = seen.flatten(1).sum(1)
    assert seen.dtype == torch.bool and 4 <= counts.min() <= 5 and counts.max() == 16
    assert seen.float().mean(0).std() < 0.1, "every place as often"


@pytest.mark.parametrize("arguments", [{}, {"pixel_mask": True}])
def test_training_on_some_of_what_there_is(bars, arguments):
    model = TransINR(1, (8, 8), 4, dim=8, depth=1, ff=8, heads=2, hidden=4, count=2, groups=2, seed=0, **arguments)
    result = model.fit(bars(), steps=5, keep=0.3, show_progress=False)
    assert len(result.curve) == 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images": torch.rand(1, 1, 8, 8)}, "images hold 1 picture; wanted at least 2"),
        ({"validation": 0.001}, "validation is 0.001 of 24 pictures; wanted a share that leaves some on both sides"),
        ({"keep": 0.0}, r"batch_size is 64 and keep is 0.0; wanted at least 1, and a share in \(0, 1\]"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": torch.rand(20, 3, 8, 8)}, r"images have shape \(1, 3, 8, 8\); wanted \(N, 1, H, W\)"),
        ({"images": torch.rand(20, 1, 8, 9)}, r"a picture of \(8, 9\) pixels .* does not tile"),
    ],
)
def test_impossible_settings(small, bars, arguments, text):
    with pytest.raises(ValueError, match=text):
        small().fit(**{"images": bars(), "steps": 1, "show_progress": False, **arguments})
