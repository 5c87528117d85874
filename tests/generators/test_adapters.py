import math
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xinc_captum.generators import (
    DCGAN,
    BigGANAdapter,
    DCGANAdapter,
    Generator,
    StyleGANAdapter,
    check_generator,
    images_in_unit_range,
    load_weights,
)
from xinc_captum.generators.adapters import Adapter
from xinc_captum.hooks import capture


def test_its_mode_is_that_of_the_network():
    assert not Adapter(nn.Sequential(nn.BatchNorm2d(2)).eval(), (-1, 1), 0).training
    assert Adapter(nn.Linear(1, 1), (0, 1), 0).training, "nothing in it depends on the mode"


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.Dropout(0.1)])
def test_layers_that_would_mix_pictures_up(layer):
    name = type(layer).__name__
    with pytest.raises(
        ValueError, match=rf"{name} '0' of the network is in training mode.*call network.eval\(\) first"
    ):
        Adapter(nn.Sequential(layer), (-1, 1), 0)


def test_each_adapter_implements_synthesize():
    with pytest.raises(NotImplementedError):
        Adapter(nn.Identity(), (0, 1), 0)(torch.zeros(1, 1))
    assert Adapter(nn.Identity(), (0, 1), 0).like().dtype == torch.float32
    assert Adapter(nn.BatchNorm1d(1).double().eval(), (0, 1), 0).like().dtype == torch.float64


def test_a_module_of_another_kind_in_training_mode():
    """Such as the mapping of a StyleGAN, which moves its mean latent while it trains."""

    class Mapping(nn.Module):
        def forward(self, z):
            return z

    network = nn.Sequential(nn.Linear(2, 2), Mapping().train())
    with pytest.raises(ValueError, match="Mapping '1' of the network is in training mode"):
        Adapter(network, (-1, 1), 0)
    Adapter(network.eval().requires_grad_(False), (-1, 1), 0)


def eyes(**more):
    return DCGANAdapter(DCGAN(13, (8, 6), dropout=0.2).eval(), 10, num_classes=3, **more)


def test_the_two_published_architectures_by_their_names():
    with torch.device("meta"):
        faces, eight = DCGAN().state_dict(), DCGAN(108, (1024, 512, 256, 128, 64), dropout=0.2).state_dict()
    assert faces["main.0.weight"].shape == (100, 512, 4, 4) and faces["main.12.weight"].shape == (64, 3, 4, 4)
    assert eight["main.0.weight"].shape == (108, 1024, 4, 4) and eight["main.16.weight"].shape == (64, 3, 4, 4)
    assert "main.4.weight" in eight and "main.3.weight" not in eight, "the dropout has a number"
    assert sum(v.numel() for k, v in faces.items() if "running" not in k and "num_b" not in k) == 3_576_704


def test_size_doubles_with_every_layer():
    for levels in (1, 2, 3):
        assert DCGAN(5, (4,) * levels, 1).eval()(torch.randn(2, 5, 1, 1)).shape == (2, 1, *[4 * 2**levels] * 2)


def test_it_satisfies_the_generator_protocol():
    assert isinstance(eyes(), Generator)
    assert check_generator(eyes(), classes=torch.tensor([2, 0, 0])) == (13, (3, 16, 16))
    plain = DCGANAdapter(DCGAN(10, (8, 6)).eval(), 10)
    assert check_generator(plain) == (10, (3, 16, 16))
    assert plain.latent_mean().abs().max() == 0


def test_the_latent_is_noise_and_class():
    noise = torch.randn(2, 10, generator=torch.Generator().manual_seed(7))
    drawn = eyes().sample_latents(2, torch.tensor([2, 0]), 0.5, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn[:, :10], noise * 0.5)
    assert drawn[:, 10:].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert eyes().latent_mean(1).tolist() == [[0.0] * 10 + [0, 1, 0]]
    assert torch.equal(eyes().latent_mean(torch.tensor([2, 0]))[:, 10:], drawn[:, 10:])


def test_the_network_is_called_with_its_arguments_and_unchanged():
    network = DCGAN(13, (8, 6), dropout=0.2).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    adapter = DCGANAdapter(network, 10, num_classes=3)
    latents = adapter.sample_latents(4, 1)
    assert torch.equal(adapter(latents), network(latents.view(4, 13, 1, 1)))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_every_level_can_be_tapped():
    adapter = eyes()
    with capture(adapter, adapter.feature_layers()) as taken:
        adapter(adapter.sample_latents(2, 1))
    assert [tuple(taken[adapter.get_submodule(name)].shape[1:]) for name in adapter.feature_layers()] == [
        (8, 4, 4),
        (6, 8, 8),
    ]


def test_double_precision_goes_through():
    adapter = DCGANAdapter(DCGAN(10, (8,)).double().eval(), 10)
    assert adapter(adapter.sample_latents(2)).dtype == torch.float64


