"""Command and page."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .. import inr, store
from ..visualizers import neurons_across, patch_sheet, route_sheet, token_sheet, written_sheet
from ..visualizers.report import Section, Table, write_report
from .command import Device, Out, Seed, find_device, record_settings, result_folder, save_picture
from .errors import UsageError
from .photos import load_small_images
from .trans_inr_results import (
    FIT,
    LONG,
    N_STEPS,
    SHIPPED,
    STEPS,
    TransINRResults,
    compute_results,
    images_to_explain,
    load_or_fit,
    masks_at_image_size,
    most_distinct,
)

LEARNT = 3.0  # decibels above the mean picture, where squared errors are half of its
NETWORKS, ARRAYS = "networks", "contributions.safetensors"


def write_page(folder: Path, results: TransINRResults) -> None:
    """Pictures, networks, arrays and ``index.html`` into ``folder``."""
    source, model = results.source, results.source.model
    _networks(folder, results)
    _arrays(folder, results)
    write_report(
        folder,
        title=f"Pictures of {results.title}, and the networks that were written for them",
        lead="A transformer looked at each picture once and wrote the weights of a small network that draws it; "
        f"nothing was fitted to the picture. It does so through {len(model.writer.tokens)} tokens, each of which sends "
        "the message that shapes the weights of a few neurons. Below: how well the networks draw, and which token, and "
        f"which patch of the picture that was read, painted what.{_doubt(results)}",
        facts={
            "model": source.name,
            "pictures": f"{len(source.images):,}, {' x '.join(map(str, results.images.shape[1:]))}",
            "transformer": f"{sum(p.numel() for p in model.parameters()):,} parameters",
            "each picture's network": f"{sum(p.numel() for p in results.networks[0].parameters()):,} parameters",
            "weight tokens": f"{len(model.writer.tokens)} in {len(model.writer.rows)} layers",
            **({} if source.fit is None else {"fitted here": f"{source.fit.steps:,} steps"}),
        },
        sections=[
            _pictures(folder, results),
            _tokens(folder, results),
            _patches(folder, results),
            _neurons(folder, results),
        ],
        foot=f"Made by xinc-captum. {NETWORKS}/0.safetensors is the first shown picture's own network, a plain module: "
        f'model, size = xinc_captum.inr.load("{NETWORKS}/0.safetensors"), and '
        "model(xinc_captum.inr.pixel_centres(size)).T.reshape(-1, *size) is the picture that it draws. "
        f"{ARRAYS} holds all parts as tensors; manifest.json holds the command, versions, seed, checksums and every "
        "figure of this page.",
    )


def _doubt(results: TransINRResults) -> str:
    """What to think of the rest where the networks draw hardly better than the mean picture."""
    (mean, _), (written, _), *_ = results.decibels.values()
    if written - mean >= LEARNT:
        return ""
    return (
        f" These networks draw only {written - mean:.1f} dB better than the mean picture: the model has learnt "
        "little of "
        "single pictures, and what follows is about that little. More --steps or more pictures may help."
    )


def _pictures(folder: Path, results: TransINRResults) -> Section:
    sheet = save_picture(
        folder,
        "written.png",
        written_sheet(results.images, results.rendered),
        "What each picture's own network draws, straight from the transformer and after a few steps of training on "
        "that one picture; last, the same steps from random weights.",
    )
    lines = tuple((name, f"{dB:.1f}", f"{count:,}") for name, (dB, count) in results.decibels.items())
    table = Table(
        ("", "decibels (PSNR)", "pictures"),
        lines,
        f"The mean of each picture's own, unclamped. The {len(results.source.images):,} pictures: "
        f"{results.source.description}."
        " The mean picture is what a model that learned nothing of single pictures would draw.",
    )
    return Section("What the written networks draw", (sheet,), table)


def _tokens(folder: Path, results: TransINRResults) -> Section:
    model, images = results.source.model, images_to_explain(results)
    rows = model.writer.rows[model.writer.layer_index(results.layer)]
    hidden = model.config["hidden"]
    values = results.token.values
    names = [f"token {t}" for t in range(rows)]
    each = ", ".join(str(j) for j in range(1, hidden, rows))
    modulations = save_picture(
        folder,
        "modulation.png",
        token_sheet(results.modulation.values, images, names=results.source.model.writer.token_names, rest="all mean"),
        "What each token's message changed, against its mean message over many pictures (last column: what the network "
        f"of mean messages draws); the largest have a column. Integrated along {N_STEPS} steps; the parts miss "
        f"{results.modulation.gap:.2%} of the change.",
    )
    tokens = save_picture(
        folder,
        "token.png",
        token_sheet(values, images, names=names, tokens=most_distinct(values[:, :-1], 6), rest="biases"),
        f"What the neurons of {results.layer} add whose weights each token wrote (token 1 wrote neurons {each}), where "
        "the tokens with a column are those whose paint tells the pictures apart: a reading of the finished networks, "
        f"exact to rounding ({results.token.gap:.5%} of the change is missed).",
    )
    return Section("Which token painted what", (modulations, tokens))


def _patches(folder: Path, results: TransINRResults) -> Section:
    masks, route = masks_at_image_size(results), results.route
    few = images_to_explain(results)
    patches = save_picture(
        folder,
        "patches.png",
        patch_sheet(results.patch.values, few[: len(results.patch.values)], masks, top=6, rest="the mean"),
        "What was drawn differently because these patches of the picture are as they are and not as in the mean "
        f"picture (last column); also outside of their outlines. {N_STEPS} steps; the parts miss "
        f"{results.patch.gap:.2%}"
        " of the change.",
    )
    routes = save_picture(
        folder,
        "route.png",
        route_sheet(route.values, few[0], masks[list(route.patches)], names=results.source.model.writer.token_names),
        "The strongest patches of the first picture again, each one's change split by the token that carried it from "
        f"the patch to the pixels; the columns miss {route.gap:.5%} of the second. Attention is not shown: it says "
        "where a token looked, not what came of it.",
    )
    return Section("Which patch of the picture was painted through which token", (patches, routes))


def _neurons(folder: Path, results: TransINRResults) -> Section:
    pictures = (
        save_picture(
            folder,
            "neurons.png",
            neurons_across(results.neurons, results.images, most_distinct(results.neurons, 5)),
            f"Neurons of {results.layer} that paint much, and something else in every picture, in each picture's own "
            "network. Neuron i is written by the same token from the same base weights each time, so it can be "
            "followed from picture to picture.",
        ),
    )
    if not results.correspondences:
        return Section("The same neuron in every network", pictures)
    lines = tuple((name, f"{one.retrieval:.3f}", f"{one.same:+.2f}") for name, one in results.correspondences.items())
    chance = next(iter(results.correspondences.values())).chance
    table = Table(
        ("", "found again", "cosine of the same"),
        lines,
        f"Found again: how often a neuron of {results.layer}, looked for by what it paints in another picture's "
        "network, "
        f"is the one of the same number (guessing: {chance:.3f}). Random starts, {LONG} steps: networks trained one by "
        "one, whose numbers mean nothing. Written before any fit: how much of it the shared base weights alone bring; "
        "where that row is as high, the correspondence is built in and was not learnt.",
    )
    return Section("The same neuron in every network", pictures, table)


def _networks(folder: Path, results: TransINRResults) -> None:
    (folder / NETWORKS).mkdir()
    size = (results.images.shape[2], results.images.shape[3])
    for i, network in enumerate(results.networks):
        inr.save(network, folder / NETWORKS / f"{i}.safetensors", size=size)


def _arrays(folder: Path, results: TransINRResults) -> None:
    arrays = {
        "pictures": results.images,
        "drawn": next(iter(results.rendered.values()))[0],
        "token": results.token.values,
        "modulation": results.modulation.values,
        "patch": results.patch.values,
        "route": results.route.values,
        "route_patches": torch.tensor(results.route.patches),
        "neurons": results.neurons,
    }
    store.write_tensors(folder / ARRAYS, arrays, kind="contributions")


MODEL = "model.safetensors"


@record_settings("transinr", "images", "model")
def trans_inr_command(
    images: Annotated[
        list[str],
        typer.Argument(help="Small pictures: files, folders, or mnist_digits.", show_default=False),
    ],
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"A file of TransINR.save, {SHIPPED}, or fit: fit one to nine tenths of the pictures. "
            f"Default: {SHIPPED} for mnist_digits, else fit."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Take the middle square of each picture at so many pixels. Default: as they are.")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(help="Side of a patch, for a fit. Default: about 8 x 8 patches.", min=1)
    ] = None,
    steps: Annotated[int | None, typer.Option(help=f"Steps of the fit. Default: {STEPS}.", min=1)] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Write a network for each of some small pictures, and show which token and which patch painted what in it."""
    torch_device = find_device(device)
    if size is not None and size < 8:
        raise UsageError(f"--size is {size}; expected at least 8 pixels.")
    small_images = load_small_images(images, size)
    typer.echo(
        f"{small_images.name}: {len(small_images.images):,} pictures, "
        f"{' x '.join(map(str, small_images.images.shape[1:]))}"
    )
    source = load_or_fit(small_images, model, patch, steps, seed, torch_device)
    results = compute_results(source, small_images.name, seed)
    for name, (dB, count) in results.decibels.items():
        typer.echo(f"{name}: {dB:.1f} dB over {count:,} pictures")
    with result_folder(out, {"pictures": small_images.origin, **manifest_note(results, seed)}) as folder:
        if source.name == FIT:
            source.model.save(folder / MODEL)
        write_page(folder, results)


def manifest_note(results: TransINRResults, seed: int) -> dict[str, Any]:
    """Every figure of the page, for the manifest."""
    source = results.source
    return {
        "model": source.name,
        "trans_inr": source.model.config,
        "seed": seed,
        "steps": None if source.fit is None else source.fit.steps,
        "shown": [source.names[row] for row in results.rows],
        "decibels": {name: [round(dB, 3), count] for name, (dB, count) in results.decibels.items()},
        "gaps": {
            "token": results.token.gap,
            "modulation": results.modulation.gap,
            "patch": results.patch.gap,
            "route": results.route.gap,
        },
        "correspondence": {name: one._asdict() for name, one in results.correspondences.items()},
    }
