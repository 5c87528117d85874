"""What the adapters of network families have in common: one network, in eval mode, called with latents."""

import torch
from torch import Tensor, nn

_NOISY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class Adapter(nn.Module):
    """A network as a generator: called with latents, it draws.

    Args:
        network: already built, in eval mode; it is not changed.
        image_range: lowest and highest value of a pixel.
        num_classes: how many it knows, 0 for none.

    Raises:
        TypeError: no module.
        ValueError: layers in train mode, which draw other pictures each time.
    """

    differentiable = True

    def __init__(self, network: nn.Module, image_range: tuple[float, float], num_classes: int) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network is a {type(network).__name__}; wanted an nn.Module that is already built and loaded. "
                "load_weights(network, path) fills one from safetensors."
            )
        noisy = [name for name, module in network.named_modules() if isinstance(module, _NOISY) and module.training]
        if noisy:
            raise ValueError(f"{noisy[0]!r} of the network is in train mode; wanted eval(), or pictures are mixed up.")
        self.network = network
        self.training = network.training  # a flag of our own would be a lie
        self.image_range, self.num_classes = image_range, num_classes

    def forward(self, latents: Tensor) -> Tensor:
        """As ``synthesize``."""
        return self.synthesize(latents)

    def synthesize(self, latents: Tensor) -> Tensor:
        """(n, channels, H, W) pictures; each family says how."""
        raise NotImplementedError

    def like(self) -> Tensor:
        """A tensor of the network, for device and dtype."""
        return next((t for t in (*self.network.parameters(), *self.network.buffers()) if t.is_floating_point()), _NONE)


_NONE = torch.zeros(())
