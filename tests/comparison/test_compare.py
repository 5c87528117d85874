import importlib
import random
import re
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, NoiseTunnel, Saliency
from comparison.fast_compare import PHOTOS, defaults, quick, twice
from torch import nn
from torchvision import transforms

from xinc_captum.comparison import ALL, Column, as_maps, compare, edge_map, grad_cam, random_map
from xinc_captum.comparison.compare import check_masks, check_photos, check_preprocess_of_photos
from xinc_captum.image_model import ImageModel
from xinc_captum.metrics import deletion_insertion, energy_in_mask, target_score


def test_compare_returns_maps_table_and_scores(conv):
    masks = torch.rand(2, 8, 8) > 0.5
    result = quick(defaults(conv, twice), conv, PHOTOS, [0, 2], preprocess=twice, segmentation=masks)
    assert result.note["network"] == type(conv).__name__ and result.note["target"] == [0, 2]
    assert list(result.maps) == [row.method for row in result.table] == ["Grad-CAM", "guided", "IG", "random"]
    assert all(m.shape == (2, 8, 8) and m.dtype == torch.float32 and not m.is_cuda for m in result.maps.values())
    torch.testing.assert_close(result.confidence, target_score(lambda p: conv(twice(p)), PHOTOS, [0, 2]))
    grey = PHOTOS.mean((2, 3), keepdim=True)
    for row in result.table:
        curves = deletion_insertion(
            lambda p: conv(twice(p)), PHOTOS, result.maps[row.method], [0, 2], baseline=grey, steps=4
        )
        assert row.scores["deletion"].value == pytest.approx(curves.deletion.mean().item(), abs=1e-6)
        assert row.scores["insertion"].value == pytest.approx(curves.insertion.mean().item(), abs=1e-6)
        assert row.scores["energy"].value == pytest.approx(
            energy_in_mask(result.maps[row.method], masks).mean().item(), abs=1e-6
        )
        assert row.seconds > 0 and row.cpu_seconds >= 0
    agreement = [row.scores["agreement"].value for row in result.table]
    assert agreement[0] == pytest.approx(1.0) and abs(agreement[3]) < 0.9


def test_a_perfect_map_scores_better_than_a_wrong_one():
    """Class 1 is the light on the left half: who points there wins on every count."""

    class Left(nn.Module):
        def forward(self, x):
            light = x[..., :4].mean((1, 2, 3))
            return torch.stack([0 * light, 8 * light - 4], 1)

    left = torch.zeros(2, 8, 8)
    left[..., :4] = 1
    methods = {"left": lambda x, t: left + 0.1 * torch.rand(2, 8, 8), "right": lambda x, t: 1 - left}
    photos = torch.zeros(2, 3, 8, 8)
    photos[..., :4] = 1
    table = quick(
        methods, Left(), photos, 1, segmentation=left, metrics=[name for name in ALL if name != "sensitivity"], steps=16
    ).table
    good, bad = ({name: found.value for name, found in row.scores.items()} for row in table)
    assert good["deletion"] < bad["deletion"] and good["insertion"] > bad["insertion"]
    assert good["road"] > 0 > bad["road"] and good["infidelity"] < bad["infidelity"]
    assert good["energy"] > 0.85 and bad["energy"] == 0
    assert (good["pointing"], bad["pointing"]) == (1, 0) and good["overlap"] == 1


def test_captum_objects_get_the_inputs_of_their_model(conv):
    methods = {
        "Grad-CAM": grad_cam(conv, "conv", twice),
        "of the model": LayerGradCam(conv, conv.conv),
        "of a function": LayerGradCam(lambda p: conv(twice(p)), conv.conv),
        "Saliency": Saliency(conv),
    }
    maps = quick(methods, conv, PHOTOS, 1, preprocess=twice).maps
    torch.testing.assert_close(maps["of the model"], maps["Grad-CAM"])
    torch.testing.assert_close(maps["of a function"], maps["Grad-CAM"])
    torch.testing.assert_close(maps["Saliency"], Saliency(conv).attribute(twice(PHOTOS), 1).sum(1))


def test_preprocessing_may_resize(conv):
    def larger(images):
        return nn.functional.interpolate(images, (12, 12), mode="bilinear")

    methods = {**defaults(conv, larger), "of the model": Saliency(conv)}
    assert {m.shape for m in quick(methods, conv, PHOTOS, 1, preprocess=larger).maps.values()} == {(2, 8, 8)}


def test_samples_are_independent(conv):
    whole = quick(defaults(conv), conv, PHOTOS, [0, 2])
    alone = quick(defaults(conv), conv, PHOTOS[:1], 0)
    for name, maps in alone.maps.items():
        torch.testing.assert_close(maps, whole.maps[name][:1])
        torch.testing.assert_close(alone.scores[name]["insertion"], whole.scores[name]["insertion"][:1])