def test_invalid_input_raises_errors():
    with pytest.raises(
        ValueError, match=r"BatchNorm2d 'main.1' of the network is in training mode.*call network.eval\(\)"
    ):
        DCGANAdapter(DCGAN(10, (8, 6)), 10)
    with pytest.raises(TypeError, match=r"network is a str; expected an nn.Module .*load_weights\(network, path\)"):
        DCGANAdapter("weights.pkl", 10)
    with pytest.raises(ValueError, match="got noise_dim=0, num_classes=0; expected at least 1 and 0"):
        DCGANAdapter(nn.Identity(), 0)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 10\); expected \(n, 13\)"):
        eyes().synthesize(torch.zeros(2, 10))
    with pytest.raises(ValueError, match="class 3 is not a class of the generator; expected 0 to 2"):
        eyes().sample_latents(2, 3)
    with pytest.raises(ValueError, match="n is 0"):
        eyes().sample_latents(0, 1)
    with pytest.raises(ValueError, match="has 3 classes"):
        eyes().latent_mean()
    with pytest.raises(ValueError, match=r"image_range is \(1, -1\)"):
        check_generator(eyes(image_range=(1, -1)), classes=0)


class Inner(nn.Module):
    """The package's inner generator in small: it is called with the condition and a truncation."""

    def __init__(self):
        super().__init__()
        self.gen_z = nn.Linear(12, 8 * 16)
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)])
        self.asked = []

    def forward(self, cond_vector, truncation):
        self.asked.append(truncation)
        maps = self.gen_z(cond_vector).view(-1, 8, 4, 4)
        for layer in self.layers:
            maps = layer(nn.functional.interpolate(maps, scale_factor=2))
        return (maps * truncation).tanh()


