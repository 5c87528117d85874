"""Finding out, before any long work, whether a generator keeps its word."""

import torch
from torch import Tensor

from ..hooks import untouched
from .features import modules_of
from .protocol import Generator, pictures_in_unit_range


def check_generator(generator: Generator, *, classes: Tensor | int | None = None) -> tuple[int, tuple[int, int, int]]:
    """Try a generator on three latents and say what is wrong with it.

    Looked at: latents are (n, latent_dim) finite floats and the same for the same seed; pictures are (n, channels, H,
    W) finite floats within ``image_range``, the same each time, and each depends on its own latent alone; neither
    changes a buffer. The generator's modules and the random states are restored.

    Args:
        generator: any.
        classes: what to ask for, where the generator has no latent without a class; (3,) or one number.

    Returns:
        The latent's width and the pictures' (channels, H, W).

    Raises:
        TypeError: a member is missing.
        ValueError: one of the above does not hold; the text says which, and what to do.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> check_generator(from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4)))
        (4, (1, 2, 2))
    """
    missing = [name for name in ("image_range", "sample_latents", "synthesize") if not hasattr(generator, name)]
    if missing:
        raise TypeError(
            f"{type(generator).__name__} has no {' and no '.join(missing)}; wanted image_range, sample_latents(n, "
            "classes, truncation, generator=…) and synthesize(latents). from_callable() makes them of two functions."
        )
    with untouched(generator.synthesize, *modules_of(generator)):
        return _checked(generator, classes)


def _checked(generator: Generator, classes: Tensor | int | None) -> tuple[int, tuple[int, int, int]]:
    buffers = [(module, name, b) for module in modules_of(generator) for name, b in module.named_buffers()]
    before = [buffer.clone() for _, _, buffer in buffers]
    first, again = (generator.sample_latents(3, classes, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    if first.dim() != 2 or len(first) != 3 or not first.is_floating_point() or not first.isfinite().all():
        raise ValueError(
            f"sample_latents(3) gave {first.dtype} of shape {tuple(first.shape)}; wanted finite floats (3, latent_dim)."
        )
    if not torch.equal(first, again):
        raise ValueError("the same seed gave other latents; wanted sample_latents to draw from its generator= alone.")
    with torch.no_grad():
        pictures = pictures_in_unit_range(generator, first)
        once_more = pictures_in_unit_range(generator, first)
        alone = pictures_in_unit_range(generator, first[:1])
    if not torch.allclose(pictures, once_more, atol=1e-3):
        raise ValueError("the same latents gave other pictures; wanted no noise and no dropout: eval(), fixed noise.")
    if not torch.allclose(pictures[:1], alone, atol=1e-2):
        raise ValueError(
            "a picture depends on the latents beside it, as with BatchNorm in train mode; wanted each alone: eval()."
        )
    for (module, name, buffer), value in zip(buffers, before, strict=True):
        if not torch.equal(buffer, value):
            raise ValueError(
                f"sampling or drawing changed the buffer {name!r} of {type(module).__name__}, as the mapping of a "
                "StyleGAN does in training mode; call eval() on the network first."
            )
    _, channels, height, width = pictures.shape
    return first.shape[1], (channels, height, width)
