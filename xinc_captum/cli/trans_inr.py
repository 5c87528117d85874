"""Command and page."""

import json
import time
from pathlib import Path
from typing import Any

import torch
import typer
from matplotlib.figure import Figure

from .. import inr, store
from ..visualizers import network_sheet, neurons_across, patch_sheet, route_sheet, token_sheet
from ..visualizers.report import Picture, Section, Table, write_report
from .errors import UsageError, device_called
from .photos import small_called
from .recorded import recorded
from .trans_inr_results import FIT, LONG, N_STEPS, Story, explained, masks_of, story_of, telling, written_called

DPI = 110
LEARNT = 3.0  # decibels above the mean picture, where squared errors are half of its
NETWORKS, ARRAYS = "networks", "contributions.safetensors"


def write_page(folder: Path, story: Story) -> None:
    """Pictures, networks, arrays and ``index.html`` into ``folder``."""
    written, model = story.written, story.written.model
    _networks(folder, story)
    _arrays(folder, story)
    write_report(
        folder,
        title=f"Pictures of {story.title}, and the networks that were written for them",
        lead="A transformer looked at each picture once and wrote the weights of a small network that draws it; "
        f"nothing was fitted to the picture. It does so through {len(model.writer.tokens)} tokens, each of which sends "
        "the message that shapes the weights of a few neurons. Below: how well the networks draw, and which token, and "
        f"which patch of the picture that was read, painted what.{_doubt(story)}",
        facts={
            "model": written.name,
            "pictures": f"{len(written.images):,}, {' x '.join(map(str, story.shown.shape[1:]))}",
            "transformer": f"{sum(p.numel() for p in model.parameters()):,} parameters",
            "each picture's network": f"{sum(p.numel() for p in story.networks[0].parameters()):,} parameters",
            "weight tokens": f"{len(model.writer.tokens)} in {len(model.writer.rows)} layers",
            **({} if written.fit is None else {"fitted here": f"{written.fit.steps:,} steps"}),
        },
        sections=[_pictures(folder, story), _tokens(folder, story), _patches(folder, story), _neurons(folder, story)],
        foot=f"Made by xinc-captum. {NETWORKS}/0.safetensors is the first shown picture's own network, a plain module: "
        f'model, size = xinc_captum.inr.load("{NETWORKS}/0.safetensors"), and '
        "model(xinc_captum.inr.pixel_centres(size)).T.reshape(-1, *size) is the picture that it draws. "
        f"{ARRAYS} holds all parts as tensors; manifest.json holds the command, versions, seed, checksums and every "
        "figure of this page.",
    )


def _doubt(story: Story) -> str:
    """What to think of the rest where the networks draw hardly better than the mean picture."""
    (mean, _), (own, _), *_ = story.decibels.values()
    if own - mean >= LEARNT:
        return ""
    return (
        f" These networks draw only {own - mean:.1f} dB better than the mean picture: the model has learnt little of "
        "single pictures, and what follows is about that little. More --steps or more pictures may help."
    )


def _pictures(folder: Path, story: Story) -> Section:
    shown = _saved(
        folder,
        "written.png",
        network_sheet(story.shown, story.drawn),
        "What each picture's own network draws, straight from the transformer and after a few steps of training on "
        "that one picture; last, the same steps from random weights.",
    )
    lines = tuple((name, f"{dB:.1f}", f"{count:,}") for name, (dB, count) in story.decibels.items())
    table = Table(
        ("", "decibels (PSNR)", "pictures"),
        lines,
        f"The mean of each picture's own, unclamped. The {len(story.written.images):,} pictures: {story.written.words}."
        " The mean picture is what a model that learned nothing of single pictures would draw.",
    )
    return Section("What the written networks draw", (shown,), table)


def _tokens(folder: Path, story: Story) -> Section:
    model, images = story.written.model, explained(story)
    rows = model.writer.rows[model.writer.layer_index(story.layer)]
    hidden = model.config["hidden"]
    kept = story.token.values
    names = [f"token {t}" for t in range(rows)]
    each = ", ".join(str(j) for j in range(1, hidden, rows))
    changed = _saved(
        folder,
        "modulation.png",
        token_sheet(story.modulation.values, images, names=story.written.model.writer.token_names, rest="all mean"),
        "What each token's message changed, against its mean message over many pictures (last column: what the network "
        f"of mean messages draws); the largest have a column. Integrated along {N_STEPS} steps; the parts miss "
        f"{story.modulation.gap:.2%} of the change.",
    )
    painted = _saved(
        folder,
        "token.png",
        token_sheet(kept, images, names=names, tokens=telling(kept[:, :-1], 6), rest="biases"),
        f"What the neurons of {story.layer} add whose weights each token wrote (token 1 wrote neurons {each}), where "
        "the tokens with a column are those whose paint tells the pictures apart: a reading of the finished networks, "
        f"exact to rounding ({story.token.gap:.5%} of the change is missed).",
    )
    return Section("Which token painted what", (changed, painted))


