"""Random views: crops, shifts, rotations, noise, and the random draws of users' functions."""

import functools
import inspect
import math
import random
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

Size = tuple[int, int]
View = Callable[[Tensor], Tensor]  # (N, C, H, W) -> (K, N, C, h, w)

_GLOBAL: tuple[Any, ...] = (np.random, random)  # global generators besides PyTorch's
_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
# Packages whose functions draw from the global generators, or from generators in their arguments.
_LIBRARIES = {"torch", "torchvision", "numpy", "scipy", "skimage", "PIL", "cv2", "kornia", "builtins", "random"}
_LONGEST = 1000  # longer containers hold data and are not searched for generators


@contextmanager
def same_draws(seed: int, generators: Iterable[Any] = (), like: Tensor | None = None) -> Iterator[None]:
    """Seed all generators for the length of the block, and restore their states afterwards.

    The generators are the global ones of PyTorch (also on the device of ``like``), NumPy and Python's ``random``, and
    ``generators``. Two blocks with one seed draw the same numbers.
    """
    generators = tuple(generators)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([like.device] if like is not None and like.is_cuda else []))
        for generator in (*_GLOBAL, *generators):
            stack.callback(_restorer(generator))
        seed_all(seed, *generators)
        yield


def seed_all(seed: int, *generators: Any) -> None:
    """Seed the global generators of PyTorch, NumPy and Python's ``random``, and further ones."""
    torch.manual_seed(seed)
    for generator in (*_GLOBAL, *generators):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed % (1 << 64)).state
        else:  # NumPy's legacy generators take 32 bits
            generator.seed(seed if hasattr(generator, "setstate") else seed % (1 << 32))


def _restorer(generator: Any) -> Callable[[], Any]:
    if isinstance(generator, np.random.Generator):
        return functools.partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if hasattr(generator, "setstate"):
        return functools.partial(generator.setstate, generator.getstate())
    return functools.partial(generator.set_state, generator.get_state())


def generators_in(*things: Any) -> list[Any]:
    """Return the random generators that functions or objects hold.

    Closures, default arguments, the globals that a function names, partials, bound methods, attributes and containers
    are searched; functions of numerical libraries are not.
    """
    generators: list[Any] = []
    visited: set[int] = set()
    stack = list(things)
    while stack:
        thing = stack.pop()
        if id(thing) in visited or isinstance(thing, Tensor | np.ndarray | str | bytes | types.ModuleType | type):
            continue
        visited.add(id(thing))
        if isinstance(thing, _KINDS):
            generators.append(thing)
        else:
            stack += _members(thing)
    return generators


def _members(thing: Any) -> list[Any]:
    """Return the objects that an object refers to."""
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, dict | list | tuple | set | frozenset):
        if len(thing) > _LONGEST:
            return []
        return list(thing.values() if isinstance(thing, dict) else thing)
    if inspect.ismethod(thing) or inspect.isbuiltin(thing):  # also the bound ``random`` of a generator
        return [thing.__self__, getattr(thing, "__func__", None)]
    if inspect.isfunction(thing):
        if (thing.__module__ or "").partition(".")[0] in _LIBRARIES:
            return []
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_assigned(cell)]
        variables = [thing.__globals__[name] for name in _names(thing.__code__) if name in thing.__globals__]
        return [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values(), *variables]
    if not hasattr(thing, "__dict__"):
        return []
    return [*vars(thing).values(), *(getattr(type(thing), name, None) for name in ("__call__", "forward"))]


