import pytest
import torch
from torch import nn

from xinc_captum.generators import Generator, StyleGANAdapter, check_generator, load_weights, pictures_in_unit_range
from xinc_captum.hooks import capture


class Mapping(nn.Module):
    """The mapping of StyleGAN-XL: z of 64, one-hot classes, w of 512 for every layer, a mean for each class."""

    def __init__(self, c_dim, num_ws, per_class):
        super().__init__()
        self.c_dim, self.num_ws = c_dim, num_ws
        self.fc = nn.Linear(64 + c_dim, 512)
        self.register_buffer("w_avg", torch.randn((c_dim, 512) if per_class else (512,)))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, update_emas=False):
        assert z.shape[1] == 64 and c.shape == (len(z), self.c_dim) and truncation_psi == 1
        return self.fc(torch.cat([z, c], 1)).unsqueeze(1).repeat([1, self.num_ws, 1])


class Synthesis(nn.Module):
    """Its synthesis in small: every layer takes its own w."""

    def __init__(self, num_ws):
        super().__init__()
        self.num_ws = num_ws
        self.input = nn.Unflatten(1, (32, 4, 4))
        for layer in range(num_ws - 1):
            setattr(self, f"L{layer}_4_32", nn.Conv2d(32, 32, 3, padding=1))

    def forward(self, ws, noise_mode="random", force_fp32=False, update_emas=False):
        assert ws.shape[1:] == (self.num_ws, 512)
        x = self.input(ws[:, 0])
        for layer in range(self.num_ws - 1):
            x = getattr(self, f"L{layer}_4_32")(x) + ws[:, layer + 1, :32, None, None]
        noise = torch.randn(len(ws), 3, 4, 4) if noise_mode == "random" else 0
        return 2 * x[:, :3] + noise


class StyleGANXL(nn.Module):
    """Members and shapes of StyleGAN-XL's generator."""

    def __init__(self, c_dim=7, num_ws=32, per_class=True):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.img_resolution = 64, c_dim, 512, num_ws, 4
        self.mapping, self.synthesis = Mapping(c_dim, num_ws, per_class), Synthesis(num_ws)


def test_it_is_a_generator_that_keeps_its_word():
    adapter = StyleGANAdapter(StyleGANXL().eval())
    assert isinstance(adapter, Generator) and (adapter.num_classes, adapter.num_ws) == (7, 32)
    assert check_generator(adapter, classes=torch.tensor([6, 0, 2])) == (512, (3, 4, 4))
    assert check_generator(StyleGANAdapter(StyleGANXL(0, 18, per_class=False).eval())) == (512, (3, 4, 4))