def _patches(folder: Path, story: Story) -> Section:
    masks, route = masks_of(story), story.route
    few = explained(story)
    touched = _saved(
        folder,
        "patches.png",
        patch_sheet(story.patch.values, few[: len(story.patch.values)], masks, top=6, rest="the mean"),
        "What was drawn differently because these patches of the picture are as they are and not as in the mean "
        f"picture (last column); also outside of their outlines. {N_STEPS} steps; the parts miss {story.patch.gap:.2%}"
        " of the change.",
    )
    ways = _saved(
        folder,
        "route.png",
        route_sheet(route.values, few[0], masks[list(route.patches)], names=story.written.model.writer.token_names),
        "The strongest patches of the first picture again, each one's change split by the token that carried it from "
        f"the patch to the pixels; the columns miss {route.gap:.5%} of the second. Attention is not shown: it says "
        "where a token looked, not what came of it.",
    )
    return Section("Which patch of the picture was painted through which token", (touched, ways))


def _neurons(folder: Path, story: Story) -> Section:
    pictures = (
        _saved(
            folder,
            "neurons.png",
            neurons_across(story.neurons, story.shown, telling(story.neurons, 5)),
            f"Neurons of {story.layer} that paint much, and something else in every picture, in each picture's own "
            "network. Neuron i is written by the same token from the same base weights each time, so it can be "
            "followed from picture to picture.",
        ),
    )
    if not story.found:
        return Section("The same neuron in every network", pictures)
    lines = tuple((name, f"{one.retrieval:.3f}", f"{one.same:+.2f}") for name, one in story.found.items())
    chance = next(iter(story.found.values())).chance
    table = Table(
        ("", "found again", "cosine of the same"),
        lines,
        f"Found again: how often a neuron of {story.layer}, looked for by what it paints in another picture's network, "
        f"is the one of the same number (guessing: {chance:.3f}). Random starts, {LONG} steps: networks trained one by "
        "one, whose numbers mean nothing. Written before any fit: how much of it the shared base weights alone bring; "
        "where that row is as high, the correspondence is built in and was not learnt.",
    )
    return Section("The same neuron in every network", pictures, table)


def _networks(folder: Path, story: Story) -> None:
    (folder / NETWORKS).mkdir()
    size = (story.shown.shape[2], story.shown.shape[3])
    for i, network in enumerate(story.networks):
        inr.save(network, folder / NETWORKS / f"{i}.safetensors", size=size)


def _arrays(folder: Path, story: Story) -> None:
    arrays = {
        "pictures": story.shown,
        "drawn": next(iter(story.drawn.values()))[0],
        "token": story.token.values,
        "modulation": story.modulation.values,
        "patch": story.patch.values,
        "route": story.route.values,
        "route_patches": torch.tensor(story.route.patches),
        "neurons": story.neurons,
    }
    store.write_tensors(folder / ARRAYS, arrays, kind="contributions")


def _saved(folder: Path, file: str, figure: Figure, caption: str) -> Picture:
    figure.savefig(folder / file, dpi=DPI, metadata={"Software": None})
    return Picture(file, caption)


MODEL = "model.safetensors"


@recorded("transinr", "sources", "model")
def trans_inr_command(
    sources: list[str],
    out: Path,
    model: str | None,
    size: int | None,
    patch: int | None,
    steps: int | None,
    seed: int,
    device: str,
) -> None:
    """Everything ``xinc transinr`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    place_ = device_called(device)
    if size is not None and size < 8:
        raise UsageError(f"--size is {size}; expected at least 8 pixels.")
    pictures = small_called(sources, size)
    typer.echo(f"{pictures.name}: {len(pictures.images):,} pictures, {' x '.join(map(str, pictures.images.shape[1:]))}")
    written = written_called(pictures, model, patch, steps, seed, place_)
    story = story_of(written, pictures.name, seed)
    for name, (dB, count) in story.decibels.items():
        typer.echo(f"{name}: {dB:.1f} dB over {count:,} pictures")
    with store.bundle(out, {"pictures": pictures.origin, **noted(story, seed)}) as folder:
        if written.name == FIT:
            written.model.save(folder / MODEL)
        write_page(folder, story)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def noted(story: Story, seed: int) -> dict[str, Any]:
    """Every figure of the page, for the manifest."""
    written = story.written
    return {
        "model": written.name,
        "trans_inr": written.model.config,
        "seed": seed,
        "steps": None if written.fit is None else written.fit.steps,
        "shown": [written.names[row] for row in story.rows],
        "decibels": {name: [round(dB, 3), count] for name, (dB, count) in story.decibels.items()},
        "gaps": {
            "token": story.token.gap,
            "modulation": story.modulation.gap,
            "patch": story.patch.gap,
            "route": story.route.gap,
        },
        "correspondence": {name: one._asdict() for name, one in story.found.items()},
    }
