import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.generators import DCGAN, DCGANAdapter, from_callable, images_and_features, normal_latents
from xinc_captum.generators.features import enlarge, stack_maps
from xinc_captum.generators.protocol import modules_of


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DCGANAdapter(DCGAN(latent_dim=6, channels=(8, 4)).eval(), noise_dim=6)


def test_features_and_pictures_are_of_one_pass():
    generator, latents = small(), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    passes = []
    generator.network.register_forward_hook(lambda *_: passes.append(1))
    pictures, maps = images_and_features(generator, latents)
    assert passes == [1] and [tuple(m.shape) for m in maps] == [(3, 8, 4, 4), (3, 4, 8, 8)]
    assert pictures.shape == (3, 3, 16, 16)
    torch.testing.assert_close(pictures, (generator.synthesize(latents) + 1) / 2)
    first = generator.network.main[:3](latents[:, :, None, None])
    torch.testing.assert_close(maps[0], first)


def test_named_layers_of_a_function_are_returned_in_the_given_order():
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.ConvTranspose2d(1, 3, 2, 2), nn.Sigmoid())
    generator = from_callable(lambda w: net(w), normal_latents(4))
    _, (last, first) = images_and_features(generator, torch.zeros(2, 4), ["1", net[0]])
    assert last.shape == (2, 3, 4, 4) and first.shape == (2, 1, 2, 2)


def test_masks_are_differentiable_and_detached_without_gradients():
    generator = small()
    latents = torch.ones(1, 6, requires_grad=True)
    pictures, maps = images_and_features(generator, latents)
    assert torch.autograd.grad(pictures.sum() + maps[0].sum(), latents)[0].abs().sum() > 0
    with torch.no_grad():
        pictures, maps = images_and_features(generator, latents)
    assert not pictures.requires_grad and not any(m.requires_grad for m in maps)


def test_a_read_is_stored_instead_of_the_map():
    generator, latents = small(), torch.ones(2, 6)
    with torch.no_grad():
        _, maps = images_and_features(generator, latents)
        _, means = images_and_features(generator, latents, reads=[lambda m: m.mean(1), lambda m: m[:, :1]])
    torch.testing.assert_close(means, [maps[0].mean(1), maps[1][:, :1]])
    with pytest.raises(ValueError, match="there are 2 layers, 2 of them different, and 1 reads"):
        images_and_features(generator, latents, reads=[torch.relu])
    with pytest.raises(ValueError, match="there are 2 layers, 1 of them different"):
        images_and_features(generator, latents, ["network.main.2"] * 2)


def test_modules_are_found_behind_functions_that_sample_and_draw():
    drawn, sampled = nn.Linear(4, 4), nn.Linear(4, 4)
    plain = from_callable(lambda w: drawn(w), lambda n, *_, generator=None: sampled(torch.rand(n, 4)))
    assert {id(m) for m in modules_of(plain)} == {id(drawn), id(sampled)}
    assert {id(m) for m in modules_of(from_callable(drawn, sampled))} == {id(drawn), id(sampled)}
    whole = small()
    assert any(whole.network is m for root in modules_of(whole) for m in root.modules())


def test_modules_are_found_in_objects_that_a_generator_holds():
    class Mapping:
        def __init__(self):
            self.network = nn.Dropout()

        def run(self, w):
            return self.network(w)

    class Plain:
        def __init__(self):
            self.mapping, self.network = Mapping(), nn.Linear(4, 4)

        def synthesize(self, w):
            return self.network(self.mapping.run(w)).view(-1, 1, 2, 2)

        def sample_latents(self, n, classes=None, truncation=1.0, *, generator=None):
            return torch.zeros(n, 4)

    plain = Plain()
    assert {id(m) for m in modules_of(plain)} == {id(plain.network), id(plain.mapping.network)}


def test_stacking_repeats_pixels():
    found = stack_maps([torch.tensor([[[[1.0, 2.0]]]]), torch.zeros(1, 2, 2, 4)], (2, 4))
    assert found[0, 0].tolist() == [[1, 1, 2, 2]] * 2 and found.shape == (1, 3, 2, 4)


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (8, 9), (5, 7)])
def test_enlarging_is_torchs(size):
    maps = torch.rand(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(enlarge(maps, size), nn.functional.interpolate(maps, size, mode="nearest"))


def test_layers_without_maps_raise_errors():
    generator, latents = small(), torch.zeros(2, 6)
    net = nn.Sequential(nn.Linear(6, 12), nn.Unflatten(1, (3, 2, 2)), nn.Sigmoid())
    flat = from_callable(net, normal_latents(6))
    with pytest.raises(ValueError, match="no layers were given, and the generator has no feature_layers"):
        images_and_features(flat, latents)
    with pytest.raises(LayerError, match=r"layer '0' returns \(2, 12\) for 2 latents; expected maps"):
        images_and_features(flat, latents, ["0"])
    with pytest.raises(LayerError, match="network.main.99"):
        images_and_features(generator, latents, ["network.main.99"])
