import pytest
import torch

from xinc_captum.cli.film import Film
from xinc_captum.cli.video_network import VideoModel, explained, fit, fitted_before, methods_for, network
from xinc_captum.hooks import LayerError
from xinc_captum.inr import CheckpointError, times

CPU = torch.device("cpu")


def film(frames=3, size=(8, 16)):
    return Film("clip", torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(0)), {})


@pytest.mark.parametrize("kind", list(VideoModel))
def test_each_network_is_fitted_and_can_be_explained(kind, tmp_path):
    clip = film()
    model = network(kind, (8, 16), 0)
    painter = fit(model, kind, clip, 4, 0, CPU, tmp_path / "fit.pt")
    assert painter.drawn.shape == clip.frames.shape and len(painter.decibels) == 3
    assert torch.allclose(explained(model)(painter.rows), painter.drawn, atol=1e-6)
    assert painter.psnr == pytest.approx(sum(painter.decibels) / 3)
    assert painter.config["name"] == kind.value and painter.steps == 4
    methods = methods_for(model, None, "secant")
    assert list(methods) == [f"blocks.{i}.activation" for i in range(3)] + ["head"]
    canvas = methods["head"].canvas(painter.rows, (8, 16))
    assert canvas.pairs == (14, 3)
    assert torch.allclose(canvas.to_tensor().sum((1, 2)), painter.drawn, atol=1e-5), "kernels and slots make the frame"


def test_a_convolution_is_explained_by_its_kernels():
    methods = methods_for(network(VideoModel.nerv, (8, 16), 0), ["blocks.0.conv", "blocks.0"], "tangent")
    assert [method.unit for method in methods.values()] == ["pair", "neuron"]


def test_a_wrong_layer_is_named():
    with pytest.raises(LayerError, match=r"did you mean 'blocks.0.activation'"):
        methods_for(network(VideoModel.nerv, (8, 16), 0), ["blocks.0.activaton"], "secant")


def test_a_killed_fit_goes_on(tmp_path):
    def fitted(place, seed=0):
        return fit(network(VideoModel.nerv, (8, 16), seed), VideoModel.nerv, film(), 3, seed, CPU, tmp_path / place)

    first = fitted("one.pt")
    again = fitted("one.pt")
    assert torch.equal(first.drawn, again.drawn)
    with pytest.raises(CheckpointError, match="one.pt is of another run: it has seed 0 instead of 1"):
        fitted("one.pt", seed=1)


def test_the_shipped_network_keeps_its_own_times():
    painter = fitted_before(Film("clip", torch.rand(2, 3, 72, 88), {}), CPU)
    assert torch.equal(painter.rows, times(24)[:2])
    assert painter.steps == 0 and len(painter.decibels) == 2
