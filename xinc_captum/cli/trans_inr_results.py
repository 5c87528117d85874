"""What it computed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..attributions.trans_inr import TransFit, TransINR, mean_psnr, neuron_canvases, own_starts, patch_masks, tuned
from ..attributions.trans_inr.token_contribution import TokenContribution
from ..batch import chunks
from ..inr import HypoNet, pixel_centres
from ..metrics import Correspondence, correspondence
from .errors import UsageError
from .photos import DIGITS, SmallImages, with_channels

FIT, SHIPPED = "fit", "mnist_trans_inr"
FEWEST = 40  # pictures to fit to; a tenth of them is held out
COARSEST = 8  # patches on the longer side, at most
STEPS = 1000


@dataclass(frozen=True, eq=False)
class ModelAndImages:
    """A model, and pictures to show it.

    Attributes:
        model: on its device.
        name: as it was asked for.
        images: (N, C, H, W), those to look at.
        names: of these.
        words: what they are to the model.
        fit: how the fit went, where one was made here.
    """

    model: TransINR = field(repr=False)
    name: str
    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    description: str
    fit: TransFit | None


def load_or_fit(
    pictures: SmallImages,
    model: str | None,
    patch: int | None,
    steps: int | None,
    seed: int,
    device: torch.device,
) -> ModelAndImages:
    """Find a model or fit one.

    Args:
        pictures: what it shall read.
        model: a file, ``mnist_trans_inr`` or ``fit``; None is the shipped one for the zoo's digits, else ``fit``.
        patch: side of a patch, of a model that is fitted here; None chooses.
        steps: of the fit; None is 1,000.
        seed: of first weights and fit.
        device: where to compute.

    Raises:
        FileNotFoundError: no such file.
        UsageError: a file of something else, pictures that the model does not take, too few to fit to, or options of
            a fit beside a model that is fitted already.
    """
    name = model or (SHIPPED if pictures.name == DIGITS and patch is None and steps is None else FIT)
    test = torch.arange(len(pictures.images)) % 10 == 0
    if name == FIT:
        return _fit(pictures, test, patch, steps or STEPS, seed, device)
    if patch is not None or steps is not None:
        raise UsageError(f"--patch and --steps are of a fit, and {name} is fitted already; leave them out.")
    loaded = load_model(name).to(device)
    images = with_channels(pictures.images, loaded.config["channels"], name).to(device)
    _try(loaded, images, name)
    if name == SHIPPED and pictures.name == DIGITS:
        names = tuple(name for name, out in zip(pictures.names, test.tolist(), strict=True) if out)
        return ModelAndImages(loaded, name, images[test.to(device)], names, "held out when it was fitted", None)
    description = "its file does not say whether it was fitted to them"
    return ModelAndImages(loaded, name, images, pictures.names, description, None)


def load_model(name: str) -> TransINR:
    """The shipped model, or that of a file.

    Raises:
        FileNotFoundError: no such file.
        UsageError: a file of something else.
    """
    if name == SHIPPED and not Path(name).exists():
        return zoo.mnist_trans_inr()
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; expected one that TransINR.save wrote, {SHIPPED}, or {FIT}.")
    try:
        return TransINR.load(name)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from error


def settings_for(size: tuple[int, int], channels: int, patch: int | None) -> dict[str, Any]:
    """Arguments of a TransINR for pictures of ``size``: about 8 x 8 patches, frequencies up to half a cycle a pixel.

    Raises:
        UsageError: a size that no patch tiles into four a side or more, or not the one that is asked for.

    Example:
        >>> settings_for((28, 28), 1, None)["patch"]
        4
    """
    longer, shorter = max(size), min(size)
    good = [p for p in range(2, shorter // 4 + 1) if size[0] % p == 0 and size[1] % p == 0]
    if patch is None and not good:
        raise UsageError(
            f"pictures of {size[0]} x {size[1]} pixels (high x wide) do not tile into square patches, four or more on "
            "a side; say --size 28 or 32 for the middle square of each, in that size."
        )
    chosen = patch or min(good, key=lambda p: (longer // p > COARSEST, abs(longer / p - COARSEST)))
    if size[0] % chosen or size[1] % chosen:
        sides = f"; choose among {', '.join(map(str, good))}" if good else ""
        raise UsageError(
            f"pictures of {size[0]} x {size[1]} pixels do not tile into patches of --patch {chosen}{sides}."
        )
    small = longer <= 12
    return {
        "channels": channels,
        "size": size,
        "patch": chosen,
        "dim": 48 if small else 64,
        "count": 4 if small else 8,
        "highest": longer / 2,
        "groups": 16,
    }


def _fit(
    pictures: SmallImages, test: Tensor, patch: int | None, steps: int, seed: int, device: torch.device
) -> ModelAndImages:
    count = len(pictures.images)
    if count < FEWEST:
        raise UsageError(
            f"{count} picture{'s' * (count != 1)} to fit to, of which a tenth is held out; expected at least {FEWEST}, "
            f"better thousands, or a --model that is fitted already (such as {SHIPPED}, for digits)."
        )
    arguments = settings_for(pictures.size, pictures.images.shape[1], patch)
    model = TransINR(**arguments, seed=seed).to(device)
    fit = model.fit(pictures.images[~test].to(device), validation=None, steps=steps, lr=3e-3, seed=seed)
    names = tuple(name for name, out in zip(pictures.names, test.tolist(), strict=True) if out)
    description = f"held out: every tenth of {count:,}, looked at after the fit only"
    return ModelAndImages(model, FIT, pictures.images[test].to(device), names, description, fit)


def _try(model: TransINR, images: Tensor, name: str) -> None:
    try:
        with torch.no_grad():
            model(images[:1])
    except ValueError as error:
        raise UsageError(f"{name} does not take these pictures: {error}") from error


MAX_IMAGES, EXPLAINED, PATCHED, ROUTED = 8, 4, 1, 3  # pictures shown, taken apart, and by patches; patches followed
N_STEPS = 16  # of integrated parts; the page says what they miss
SCRATCH, WARM = 1e-2, 3e-3  # rates of Adam from random weights, and after generation
MORE, LONG = 10, 100  # steps
UNFITTED = 99  # seed of the model that saw nothing


@dataclass(frozen=True, eq=False)
class Contributions:
    """Parts of tokens or patches in what is drawn: (pictures, entries + 1, C, H, W), and what they miss."""

    values: Tensor = field(repr=False)
    gap: float


@dataclass(frozen=True, eq=False)
class Route:
    """From some patches of one picture over tokens to pixels: (patches, tokens, C, H, W)."""

    patches: tuple[int, ...]
    values: Tensor = field(repr=False)
    gap: float


@dataclass(frozen=True, eq=False)
class TransINRResults:
    """Everything that the page shows.

    Attributes:
        title: what the pictures are called.
        written: the model and its pictures.
        rows: those shown, by number.
        shown: (n, C, H, W), the shown pictures.
        networks: theirs.
        drawn: by name of a kind of network, the shown pictures as drawn and each one's decibels.
        decibels: by name, the mean over how many pictures.
        token: parts of the last hidden layer's tokens.
        modulation: parts of all layers' tokens.
        patch: parts of patches.
        route: of the first picture.
        neurons: what each neuron of the last hidden layer adds to the shown pictures.
        found: by name of a kind of network, how well its neurons correspond.
    """

    title: str
    source: ModelAndImages
    rows: tuple[int, ...]
    images: Tensor = field(repr=False)
    networks: list[HypoNet] = field(repr=False)
    rendered: dict[str, tuple[Tensor, list[float]]] = field(repr=False)
    decibels: dict[str, tuple[float, int]]
    token: Contributions
    modulation: Contributions
    patch: Contributions
    route: Route
    neurons: Tensor = field(repr=False)
    correspondences: dict[str, Correspondence]

    @property
    def layer(self) -> str:
        """The last hidden layer, whose tokens and neurons are looked at."""
        names: tuple[str, ...] = self.source.model.writer.names
        return names[max(len(names) - 2, 0)]


def compute_results(source: ModelAndImages, title: str, seed: int) -> TransINRResults:
    """Draw, tune, take apart and compare."""
    model, all_images = source.model, source.images
    rows = _spread(len(all_images), MAX_IMAGES)
    images = all_images[rows]
    networks = model.generate(images)
    further = tuned(networks, images, MORE, WARM).inrs
    begun = own_starts(model, len(images), seed=seed)
    scratch, long = (tuned(begun, images, steps, SCRATCH).inrs for steps in (MORE, LONG))
    size = (images.shape[2], images.shape[3])
    kinds = {
        "as drawn by the written network": networks,
        f"after {MORE} more steps": further,
        f"{MORE} steps from random weights": scratch,
    }
    rendered = {}
    for name, inrs in kinds.items():
        rendered_images = torch.stack([render_image(inr, size) for inr in inrs])
        rendered[name] = (
            rendered_images,
            [mean_psnr(a[None], b[None]) for a, b in zip(rendered_images, images, strict=True)],
        )
    canvases = {
        "written by the transformer": networks,
        f"random starts, {LONG} steps each": long,
        "written before any fit": TransINR(**model.config, seed=UNFITTED).to(images).generate(images),
    }
    layer = max(len(model.writer.names) - 2, 0)
    with torch.no_grad():
        neurons = {name: neuron_canvases(inrs, size, layer) for name, inrs in canvases.items()}
    few = images[_spread(len(images), EXPLAINED)]
    patch = _parts(model, "patch", few[:PATCHED])
    return TransINRResults(
        title,
        source,
        tuple(rows),
        images,
        networks,
        rendered,
        _decibels(model, all_images) | {name: (_mean(dB), len(dB)) for name, (_, dB) in list(rendered.items())[1:]},
        _parts(model, "token", few),
        _parts(model, "modulation", few),
        patch,
        _route(model, few[:1], patch.values[0]),
        neurons["written by the transformer"],
        {name: correspondence(maps) for name, maps in neurons.items()} if len(images) > 1 else {},
    )


def render_image(inr: HypoNet, size: tuple[int, int]) -> Tensor:
    """What a network draws, (C, H, W)."""
    like = next(inr.parameters())
    with torch.no_grad():
        values: Tensor = inr(pixel_centres(size, dtype=like.dtype, device=like.device))
    return values.mT.reshape(-1, *size)


def images_to_explain(results: TransINRResults) -> Tensor:
    """The pictures that are taken apart."""
    return results.images[_spread(len(results.images), EXPLAINED)]


def masks_at_image_size(results: TransINRResults) -> Tensor:
    """Where each patch lies, (patches, H, W)."""
    return patch_masks(results.source.model, (results.images.shape[2], results.images.shape[3]))


def most_distinct(maps: Tensor, count: int) -> list[int]:
    """Those of (pictures, entries, …) that paint much and another thing in every picture; of one picture, the largest.

    How much an entry differs from its own mean, times which share that is of all that it paints: a background that is
    the same everywhere is large, and says nothing of a picture.
    """
    away = maps - maps.mean(0) if len(maps) > 1 else maps
    differs, all_ = (x.flatten(2).abs().sum((0, 2)) for x in (away, maps))
    indices: list[int] = (differs.square() / all_.clamp_min(1e-12)).argsort(descending=True)[:count].tolist()
    return indices


def _parts(model: TransINR, level: str, images: Tensor) -> Contributions:
    values: Tensor = TokenContribution(model, level).attribute(images, n_steps=N_STEPS)  # type: ignore[arg-type]
    with torch.no_grad():
        rendered = model(images)
    return Contributions(values, _gap(values.sum(1) - rendered, rendered - values[:, -1]))


def _route(model: TransINR, image: Tensor, patches: Tensor) -> Route:
    """The strongest patches' ways; what their tokens do not add up to is rounding."""
    strongest = patches[:-1].abs().sum((1, 2, 3)).argsort(descending=True)[:ROUTED].tolist()
    values = TokenContribution(model, "patch").composed(image, n_steps=N_STEPS, patches=strongest)[0]
    total = patches[strongest]
    return Route(tuple(strongest), values, _gap(values.sum(1) - total, total))


def _gap(missed: Tensor, change: Tensor) -> float:
    return float(missed.abs().sum() / change.abs().sum().clamp_min(1e-12))


def _decibels(model: TransINR, images: Tensor) -> dict[str, tuple[float, int]]:
    size = (images.shape[2], images.shape[3])
    mean = model.mean_image[None]
    if tuple(mean.shape[2:]) != size:
        mean = torch.nn.functional.interpolate(mean, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        rendered = torch.cat([model(images[a:b]) for a, b in chunks(len(images), 64)])
    count = len(images)
    return {
        "the mean of the pictures it was fitted to": (mean_psnr(mean.expand_as(images), images), count),
        "drawn by the written network": (mean_psnr(rendered, images), count),
    }


def _mean(decibels: list[float]) -> float:
    return sum(decibels) / len(decibels)


def _spread(count: int, number: int) -> list[int]:
    """So many of ``count`` numbers, evenly spaced, the first among them."""
    return torch.linspace(0, count - 1, min(count, number)).round().long().tolist()