def test_results_depend_only_on_the_seed(conv):
    def draws(images, target):
        return torch.rand(2, 8, 8) + float(np.random.rand()) + random.random()

    methods = {"a": draws, "tunnel": NoiseTunnel(Saliency(conv)), "b": draws}
    first = quick(methods, conv, PHOTOS, 1)
    torch.rand(5), np.random.rand(3), random.random()
    again = quick(dict(reversed(methods.items())), conv, PHOTOS, 1, reference="a", rounds=2)
    for name in methods:
        assert torch.equal(first.maps[name], again.maps[name])
    assert torch.equal(first.maps["a"], first.maps["b"])
    assert not torch.equal(first.maps["a"], quick(methods, conv, PHOTOS, 1, seed=1).maps["a"])


def test_methods_alternate_and_are_isolated(conv):
    calls, seen = [], []

    def spoils(images, target):
        calls.append("spoils")
        conv.train()
        images.zero_()
        torch.set_grad_enabled(False)
        return torch.rand(2, 8, 8)

    def looks(images, target):
        calls.append("looks")
        seen.append((conv.training, torch.is_grad_enabled(), torch.equal(images, PHOTOS)))
        return images.sum(1)

    photos = PHOTOS.clone()
    quick({"spoils": spoils, "looks": looks}, conv, photos, 1, rounds=3)
    assert calls == ["spoils", "looks"] * 4, "one counted, three timed"
    assert seen == [(False, True, True)] * 4
    assert torch.equal(photos, PHOTOS)


def test_calls_of_the_model_are_counted(conv):
    rows = {row.method: row.counts for row in quick(defaults(conv), conv, PHOTOS, 1).table}
    assert (rows["Grad-CAM"].forwards, rows["Grad-CAM"].backwards) == (1, 1)
    assert (rows["IG"].forwards, rows["IG"].backwards, rows["IG"].rows) == (1, 1, 8)
    assert (rows["random"].forwards, rows["random"].backwards) == (0, 0)
    assert rows["IG"].peak_bytes > rows["Grad-CAM"].peak_bytes > rows["random"].peak_bytes > 0


def test_methods_by_name_with_baselines(conv):
    result = compare(["Grad-CAM", Saliency(conv), "Grad-CAM"], conv, PHOTOS, 1, layer="conv", rounds=1, steps=2)
    names = ["Grad-CAM", "Saliency", "Grad-CAM 2", "random map", "centre blob", "edge map"]
    assert list(result.maps) == names == [row.method for row in result.table]
    assert result.reference == "Grad-CAM" and result.baselines == ("random map", "centre blob", "edge map")
    assert torch.equal(result.maps["Grad-CAM"], result.maps["Grad-CAM 2"])
    found = compare(["Grad-CAM"], conv, PHOTOS, 1, rounds=1, steps=2, baselines=()).maps["Grad-CAM"]
    last = as_maps(grad_cam(conv, "relu")(PHOTOS, 1), PHOTOS, (8, 8))  # the pool's map is smaller; it comes after
    assert found.shape == last.shape


def test_functions_can_take_the_model(conv):
    def gradient(model, x, y):
        x = x.requires_grad_()
        return torch.autograd.grad(model(x)[:, y].sum(), x)[0]

    result = quick({"theirs": gradient, "Captum": Saliency(conv)}, conv, PHOTOS, 1, preprocess=twice)
    torch.testing.assert_close(result.maps["theirs"], result.maps["Captum"])


def test_custom_measures(conv):
    bright = Column("bright", "brightness under it", "", lambda case: (case.maps * case.photos.mean(1)).mean((1, 2)))
    result = quick(defaults(conv), conv, PHOTOS, 1, metrics=["sparseness", bright])
    assert list(result.table[0].scores) == ["sparseness", "bright"]
    assert "| brightness under it |" in result.to_markdown()


def test_a_discontinuous_method_is_sensitive(conv):
    methods = {"steady": lambda x, t: torch.arange(64.0).view(1, 8, 8).expand(len(x), -1, -1),
               "jumps": lambda x, t: ((1e4 * x) % 1).sum(1)}  # fmt: skip
    steady, jumps = quick(methods, conv, PHOTOS, [0, 2], metrics=["sensitivity"]).table
    assert steady.scores["sensitivity"].value == 0 and jumps.scores["sensitivity"].value > 0.1


