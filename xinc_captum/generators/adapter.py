"""What the adapters of network families have in common: one network, in eval mode, called with latents."""

import torch
from torch import Tensor, nn

_NOISY = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.modules.dropout._DropoutNd)


def _depends_on_mode(module: nn.Module) -> bool:
    """Whether training mode may change what a module computes: all but torch's own layers that keep no state."""
    return isinstance(module, _NOISY) or not type(module).__module__.startswith("torch.nn.")


class Adapter(nn.Module):
    """A network as a generator: called with latents, it draws.

    Args:
        network: already built, in eval mode; it is not changed.
        image_range: lowest and highest value of a pixel.
        num_classes: how many it knows, 0 for none.

    Raises:
        TypeError: no module.
        ValueError: a module in training mode: batch norm and dropout draw other images each time, and the mapping of a
            StyleGAN moves its own mean latent.
    """

    differentiable = True

    def __init__(self, network: nn.Module, image_range: tuple[float, float], num_classes: int) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"network is a {type(network).__name__}; wanted an nn.Module that is already built and loaded. "
                "load_weights(network, path) fills one from safetensors."
            )
        training = [(name, module) for name, module in network.named_modules() if module.training]
        training = [(name, module) for name, module in training if _depends_on_mode(module)]
        if training:
            # A layer says more than the module around it.
            name, module = max(training, key=lambda pair: isinstance(pair[1], _NOISY))
            raise ValueError(
                f"{type(module).__name__} {name!r} of the network is in training mode, in which it may draw other "
                "images each time or change its own buffers; call network.eval() first."
            )
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
