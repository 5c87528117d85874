import copy
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from xinc_captum import LayerError
from xinc_captum.attributions.nern import NeRN, sample_kernels
from xinc_captum.attributions.nern.losses import check_images
from xinc_captum.attributions.nern.nern import Recipe, image_batches, split_validation
from xinc_captum.inr import CheckpointError


@pytest.fixture
def images():
    return torch.rand(40, 2, 6, 6)


def fit(mixed, images, nern=None, **kwargs):
    nern = nern or NeRN(mixed, hidden=8, levels=6)
    settings = {"steps": 30, "every": 10, "batch_size": 8, "show_progress": False} | kwargs
    return nern, nern.fit(images, **settings)


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("source", ["tensor", "loader", "noise", None])
@pytest.mark.parametrize("optimizer", ["adamw", "radam"])
def test_fit_reduces_the_error_for_every_source(mixed, images, source, optimizer):
    data = {
        "tensor": images,
        "loader": DataLoader(TensorDataset(images, torch.zeros(40)), 8),
        "noise": "noise",
        None: None,
    }[source]
    before = NeRN(mixed, hidden=8, levels=6).relative_error()
    nern, result = fit(mixed, data, noise_shape=(2, 6, 6), optimizer=optimizer, lr=2e-2, steps=15, every=5)
    assert nern.relative_error() < 0.99 * before
    assert result.losses.shape == (15, 3) and (result.losses[:, 1:] != 0).all().item() is (source is not None)
    assert [evaluation.step for evaluation in result.looks] == [5, 10, 15]
    assert (result.looks[0].agreement is None) is (source in ("loader", None))
    assert result.kept.relative_error == pytest.approx(nern.relative_error(), rel=1e-5)


def test_best_predictor_is_the_result(mixed, images):
    nern, result = fit(mixed, images, lr=0.3, steps=40, every=5)  # far too fast: it comes and goes
    best = min(result.looks, key=lambda evaluation: evaluation.divergence)
    assert result.kept == best
    assert nern.relative_error() == pytest.approx(best.relative_error, rel=1e-5)


@pytest.mark.parametrize(
    ("source", "validation", "judged_on"),
    [
        ("tensor", 0.1, "4 held-out pictures"),
        ("noise", 0.1, "8 pictures of noise"),
        ("noise", torch.zeros(3, 2, 6, 6), "3 held-out pictures"),
        (None, 0.1, ""),
    ],
)
def test_result_shows_bytes_error_and_agreement(mixed, images, source, validation, judged_on):
    data = images if source == "tensor" else source
    nern, result = fit(mixed, data, steps=4, every=2, validation=validation, noise_shape=(2, 6, 6))
    report = result.report
    assert (report.judged_on, report.agreement) == (judged_on, result.kept.agreement)
    assert report.total == nern.size_report().total
    assert report.relative_error == pytest.approx(result.kept.relative_error, rel=1e-5)
    lines = str(result).splitlines()
    assert lines[0] == f"kept the predictor of step {result.kept.step} of 4"
    assert (
        all(("weight error" in line and "bytes" in line and "agree" in line) for line in lines[1:]) and len(lines) == 5
    )


def test_small_target_is_approximated(mixed, images):
    nern, result = fit(mixed, images, NeRN(mixed, hidden=40, levels=10), steps=100, lr=2e-2, every=100)
    assert nern.relative_error() < 0.1
    assert result.kept.agreement >= 0.75 and result.kept.divergence < 1e-3


def test_target_is_restored(mixed, images, found):
    mixed.train()
    mixed(images).sum().backward()
    before = found(mixed)
    nern, _ = fit(mixed, images)
    assert before.differences(mixed) == []
    assert all(p.grad is None for p in nern.predictor.parameters())


