"""The ``xinc`` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..ascent.settings import Settings
from ..zoo.named import CLASSIFIERS
from .accentuate import accentuate_command
from .canvas import RuleName
from .demo import Part, demo_command
from .failures import FAILURES
from .film import film_names
from .paint import NetworkName, paint_command

app = typer.Typer(
    help="Show what each neuron paints, and what a feature sees in a photo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"xinc-captum {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Show what each neuron paints, and what a feature sees in a photo."""


@app.command()
def canvas(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PHOTO|VIDEO",
            help=f"A photo, a video, a folder of frames, or one of the zoo: {', '.join(film_names())}.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    model: Annotated[
        NetworkName | None, typer.Option(help="Network to fit. Default: ffn to photos, nerv to videos.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer to explain; repeat for several. Default: activations, and the head.")
    ] = None,
    rule: Annotated[RuleName, typer.Option(help="How a neuron's part is carried to the picture.")] = RuleName.secant,
    size: Annotated[
        int | None,
        typer.Option(help="Shrink to so many pixels on the longer side. Default: 192, of videos 96.", min=16),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the fit. Default: 1000, of videos 1500.", min=1)] = None,
    frames: Annotated[int | None, typer.Option(help="At most so many frames of a video. Default: 24.")] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Follow objects: a folder of masks, one a frame, white on black; or one such folder each."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For the network's first weights and the fit.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Fit a network to a photo or a video and draw what its neurons contribute to every pixel."""
    paint_command(source, out, model, layer, rule, size, steps, frames, masks, seed, device)


@app.command()
def accentuate(
    photo: Annotated[
        str, typer.Argument(help="A photo file, or one of the zoo: chelsea, coffee, foolbox:07 …", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    model: Annotated[
        str, typer.Option(help=f"{', '.join(CLASSIFIERS)}, or module:function that returns a network.")
    ] = "efficientnet_lite0",
    target: Annotated[list[str] | None, typer.Option(help="Class to accentuate, by label or number; repeat.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer of the units, by its dotted name.")] = None,
    unit: Annotated[list[int] | None, typer.Option(help="Unit of the layer to accentuate; repeat.")] = None,
    dose: Annotated[
        float | None, typer.Option(help="Stop at this dose: 1 is a natural high, below 0 suppresses. Default: go on.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps, with --dose the most that are made.", min=1)] = Settings.n_steps,
    seed: Annotated[int, typer.Option(help="Of the views.")] = 0,
    size: Annotated[int, typer.Option(help="Shrink the photo to so many pixels on the longer side.", min=16)] = 336,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
    natural: Annotated[
        Path | None, typer.Option(help="Folder of photos for the dose and the verdict. Default: the zoo's.")
    ] = None,
) -> None:
    """Show what classes or units see in PHOTO, beside Grad-CAM, and how far to trust it."""
    accentuate_command(
        photo, out, model, target or [], layer or [], unit or [], dose, steps, seed, size, device, natural
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    only: Annotated[list[Part] | None, typer.Option(help="Run one part; repeat for several. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Run the main jobs on real photos."""
    demo_command(out, only or list(Part), seed)


def main() -> None:
    """Run the command line; a foreseeable failure is one line on standard error and exit status 1."""
    try:
        app()
    except FAILURES as error:
        typer.secho(f"xinc: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