class BigGAN(nn.Module):
    """With the members of pytorch-pretrained-biggan's model."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Linear(5, 6, bias=False)
        self.generator = Inner()

    def forward(self, z, class_label, truncation):
        return self.generator(torch.cat((z, self.embeddings(class_label)), dim=1), truncation)


def test_biggan_it_satisfies_the_generator_protocol():
    adapter = BigGANAdapter(BigGAN().eval())
    assert isinstance(adapter, Generator) and adapter.num_classes == 5
    assert check_generator(adapter, classes=torch.tensor([4, 0, 1])) == (12, (3, 16, 16))


def test_images_equal_those_of_the_network():
    network = BigGAN().eval()
    adapter = BigGANAdapter(network, statistics=0.5)
    latents = adapter.sample_latents(3, torch.tensor([4, 0, 4]), 0.5)
    own = network(latents[:, :6], torch.eye(5)[[4, 0, 4]], 0.5)
    assert torch.equal(adapter(latents), own)
    assert network.generator.asked == [0.5, 0.5]


def test_the_noise_is_a_truncated_normal():
    adapter = BigGANAdapter(BigGAN().eval())
    drawn = adapter.sample_latents(40000, 1, generator=torch.Generator().manual_seed(0))[:, :6]
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    assert drawn.abs().max() <= 2
    assert drawn.var().item() == pytest.approx(1 - 4 * density / math.erf(2 / math.sqrt(2)), abs=0.01)
    half = adapter.sample_latents(40000, 1, 0.5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(half[:, :6], drawn / 2)
    torch.testing.assert_close(adapter.latent_mean(1), torch.cat([torch.zeros(1, 6), half[:1, 6:]], 1))


def test_blocks_can_be_tapped():
    adapter = BigGANAdapter(BigGAN().eval())
    assert adapter.feature_layers() == ["network.generator.layers.0", "network.generator.layers.1"]
    with capture(adapter, adapter.feature_layers()) as taken:
        adapter(adapter.sample_latents(2, 3))
    assert taken[adapter.network.generator.layers[0]].shape == (2, 8, 8, 8)


def test_biggan_invalid_input_raises_errors():
    with pytest.raises(TypeError, match=r"Linear has no embeddings \(a linear layer\) and generator\(w, truncation\)"):
        BigGANAdapter(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="network is a str; expected an nn.Module"):
        BigGANAdapter("biggan-deep-128.bin")
    with pytest.raises(TypeError, match="network is a SimpleNamespace; expected an nn.Module that is already built"):
        BigGANAdapter(SimpleNamespace(embeddings=nn.Embedding(5, 6), generator=Inner()))
    network = BigGAN().eval()
    network.embeddings = nn.Embedding(5, 6)
    with pytest.raises(TypeError, match=r"BigGAN has no embeddings \(a linear layer\) and generator"):
        BigGANAdapter(network)
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"statistics is {wrong}; expected a truncation above 0 and up to 1"):
            BigGANAdapter(BigGAN(), statistics=wrong)
    adapter = BigGANAdapter(BigGAN().eval())
    with pytest.raises(ValueError, match="class 5 is not a class of the generator; expected 0 to 4"):
        adapter.sample_latents(2, 5)
    with pytest.raises(ValueError, match="n is -1"):
        adapter.sample_latents(-1, 0)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 6\); expected \(n, 12\)"):
        adapter.synthesize(torch.zeros(2, 6))


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


def test_stylegan_it_satisfies_the_generator_protocol():
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
    assert images_in_unit_range(adapter, latents).min() >= 0
    noisy = StyleGANAdapter(network, synthesis_options={})
    with pytest.raises(ValueError, match="the same latents gave other images; expected no noise"):
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


def test_stylegan_invalid_input_raises_errors():
    with pytest.raises(
        TypeError, match=r"Linear has no mapping, synthesis, z_dim, c_dim, w_dim, num_ws; expected a Style"
    ):
        StyleGANAdapter(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"network is a PosixPath.*load_weights\(network, path\)"):
        StyleGANAdapter(__import__("pathlib").Path("stylegan.pkl"))
    network = StyleGANXL().eval()
    network.mapping.w_avg = torch.zeros(3, 512)
    with pytest.raises(
        ValueError, match=r"w_avg has shape \(3, 512\); expected \(512,\), or \(7, 512\) with a mean for"
    ):
        StyleGANAdapter(network)
    del network.mapping.w_avg
    with pytest.raises(TypeError, match="the network's mapping has no w_avg"):
        StyleGANAdapter(network)
    network = StyleGANXL().eval()
    adapter = StyleGANAdapter(network)
    with pytest.raises(ValueError, match="class 7 is not a class of the generator; expected 0 to 6"):
        adapter.sample_latents(1, 7)
    with pytest.raises(ValueError, match="n is 0; expected at least 1 latent"):
        adapter.sample_latents(0, 1)
    with pytest.raises(ValueError, match=r"latents have shape \(2, 32, 512\); expected \(n, 512\)"):
        adapter.synthesize(torch.zeros(2, 32, 512))
    network.mapping.num_ws = 5
    with pytest.raises(ValueError, match=r"the mapping returned \(1, 5, 512\); expected \(1, 32, 512\)"):
        adapter.sample_latents(1, 1)


def test_a_network_in_training_mode_is_refused_and_keeps_its_mean():
    network = StyleGANXL().eval()
    network.mapping.train()
    before = network.mapping.w_avg.clone()
    with pytest.raises(ValueError, match="Mapping 'mapping' of the network is in training mode"):
        StyleGANAdapter(network)
    assert torch.equal(network.mapping.w_avg, before)


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def test_loaded_weights_are_bit_identical(tmp_path):
    saved, fresh = network(), network()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    assert load_weights(fresh, tmp_path / "w.safetensors") is fresh
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), fresh.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["stylegan.pkl", "weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_not_opened(tmp_path, name, kind):
    canary, path = tmp_path / "canary", tmp_path / name
    with path.open("wb") as file:
        (pickle.dump if kind == "pickle" else torch.save)({"G_ema": Evil(canary)}, file)
    with pytest.raises(ValueError, match=r"is a pickle, or a file around one: opening it can run arbitrary code") as e:
        load_weights(network(), path)
    assert not canary.exists()
    assert "safetensors.torch.save_file" in str(e.value) and "load_weights(network, 'weights.safetensors')" in str(
        e.value
    )


def test_a_pickle_by_name_alone(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"(lp0\n.")  # protocol 0 has no mark
    with pytest.raises(ValueError, match="is a pickle"):
        load_weights(network(), tmp_path / "old.pkl")


def test_safetensors_under_any_name_and_length(tmp_path):
    one = nn.Linear(1, 1)
    for pad in range(0, 256, 8):  # the first byte is the header's length, which may look like a pickle's
        save_file(one.state_dict(), tmp_path / "odd.pkl", metadata={"pad": "x" * pad})
        load_weights(nn.Linear(1, 1), tmp_path / "odd.pkl")


def test_mismatched_tensors_are_listed_and_the_network_is_unchanged(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"0.weight": torch.zeros(4, 2), "0.bias": torch.zeros(3), "extra": torch.zeros(1)}, path)
    fresh = network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"do not fit: 1.weight is missing; .*; 1.running_var is missing; 1.num_batches_tracked is missing; and 2 "
        r"more, in this Sequential. Build the network as it was",
    ):
        load_weights(fresh, path)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    save_file({**before, "0.weight": torch.zeros(4, 2), "extra": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r": extra is left over; 0.weight has shape \(4, 2\), not \(3, 2\), in this Seq"
    ):
        load_weights(fresh, path)


def test_missing_and_torn_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.safetensors is not a file; expected the weights of Sequential in"):
        load_weights(network(), tmp_path / "no.safetensors")
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"is not a complete safetensors file \(.*copy the file again"):
        load_weights(network(), tmp_path / "w.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_weights(network(), tmp_path / "empty.safetensors")
