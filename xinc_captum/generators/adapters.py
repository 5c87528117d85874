"""Adapters that use DCGAN, BigGAN and StyleGAN networks as generators, and loading of their weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import store
from .protocol import ClassSampler, normal, random_stream, truncate

_NOISY = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.modules.dropout._DropoutNd)


def _depends_on_mode(module: nn.Module) -> bool:
    """Return whether training mode may change a module's output: not for torch's own layers without state."""
    return isinstance(module, _NOISY) or not type(module).__module__.startswith("torch.nn.")


class Adapter(ClassSampler, nn.Module):
    """Base class of adapters: a network in eval mode as a generator, called with latents.

    Training mode raises a ValueError: batch norm and dropout would change the images, and the mapping of a StyleGAN
    would update its mean latent.
    """

    differentiable = True

    def __init__(self, network: nn.Module, image_range: tuple[float, float], num_classes: int) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network is a {type(network).__name__}; expected an nn.Module that is already built and loaded. "
                "load_weights(network, path) fills one from safetensors."
            )
        training = [(name, module) for name, module in network.named_modules() if module.training]
        training = [(name, module) for name, module in training if _depends_on_mode(module)]
        if training:
            # The name of a layer is more informative than that of the module around it.
            name, module = max(training, key=lambda pair: isinstance(pair[1], _NOISY))
            raise ValueError(
                f"{type(module).__name__} {name!r} of the network is in training mode, in which it may draw other "
                "images each time or change its own buffers; call network.eval() first."
            )
        self.network = network
        self.training = network.training  # the adapter's mode is that of its network
        self.image_range, self.num_classes = image_range, num_classes

    def forward(self, latents: Tensor) -> Tensor:
        """As ``synthesize``."""
        return self.synthesize(latents)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, channels, H, W); implemented by each adapter."""
        raise NotImplementedError

    def like(self) -> Tensor:
        """Return a tensor with the network's device and dtype."""
        return next((t for t in (*self.network.parameters(), *self.network.buffers()) if t.is_floating_point()), _NONE)


_NONE = torch.zeros(())
_BOUND = 2.0  # of the noise, in standard deviations, as in BigGAN