def test_the_model_state_is_restored(conv, found):
    handle = conv.relu.register_forward_hook(lambda *_: None)
    conv.fc.weight.grad = torch.ones_like(conv.fc.weight)
    conv.norm.weight.requires_grad_(False)
    before = found(conv)
    quick({**defaults(conv), "tunnel": NoiseTunnel(Saliency(conv))}, conv, PHOTOS, 1)
    assert before.differences(conv) == []
    handle.remove()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_and_frozen_models(conv, mode):
    expected = quick(defaults(conv), conv, PHOTOS, 1)
    conv.requires_grad_(False)
    with mode():
        got = quick(defaults(conv), conv, PHOTOS.clone(), 1)
    for name, maps in expected.maps.items():
        torch.testing.assert_close(got.maps[name], maps)


def test_progress_bars_for_runs_and_measures(conv, monkeypatch):
    shown = []

    def bar(steps, what, *, show, total=None):
        for step in steps:
            shown.append((what, show))
            yield step

    monkeypatch.setattr(importlib.import_module("xinc_captum.comparison.compare"), "progress", bar)
    quick({"random": random_map(), "edge": edge_map()}, conv, PHOTOS, 1, show_progress=True)
    assert shown == [("runs", True)] * 4 + [("measures", True)] * 2
    quick({"random": random_map()}, conv, PHOTOS, 1)
    assert shown[6:] == [("runs", False)] * 2 + [("measures", False)]


@pytest.mark.cuda
def test_on_a_gpu(conv):
    here = quick(defaults(conv), conv, PHOTOS, 1)
    there = quick(defaults(conv.cuda()), conv, PHOTOS.cuda(), 1, segmentation=torch.ones(2, 8, 8))
    for name, maps in there.maps.items():
        assert not maps.is_cuda
        torch.testing.assert_close(maps, here.maps[name], atol=1e-3, rtol=1e-2)


def test_maps_equal_those_of_the_method(conv):
    result = quick({"Grad-CAM": grad_cam(conv, "conv")}, conv, PHOTOS, 1)
    assert torch.equal(result.maps["Grad-CAM"], as_maps(grad_cam(conv, "conv")(PHOTOS, 1), PHOTOS, (8, 8)))


@pytest.mark.parametrize("one", [1, [1], (1,), np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1])])
def test_one_class_for_all_images_is_passed_as_a_number(conv, one):
    """Captum refuses some of these, and functions would have to know them all."""
    seen = []

    def mine(images, target):
        seen.append(target)
        return images

    found = quick({"mine": mine, "captum": Saliency(conv)}, conv, PHOTOS, one)
    assert set(seen) == {1} and all(type(target) is int for target in seen)
    assert torch.equal(found.maps["captum"], Saliency(conv).attribute(PHOTOS, target=1).sum(1))


@pytest.mark.parametrize("many", [[0, 2], (0, 2), np.array([0, 2]), torch.tensor([0, 2])])
def test_one_class_per_image_is_passed_as_a_tensor(conv, many):
    def mine(images, target):
        return images * target.reshape(-1, 1, 1, 1).float()

    found = quick({"mine": mine, "captum": Saliency(conv)}, conv, PHOTOS, many)
    torch.testing.assert_close(found.maps["mine"][1], 2 * PHOTOS[1].sum(0))
    assert torch.equal(found.maps["captum"], Saliency(conv).attribute(PHOTOS, target=[0, 2]).sum(1))


