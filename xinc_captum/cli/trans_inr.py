"""``xinc transinr``: model, results, page and command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor
from typer import Argument, Option

from .. import inr, store, zoo
from ..attributions.trans_inr import (
    TransFit,
    TransINR,
    fine_tune,
    independent_inits,
    mean_psnr,
    neuron_canvases,
    patch_masks,
)
from ..attributions.trans_inr.token_contribution import TokenContribution
from ..batch import chunks
from ..inr import HypoNet, pixel_centres
from ..metrics import Correspondence, correspondence
from ..visualizers import network_sheet, neurons_across, patch_sheet, route_sheet, token_sheet
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .inputs import DIGITS, SmallImages, load_small_images, with_channels

FIT, SHIPPED = "fit", "mnist_trans_inr"
FEWEST = 40  # images to fit to; a tenth of them is held out
COARSEST = 8  # maximum number of patches on the longer side
STEPS = 1000


@dataclass(frozen=True, eq=False)
class ModelAndImages:
    """A model on its device, and the images (N, C, H, W) to apply it to."""

    model: TransINR = field(repr=False)
    name: str  # value of the option --model
    images: Tensor = field(repr=False)
    names: tuple[str, ...]  # of the images
    description: str  # whether the model was fitted to them
    fit: TransFit | None  # if this command made one


def load_or_fit(
    small_images: SmallImages, model: str | None, patch: int | None, steps: int | None, seed: int, device: torch.device
) -> ModelAndImages:
    """Load a model of a file or ``mnist_trans_inr``, or ``fit`` one, the default except for the zoo's digits."""
    name = model or (SHIPPED if small_images.name == DIGITS and patch is None and steps is None else FIT)
    test = torch.arange(len(small_images.images)) % 10 == 0
    if name == FIT:
        count, channels, height, width = small_images.images.shape
        if count < FEWEST:
            raise UsageError(
                f"there {'is' if count == 1 else 'are'} {count} image{'s' * (count != 1)} to fit to, of which a tenth "
                f"is held out; expected at least {FEWEST}, preferably thousands, or a fitted --model (such as "
                f"{SHIPPED}, for digits)."
            )
        fitted = TransINR(**settings_for((height, width), channels, patch), seed=seed).to(device)
        train = small_images.images[~test].to(device)
        fit = fitted.fit(train, validation=None, steps=steps or STEPS, lr=3e-3, seed=seed)
        description = f"every tenth of {count:,}, held out from the fit"
        test_images = small_images.images[test].to(device)
        return ModelAndImages(fitted, FIT, test_images, small_images.names[::10], description, fit)
    if patch is not None or steps is not None:
        raise UsageError(f"--patch and --steps are for a fit, and {name} is fitted already; leave them out.")
    loaded = load_model(name).to(device)
    images = with_channels(small_images.images, loaded.config["channels"], name).to(device)
    try:
        with torch.no_grad():
            loaded(images[:1])
    except ValueError as error:
        raise UsageError(f"{name} cannot be applied to these images: {error}") from error
    if name == SHIPPED and small_images.name == DIGITS:
        test_images = images[test.to(device)]
        return ModelAndImages(loaded, name, test_images, small_images.names[::10], "held out from its fit", None)
    description = "whether the model was fitted to them is unknown"
    return ModelAndImages(loaded, name, images, small_images.names, description, None)


def load_model(name: str) -> TransINR:
    """Load the shipped model or that of a file."""
    if name == SHIPPED and not Path(name).exists():
        return zoo.mnist_trans_inr()
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; expected a file of TransINR.save, {SHIPPED}, or {FIT}.")
    try:
        return TransINR.load(name)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from error


