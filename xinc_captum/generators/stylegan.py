"""StyleGAN2, StyleGAN3 and StyleGAN-XL, given as a network that the user built."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import Adapter
from .latents import class_rows, normal, truncate

_ATTRIBUTES = ("mapping", "synthesis", "z_dim", "c_dim", "w_dim", "num_ws")


class StyleGANAdapter(Adapter):
    r"""A StyleGAN as a generator; its latent is one w, which every layer gets.

    .. math:: w = \bar w_c + \psi\,(f(z, c) - \bar w_c), \qquad x = \mathrm{clamp}_{[-1, 1]}\, g(w, w, \dots, w)

    Symbols: f the mapping and g the synthesis of the network; w̄_c the tracked mean of class c, or of all latents where
    the network keeps only one.

    The network comes as the user built it, from its authors' code; :func:`load_weights` fills it from safetensors. No
    checkpoint is opened here, since those are pickles: they run code.

    Args:
        network: with ``mapping(z, c)`` to (n, num_ws, w_dim) and its buffer ``w_avg``, (w_dim,) or (c_dim, w_dim);
            ``synthesis(ws)`` to (n, channels, H, W); and the numbers z_dim, c_dim, w_dim, num_ws.
        synthesis_options: further arguments of ``synthesis``. StyleGAN2 draws noise unless told not to; on a CPU,
            ``force_fp32=True`` is wanted too.

    Raises:
        TypeError: network is no module, or has no such members.
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
                f"{type(network).__name__} has no {', '.join(missing)}; wanted a StyleGAN's whole generator (G or G_ema"
                f"), with {', '.join(_ATTRIBUTES)}."
            )
        super().__init__(network, (-1.0, 1.0), _number(network, "c_dim"))
        self.noise_dim, self.latent_dim = _number(network, "z_dim"), _number(network, "w_dim")
        self.num_ws = _number(network, "num_ws")
        self.synthesis_options = {"noise_mode": "const"} if synthesis_options is None else dict(synthesis_options)
        shape = tuple(self._average().shape)
        if shape not in ((self.latent_dim,), (self.num_classes, self.latent_dim)):
            raise ValueError(
                f"w_avg has shape {shape}; wanted ({self.latent_dim},), or ({self.num_classes}, {self.latent_dim}) "
                "with a mean for each class."
            )

    def latent_mean(self, classes: Tensor | int | None = None) -> Tensor:
        """(n, w_dim) means that truncation draws towards; (1, w_dim) for one class, or without classes."""
        n = len(classes) if isinstance(classes, Tensor) and classes.dim() else 1
        average = self._average()
        rows = class_rows(classes, n, self.num_classes, average.device)
        return average.expand(n, -1) if average.dim() == 1 or rows is None else average[rows]

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(n, w_dim) latents of one class, or of ``classes`` (n,), drawn towards the mean.

        Raises:
            ValueError: n that is not positive, classes that the generator does not know, or a mapping that answers in
                another shape.
        """
        like = self.like()
        rows = class_rows(classes, n, self.num_classes, like.device)
        noise = normal(n, self.noise_dim, generator, device=like.device, dtype=like.dtype)
        asked = like.new_zeros(n, 0) if rows is None else F.one_hot(rows, self.num_classes).to(like)
        mapped: Tensor = self.network.mapping(noise, asked)  # type: ignore[operator]
        if mapped.shape != (n, self.num_ws, self.latent_dim):
            raise ValueError(
                f"the mapping gave {tuple(mapped.shape)}; wanted ({n}, {self.num_ws}, {self.latent_dim}), the same w "
                "for every layer."
            )
        return truncate(mapped[:, 0], self.latent_mean(rows), truncation)

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, channels, H, W) pictures, clamped to [-1, 1] as they are when shown."""
        if latents.dim() != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; wanted (n, {self.latent_dim}).")
        tiled = latents[:, None].expand(-1, self.num_ws, -1)
        pictures: Tensor = self.network.synthesis(tiled, **self.synthesis_options)  # type: ignore[operator]
        return pictures.to(latents.dtype).clamp(-1, 1)

    def feature_layers(self) -> list[str]:
        """The layers of the synthesis, smallest pictures first.

        In StyleGAN2 a block answers with two tensors, so the last convolution in each is named.
        """
        names = []
        for name, child in self.network.synthesis.named_children():  # type: ignore[union-attr]
            within = "." + "conv1" if hasattr(child, "conv1") else ""
            names.append(f"network.synthesis.{name}{within}")
        return names

    def _average(self) -> Tensor:
        average = getattr(self.network.mapping, "w_avg", None)
        if not isinstance(average, Tensor):
            raise TypeError("the network's mapping has no w_avg; wanted the mean latent that StyleGAN tracks.")
        return average


def _number(network: nn.Module, name: str) -> int:
    number: Any = getattr(network, name, 0)
    return int(number)