def _is_assigned(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a name that is assigned later
        return False
    return True


def _names(code: types.CodeType) -> set[str]:
    """Return the names that a function, or a function inside it, looks up."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


@dataclass(frozen=True)
class Schedule:
    """A number that changes linearly from ``start`` at the first step to ``stop`` at the last."""

    start: float
    stop: float


Number = float | Schedule


def value_at(number: Number, progress: float) -> float:
    """Return the value of a number or schedule when the fraction ``progress`` of the steps is done."""
    if isinstance(number, Schedule):
        return number.start + (number.stop - number.start) * progress
    return number


@runtime_checkable
class Geometry(Protocol):
    """A random geometric transform: maps from view to image, in coordinates from -1 to 1 over each side."""

    def matrices(self, count: int, canvas: Size, out: Size, progress: float, generator: torch.Generator) -> Tensor:
        """Return one map for each of ``count`` views, (count, 3, 3), applied to (x, y, 1).

        ``canvas`` and ``out`` are (height, width) of image and view; ``progress`` is the fraction of the steps done.
        """


@dataclass(frozen=True)
class Crops:
    r"""Random boxes of the image, each resized to the model's input.

    Args:
        count: number of views of a step.
        side: smallest and largest side, as fractions of the largest box with the model's aspect that fits; each a
            number or a :class:`Schedule`. Sides are stratified over the views of a step.
        edge: centres are drawn from a range larger by this fraction than the one where boxes fit, and moved back into
            it, so that edges and corners of the image are in as many views as its middle.

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039): 16 boxes with sides U(.05, .99).
    """

    count: int = 4
    side: tuple[Number, Number] = (0.5, 1.0)
    edge: float = 0.3

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"Crops(count={self.count}): expected at least 1 view for each step.")

    def matrices(self, count: int, canvas: Size, out: Size, progress: float, generator: torch.Generator) -> Tensor:
        """Return the boxes as maps: scale by the side, then shift to the centre."""
        low, high = (value_at(end, progress) for end in self.side)
        if not 0 < low <= high <= 1:
            raise ValueError(f"Crops(side=({low:g}, {high:g})): expected 0 < smallest <= largest <= 1.")
        stratum = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
        side = low + (high - low) * stratum
        wide = canvas[1] * out[0] / (canvas[0] * out[1])  # the canvas' aspect over the view's
        half = side[:, None] * torch.tensor([min(1, 1 / wide), min(1, wide)])
        position = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 + self.edge)
        centre = position.clamp(-1, 1) * (1 - half)
        return _maps(torch.diag_embed(half), centre)


@dataclass(frozen=True)
class Jitter:
    """Random shifts by at most ``pixels`` of the image along each side, mirrored at the edges."""

    pixels: Number = 8.0

    def matrices(self, count: int, canvas: Size, out: Size, progress: float, generator: torch.Generator) -> Tensor:
        """Return the shifts as maps."""
        reach = torch.tensor([2 * value_at(self.pixels, progress) / max(1, side - 1) for side in reversed(canvas)])
        shift = (2 * torch.rand(count, 2, generator=generator) - 1) * reach
        return _maps(torch.eye(2).expand(count, 2, 2), shift)


@dataclass(frozen=True)
class Rotation:
    """Random rotations by at most ``degrees`` either way around the middle, mirrored at the edges."""

    degrees: Number = 10.0

    def matrices(self, count: int, canvas: Size, out: Size, progress: float, generator: torch.Generator) -> Tensor:
        """Return the rotations as maps; on an image that is not square they rotate pixels, not coordinates."""
        angle = (2 * torch.rand(count, generator=generator) - 1) * math.radians(value_at(self.degrees, progress))
        cos, sin = angle.cos(), angle.sin()
        aspect = (canvas[1] - 1) / max(1, canvas[0] - 1) or 1.0
        turn = torch.stack([torch.stack([cos, -sin / aspect], -1), torch.stack([sin * aspect, cos], -1)], -2)
        return _maps(turn, torch.zeros(count, 2))


@dataclass(frozen=True)
class Noise:
    """Normal noise on every value of a view, of standard deviation ``std``, and a uniform shift of its brightness.

    ``shift`` is the width of the uniform distribution; both are in units of [0, 1].
    """

    std: Number = 0.02
    shift: Number = 0.0

    def draw(self, shape: tuple[int, ...], progress: float, generator: torch.Generator) -> Tensor:
        """Return noise for views of ``shape`` (K, C, h, w): the same for every row, on the generator's device."""
        noise = torch.randn(shape, generator=generator, device=generator.device) * value_at(self.std, progress)
        width = value_at(self.shift, progress)
        if width:
            brightness = torch.rand((shape[0], 1, 1, 1), generator=generator, device=generator.device)
            noise = noise + (brightness - 0.5) * width
        return noise


Transform = Geometry | Noise | Callable[[Tensor], Tensor]


def view(
    transforms: Sequence[Transform],
    canvas: Size,
    out: Size,
    *,
    progress: float = 0.0,
    generator: torch.Generator,
    noise_generator: torch.Generator | None = None,
) -> View:
    """Draw one set of views; return a function from any images (N, C, H, W) to the same views of them, (K, N, C, h, w).

    Geometric transforms are composed and resampled once; then Noise and functions of images (n, C, h, w) are applied in
    their order. A function is called with the views of one image at a time and the same random numbers for every image,
    from the global generators of PyTorch, NumPy and ``random`` and from generators that it refers to; where it changes
    the size, its result is resized to ``out``. The number of views is that of Crops, else one.

    ``canvas`` and ``out`` are height and width of images and views; ``progress`` is the fraction of the steps that is
    done, for schedules. ``generator`` is on the CPU, so that boxes are the same on every device; ``noise_generator``
    (default: ``generator``) is on the images' device.
    """
    count = max((t.count for t in transforms if isinstance(t, Crops)), default=1)
    geometry = [t for t in transforms if isinstance(t, Geometry)]
    maps = torch.eye(3).expand(count, 3, 3)
    for one in geometry:
        maps = maps @ one.matrices(count, canvas, out, progress, generator)
    later = [t for t in transforms if not isinstance(t, Geometry)]
    seeds = [0 if isinstance(t, Noise) else int(torch.randint(1 << 62, (), generator=generator)) for t in later]
    generators = [[] if isinstance(t, Noise) else generators_in(t) for t in later]
    noise: dict[int, Tensor] = {}

    def show(images: Tensor) -> Tensor:
        views = resample(images, maps, out) if geometry or canvas != out else images[None]
        for index, transform in enumerate(later):
            if isinstance(transform, Noise):
                if index not in noise:  # drawn once: candidate and seed share it
                    shape = (views.shape[0], *views.shape[2:])
                    noise[index] = transform.draw(shape, progress, noise_generator or generator)
                views = views + noise[index].to(views)[:, None]
            else:
                views = _apply(transform, views, seeds[index], generators[index])
        if views.shape[-2:] != (*out,):
            resized: Tensor = interpolate(views.flatten(0, 1), out, mode="bilinear", antialias=True)
            views = resized.unflatten(0, views.shape[:2])
        return views

    return show