def test_target_is_restored_after_an_interruption(mixed, images, found):
    mixed.train()
    mixed(images).sum().backward()
    mixed.point.weight.requires_grad_(False)
    nern, calls = NeRN(mixed, hidden=8, levels=6), []

    def stop(*_):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt

    mixed.fc.register_forward_hook(stop)
    before = found(mixed)
    with pytest.raises(KeyboardInterrupt):
        fit(mixed, images, nern)
    assert before.differences(mixed) == []
    assert all(p.grad is None for p in nern.predictor.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_fit_in_other_dtypes(mixed, images, dtype):
    nern, result = fit(mixed.to(dtype), images, lr=2e-2)
    assert next(nern.predictor.parameters()).dtype == nern.rebuild().stem.weight.dtype == dtype
    assert result.losses.isfinite().all() and result.looks[-1].relative_error < 1


def test_float16_is_refused(mixed, images):
    with pytest.raises(ValueError, match="KernelPredictor is torch.float16, in which steps of Adam are NaN; fit it in"):
        fit(mixed.half(), images.half())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_does_not_depend_on_the_callers_grad_mode(mixed, images, mode):
    plain, _ = fit(mixed, images)
    with mode():
        again, _ = fit(mixed, images)
    assert same(again.predictor, plain.predictor)


class Again(nn.Module):
    """One convolution that is used twice, and one that is used once."""

    def __init__(self):
        super().__init__()
        self.twice, self.once = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 3, 1)

    def forward(self, x):
        return self.once(self.twice(self.twice(x).relu()).relu()).mean((2, 3))


def test_layers_that_run_twice_are_refused_as_feature_layers(images):
    nern = NeRN(Again().eval(), hidden=4)
    with pytest.raises(
        LayerError, match=r"layer 'twice' runs more than once .* Choose the maps .* with feature_layers="
    ):
        nern.fit(images, steps=2, show_progress=False)
    assert nern.fit(images, steps=2, feature_layers=["once"], show_progress=False).steps == 2


@pytest.mark.cuda
def test_on_a_gpu(mixed, images, tmp_path, found):
    """The same first steps as on the CPU, the target is restored, and a checkpoint resumes on either."""
    _, whole = fit(mixed, images, kernels_per_step=20)
    there = copy.deepcopy(mixed).cuda()
    before = found(there)
    nern, result = fit(there, images, kernels_per_step=20, checkpoint=tmp_path / "run.pt")
    assert before.differences(there) == []
    assert next(nern.predictor.parameters()).device.type == "cuda"
    assert next(nern.rebuild().parameters()).device.type == "cuda"
    torch.testing.assert_close(result.losses[:5], whole.losses[:5], atol=1e-4, rtol=1e-3)
    nern.save(tmp_path / "nern")
    again = NeRN.load(tmp_path / "nern", copy.deepcopy(mixed))
    torch.testing.assert_close(again.weights()["stem"], nern.weights()["stem"].cpu(), atol=1e-5, rtol=1e-4)


def test_target_runs_in_evaluation_mode(mixed, images):
    training = copy.deepcopy(mixed).train()
    a, _ = fit(mixed, images)
    b, _ = fit(training, images)
    assert same(a.predictor, b.predictor) and training.training


def test_only_sampled_kernels_have_gradients(mixed, images):
    whole, _ = fit(mixed, images, kernels_per_step=10_000)
    plain, _ = fit(mixed, images)
    some, result = fit(mixed, images, kernels_per_step=5)
    assert same(whole.predictor, plain.predictor) and not same(some.predictor, plain.predictor)
    assert torch.isfinite(result.losses).all()


def test_warmup_uses_the_reconstruction_loss_only(mixed, images):
    _, result = fit(mixed, images, warmup=12)
    assert (result.losses[:12, 1:] == 0).all() and (result.losses[12:, 1:] != 0).all()


def test_patience_ends_the_fit(mixed, images):
    _, result = fit(mixed, images, loss_weights=(0.0, 0.0, 1e-9), lr=1e-12, steps=200, every=5, patience=2)
    assert result.steps < 200 and result.kept.step < result.steps


@pytest.mark.parametrize("source", ["tensor", "noise", "loader"])
def test_killed_run_resumes_bit_identically(mixed, images, source, tmp_path):
    data = {"tensor": images, "noise": "noise", "loader": list(images.split(8))}[source]
    extra = {"noise_shape": (2, 6, 6), "kernels_per_step": 20}
    plain, whole = fit(mixed, data, **extra)
    nern = NeRN(mixed, hidden=8, levels=6)
    calls = 0

    def counting(*_):
        nonlocal calls
        calls += 1
        if calls == 45:
            raise KeyboardInterrupt

    handle = mixed.fc.register_forward_hook(counting)
    with pytest.raises(KeyboardInterrupt):
        fit(mixed, data, nern, checkpoint=tmp_path / "run.pt", **extra)
    handle.remove()
    again, result = fit(mixed, data, checkpoint=tmp_path / "run.pt", **extra)
    assert 0 < result.resumed_at < 30
    assert same(again.predictor, plain.predictor)
    assert torch.equal(result.losses, whole.losses) and result.looks == whole.looks
    third, result = fit(mixed, data, checkpoint=tmp_path / "run.pt", **extra)
    assert result.resumed_at == 30 and same(third.predictor, plain.predictor)