@pytest.mark.parametrize("target", [1, [0, 2]])
def test_equal_maps_have_equal_sensitivity(conv, target):
    def by_hand(images, target):
        x = images.detach().requires_grad_()
        return torch.autograd.grad(conv(x)[torch.arange(len(x)), target].sum(), x)[0]

    found = quick({"captum": Saliency(conv), "by hand": by_hand}, conv, PHOTOS, target, metrics=["sensitivity"])
    one, other = (found.scores[name]["sensitivity"] for name in ("captum", "by hand"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert (one > 0).all()


def test_maps_independent_of_the_photo_are_not_sensitive(conv):
    found = quick(["random map"], conv, PHOTOS, 1, metrics=["sensitivity"])
    assert found.scores["random map"]["sensitivity"].tolist() == [0, 0]


def test_one_photo_has_no_intervals(conv):
    found = quick({"captum": Saliency(conv)}, conv, PHOTOS[:1], 1, metrics=["sparseness"])
    value = found.table[0].scores["sparseness"]
    assert 0 < value.value < 1 and np.isnan([value.low, value.high]).all()
    assert str(found).rstrip().endswith(f"| {value.value:.2f} |")
    assert found.to_dict()["rows"][0]["sparseness"] == [value.value, None, None]


def test_grad_cam_of_grey_and_coloured_photos_is_equal():
    """A layer as large as a grey photo is still a layer: what speaks against the class is not shown."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3))
    photos = torch.rand(2, 1, 8, 8)
    found = quick({"name": "Grad-CAM", "captum": LayerGradCam(net, net[0])}, net, photos, 1, layer="0")
    torch.testing.assert_close(found.maps["captum"], found.maps["name"])


WIDE = torch.rand(2, 3, 24, 48)
NORMALISE = transforms.Normalize((0.5,) * 3, (0.2,) * 3)


def standardised(x):
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        (transforms.CenterCrop(24), "0 to 23", "12 to 35"),
        (transforms.Compose([transforms.Resize(12), transforms.CenterCrop(12), NORMALISE]), "0 to 23", r"1\d to 3\d"),
        (lambda x: x[..., 4:, :20], "4 to 23", "0 to 19"),
    ],
)
def test_cropping_is_rejected(crop, rows, columns):
    with pytest.raises(
        ValueError,
        match=f"preprocess uses only rows {rows} and columns {columns} of photos of 48 x 24 pixels.*Crop the photos first",
    ):
        check_preprocess_of_photos(nn.Identity(), crop, WIDE)


@pytest.mark.parametrize(
    "whole",
    [
        None,
        NORMALISE,
        standardised,
        transforms.Resize((16, 16)),
        lambda x: F.interpolate(x, (7, 9)),  # nearest: most pixels go nowhere, evenly
        lambda x: F.avg_pool2d(x, 5),  # the last rows and columns fill no window
        lambda x: F.pad(x, (4, 4, 4, 4)),
        lambda x: x[:, [2, 1, 0]],
        lambda x: x.detach() * 2,
        lambda x: {"pixels": x},
        lambda x: nn.Conv2d(3, 3, 1)(x.detach()),
        lambda x: (x * 255).byte(),
    ],
)
def test_preprocessing_without_crop_is_accepted(whole):
    state = torch.get_rng_state()
    with torch.inference_mode():
        check_preprocess_of_photos(nn.Identity(), whole, WIDE)
    check_preprocess_of_photos(nn.Identity(), whole, WIDE)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_crops_are_rejected_without_random_numbers():
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="Crop the photos first"):
        check_preprocess_of_photos(nn.Identity(), transforms.RandomCrop(16), WIDE)
    assert torch.equal(torch.get_rng_state(), state)


def test_preprocessing_of_pil_images_is_rejected():
    with pytest.raises(
        TypeError, match=r"failed on a tensor of photos \(1, 3, 24, 48\): .*leave out steps that open or conv"
    ):
        check_preprocess_of_photos(nn.Identity(), transforms.ToTensor(), WIDE)


def test_a_classifier_is_not_preprocessed_twice(conv):
    net = ImageModel("tiny", conv, NORMALISE, 8, ("a", "b", "c"))
    with pytest.raises(
        ValueError, match="tiny has its own preprocess, so images would be normalised twice. Give its .model with"
    ):
        quick({"random": random_map()}, net, torch.rand(2, 3, 8, 8), 1, preprocess=NORMALISE)
    quick({"random": random_map()}, net, torch.rand(2, 3, 8, 8), 1)


def test_wrong_photos_are_rejected():
    check_photos(torch.rand(1, 3, 2, 2))
    for wrong in (torch.rand(3, 2, 2), torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.rand(0, 3, 2, 2)):
        with pytest.raises(
            ValueError, match=f"inputs are {wrong.dtype} of shape {re.escape(str(tuple(wrong.shape)))}; expected photos"
        ):
            check_photos(wrong)


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray, lambda masks: masks.tolist()])
def test_masks_can_be_tensors_or_arrays(kind):
    masks = torch.rand(2, 24, 48) > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(check_masks(kind(masks), WIDE), masks)
    assert check_masks(None, WIDE) is None


def test_empty_masks_are_excluded_with_a_warning(conv):
    masks = torch.zeros(2, 24, 48)
    masks[1, :, :24] = 1
    with pytest.warns(UserWarning, match="segmentation is empty for image 0 of 2: pointing game and energy in mask"):
        found = quick({"random": random_map()}, conv, WIDE, 1, segmentation=masks, metrics=["energy"])
    assert found.scores["random"]["energy"].isnan().tolist() == [True, False]
    assert 0 < found.table[0].scores["energy"].value < 1


def test_numpy_integers_are_seeds_and_counts(conv):
    def noise(images, target):
        return torch.rand(2, 8, 8) + random.random() + np.random.rand()

    methods = {"noise": noise, "random": random_map(np.int64(1))}
    result, of_ints = (
        quick(methods, conv, PHOTOS, 1, metrics=("deletion", "road"), rounds=whole(1), steps=whole(2), seed=whole(3))
        for whole in (np.int8, int)
    )
    assert [row.error for row in result.table] == ["", ""]
    assert torch.equal(result.maps["noise"], of_ints.maps["noise"]) and result.note == of_ints.note
    assert torch.equal(result.scores["noise"]["road"], of_ints.scores["noise"]["road"])
