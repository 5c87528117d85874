import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.generators import EigenGenerator


def some(n=60, classes=3, seed=0):
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    means = torch.rand(classes, 1, 3, 4, generator=stream)
    return (means[labels] * 0.6 + 0.3 * torch.rand(n, 1, 3, 4, generator=stream)).double(), labels


def test_components_are_numpys():
    images, labels = some()
    eigen = EigenGenerator(images, labels, components=5)
    flat = images.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    for k in range(5):
        assert abs(eigen.basis[k].numpy() @ vectors[:, -1 - k]) == pytest.approx(1, abs=1e-9)
        assert eigen.basis[k][eigen.basis[k].abs().argmax()] > 0, "the sign is fixed"
    assert values[-1] == pytest.approx(eigen.encode(images)[:, 0].var().item())


def test_every_component_draws_every_picture():
    images, labels = some()
    eigen = EigenGenerator(images, labels, components=12)
    assert torch.allclose(eigen.synthesize(eigen.encode(images)), images, atol=1e-12)
    assert torch.equal(eigen(eigen.encode(images)), eigen.synthesize(eigen.encode(images)))


def test_the_latents_have_the_moments_of_the_class():
    images, labels = some()
    eigen = EigenGenerator(images, labels, components=4)
    real = eigen.encode(images[labels == 2])
    assert torch.allclose(eigen.latent_mean(2)[0], real.mean(0))
    assert torch.allclose(eigen.class_roots[2] @ eigen.class_roots[2].T, torch.cov(real.T), atol=1e-12)
    drawn = eigen.sample_latents(20000, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(0), real.mean(0), atol=0.01)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(real.T), atol=0.003)


@given(st.floats(0, 1), st.integers(0, 2))
@settings(max_examples=20, deadline=None)
def test_truncation_is_towards_the_class(psi, label):
    images, labels = some()
    eigen = EigenGenerator(images, labels, components=4)
    full, drawn = (
        eigen.sample_latents(5, label, amount, generator=torch.Generator().manual_seed(1)) for amount in (1.0, psi)
    )
    centre = eigen.latent_mean(label)
    assert torch.allclose(drawn - centre, psi * (full - centre), atol=1e-12)


def test_each_row_has_its_class_and_mean():
    eigen = EigenGenerator(*some(), components=4)
    classes = torch.tensor([2, 0, 1])
    assert torch.equal(eigen.sample_latents(3, classes, 0.0), eigen.class_means[classes])
    assert torch.equal(eigen.latent_mean(classes), eigen.class_means[classes])
    assert eigen.latent_mean(torch.tensor(1)).shape == (1, 4)


def test_without_classes():
    eigen = EigenGenerator(some()[0], components=4)
    assert eigen.num_classes == 0 and eigen.latent_mean().abs().max() < 1e-12
    assert eigen.sample_latents(2).shape == (2, 4)
    with pytest.raises(ValueError, match="generator has none"):
        eigen.sample_latents(2, 0)


def test_float32_and_pictures_in_range():
    images, labels = some()
    eigen = EigenGenerator(images.float(), labels, components=4)
    drawn = eigen.synthesize(10 * eigen.sample_latents(50, 1, generator=torch.Generator().manual_seed(0)))
    assert drawn.dtype == torch.float32 and drawn.min() == 0 and drawn.max() == 1
    assert eigen.feature_layers() == []


@pytest.mark.parametrize(
    ("images", "labels", "components", "text"),
    [
        (
            torch.rand(6, 3, 4),
            None,
            2,
            r"images are torch.float32 of shape \(6, 3, 4\); expected floats \(n, C, H, W\)",
        ),
        (torch.zeros(6, 1, 3, 4, dtype=torch.uint8), None, 2, "images are torch.uint8"),
        (torch.rand(1, 1, 3, 4), None, 1, "expected floats .* at least 2"),
        (torch.rand(6, 1, 3, 4) * 255, None, 2, r"images lie in .*; expected \[0, 1\]. Divide"),
        (torch.full((6, 1, 3, 4), torch.nan), None, 2, r"images lie in \[nan, nan\]"),
        (torch.rand(6, 1, 3, 4), None, 0, "components is 0; expected 1 to 6, from 6 images"),
        (torch.rand(6, 1, 3, 4), None, 7, "components is 7; expected 1 to 6"),
        (torch.rand(6, 1, 3, 4), torch.zeros(5).long(), 2, r"labels are torch.int64 of shape \(5,\); expected"),
        (torch.rand(6, 1, 3, 4), torch.zeros(6), 2, "labels are torch.float32"),
        (torch.rand(6, 1, 3, 4), torch.tensor([0, 0, 0, 0, 0, -1]), 2, "integers from 0 on"),
        (torch.rand(6, 1, 3, 4), torch.tensor([0, 0, 0, 2, 2, 2]), 2, "class 1 has 0 images; expected at least 2"),
    ],
)
def test_invalid_input_raises_errors(images, labels, components, text):
    with pytest.raises(ValueError, match=text):
        EigenGenerator(images, labels, components)