def resample(images: Tensor, maps: Tensor, out: Size) -> Tensor:
    """Resample images (N, C, H, W) by maps (K, 3, 3), bilinear, with aligned corners: (K, N, C, h, w).

    Where a view shrinks the image, it is sampled on a finer grid and averaged, against aliasing.
    """
    count, rows = maps.shape[0], images.shape[0]
    finer = _oversample_factor(maps, (images.shape[-2], images.shape[-1]), out)
    fine = (out[0] * finer, out[1] * finer)
    matrices = maps[:, :2].to(images.dtype).to(images.device, non_blocking=True)
    grid = affine_grid(matrices, [count, 1, *fine], align_corners=True)
    stacked = images.flatten(0, 1)[None].expand(count, -1, -1, -1)  # rows as channels: one grid serves them all
    views: Tensor = grid_sample(stacked, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    if finer > 1:
        views = avg_pool2d(views, finer)
    return views.reshape(count, rows, images.shape[1], *out)


def _apply(transform: Callable[[Tensor], Tensor], views: Tensor, seed: int, generators: list[Any]) -> Tensor:
    """Apply a user's function to the views of each image, with the same random numbers: (K, N, C, h', w')."""
    rows: list[Tensor] = []
    for row in range(views.shape[1]):
        inputs = views[:, row].clone()  # the function may change it in place
        with same_draws(seed, generators, inputs):
            rows.append(_check_images(transform, transform(inputs), inputs, views.requires_grad))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(
                f"transform {_name(transform)} returned shape {tuple(rows[-1].shape)} for image {row} and "
                f"{tuple(rows[0].shape)} for image 0; expected the same shape for every image of a batch."
            )
    return torch.stack(rows, 1)


def _check_images(transform: Callable[[Tensor], Tensor], value: Any, inputs: Tensor, requires_grad: bool) -> Tensor:
    """Check the result of a user's function; return it in the dtype of its input."""
    name, expectation = _name(transform), f"expected float images ({inputs.shape[0]}, C, h, w) on {inputs.device}"
    if not isinstance(value, Tensor):
        raise TypeError(f"transform {name} returned a {type(value).__name__}; {expectation}, computed from its input.")
    if not value.is_floating_point():
        raise TypeError(f"transform {name} returned {value.dtype}; {expectation}. Divide bytes by 255.")
    if value.dim() != 4 or value.shape[0] != inputs.shape[0] or not value.numel():
        raise ValueError(
            f"transform {name} returned shape {tuple(value.shape)} for {tuple(inputs.shape)}; {expectation}."
        )
    if value.device != inputs.device:
        raise ValueError(f"transform {name} returned a tensor on {value.device}; {expectation}.")
    if requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            f"transform {name} returned a tensor without a gradient to its input (it detaches it, runs under "
            "torch.no_grad(), or computes with NumPy); compute the result from the input with PyTorch operations."
        )
    return value.to(inputs.dtype)


def _name(transform: Any) -> str:
    return str(getattr(transform, "__qualname__", type(transform).__qualname__)).replace("<locals>.", "")


def _maps(linear: Tensor, shift: Tensor) -> Tensor:
    maps = torch.eye(3).repeat(len(shift), 1, 1)
    maps[:, :2, :2], maps[:, :2, 2] = linear, shift
    return maps


def _oversample_factor(maps: Tensor, canvas: Size, out: Size) -> int:
    """Return how many image pixels a view pixel covers along x or y, at most, rounded up if more than .25 above."""
    extent = maps[:, :2, :2].abs().amax(0).sum(1)  # of the views along x and y, as fractions of the image
    ratio = max(float(extent[0]) * canvas[1] / out[1], float(extent[1]) * canvas[0] / out[0])
    return max(1, math.ceil(ratio - 0.25))
