import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.trans_inr import (
    TransINR,
    fine_tune,
    identical_inits,
    independent_inits,
    mean_psnr,
    neuron_canvases,
)
from xinc_captum.inr import pixel_centres
from xinc_captum.metrics import correspondence


@pytest.fixture
def model():
    return TransINR(hidden=8, groups=4, count=3, seed=0).double()


@pytest.fixture
def images():
    return torch.rand(3, 1, 8, 8).double()


def test_batched_training_equals_training_one_by_one(model, images):
    """The third network alone, by a plain loop of Adam."""
    nets = model.generate(images)
    result = fine_tune(nets, images, 4, 1e-2)
    alone, where = nets[2], pixel_centres((8, 8), dtype=torch.float64)
    optimizer = torch.optim.Adam(alone.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        F.mse_loss(alone(where), images[2].reshape(64, 1)).backward()
        optimizer.step()
    torch.testing.assert_close(result.inrs[2](where), alone(where), atol=1e-8, rtol=0)


def test_given_networks_are_not_changed(model, images):
    nets = model.generate(images)
    before = [p.clone() for net in nets for p in net.parameters()]
    state = torch.get_rng_state()
    result = fine_tune(nets, images, 20)
    assert all(torch.equal(a, b) for a, b in zip(before, (p for net in nets for p in net.parameters()), strict=True))
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for net in nets for p in net.parameters())
    untouched = fine_tune(nets, images, 0).psnr
    with torch.no_grad():
        assert untouched == pytest.approx(mean_psnr(model(images), images), abs=1e-6)
        drawn = torch.stack([net(pixel_centres((8, 8), dtype=torch.float64)).T.reshape(1, 8, 8) for net in result.inrs])
    assert result.psnr == pytest.approx(mean_psnr(drawn, images), abs=1e-6) and result.psnr > untouched + 3


def test_only_seen_pixels_are_trained_on(model, images):
    seen = torch.zeros(3, 8, 8, dtype=torch.bool)
    seen[:, :, :4] = True
    other = images.clone()
    other[..., 4:] = 0.5
    first, second = (fine_tune(model.generate(images), one, 5, mask=seen).inrs for one in (images, other))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.output.weight, b.output.weight)


def test_control_networks(model, images):
    own, shared = independent_inits(model, 3), identical_inits(model, 3)
    assert own[0].output.weight.dtype == torch.float64
    canvases = neuron_canvases(shared, (8, 8))
    assert canvases.shape == (3, 8, 1, 8, 8)
    torch.testing.assert_close(canvases[0], canvases[2])
    assert correspondence(canvases).same == pytest.approx(1.0)
    assert correspondence(neuron_canvases(own, (8, 8))).retrieval < 0.6
    networks = [
        *independent_inits(model, 6),
        *independent_inits(model, 3, seed=1),
        *independent_inits(model, 2, seed=2),
    ]
    assert len(torch.stack([net.output.weight for net in networks]).unique(dim=0)) == 11
    assert torch.equal(networks[2].output.weight, own[2].output.weight), "for every count"
    written = correspondence(neuron_canvases(model.generate(images), (8, 8)))
    assert written.retrieval > 0.8, "before any training: by construction"


@pytest.mark.parametrize("layer", [-1, -2, 0])
def test_canvases_and_biases_sum_to_the_image(model, images, layer):
    """With the biases at zero, the neurons of every layer are all there is."""
    nets = fine_tune(model.generate(images), images, 3).inrs
    with torch.no_grad():
        for net in nets:
            for linear in net.linears().values():
                linear.bias.zero_()
        drawn = torch.stack([net(pixel_centres((8, 8), dtype=torch.float64)).T.reshape(1, 8, 8) for net in nets])
        torch.testing.assert_close(neuron_canvases(nets, (8, 8), layer).sum(1), drawn, atol=1e-10, rtol=0)


def test_invalid_arguments_are_refused(model, images):
    with pytest.raises(ValueError, match="there are 2 networks for 3 images and 5 steps; expected one each"):
        fine_tune(model.generate(images[:2]), images, 5)
    with pytest.raises(ValueError, match="images hold NaN"):
        fine_tune(model.generate(images), images / 0 * 0, 5)
    with pytest.raises(ValueError, match="layer is 3; expected -3 to 2"):
        neuron_canvases(model.generate(images), (8, 8), 3)