def test_checkpoint_of_another_run_is_refused(mixed, images, tmp_path):
    path = tmp_path / "run.pt"
    fit(mixed, images, checkpoint=path)
    with pytest.raises(CheckpointError, match="is of another run: it has lr '0.005' instead of '0.01'; give another"):
        fit(mixed, images, checkpoint=path, lr=0.01)
    with pytest.raises(CheckpointError, match="it has nern .*hidden.* 8.* instead of .*hidden.* 9"):
        fit(mixed, images, NeRN(mixed, hidden=9, levels=6), checkpoint=path)
    with pytest.raises(CheckpointError, match="it has images "):
        fit(mixed, images + 1, checkpoint=path)
    with torch.no_grad():
        mixed.point.weight.add_(1)
    with pytest.raises(CheckpointError, match="it has target weights"):
        fit(mixed, images, checkpoint=path)


@pytest.mark.parametrize(
    ("images", "kwargs", "error", "text"),
    [
        (torch.full((4, 2, 6, 6), torch.nan), {}, ValueError, "images hold NaN or infinite values in 4 of 4"),
        ([torch.full((4, 2, 6, 6), torch.inf)], {}, ValueError, "images hold NaN or infinite values in 4 of 4"),
        (torch.zeros(4, 2, 6, 6).int(), {}, TypeError, "images are torch.int32; expected a float tensor"),
        (torch.zeros(0, 2, 6, 6), {}, ValueError, r"images have shape \(0, 2, 6, 6\); expected"),
        ("nose", {}, ValueError, "images is 'nose'; expected a tensor, a loader, 'noise' or None"),
        ("noise", {}, ValueError, r"images='noise' needs noise_shape=, .* for example \(3, 32, 32\)"),
        (
            "noise",
            {"noise_shape": (2, 6, 6), "noise_range": (1, 1)},
            ValueError,
            r"noise_range is \(1, 1\); expected the l",
        ),
        (3, {}, TypeError, "images is a int; expected a tensor"),
        ([], {}, ValueError, "the loader of images is empty"),
        (None, {"steps": 0}, ValueError, "steps is 0; expected at least 1"),
        (None, {"lr": 0.0}, ValueError, "lr is 0.0 and warmup is 0; expected lr > 0"),
        (None, {"optimizer": "sgd"}, ValueError, "optimizer is 'sgd'; expected 'adamw' or 'radam'"),
        (None, {"loss_weights": (0.0, 0.0, 0.0)}, ValueError, r"loss_weights are \(0.0, 0.0, 0.0\); expected three"),
        (torch.rand(4, 2, 6, 6), {"validation": 1.0}, ValueError, r"validation is 1.0; expected images, or a share"),
    ],
)
def test_invalid_input_is_refused(mixed, images, kwargs, error, text, found):
    before = found(mixed)
    with pytest.raises(error, match=text):
        fit(mixed, images, **kwargs)
    assert before.differences(mixed) == []


