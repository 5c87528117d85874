import pytest
import torch

from xinc_captum.generators import check_generator, images_in_unit_range
from xinc_captum.zoo import EYE_COLOURS, AssetError, dcgan_faces, generators, omniart_eyes


def drawn(generator, n, classes=None):
    latents = generator.sample_latents(n, classes, 0.7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images_in_unit_range(generator, latents)


def test_faces(installed):
    installed("gan-face-generate")
    state = torch.get_rng_state()
    faces = dcgan_faces()
    assert torch.equal(state, torch.get_rng_state())
    assert check_generator(faces) == (100, (3, 64, 64))
    assert sum(p.numel() for p in faces.parameters()) == 3_576_704 and not any(
        p.requires_grad for p in faces.parameters()
    )
    pictures = drawn(faces, 64)
    skin = pictures.mean(0)[:, 24:44, 24:44].mean((1, 2))
    assert skin[0] > skin[1] > skin[2], "more red than green than blue in the middle"
    assert pictures.std(0).mean() > 0.1, "they differ"


def test_eyes_have_the_colour_asked_for(installed):
    installed("omniart-eye-generator")
    eyes = omniart_eyes()
    assert check_generator(eyes, classes=3) == (108, (3, 128, 128)) and eyes.num_classes == len(EYE_COLOURS) == 8
    colour = {name: drawn(eyes, 6, EYE_COLOURS.index(name)).mean((0, 2, 3)) for name in ("amber", "blue", "grayscale")}
    assert colour["amber"][0] - colour["amber"][2] > colour["blue"][0] - colour["blue"][2] + 0.1
    assert colour["grayscale"].max() - colour["grayscale"].min() < 0.03


def test_a_tampered_file_is_not_loaded(monkeypatch, installed):
    installed("gan-face-generate")
    monkeypatch.setattr(generators, "_FACES", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(AssetError, match=r"weights.tar has the sha256 0c3b.*gan-face-generate==1.1.1$"):
        dcgan_faces()