class BigGANAdapter(Adapter):
    r"""A BigGAN as a generator; its latent is the input of every layer: noise and the embedded class.

    .. math:: w = [\psi z, E\, \mathrm{onehot}(c)], \qquad z \sim N(0, I) \text{ within } [-2, 2]

    Symbols: ψ the truncation, E the embedding of class c. The noise is independent of the class, so a linear link from
    a classifier's activations can explain little of it.

    Args:
        network: already built and loaded, in eval mode, with ``embeddings``, a linear layer from one-hot classes, and
            ``generator(w, truncation)``.
        statistics: the truncation in (0, 1] whose stored batch statistics are used; give that of the latents.

    Raises:
        TypeError: network is not a module, or has no such members.
        ValueError: a module in training mode, or statistics outside (0, 1].

    Example:
        >>> class Small(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embeddings = torch.nn.Linear(5, 4, bias=False)
        ...         self.generator = lambda w, truncation: w.view(-1, 2, 2, 2).tanh()
        >>> BigGANAdapter(Small().eval()).sample_latents(3, classes=2).shape
        torch.Size([3, 8])

    Source: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (ICLR 2019), sec. 3.1.
    """

    def __init__(self, network: nn.Module, *, statistics: float = 1.0) -> None:
        embeddings = getattr(network, "embeddings", None)
        if isinstance(network, nn.Module) and not (isinstance(embeddings, nn.Linear) and hasattr(network, "generator")):
            raise TypeError(
                f"{type(network).__name__} has no embeddings (a linear layer) and generator(w, truncation); expected a "
                "BigGAN as pytorch-pretrained-biggan builds it."
            )
        if not 0 < statistics <= 1:
            raise ValueError(f"statistics is {statistics}; expected a truncation above 0 and up to 1.")
        super().__init__(network, (-1.0, 1.0), getattr(embeddings, "in_features", 0))
        self.noise_dim = int(network.embeddings.out_features)  # type: ignore[union-attr,arg-type]
        self.statistics = statistics

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return latents without noise."""
        embedded = self._embed_classes(rows)
        return torch.cat([torch.zeros_like(embedded), embedded], 1)

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return truncated noise beside the embedded class."""
        embedded = self._embed_classes(rows)
        noise = _truncated_noise(n, self.noise_dim, generator).to(embedded)
        return torch.cat([truncate(noise, 0.0, truncation), embedded], 1)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, 3, size, size) in [-1, 1]."""
        if latents.dim() != 2 or latents.shape[1] != 2 * self.noise_dim:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; expected (n, {2 * self.noise_dim}).")
        images: Tensor = self.network.generator(latents, self.statistics)  # type: ignore[operator]
        return images

    def feature_layers(self) -> list[str]:
        """Return the names of the blocks, lowest resolution first; their outputs are (n, channels, H, W)."""
        return [name for name, _ in self.named_modules() if name.rpartition(".")[0] == "network.generator.layers"]

    def _embed_classes(self, rows: Tensor | None) -> Tensor:
        assert rows is not None  # noqa: S101 - it has classes
        embedded: Tensor = self.network.embeddings(  # type: ignore[operator]
            F.one_hot(rows, self.num_classes).to(self.like())
        )
        return embedded


def _truncated_noise(n: int, width: int, generator: torch.Generator | None) -> Tensor:
    """Return normal noise within ±2, by the inverse distribution function, so that every seed uses as many draws."""
    stream = random_stream(generator)
    edge = math.erf(_BOUND / math.sqrt(2))
    uniform = torch.rand(n, width, generator=stream, device=stream.device, dtype=torch.float64)
    return math.sqrt(2) * torch.erfinv(edge * (2 * uniform - 1))


class DCGAN(nn.Module):
    r"""The DCGAN generator network: from 1 x 1 to 4 x 4 pixels, then doubled by every layer.

    .. math:: x = \tanh(\mathrm{up}_L(h_{L-1})), \qquad h_l = \mathrm{ReLU}(\mathrm{BN}(\mathrm{up}_l(h_{l-1})))

    Symbols: up a transposed convolution of 4 x 4 with stride 2, without bias; the first one has stride 1; h_0 = z.

    Args:
        latent_dim: channels of z, with the classes if there are any.
        channels: maps after each layer but the last.
        image_channels: 1 for grey, 3 for colour.
        dropout: share of the first layer's values that training drops; None has no such layer.

    Example:
        >>> DCGAN(latent_dim=10, channels=(8, 4)).eval()(torch.randn(2, 10, 1, 1)).shape
        torch.Size([2, 3, 16, 16])

    Source: Radford et al., "Unsupervised Representation Learning with DCGANs" (ICLR 2016), fig. 1; layers are counted
    as in PyTorch's DCGAN example, so that state dicts of its many descendants fit.
    """

    def __init__(
        self,
        latent_dim: int = 100,
        channels: tuple[int, ...] = (512, 256, 128, 64),
        image_channels: int = 3,
        *,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip((latent_dim, *channels[:-1]), channels, strict=True)):
            layers += [_up(before, after, first=level == 0), nn.BatchNorm2d(after), nn.ReLU()]
            if level == 0 and dropout is not None:
                layers.append(nn.Dropout(dropout))
        self.main = nn.Sequential(*layers, _up(channels[-1], image_channels, first=False), nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        """Map (n, latent_dim, 1, 1) to (n, image_channels, size, size) in [-1, 1], with size = 4 · 2^len(channels)."""
        images: Tensor = self.main(latents)
        return images


class DCGANAdapter(Adapter):
    r"""A DCGAN as a generator; its latent is noise z, scaled by the truncation ψ, then the one-hot class c, if any.

    .. math:: w = [\psi z, \mathrm{onehot}(c)], \qquad z \sim N(0, I)

    Args:
        network: :class:`DCGAN`, or any module from (n, latent_dim, 1, 1) to images; in eval mode.
        noise_dim: width of z.
        num_classes: width of the one-hot class, 0 for none.
        image_range: lowest and highest value of a pixel.

    Raises:
        TypeError: network is not a module.
        ValueError: a module in training mode, or a width that is not positive.

    Example:
        >>> faces = DCGANAdapter(DCGAN(latent_dim=12, channels=(8, 4)).eval(), noise_dim=10, num_classes=2)
        >>> faces.synthesize(faces.sample_latents(3, classes=1, truncation=0.7)).shape
        torch.Size([3, 3, 16, 16])

    Source: Radford et al., "Unsupervised Representation Learning with DCGANs" (ICLR 2016).
    """

    def __init__(
        self,
        network: nn.Module,
        noise_dim: int = 100,
        *,
        num_classes: int = 0,
        image_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__(network, image_range, num_classes)
        if noise_dim < 1 or num_classes < 0:
            raise ValueError(f"got noise_dim={noise_dim}, num_classes={num_classes}; expected at least 1 and 0.")
        self.noise_dim = noise_dim

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return latents without noise."""
        return self._with_class(torch.zeros(n, self.noise_dim).to(self.like()), rows)

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return truncated noise beside the one-hot class."""
        noise = normal(n, self.noise_dim, generator, device=self.like().device, dtype=self.like().dtype)
        return self._with_class(truncate(noise, 0.0, truncation), rows)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, channels, H, W)."""
        width = self.noise_dim + self.num_classes
        if latents.dim() != 2 or latents.shape[1] != width:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; expected (n, {width}).")
        images: Tensor = self.network(latents[:, :, None, None])
        return images

    def feature_layers(self) -> list[str]:
        """Return the names of the rectified layers, lowest resolution first; their outputs are (n, channels, H, W)."""
        kinds = (nn.ReLU, nn.LeakyReLU)
        return [f"network.{name}" for name, module in self.network.named_modules() if isinstance(module, kinds)]

    def _with_class(self, noise: Tensor, rows: Tensor | None) -> Tensor:
        return noise if rows is None else torch.cat([noise, F.one_hot(rows, self.num_classes).to(noise)], 1)