def test_loaders_must_be_readable_again(mixed, images):
    with pytest.raises(ValueError, match="or can be read only once; give a DataLoader"):
        fit(mixed, iter(images.split(8)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_networks_with_nan_are_refused_before_the_first_step(mixed, images, value, found):
    nern = NeRN(mixed, hidden=8, levels=6)
    with torch.no_grad():
        nern.predictor.linear2.bias[0] = value
    before = found(mixed)
    text = "the parameter linear2.bias of this KernelPredictor holds NaN or infinite values"
    with pytest.raises(ValueError, match=text):
        fit(mixed, images, nern)
    assert before.differences(mixed) == []
    last = [name for name, p in mixed.named_parameters() if p.dim() == 1][-1]
    with torch.no_grad():
        mixed.get_parameter(last)[0] = value
    with pytest.raises(ValueError, match=f"'{last}' of the target hold NaN or infinite values, with which its outputs"):
        fit(mixed, images)


def test_buffers_may_be_infinite_but_not_nan(mixed, images):
    mixed.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    fit(mixed, images, steps=1)
    mixed.mask[0] = torch.nan
    with pytest.raises(ValueError, match="'mask' of the target hold NaN"):
        fit(mixed, images, steps=1)


def test_fit_with_nan_restores_the_best_predictor(mixed, images, found, tmp_path):
    nern, before = NeRN(mixed, hidden=8, levels=6), found(mixed)
    start = copy.deepcopy(nern.predictor)
    with pytest.raises(FloatingPointError, match=r"NaN .* first in the loss of step \d+ \(lr=1e\+30, .*from before"):
        fit(mixed, images, nern, lr=1e30)
    assert same(nern.predictor, start) and before.differences(mixed) == []

    class Loader:
        def __iter__(self):
            for step in range(30):
                if step == 14:
                    with torch.no_grad():
                        nern.predictor.output.bias[0] = torch.nan
                yield images[:8]

    path = tmp_path / "run"
    with pytest.raises(FloatingPointError, match=r"in the loss of step 15 .* its weights of step 10 again"):
        fit(mixed, Loader(), nern, checkpoint=path, validation=images[:8])
    assert all(bool(p.isfinite().all()) for p in nern.predictor.parameters()) and not same(nern.predictor, start)
    assert before.differences(mixed) == []


def test_default_settings_are_valid():
    assert Recipe().steps == 1000 and Recipe(patience=None, kernels_per_step=None, warmup=0).every == 100


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"patience": 0}, "patience is 0; expected at least 1"),
        ({"kernels_per_step": -2}, "kernels_per_step is -2; expected at least 1"),
        ({"lr": 0.0}, r"lr is 0.0 and warmup is 0; expected lr > 0"),
        ({"warmup": -1}, r"warmup is -1; expected lr > 0 and warmup >= 0"),
        ({"loss_weights": (0.0, 0.0, 0.0)}, "not all 0"),
        ({"loss_weights": (1.0, 1.0)}, "expected three numbers >= 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected 'adamw' or 'radam'"),
        ({"noise_range": (1.0, 1.0)}, "expected the lower end first"),
        ({"lr": float("nan")}, "lr is nan"),
    ],
)
def test_invalid_settings_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**given)


IMAGES = torch.arange(10.0).view(10, 1, 1, 1)


def test_each_image_comes_once_in_each_round():
    stream = image_batches(IMAGES, Recipe(batch_size=5))
    first, again = (torch.cat(list(islice(stream, 2))).flatten().sort().values for _ in range(2))
    assert torch.equal(first, IMAGES.flatten()) and torch.equal(again, IMAGES.flatten())


