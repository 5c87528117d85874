"""The Generator protocol, sampling of latents, and checks of a generator."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..hooks import modules_behind, untouched


def truncate(latents: Tensor, centre: Tensor | float, truncation: float) -> Tensor:
    r"""Return latents moved towards a centre, which gives less varied images of higher quality.

    .. math:: w' = \bar w + \psi (w - \bar w)

    Args:
        latents: w, (n, latent_dim).
        centre: the mean latent, (latent_dim,), or (n, latent_dim) with the mean of each one's class.
        truncation: ψ; 1 keeps the latents, 0 gives the centre.

    Raises:
        ValueError: ψ is negative or not finite.

    Example:
        >>> truncate(torch.tensor([[2.0, 4.0]]), torch.tensor([0.0, 2.0]), 0.5)
        tensor([[1., 3.]])

    Source: Karras et al., "A Style-Based Generator Architecture for GANs" (CVPR 2019), appendix B.
    """
    if not 0 <= truncation < float("inf"):  # negated, so that nan raises too
        raise ValueError(f"truncation is {truncation}; expected 0 (the mean alone) to 1 (latents as drawn), or above.")
    return latents if truncation == 1 else centre + truncation * (latents - centre)


def class_rows(
    classes: Tensor | int | None, n: int, num_classes: int, device: torch.device | str = "cpu"
) -> Tensor | None:
    """Return the class of each of ``n`` latents, or None for a generator without classes.

    Args:
        classes: one class for all, or (n,).
        n: number of latents.
        num_classes: number of the generator's classes, 0 for none.
        device: of the result.

    Raises:
        ValueError: n is not positive; classes are missing, unknown, not n in number, or given where there are none.
        TypeError: classes that are not integers.

    Example:
        >>> class_rows(3, 2, 10)
        tensor([3, 3])
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1 latent.")
    if num_classes == 0:
        if classes is not None:
            raise ValueError("classes were given, but this generator has none; leave them out.")
        return None
    if classes is None:
        raise ValueError(f"this generator has {num_classes} classes; give classes, one number or (n,).")
    rows = torch.as_tensor(classes, device=device)
    if rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool:
        raise TypeError(f"classes are {rows.dtype}; expected integers.")
    if rows.dim() > 1 or (rows.dim() == 1 and len(rows) != n):
        raise ValueError(f"classes have shape {tuple(rows.shape)}; expected one number, or ({n},) for n={n} latents.")
    least, most = (int(edge) for edge in rows.aminmax())
    if least < 0 or most >= num_classes:
        unknown = least if least < 0 else most
        raise ValueError(f"class {unknown} is not a class of the generator; expected 0 to {num_classes - 1}.")
    return rows.long().expand(n)