def test_truncation_is_towards_the_mean_of_the_class_by_hand():
    network = StyleGANXL().eval()
    adapter = StyleGANAdapter(network)
    classes = torch.tensor([6, 0, 6])
    drawn = adapter.sample_latents(3, classes, 0.7, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mapped = network.mapping.fc(torch.cat([noise, torch.eye(7)[classes]], 1))
    mean = network.mapping.w_avg[classes]
    assert torch.allclose(drawn, mean + 0.7 * (mapped - mean), atol=1e-5)
    assert torch.equal(adapter.latent_mean(classes), mean) and torch.equal(adapter.latent_mean(6), mean[:1])


def test_one_mean_for_all_classes_as_in_stylegan2():
    network = StyleGANXL(7, 18, per_class=False).eval()
    adapter = StyleGANAdapter(network)
    assert torch.equal(adapter.sample_latents(2, 3, 0.0), network.mapping.w_avg.expand(2, 512))
    unconditional = StyleGANAdapter(StyleGANXL(0, 18, per_class=False).eval())
    assert unconditional.latent_mean().shape == (1, 512)
    assert unconditional.sample_latents(2, truncation=0.5).shape == (2, 512)


def test_one_latent_goes_to_every_layer_without_noise():
    network = StyleGANXL().eval()
    adapter = StyleGANAdapter(network)
    latents = adapter.sample_latents(2, 1)
    ws = latents[:, None].repeat(1, 32, 1)
    raw = network.synthesis(ws, noise_mode="const")
    assert raw.abs().max() > 1, "so that the clamp is seen"
    assert torch.equal(adapter.synthesize(latents), raw.clamp(-1, 1))
    assert pictures_in_unit_range(adapter, latents).min() >= 0
    noisy = StyleGANAdapter(network, synthesis_options={})
    with pytest.raises(ValueError, match="the same latents gave other pictures; wanted no noise"):
        check_generator(noisy, classes=1)


def test_the_gradient_reaches_the_latent_and_the_network_is_left_alone():
    network = StyleGANXL().eval()
    latents = StyleGANAdapter(network).sample_latents(2, 1)
    assert not latents.requires_grad
    small = (0.01 * latents).requires_grad_()
    (gradient,) = torch.autograd.grad(StyleGANAdapter(network).synthesize(small).sum(), small)
    assert (gradient.abs().sum(1) > 0).all()
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_layers_can_be_tapped():
    adapter = StyleGANAdapter(StyleGANXL(num_ws=4).eval())
    assert adapter.feature_layers() == [
        f"network.synthesis.{name}" for name in ("input", "L0_4_32", "L1_4_32", "L2_4_32")
    ]
    with capture(adapter, adapter.feature_layers()) as taken:
        adapter(adapter.sample_latents(2, 1))
    assert taken[adapter.network.synthesis.L1_4_32].shape == (2, 32, 4, 4)


def test_blocks_of_stylegan2_are_tapped_at_their_last_convolution():
    network = StyleGANXL(num_ws=2)
    network.synthesis.b4 = nn.Module()
    network.synthesis.b4.conv1 = nn.Conv2d(1, 1, 1)
    assert StyleGANAdapter(network.eval()).feature_layers()[-1] == "network.synthesis.b4.conv1"


def test_a_built_network_is_filled_from_safetensors(tmp_path):
    from safetensors.torch import save_file

    saved, fresh = StyleGANXL().eval(), StyleGANXL().eval()
    save_file(saved.state_dict(), tmp_path / "g.safetensors")
    adapters = [StyleGANAdapter(saved), StyleGANAdapter(load_weights(fresh, tmp_path / "g.safetensors"))]
    first, second = (
        a.synthesize(a.sample_latents(2, 5, 0.7, generator=torch.Generator().manual_seed(0))) for a in adapters
    )
    assert torch.equal(first, second)


def test_bad_input_is_said():
    with pytest.raises(
        TypeError, match=r"Linear has no mapping, synthesis, z_dim, c_dim, w_dim, num_ws; wanted a Style"
    ):
        StyleGANAdapter(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"network is a PosixPath.*load_weights\(network, path\)"):
        StyleGANAdapter(__import__("pathlib").Path("stylegan.pkl"))
    network = StyleGANXL().eval()
    network.mapping.w_avg = torch.zeros(3, 512)
    with pytest.raises(ValueError, match=r"w_avg has shape \(3, 512\); wanted \(512,\), or \(7, 512\) with a mean for"):
        StyleGANAdapter(network)
    del network.mapping.w_avg
    with pytest.raises(TypeError, match="the network's mapping has no w_avg"):
        StyleGANAdapter(network)
    network = StyleGANXL().eval()
    adapter = StyleGANAdapter(network)
    with pytest.raises(ValueError, match="class 7 is not one that the generator knows; wanted 0 to 6"):
        adapter.sample_latents(1, 7)
    with pytest.raises(ValueError, match="n is 0; wanted at least 1 latent"):
        adapter.sample_latents(0, 1)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 32, 512\); wanted \(n, 512\)"):
        adapter.synthesize(torch.zeros(2, 32, 512))
    network.mapping.num_ws = 5
    with pytest.raises(ValueError, match=r"the mapping gave \(1, 5, 512\); wanted \(1, 32, 512\)"):
        adapter.sample_latents(1, 1)


def test_a_network_in_training_mode_is_refused_and_keeps_its_mean():
    network = StyleGANXL().eval()
    network.mapping.train()
    before = network.mapping.w_avg.clone()
    with pytest.raises(ValueError, match="Mapping 'mapping' of the network is in training mode"):
        StyleGANAdapter(network)
    assert torch.equal(network.mapping.w_avg, before)
