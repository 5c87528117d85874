import pytest
import torch
from torch import nn

from xinc_captum.comparison import as_maps, compare, grad_cam, pytorch_grad_cam, torchcam_grad_cam

try:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
except ImportError:
    ClassifierOutputTarget = None

PHOTOS = torch.rand(2, 3, 8, 8)
PEERS = {"pytorch_grad_cam": pytorch_grad_cam, "torchcam": torchcam_grad_cam}


def twice(images):
    return 2 * images - 1


@pytest.mark.parametrize("package", PEERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_peers_agree_with_captum_and_restore_the_model(conv, found, package, frozen):
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[peers]')")
    conv.requires_grad_(not frozen)
    method = PEERS[package](conv, "conv", twice)
    before = found(conv)
    with torch.no_grad():
        result = compare(
            {"theirs": method, "Captum": grad_cam(conv, "conv", twice)},
            conv,
            PHOTOS,
            [0, 2],
            preprocess=twice,
            rounds=1,
            steps=2,
        )
    assert before.differences(conv) == []
    theirs, ours = result.maps["theirs"], result.maps["Captum"]
    kept = ours.amax((1, 2)) > 0
    span = ours.amax((1, 2), keepdim=True) - ours.amin((1, 2), keepdim=True)
    torch.testing.assert_close(
        theirs[kept], ((ours - ours.amin((1, 2), keepdim=True)) / span)[kept], atol=1e-4, rtol=1e-3
    )
    assert kept.any()


@pytest.mark.parametrize("package", PEERS)
def test_missing_packages_are_named(conv, package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setitem(__import__("sys").modules, f"{package}.methods", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'xinc-captum\[peers\]'"):
        PEERS[package](conv, "conv")


def test_maps_of_peers_have_the_size_of_the_photos(conv):
    pytest.importorskip("torchcam", reason="torchcam is not installed (pip install '.[peers]')")
    assert as_maps(torchcam_grad_cam(conv, "conv")(PHOTOS, 1), PHOTOS, (8, 8)).shape == (2, 8, 8)


@pytest.mark.parametrize("kind", ["GradCAM", "LayerCAM", "ScoreCAM"])
def test_cam_objects_are_accepted(conv, found, kind):
    """Made with the model itself, it gets what the model takes."""
    cams = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed (pip install '.[peers]')")
    conv.requires_grad_(True)
    with getattr(cams, kind)(model=conv, target_layers=[conv.conv]) as cam:
        targets = [ClassifierOutputTarget(one) for one in (0, 2)]
        expected = torch.from_numpy(cam(input_tensor=twice(PHOTOS), targets=targets))
        before = found(conv)
        inside = compare({"cam": cam}, conv, PHOTOS, [0, 2], preprocess=twice, rounds=1, steps=2)
        torch.testing.assert_close(inside.maps["cam"], expected)
        assert before.differences(conv) == []
        around = compare({"cam": cam}, lambda x: conv(x), twice(PHOTOS) / 2 + 0.5, [0, 2], rounds=1, steps=2)
        direct = torch.from_numpy(cam(input_tensor=twice(PHOTOS) / 2 + 0.5, targets=targets))
        torch.testing.assert_close(around.maps["cam"], direct)


class Last(nn.Module):
    """Maps (N, h, w, channels) at the block."""

    def __init__(self):
        super().__init__()
        self.conv, self.block, self.fc = (
            nn.Conv2d(3, 5, 3, 2, 1),
            nn.Sequential(nn.Linear(5, 5), nn.ReLU()),
            nn.Linear(60, 3),
        )

    def forward(self, x):
        return self.fc(self.block(self.conv(x).permute(0, 2, 3, 1)).flatten(1))


def test_channels_last_layers_are_correct():
    net, images = Last().eval(), torch.rand(2, 3, 6, 8)
    ours = as_maps(grad_cam(net, "block")(images, 1), images, (6, 8))
    pytest.importorskip("pytorch_grad_cam")
    theirs = pytorch_grad_cam(net, "block")(images.clone(), 1)
    scaled = (ours - ours.amin((1, 2), keepdim=True)) / ours.amax((1, 2), keepdim=True)
    assert torch.corrcoef(torch.stack([theirs.flatten(), scaled.flatten()]))[0, 1] > 0.95
    pytest.importorskip("torchcam")
    coarse = torchcam_grad_cam(net, "block")(images.clone(), 1)
    maps = grad_cam(net, "block")(images, 1)
    assert coarse.shape == maps.shape == (2, 1, 3, 4)
    low, high = (end.view(2, 1, 1, 1) for end in torch.aminmax(maps.flatten(1), dim=1))
    torch.testing.assert_close(coarse, (maps - low) / (high - low), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("package", PEERS)
def test_in_place_changes_after_the_layer_are_not_seen(conv, package):
    """The fixture's batch norm is followed by an in-place ReLU."""
    pytest.importorskip(package, reason=f"{package} is not installed (pip install '.[peers]')")
    maps = as_maps(grad_cam(conv, "norm")(PHOTOS, 1), PHOTOS, (8, 8)).flatten(1)
    theirs = as_maps(PEERS[package](conv, "norm")(PHOTOS.clone(), 1), PHOTOS, (8, 8)).flatten(1)
    low, high = torch.aminmax(maps, dim=1, keepdim=True)
    assert (high > low).all()
    torch.testing.assert_close(theirs, (maps - low) / (high - low), atol=1e-4, rtol=1e-3)


def test_compare_accepts_channels_last_layers():
    net, images = Last().eval(), torch.rand(2, 3, 6, 8)
    once = {"rounds": 1, "steps": 4, "baselines": (), "metrics": ["sparseness"]}
    for options in ({}, {"layer": "block"}, {"layer": "block", "unit_axis": -1}):
        found = compare(["Grad-CAM"], net, images, 1, **once, **options)
        hand = as_maps(grad_cam(net, "block")(images, 1), images, (6, 8))
        torch.testing.assert_close(found.maps["Grad-CAM"], hand)