def settings_for(size: tuple[int, int], channels: int, patch: int | None) -> dict[str, Any]:
    """Return the arguments of a TransINR for images of ``size``: about 8 x 8 patches, up to half a cycle per pixel."""
    longer, shorter = max(size), min(size)
    good = [p for p in range(2, shorter // 4 + 1) if size[0] % p == 0 and size[1] % p == 0]
    if patch is None and not good:
        raise UsageError(
            f"images of {size[0]} x {size[1]} pixels (high x wide) cannot be divided into square patches, four or "
            "more per side; give --size 28 or 32 to crop the central square of each and resize it."
        )
    chosen = patch or min(good, key=lambda p: (longer // p > COARSEST, abs(longer / p - COARSEST)))
    if size[0] % chosen or size[1] % chosen:
        sides = f"; give one of {', '.join(map(str, good))}" if good else ""
        raise UsageError(
            f"images of {size[0]} x {size[1]} pixels cannot be divided into patches of --patch {chosen}{sides}."
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


MAX_IMAGES, EXPLAINED, PATCHED = 8, 4, 1  # images shown, explained by tokens, explained by patches
ROUTED = 3  # patches split by tokens
N_STEPS = 16  # of the integration; the page states what it misses
SCRATCH, WARM = 1e-2, 3e-3  # Adam's learning rates from random and from generated weights
MORE, LONG = 10, 100  # steps
UNFITTED = 99  # seed of the unfitted control model


class Contributions(NamedTuple):
    """Contributions of tokens or patches to the output, (images, entries + 1, C, H, W), and the share they miss."""

    values: Tensor
    gap: float


@dataclass(frozen=True, eq=False)
class TransINRResults:
    """Everything that the page shows; ``rendered``, ``decibels`` and ``correspondences`` are by kind of network."""

    title: str  # name of the images
    source: ModelAndImages
    rows: tuple[int, ...]  # indices of the images shown
    images: Tensor = field(repr=False)  # (n, C, H, W), the images shown
    explained: Tensor = field(repr=False)  # those of them that are explained
    networks: list[HypoNet] = field(repr=False)  # generated for the images shown
    rendered: dict[str, tuple[Tensor, list[float]]] = field(repr=False)  # output for the images, and PSNR of each
    decibels: dict[str, tuple[float, int]]  # mean PSNR, and number of images
    token: Contributions  # of the last hidden layer's tokens
    modulation: Contributions  # of all layers' tokens
    patch: Contributions
    route: Contributions  # of some patches of the first image through each token: (patches, tokens, C, H, W)
    route_patches: tuple[int, ...]  # these patches
    neurons: Tensor = field(repr=False)  # contributions of the last hidden layer's neurons to the images shown
    correspondences: dict[str, Correspondence]  # of neurons between images

    @property
    def layer(self) -> str:
        """Name of the last hidden layer, whose tokens and neurons are explained."""
        names: tuple[str, ...] = self.source.model.writer.names
        return names[max(len(names) - 2, 0)]


def compute_results(source: ModelAndImages, title: str, seed: int) -> TransINRResults:
    """Render, fine-tune, explain and compare the generated networks."""
    model, all_images = source.model, source.images
    rows = _spread(len(all_images), MAX_IMAGES)
    images = all_images[rows]
    networks = model.generate(images)
    further = fine_tune(networks, images, MORE, WARM).inrs
    begun = independent_inits(model, len(images), seed=seed)
    scratch, long = (fine_tune(begun, images, steps, SCRATCH).inrs for steps in (MORE, LONG))
    size = (images.shape[2], images.shape[3])
    kinds = {
        "as generated": networks,
        f"after {MORE} more steps": further,
        f"{MORE} steps from random weights": scratch,
    }
    rendered = {}
    for name, inrs in kinds.items():
        outputs = torch.stack([render_image(inr, size) for inr in inrs])
        rendered[name] = outputs, [mean_psnr(a[None], b[None]) for a, b in zip(outputs, images, strict=True)]
    decibels = _decibels(model, all_images)
    decibels |= {name: (sum(dB) / len(dB), len(dB)) for name, (_, dB) in list(rendered.items())[1:]}
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
    route_patches = patch.values[0, :-1].abs().sum((1, 2, 3)).argsort(descending=True)[:ROUTED].tolist()
    return TransINRResults(
        title,
        source,
        tuple(rows),
        images,
        few,
        networks,
        rendered,
        decibels,
        _parts(model, "token", few),
        _parts(model, "modulation", few),
        patch,
        _route(model, few[:1], patch.values[0], route_patches),
        tuple(route_patches),
        neurons["written by the transformer"],
        {name: correspondence(maps) for name, maps in neurons.items()} if len(images) > 1 else {},
    )


def render_image(inr: HypoNet, size: tuple[int, int]) -> Tensor:
    """Return the image that a network outputs, (C, H, W)."""
    like = next(inr.parameters())
    with torch.no_grad():
        values: Tensor = inr(pixel_centres(size, dtype=like.dtype, device=like.device))
    return values.mT.reshape(-1, *size)


def most_distinct(maps: Tensor, count: int) -> list[int]:
    """Return the entries of maps (images, entries, …) that are large and differ most between images.

    The score is d² / m, where d is the deviation of an entry from its mean over the images and m its magnitude, both
    summed: an entry that is the same in all images scores 0. With one image, the largest entries are returned.
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


def _route(model: TransINR, image: Tensor, patches: Tensor, strongest: list[int]) -> Contributions:
    """Return the contributions of the strongest patches by token, which sum to them up to rounding."""
    values = TokenContribution(model, "patch").composed(image, n_steps=N_STEPS, patches=strongest)[0]
    total = patches[strongest]
    return Contributions(values, _gap(values.sum(1) - total, total))


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


def _spread(count: int, number: int) -> list[int]:
    """Return ``number`` evenly spaced indices of ``count``, starting at 0."""
    return torch.linspace(0, count - 1, min(count, number)).round().long().tolist()


LABELS = {  # of the page, for the names in the manifest
    "the mean of the pictures it was fitted to": "mean of the training images",
    "drawn by the written network": "generated network",
    "written by the transformer": "generated by the transformer",
    "written before any fit": "generated by an untrained transformer",
}
NETWORKS, ARRAYS = "networks", "contributions.safetensors"


def write_page(folder: Path, results: TransINRResults) -> None:
    """Write figures, networks, arrays and ``index.html`` into ``folder``."""
    source, model = results.source, results.source.model
    (folder / NETWORKS).mkdir()
    for i, network in enumerate(results.networks):
        inr.save(
            network, folder / NETWORKS / f"{i}.safetensors", size=(results.images.shape[2], results.images.shape[3])
        )
    _arrays(folder, results)
    write_report(
        folder,
        title=f"Images of {results.title}, and the networks generated for them",
        lead="A transformer maps each image to the weights of a small network that outputs the image; nothing was "
        f"fitted to the image. Each of its {len(model.writer.tokens)} weight tokens modulates the weights of a few "
        "neurons. Below: how well the networks reconstruct the images, and the contribution of each token and of each "
        f"patch of the input image.{_doubt(results)}",
        facts={
            "model": source.name,
            "images": f"{len(source.images):,}, {' x '.join(map(str, results.images.shape[1:]))}",
            "transformer": f"{sum(p.numel() for p in model.parameters()):,} parameters",
            "network of each image": f"{sum(p.numel() for p in results.networks[0].parameters()):,} parameters",
            "weight tokens": f"{len(model.writer.tokens)} in {len(model.writer.rows)} layers",
            **({} if source.fit is None else {"fit": f"{source.fit.steps:,} steps"}),
        },
        sections=[
            _pictures(folder, results),
            _tokens(folder, results),
            _patches(folder, results),
            _neurons(folder, results),
        ],
        foot=f"Made by xinc-captum. {NETWORKS}/0.safetensors holds the network of the first image shown, a module: "
        f'model, size = xinc_captum.inr.load("{NETWORKS}/0.safetensors"), and '
        f"model(xinc_captum.inr.pixel_centres(size)).T.reshape(-1, *size) is its image. {ARRAYS} holds all "
        "contributions as tensors; manifest.json the command, versions, seed, checksums and all numbers of this page.",
    )


def _doubt(results: TransINRResults) -> str:
    """Return a warning if the networks are hardly better than the mean image; else nothing."""
    (mean, _), (written, _), *_ = results.decibels.values()
    if written - mean >= 3.0:  # dB, where squared errors are half as large
        return ""
    return (
        f" These networks are only {written - mean:.1f} dB better than the mean image: the model has learnt little "
        "about single images, so the contributions below say little. More --steps or more images may help."
    )


def _pictures(folder: Path, results: TransINRResults) -> Section:
    sheet = save_picture(
        folder,
        "written.png",
        network_sheet(results.images, results.rendered),
        "The output of each image's network, as generated by the transformer and after a few training steps on that "
        "image; last, after the same steps from random weights.",
    )
    lines = tuple((LABELS.get(name, name), f"{dB:.1f}", f"{count:,}") for name, (dB, count) in results.decibels.items())
    table = Table(
        ("", "PSNR in dB", "images"),
        lines,
        f"Mean PSNR of single images, unclamped. The {len(results.source.images):,} images: "
        f"{results.source.description}. The mean image is what a model that ignores its "
        "input would output.",
    )
    return Section("Output of the generated networks", (sheet,), table)


def _tokens(folder: Path, results: TransINRResults) -> Section:
    model, images = results.source.model, results.explained
    rows = model.writer.rows[model.writer.layer_index(results.layer)]
    hidden = model.config["hidden"]
    values = results.token.values
    names = [f"token {t}" for t in range(rows)]
    each = ", ".join(str(j) for j in range(1, hidden, rows))
    modulations = save_picture(
        folder,
        "modulation.png",
        token_sheet(results.modulation.values, images, names=model.writer.token_names, rest="all mean"),
        "Contribution of each token's modulation, relative to its mean over many images (last column: output of the "
        f"network with mean modulations); the largest have a column. Integrated along {N_STEPS} steps; the "
        f"contributions miss {results.modulation.gap:.2%} of the change.",
    )
    tokens = save_picture(
        folder,
        "token.png",
        token_sheet(values, images, names=names, tokens=most_distinct(values[:, :-1], 6), rest="biases"),
        f"Contribution of the neurons of {results.layer} whose weights each token modulates (token 1: neurons "
        f"{each}). The tokens that differ most between images have a column. Computed in the generated networks, "
        f"exact to rounding ({results.token.gap:.5%} of the change is missed).",
    )
    return Section("Contributions of tokens", (modulations, tokens))


def _patches(folder: Path, results: TransINRResults) -> Section:
    model, few, route = results.source.model, results.explained, results.route
    masks = patch_masks(model, (results.images.shape[2], results.images.shape[3]))
    patches = save_picture(
        folder,
        "patches.png",
        patch_sheet(results.patch.values, few[: len(results.patch.values)], masks, top=6, rest="the mean"),
        "Contribution of these patches of the input, relative to the mean image (last column); it can lie outside "
        f"the outlines. {N_STEPS} steps; the contributions miss {results.patch.gap:.2%} of the change.",
    )
    routes = save_picture(
        folder,
        "route.png",
        route_sheet(route.values, few[0], masks[list(results.route_patches)], names=model.writer.token_names),
        "The strongest patches of the first image again, with their contribution split by the token between patch and "
        f"pixels; the columns miss {route.gap:.5%} of the second one. Attention weights are not shown, because they do "
        "not measure contributions.",
    )
    return Section("Contributions of patches through tokens", (patches, routes))


def _neurons(folder: Path, results: TransINRResults) -> Section:
    pictures = (
        save_picture(
            folder,
            "neurons.png",
            neurons_across(results.neurons, results.images, most_distinct(results.neurons, 5)),
            f"Neurons of {results.layer} whose contribution is large and differs between images, in the network of "
            "each image. The weights of neuron i always come from the same token and the same base weights, so its "
            "maps can be compared between images.",
        ),
    )
    if not results.correspondences:
        return Section("The same neuron in all networks", pictures)
    lines = tuple(
        (LABELS.get(name, name), f"{one.retrieval:.3f}", f"{one.same:+.2f}")
        for name, one in results.correspondences.items()
    )
    chance = next(iter(results.correspondences.values())).chance
    table = Table(
        ("", "retrieval", "cosine of the same neuron"),
        lines,
        f"Retrieval: how often the neuron of {results.layer} with the most similar map in another image's network has "
        f"the same number (chance: {chance:.3f}). Random starts, {LONG} steps: networks trained separately, so "
        "equal neuron numbers do not correspond. Generated by an untrained transformer: the correspondence due to the "
        "shared base weights alone. If that row is as high, the correspondence was not learnt.",
    )
    return Section("The same neuron in all networks", pictures, table)


def _arrays(folder: Path, results: TransINRResults) -> None:
    arrays = {
        "pictures": results.images,
        "drawn": next(iter(results.rendered.values()))[0],
        "token": results.token.values,
        "modulation": results.modulation.values,
        "patch": results.patch.values,
        "route": results.route.values,
        "route_patches": torch.tensor(results.route_patches),
        "neurons": results.neurons,
    }
    store.write_tensors(folder / ARRAYS, arrays, kind="contributions")


@record_settings("transinr", "images", "model")
def trans_inr_command(
    images: Annotated[list[str], Argument(help="Small images: files, folders, or mnist_digits.", show_default=False)],
    out: Out,
    model: Annotated[
        str | None,
        Option(
            help=f"A file of TransINR.save, {SHIPPED}, or fit, which fits one to nine tenths of the images. "
            f"Default: {SHIPPED} for mnist_digits, else fit."
        ),
    ] = None,
    size: Annotated[
        int | None, Option(help="Crop the central square of each image and resize it to this many pixels.")
    ] = None,
    patch: Annotated[
        int | None, Option(help="Side of a patch in pixels, for fit. Default: about 8 x 8 patches.", min=1)
    ] = None,
    steps: Annotated[int | None, Option(help=f"Fitting steps. Default: {STEPS}.", min=1)] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Generate a network for each of some small images, and show the contribution of each token and patch."""
    torch_device = find_device(device)
    if size is not None and size < 8:
        raise UsageError(f"--size is {size}; expected at least 8 pixels.")
    small_images = load_small_images(images, size)
    shape = " x ".join(map(str, small_images.images.shape[1:]))
    typer.echo(f"{small_images.name}: {len(small_images.images):,} images, {shape}")
    source = load_or_fit(small_images, model, patch, steps, seed, torch_device)
    results = compute_results(source, small_images.name, seed)
    for name, (dB, count) in results.decibels.items():
        typer.echo(f"{LABELS.get(name, name)}: {dB:.1f} dB over {count:,} images")
    note = {
        "pictures": small_images.origin,
        "model": source.name,
        "trans_inr": source.model.config,
        "seed": seed,
        "steps": None if source.fit is None else source.fit.steps,
        "shown": [source.names[row] for row in results.rows],
        "decibels": {name: [round(dB, 3), count] for name, (dB, count) in results.decibels.items()},
        "gaps": {name: getattr(results, name).gap for name in ("token", "modulation", "patch", "route")},
        "correspondence": {name: one._asdict() for name, one in results.correspondences.items()},
    }
    with result_folder(out, note) as folder:
        if source.name == FIT:
            source.model.save(folder / "model.safetensors")
        write_page(folder, results)