def test_seed_determines_batches_and_keeps_the_global_state():
    state = torch.random.get_rng_state()
    one, two, other = (
        torch.cat(list(islice(image_batches(IMAGES, Recipe(batch_size=4, seed=seed)), 3))) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_noise_has_the_requested_range_and_shape():
    recipe = Recipe(batch_size=50, noise_shape=(2, 30), noise_range=(-1.0, 4.0))
    noise = next(image_batches("noise", recipe))
    assert noise.shape == (50, 2, 30) and noise.min() >= -1 and noise.max() <= 4 and noise.max() - noise.min() > 4.5
    train, val = split_validation("noise", 0.1, recipe)
    assert train == "noise" and not torch.equal(val, noise), "of another seed"


def test_each_noise_image_has_its_own_range():
    stream = image_batches("noise", Recipe(batch_size=200, noise_shape=(1, 30, 30), noise_range=(-1.0, 4.0)))
    noise, later = (next(stream).flatten(1) for _ in range(2))
    width = noise.amax(1) - noise.amin(1)
    assert width.mean() == pytest.approx(5 / 3, abs=0.3), "of two uniform ends"
    assert width.min() < 0.3 and width.max() > 4 and noise.amin(1).max() > 2 and noise.amax(1).min() < 1
    place = (noise - noise.amin(1)[:, None]) / width[:, None]
    assert place.mean() == pytest.approx(0.5, abs=0.01) and place.std() == pytest.approx(12**-0.5, abs=0.01)
    assert not torch.equal(noise, later)


def test_validation_images_are_not_trained_on():
    train, val = split_validation(IMAGES, 0.3, Recipe())
    assert len(train) == 7 and len(val) == 3
    assert sorted([*train.flatten().tolist(), *val.flatten().tolist()]) == IMAGES.flatten().tolist()
    assert split_validation(IMAGES, 0.0, Recipe())[1] is None
    given = torch.ones(2, 1, 1, 1)
    assert split_validation(IMAGES, given, Recipe())[1] is given


def test_loader_is_repeated():
    stream = image_batches([(IMAGES[:2], torch.zeros(2)), [IMAGES[2:4]]], Recipe())
    assert torch.equal(torch.cat(list(islice(stream, 3))), torch.cat([IMAGES[:4], IMAGES[:2]]))
    assert next(image_batches(None, Recipe())) is None


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: check_images(torch.arange(3)), TypeError, "images are torch.int64; expected a float tensor"),
        (lambda: check_images([1.0]), TypeError, "images are list; expected a float tensor"),
        (lambda: check_images(torch.zeros(0, 3)), ValueError, r"images have shape \(0, 3\); expected"),
        (lambda: check_images(torch.tensor([[1.0], [float("nan")]])), ValueError, "NaN or infinite values in 1 of 2"),
        (
            lambda: split_validation(IMAGES, 1.0, Recipe()),
            ValueError,
            r"validation is 1.0; expected images, or a share",
        ),
        (lambda: image_batches("photos", Recipe()), ValueError, "images is 'photos'; expected"),
        (lambda: image_batches("noise", Recipe()), ValueError, "needs noise_shape="),
        (lambda: image_batches(3, Recipe()), TypeError, "images is a int; expected"),
        (
            lambda: next(image_batches(iter([]), Recipe())),
            ValueError,
            "the loader of images is empty, or can be read only once",
        ),
    ],
)
def test_invalid_images_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_kernels_are_sampled_uniformly_without_replacement():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(2000):
        index = sample_kernels(torch.arange(10.0), 3, generator, by_norm=0.0)
        assert len(index) == 3 and torch.equal(index, index.sort().values.unique())
        counts[index] += 1
    assert (counts / 2000 - 0.3).abs().max() < 0.05


def test_kernels_are_sampled_by_norm():
    generator = torch.Generator().manual_seed(0)
    norms = torch.tensor([0.0, 1.0, 2.0, 7.0])
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[sample_kernels(norms, 1, generator, by_norm=1.0)] += 1
    torch.testing.assert_close(counts / 4000, norms / 10, atol=0.03, rtol=0)
    assert len(sample_kernels(norms, 50, generator, by_norm=1.0)) == 3, "with replacement, each once; never a dead one"


def test_zero_kernels_are_sampled_uniformly():
    assert len(sample_kernels(torch.zeros(5), 2, torch.Generator().manual_seed(0), by_norm=1.0)) == 2


def test_generator_state_does_not_depend_on_the_outcome():
    ends = []
    for count in (0.2, 0.2):
        generator = torch.Generator().manual_seed(3)
        sample_kernels(torch.ones(9), 4, generator, by_norm=count)
        ends.append(generator.get_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize(("count", "share"), [(0, 0.2), (3, 1.5)])
def test_invalid_sample_sizes_are_refused(count, share):
    with pytest.raises(ValueError, match=f"count is {count} and by_norm is {share}; expected at least 1 kernel"):
        sample_kernels(torch.ones(4), count, torch.Generator(), by_norm=share)


def test_numpy_integers_are_counts_and_seeds(tmp_path):
    target, images, predictors = (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 2)),
        torch.rand(8, 1, 5, 5),
        [],
    )
    for whole in (int, np.int64):
        nern = NeRN(target, hidden=whole(8), seed=whole(1))
        counts = {"steps": whole(2), "batch_size": whole(2), "seed": whole(2), "every": whole(1)}
        nern.fit(images, **counts, checkpoint=tmp_path / whole.__name__, show_progress=False)
        predictors.append(nern.predictor.state_dict())
    torch.testing.assert_close(*predictors, rtol=0, atol=0)
