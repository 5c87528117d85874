"""Drawing latents: a stream of one's own, classes that are checked, and truncation in one place."""

from collections.abc import Callable

import torch
from torch import Tensor


def truncate(latents: Tensor, centre: Tensor | float, truncation: float) -> Tensor:
    r"""Latents drawn towards a centre: fewer kinds of pictures, and better ones.

    .. math:: w' = \bar w + \psi (w - \bar w)

    Args:
        latents: w, (n, latent_dim).
        centre: the mean latent, (latent_dim,), or (n, latent_dim) with the mean of each one's class.
        truncation: ψ; 1 leaves the latents as they are, 0 gives the centre.

    Raises:
        ValueError: ψ is negative or not finite.

    Example:
        >>> truncate(torch.tensor([[2.0, 4.0]]), torch.tensor([0.0, 2.0]), 0.5)
        tensor([[1., 3.]])

    Source: Karras et al., "A Style-Based Generator Architecture for GANs" (CVPR 2019), appendix B.
    """
    if not 0 <= truncation < float("inf"):  # said so that nan fails
        raise ValueError(f"truncation is {truncation}; wanted 0 (the mean alone) to 1 (latents as drawn), or above.")
    return latents if truncation == 1 else centre + truncation * (latents - centre)


def class_rows(
    classes: Tensor | int | None, n: int, num_classes: int, device: torch.device | str = "cpu"
) -> Tensor | None:
    """The class of each of ``n`` latents, or None for a generator without classes.

    Args:
        classes: one class for all, or (n,).
        n: how many.
        num_classes: how many the generator knows, 0 for none.
        device: where the answer is wanted.

    Raises:
        ValueError: n is not positive, a class is asked of a generator without any, none of one that needs one, one
            that it does not know, or another number of them than n.
        TypeError: classes that are not whole numbers.

    Example:
        >>> class_rows(3, 2, 10)
        tensor([3, 3])
    """
    if n < 1:
        raise ValueError(f"n is {n}; wanted at least 1 latent.")
    if num_classes == 0:
        if classes is not None:
            raise ValueError("classes were given, but this generator knows none; leave them out.")
        return None
    if classes is None:
        raise ValueError(f"this generator draws one of {num_classes} classes; give classes, one number or (n,).")
    rows = torch.as_tensor(classes, device=device)
    if rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise TypeError(f"classes are {rows.dtype}; wanted whole numbers.")
    if rows.dim() > 1 or (rows.dim() == 1 and len(rows) != n):
        raise ValueError(f"classes have shape {tuple(rows.shape)}; wanted one number, or ({n},) for n={n} latents.")
    least, most = (int(edge) for edge in rows.aminmax())
    if least < 0 or most >= num_classes:
        unknown = least if least < 0 else most
        raise ValueError(f"class {unknown} is not one that the generator knows; wanted 0 to {num_classes - 1}.")
    return rows.long().expand(n)


def normal(
    n: int,
    width: int,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(n, width) standard normal numbers; torch's global state stays as found.

    Args:
        n: rows.
        width: columns.
        generator: the stream to draw from, on any device; None takes a new one, seeded by the system.
        device: where the answer is wanted. The numbers depend on the generator's device alone.
        dtype: a float type.

    Example:
        >>> normal(2, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    drawn = torch.randn(n, width, generator=generator, device=generator.device)
    return drawn.to(device, dtype)


def normal_latents(width: int) -> Callable[..., Tensor]:
    r"""The sampler of a Gaussian latent without classes, for :func:`from_callable`.

    .. math:: w = \psi z, \qquad z \sim N(0, I)

    Args:
        width: of the latent.

    Returns:
        ``sample_latents(n, classes, truncation, generator=…)``.

    Raises:
        ValueError: width, or later n, is not positive; or a class is asked for.

    Example:
        >>> normal_latents(4)(2, truncation=0.0)
        tensor([[0., 0., 0., 0.],
                [0., 0., 0., 0.]])
    """
    if width < 1:
        raise ValueError(f"width is {width}; wanted at least 1.")

    def sample_latents(
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        class_rows(classes, n, 0)
        return truncate(normal(n, width, generator), 0.0, truncation)

    return sample_latents