def normal(
    n: int,
    width: int,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return standard normal numbers (n, width); torch's global random state is unchanged.

    Args:
        n: rows.
        width: columns.
        generator: the random stream, whose device decides the numbers; None creates one that the system seeds.
        device: of the result.
        dtype: a float type.

    Example:
        >>> normal(2, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    stream = random_stream(generator)
    return torch.randn(n, width, generator=stream, device=stream.device).to(device, dtype)


def random_stream(generator: torch.Generator | None) -> torch.Generator:
    """Return ``generator``, or a new one that the system seeds."""
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    return generator


def normal_latents(width: int) -> Callable[..., Tensor]:
    r"""Return a sampler of Gaussian latents without classes, for :func:`from_callable`.

    .. math:: w = \psi z, \qquad z \sim N(0, I)

    Args:
        width: of the latent.

    Raises:
        ValueError: width, or later n, is not positive; or classes are given.

    Example:
        >>> normal_latents(4)(2, truncation=0.0)
        tensor([[0., 0., 0., 0.],
                [0., 0., 0., 0.]])
    """
    if width < 1:
        raise ValueError(f"width is {width}; expected at least 1.")

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


_SLACK = 1e-3  # fraction of the range by which values may exceed it, for rounding


@runtime_checkable
class Generator(Protocol):
    r"""Protocol of a generator of images from latents.

    .. math:: x = G(w), \qquad w \sim p(w \mid c)

    Any object with these three members is a generator; :func:`from_callable` makes one from functions. A generator may
    also have ``latent_mean(classes)``, the (n, latent_dim) centre of truncation; ``num_classes`` (0 for none);
    ``feature_layers()``, the names of submodules whose activations are maps of image positions; and ``differentiable``,
    false if no gradient passes through it.
    """

    image_range: tuple[float, float]
    """Lowest and highest value of a pixel."""

    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents (n, latent_dim), of one class or of ``classes`` (n,), from the random stream ``generator``."""
        ...

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images (n, channels, H, W) of latents (n, latent_dim); each image depends on its own latent alone."""
        ...


class ClassSampler:
    """Base class of generators that sample by class: subclasses map noise and classes to latents."""

    num_classes: int

    def like(self) -> Tensor:
        """Return a tensor with the device and dtype of the latents."""
        raise NotImplementedError

    def _centre(self, rows: Tensor | None, n: int) -> Tensor:
        """Return the centres of truncation (n, latent_dim) of the classes ``rows`` (n,)."""
        raise NotImplementedError

    def _draw(self, rows: Tensor | None, n: int, truncation: float, generator: torch.Generator | None) -> Tensor:
        """Return latents (n, latent_dim) of the classes ``rows`` (n,)."""
        raise NotImplementedError

    def latent_mean(self, classes: Tensor | int | None = None) -> Tensor:
        """Return the centres of truncation (n, latent_dim); (1, latent_dim) for one class, or without classes."""
        n = len(classes) if isinstance(classes, Tensor) and classes.dim() else 1
        return self._centre(class_rows(classes, n, self.num_classes, self.like().device), n)

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents (n, latent_dim) of one class or of ``classes`` (n,), truncated towards :meth:`latent_mean`.

        Raises:
            ValueError: n is not positive, or classes are unknown.
        """
        return self._draw(class_rows(classes, n, self.num_classes, self.like().device), n, truncation, generator)


class CallableGenerator:
    """A generator made of functions by :func:`from_callable`."""

    def __init__(
        self,
        synthesize: Callable[[Tensor], Tensor],
        sample_latents: Callable[..., Tensor],
        image_range: tuple[float, float],
        *,
        latent_mean: Callable[[Tensor | int | None], Tensor] | None,
        num_classes: int,
        differentiable: bool,
    ) -> None:
        self.synthesize_function, self.sample_function = synthesize, sample_latents
        self.image_range, self.num_classes, self.differentiable = image_range, num_classes, differentiable
        if latent_mean is not None:
            self.latent_mean = latent_mean  # optional in the protocol, so absent without a function

    def sample_latents(
        self,
        n: int,
        classes: Tensor | int | None = None,
        truncation: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return latents of the given function."""
        return self.sample_function(n, classes, truncation, generator=generator)

    def synthesize(self, latents: Tensor) -> Tensor:
        """Return images of the given function."""
        return self.synthesize_function(latents)


def from_callable(
    synthesize: Callable[[Tensor], Tensor],
    sample_latents: Callable[..., Tensor],
    image_range: tuple[float, float] = (0.0, 1.0),
    *,
    latent_mean: Callable[[Tensor | int | None], Tensor] | None = None,
    num_classes: int = 0,
    differentiable: bool = True,
) -> CallableGenerator:
    """Return a generator made of two functions; :func:`normal_latents` returns the second one for Gaussian latents.

    Args:
        synthesize: (n, latent_dim) latents to (n, channels, H, W) images.
        sample_latents: called as ``sample_latents(n, classes, truncation, generator=…)``; (n, latent_dim).
        image_range: lowest and highest value of a pixel.
        latent_mean: classes to the (n, latent_dim) centre of truncation, if there is one.
        num_classes: number of classes, 0 for none.
        differentiable: false if no gradient passes through ``synthesize``.

    Raises:
        TypeError: one of the functions is not callable.
        ValueError: an empty range.

    Example:
        >>> from xinc_captum.generators import normal_latents
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
        >>> paint.synthesize(paint.sample_latents(3)).shape
        torch.Size([3, 1, 2, 2])
    """
    for name, function in (("synthesize", synthesize), ("sample_latents", sample_latents)):
        if not callable(function):
            raise TypeError(f"{name} is a {type(function).__name__}; expected a function.")
    _check_range(image_range)
    return CallableGenerator(
        synthesize,
        sample_latents,
        image_range,
        latent_mean=latent_mean,
        num_classes=num_classes,
        differentiable=differentiable,
    )


def images_in_unit_range(generator: Generator, latents: Tensor) -> Tensor:
    r"""Return images (n, channels, H, W) in [0, 1] of latents; differentiable if the generator is.

    .. math:: y = (G(w) - low) / (high - low)

    Args:
        generator: ``low`` and ``high`` are its ``image_range``.
        latents: w, (n, latent_dim).

    Raises:
        ValueError: latents or images of another shape, or images that are not finite or exceed ``image_range``.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> paint = from_callable(lambda w: w.view(-1, 1, 2, 2).tanh(), normal_latents(4), (-1, 1))
        >>> images_in_unit_range(paint, torch.zeros(1, 4)).flatten()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    if latents.dim() != 2 or not latents.is_floating_point():
        raise ValueError(
            f"latents are {latents.dtype} of shape {tuple(latents.shape)}; expected floats (n, latent_dim)."
        )
    low, high = _check_range(generator.image_range)
    images = generator.synthesize(latents)
    if images.dim() != 4 or len(images) != len(latents) or not images.is_floating_point():
        raise ValueError(
            f"the generator returned {images.dtype} of shape {tuple(images.shape)} for {len(latents)} latents; "
            f"expected floats ({len(latents)}, channels, H, W)."
        )
    if images.numel():
        least, most = (float(edge) for edge in images.detach().aminmax())
        slack = _SLACK * (high - low)
        if not (low - slack <= least and most <= high + slack):  # negated, so that nan raises too
            raise ValueError(
                f"the generator's images lie in [{least:.4g}, {most:.4g}], but its image_range is [{low:g}, {high:g}]. "
                "Correct image_range, or clamp in synthesize; nan means that the latents or the weights are not finite."
            )
    return (images - low) / (high - low)


def _check_range(image_range: tuple[float, float]) -> tuple[float, float]:
    low, high = image_range
    if not low < high:
        raise ValueError(f"image_range is {tuple(image_range)}; expected (low, high) with low < high.")
    return low, high


def check_unit_range(images: Tensor) -> None:
    """Raise ValueError unless training images lie in [0, 1], up to rounding."""
    low, high = (float(edge) for edge in images.aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        raise ValueError(f"images lie in [{low:.3g}, {high:.3g}]; expected [0, 1]. Divide by their highest value.")


def count_labels(labels: Tensor, n: int) -> Tensor:
    """Return the number of images of each class, or raise ValueError unless labels are (n,) integers from 0 on."""
    if labels.shape != (n,) or labels.is_floating_point() or int(labels.min()) < 0:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected integers from 0 on, ({n},)."
        )
    return labels.bincount()


def check_generator(generator: Generator, *, classes: Tensor | int | None = None) -> tuple[int, tuple[int, int, int]]:
    """Check a generator on three latents.

    Latents must be finite floats (n, latent_dim), equal for equal seeds. Images must be finite floats (n, channels, H,
    W) within ``image_range``, equal for equal latents, and each must depend on its own latent alone. Neither sampling
    nor synthesis may change a buffer. The generator's modules and the random states are restored.

    Args:
        generator: the generator to check.
        classes: the classes to sample, for a generator that needs them; (3,) or one number.

    Returns:
        The latent's width and the images' (channels, H, W).

    Raises:
        TypeError: a member is missing.
        ValueError: a condition does not hold; the text names it and what to do.

    Example:
        >>> from xinc_captum.generators import from_callable, normal_latents
        >>> check_generator(from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4)))
        (4, (1, 2, 2))
    """
    missing = [name for name in ("image_range", "sample_latents", "synthesize") if not hasattr(generator, name)]
    if missing:
        raise TypeError(
            f"{type(generator).__name__} has no {' and no '.join(missing)}; expected image_range, sample_latents(n, "
            "classes, truncation, generator=…) and synthesize(latents). from_callable() makes them of two functions."
        )
    with untouched(generator.synthesize, *modules_of(generator)):
        return _check_members(generator, classes)


def _check_members(generator: Generator, classes: Tensor | int | None) -> tuple[int, tuple[int, int, int]]:
    buffers = [(module, name, b) for module in modules_of(generator) for name, b in module.named_buffers()]
    before = [buffer.clone() for _, _, buffer in buffers]
    first, again = (generator.sample_latents(3, classes, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    if first.dim() != 2 or len(first) != 3 or not first.is_floating_point() or not first.isfinite().all():
        raise ValueError(
            f"sample_latents(3) returned {first.dtype} of shape {tuple(first.shape)}; expected finite floats (3, "
            "latent_dim)."
        )
    if not torch.equal(first, again):
        raise ValueError("the same seed gave other latents; expected sample_latents to use only its generator=.")
    with torch.no_grad():
        images = images_in_unit_range(generator, first)
        once_more = images_in_unit_range(generator, first)
        alone = images_in_unit_range(generator, first[:1])
    if not torch.allclose(images, once_more, atol=1e-3):
        raise ValueError("the same latents gave other images; expected no noise and no dropout: eval(), fixed noise.")
    if not torch.allclose(images[:1], alone, atol=1e-2):
        raise ValueError(
            "an image depends on the other latents of its batch, as with BatchNorm in training mode; call eval() first."
        )
    for (module, name, buffer), value in zip(buffers, before, strict=True):
        if not torch.equal(buffer, value):
            raise ValueError(
                f"sampling or synthesis changed the buffer {name!r} of {type(module).__name__}, as the mapping of a "
                "StyleGAN does in training mode; call eval() on the network first."
            )
    _, channels, height, width = images.shape
    return first.shape[1], (channels, height, width)


def modules_of(generator: Generator) -> list[nn.Module]:
    """Return every module that is found behind a generator's functions, so that its state can be restored."""
    if isinstance(generator, nn.Module):
        return [generator]
    attributes = (v for v in getattr(generator, "__dict__", {}).values() if callable(v) or hasattr(v, "__dict__"))
    sources = (generator.synthesize, generator.sample_latents, *attributes)
    return list({id(module): module for source in sources for module in modules_behind(source)}.values())