def _up(before: int, after: int, *, first: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, 1 if first else 2, 0 if first else 1, bias=False)


_ATTRIBUTES = ("mapping", "synthesis", "z_dim", "c_dim", "w_dim", "num_ws")


class StyleGANAdapter(Adapter):
    r"""A StyleGAN as a generator; its latent is one w, the input of every layer.

    .. math:: w = \bar w_c + \psi\,(f(z, c) - \bar w_c), \qquad x = \mathrm{clamp}_{[-1, 1]}\, g(w, w, \dots, w)

    Symbols: f the mapping and g the synthesis of the network; z noise; ψ the truncation; w̄_c the tracked mean of class
    c, or of all latents.

    Build the network with its authors' code; :func:`load_weights` loads weights from safetensors. The authors'
    checkpoints are pickles, which can run code, so this class opens none.

    Args:
        network: with ``mapping(z, c)`` to (n, num_ws, w_dim) and its buffer ``w_avg``, (w_dim,) or (c_dim, w_dim);
            ``synthesis(ws)`` to (n, channels, H, W); and the numbers z_dim, c_dim, w_dim, num_ws.
        synthesis_options: further arguments of ``synthesis``; None is ``noise_mode="const"``, without which StyleGAN2
            draws noise. On a CPU, add ``force_fp32=True``.

    Raises:
        TypeError: network is not a module, or has no such members.
        ValueError: a module in training mode, or a ``w_avg`` of another shape.

    Example:
        >>> network, mapping = torch.nn.Module(), torch.nn.Module()  # stands for a StyleGAN
        >>> mapping.w_avg, mapping.forward = torch.zeros(4), lambda z, c: z[:, None].expand(-1, 2, -1)
        >>> network.mapping, network.synthesis = mapping, lambda ws, noise_mode: ws.reshape(-1, 1, 2, 4)
        >>> network.z_dim, network.c_dim, network.w_dim, network.num_ws = 4, 0, 4, 2
        >>> StyleGANAdapter(network.eval()).sample_latents(3, truncation=0.7).shape
        torch.Size([3, 4])

    Source: Karras et al., StyleGAN2 (CVPR 2020) and StyleGAN3 (NeurIPS 2021); Sauer et al., "StyleGAN-XL" (SIGGRAPH
    2022), sec. 3, for classes.
    """

    def __init__(self, network: nn.Module, *, synthesis_options: Mapping[str, Any] | None = None) -> None:
        missing = [name for name in _ATTRIBUTES if not hasattr(network, name)]
        if isinstance(network, nn.Module) and missing:
            raise TypeError(
                f"{type(network).__name__} has no {', '.join(missing)}; expected a StyleGAN's complete generator (G or "
                f"G_ema), with {', '.join(_ATTRIBUTES)}."
            )
        super().__init__(network, (-1.0, 1.0), _number(network, "c_dim"))
        self.noise_dim, self.latent_dim = _number(network, "z_dim"), _number(network, "w_dim")
        self.num_ws = _number(network, "num_ws")
        self.synthesis_options = {"noise_mode": "const"} if synthesis_options is None else dict(synthesis_options)
        shape = tuple(self._average().shape)
        if shape not in ((self.latent_dim,), (self.num_classes, self.latent_dim)):
            raise ValueError(
                f"w_avg has shape {shape}; expected ({self.latent_dim},), or ({self.num_classes}, {self.latent_dim}) "
                "with a mean for each class."
            )

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return the tracked mean of each class, or of all latents."""
        average = self._average()
        return average.expand(n, -1) if average.dim() == 1 or rows is None else average[rows]

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return the mapped noise, or raise a ValueError if the mapping's output has another shape."""
        like = self.like()
        noise = normal(n, self.noise_dim, generator, device=like.device, dtype=like.dtype)
        one_hot = like.new_zeros(n, 0) if rows is None else F.one_hot(rows, self.num_classes).to(like)
        mapped: Tensor = self.network.mapping(noise, one_hot)  # type: ignore[operator]
        if mapped.shape != (n, self.num_ws, self.latent_dim):
            raise ValueError(
                f"the mapping returned {tuple(mapped.shape)}; expected ({n}, {self.num_ws}, {self.latent_dim}), the "
                "same w for every layer."
            )
        return truncate(mapped[:, 0], self._centre(rows, n), truncation)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, channels, H, W), clamped to [-1, 1]."""
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; expected (n, {self.latent_dim}).")
        tiled = latents[:, None].expand(-1, self.num_ws, -1)
        images: Tensor = self.network.synthesis(tiled, **self.synthesis_options)  # type: ignore[operator]
        return images.to(latents.dtype).clamp(-1, 1)

    def feature_layers(self) -> list[str]:
        """Return the names of the synthesis layers, lowest resolution first.

        A block of StyleGAN2 returns two tensors, so the name is that of its last convolution.
        """
        names = []
        for name, child in self.network.synthesis.named_children():  # type: ignore[union-attr]
            suffix = ".conv1" if hasattr(child, "conv1") else ""
            names.append(f"network.synthesis.{name}{suffix}")
        return names

    def _average(self) -> Tensor:
        average = getattr(self.network.mapping, "w_avg", None)
        if not isinstance(average, Tensor):
            raise TypeError("the network's mapping has no w_avg; expected StyleGAN's tracked mean latent.")
        return average


def _number(network: nn.Module, name: str) -> int:
    number: Any = getattr(network, name, 0)
    return int(number)


Network = TypeVar("Network", bound=nn.Module)
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")  # a pickle, a zip around one (torch.save), a gzip around one
_SAFE_WAY = (
    "The file was not opened. On an isolated machine without sensitive data, build the network from its own source "
    "code once and run "
    "safetensors.torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, 'weights.safetensors'); "
    "here, build the same network and call load_weights(network, 'weights.safetensors'). A file of torch.save() that "
    "holds a state dict alone can be read by torch.load(path, weights_only=True)."
)


def load_weights(network: Network, path: str | Path) -> Network:
    """Load the weights of a safetensors file into a network of the same architecture.

    Checkpoints of StyleGAN are pickles, and opening one runs the code in it. Safetensors holds numbers only, so build
    the network with its own code first.

    Args:
        network: any module; its weights are replaced, and it is returned.
        path: a file of ``safetensors.torch.save_file``; the names and shapes of all tensors must match.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a pickle, an incomplete safetensors file, or tensors that do not fit the network. A file of
            :func:`~xinc_captum.store.write_tensors` is also checked against its sha256; other files have none.

    Example:
        >>> import tempfile, safetensors.torch
        >>> path = Path(tempfile.mkdtemp()) / "linear.safetensors"
        >>> safetensors.torch.save_file(torch.nn.Linear(2, 3).state_dict(), path)
        >>> load_weights(torch.nn.Linear(2, 3), path)
        Linear(in_features=2, out_features=3, bias=True)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file; expected the weights of {type(network).__name__} in safetensors."
        )
    with path.open("rb") as opened:
        first = opened.read(16)
    # A safetensors file begins with eight bytes, the length of its header, and an opening brace.
    if first[8:9] != b"{" and (first.startswith(_PICKLES) or path.suffix in (".pkl", ".pickle")):
        raise store.StoreError(
            f"{path} is a pickle, or a file around one: opening it can run arbitrary code from its author; expected "
            f"safetensors. {_SAFE_WAY}"
        )
    tensors, _ = store.read_tensors(path, kind=None, writer="safetensors.torch.save_file()")
    try:
        store.check_state(path, network.state_dict(), tensors)
    except store.StoreError as error:
        raise store.StoreError(
            f"{str(error).rstrip('.')}, in this {type(network).__name__}. Build the network as it was when it was "
            "saved."
        ) from error
    network.load_state_dict(tensors)
    return network
