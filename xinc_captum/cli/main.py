"""The ``xinc`` command."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..attributions.accentuation.settings import Settings
from ..zoo.classifiers import CLASSIFIERS
from .accentuate import accentuate_command
from .canvas import RuleName
from .counterfactual import Method, counterfactual_command
from .demo import Part, demo_command
from .errors import failures_in_one_line
from .explore import explore_command
from .link import Variant, link_command
from .models import GENERATORS, MODELS
from .nern import HIDDEN, nern_command
from .nern import STEPS as NERN_STEPS
from .paint import NetworkName, paint_command
from .replay import replay_command
from .sweep import Mode, Span, Way, sweep_command
from .trans_inr import trans_inr_command
from .trans_inr_results import SHIPPED, STEPS
from .video_files import film_names

Seed = Annotated[int, typer.Option(help="Random seed.", min=-(2**63), max=2**63 - 1)]  # what torch takes

app = typer.Typer(
    help="Show what each neuron paints, what a feature sees in a photo, and what a unit means to a generator.",
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
    """Show what each neuron paints, what a feature sees in a photo, and what a unit means to a generator."""


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
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Fit a network to a photo or a video and draw what its neurons contribute to every pixel.

    Of a video, small maps of every unit are kept for xinc explore, about 4 MB. Of a photo, all maps are kept anyway.
    """
    paint_command(source, out, model, layer, rule, size, steps, frames, masks, seed, device)


@app.command()
def accentuate(
    photo: Annotated[
        str, typer.Argument(help="A photo file, or one of the zoo: chelsea, coffee, foolbox:07 …", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    model: Annotated[
        str, typer.Option(help=f"{', '.join(CLASSIFIERS)}, or module:function: a network, or a zoo.Classifier.")
    ] = "efficientnet_lite0",
    target: Annotated[list[str] | None, typer.Option(help="Class to accentuate, by label or number; repeat.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer of the units, by its dotted name.")] = None,
    unit: Annotated[list[int] | None, typer.Option(help="Unit of the layer to accentuate; repeat.")] = None,
    dose: Annotated[
        float | None, typer.Option(help="Stop at this dose: 1 is a natural high, below 0 suppresses. Default: go on.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps, with --dose the most that are made.", min=1)] = Settings.n_steps,
    seed: Seed = 0,
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
def link(
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    model: Annotated[
        str, typer.Option(help=f"{', '.join(MODELS)}, or module:function that returns a network.")
    ] = "mnist_convnet",
    generator: Annotated[
        str, typer.Option(help=f"{', '.join(GENERATORS)}, or module:function that returns a generator.")
    ] = "mnist_generator",
    layer: Annotated[
        str | None, typer.Option(help="Layer whose input is linked, by its dotted name. Default: the last linear one.")
    ] = None,
    variant: Annotated[Variant, typer.Option(help="Form of the link.")] = Variant.linear,
    pairs: Annotated[
        int, typer.Option(help="Pictures to link, three a class or more; a fifth is held out.", min=20)
    ] = 3000,
    truncation: Annotated[float, typer.Option(help="How far pictures may be from the mean of their class.")] = 0.7,
    real: Annotated[
        str | None, typer.Option(help="Real pictures to try the link on: a folder, or mnist_digits.")
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Link a classifier's layer to a generator, audit the link, and show what units mean."""
    link_command(out, model, generator, layer, variant, pairs, truncation, real, seed, device)


@app.command()
def sweep(
    folder: Annotated[Path, typer.Argument(help="What xinc link wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    unit: Annotated[list[int] | None, typer.Option(help="Unit to set; repeat for several.")] = None,
    photo: Annotated[
        list[Path] | None, typer.Option(help="Picture to start from; repeat. Default: drawn ones.")
    ] = None,
    span: Annotated[Span, typer.Option(help="From where to where, by what the link has seen.")] = Span.quantile,
    direction: Annotated[
        Way, typer.Option(help="marginal: as units vary together; partial: the others held, the paper's way.")
    ] = Way.marginal,
    mode: Annotated[
        Mode, typer.Option(help="anchored: from the picture's own value; replace: the paper's way.")
    ] = Mode.anchored,
    steps: Annotated[int, typer.Option(help="Values of the unit.", min=2)] = 6,
    count: Annotated[int, typer.Option(help="Pictures to draw where no --photo is given.", min=1)] = 5,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Draw pictures at several values of a unit, and say whether the unit followed."""
    sweep_command(folder, out, unit or [], photo or [], span, direction, mode, steps, count, seed, device)


@app.command()
def counterfactual(
    folder: Annotated[Path, typer.Argument(help="What xinc link wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    target: Annotated[str, typer.Option(help="Class to reach, by label or number.")],
    photo: Annotated[
        list[Path] | None, typer.Option(help="Picture to start from; repeat. Default: drawn ones.")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="ray: a line search; latent: through both networks; linking_in_style: the paper's.")
    ] = Method.ray,
    confidence: Annotated[
        float, typer.Option(help="Go on until the target has this probability; 0: until it is the answer.")
    ] = 0.0,
    count: Annotated[int, typer.Option(help="Pictures to draw where no --photo is given.", min=1)] = 6,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Show what would have to change in pictures for another answer."""
    counterfactual_command(folder, out, target, photo or [], method, confidence, count, seed, device)


@app.command()
def nern(
    model: Annotated[
        str,
        typer.Argument(
            help=f"A classifier of the zoo ({', '.join(MODELS)}), or module:function.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
    pictures: Annotated[
        str, typer.Option(help=f"What to fit on: noise, or a generator: {', '.join(GENERATORS)}, module:function.")
    ] = "noise",
    layer: Annotated[list[str] | None, typer.Option(help="Convolution to write; repeat. Default: all.")] = None,
    hidden: Annotated[
        int | None, typer.Option(help=f"Units of the small network's hidden layers. Default: {HIDDEN}.", min=1)
    ] = None,
    steps: Annotated[int | None, typer.Option(help=f"Steps of training. Default: {NERN_STEPS}.", min=1)] = None,
    fitted: Annotated[
        str | None,
        typer.Option("--nern", help="One that is fitted already: a file of NeRN.save, or mnist_nern of mnist_convnet."),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Let a small network write a classifier's convolutions, and show what each of its neurons wrote."""
    nern_command(model, out, pictures, layer or [], hidden, steps, seed, device, fitted)


@app.command()
def transinr(
    images: Annotated[
        list[str],
        typer.Argument(help="Small pictures: files, folders, or mnist_digits.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; new, empty, or an earlier result.")],
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
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.")] = "auto",
) -> None:
    """Write a network for each of some small pictures, and show which token and which patch painted what in it."""
    trans_inr_command(images, out, model, size, patch, steps, seed, device)


@app.command()
def explore(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            help="What xinc canvas, accentuate, sweep or link wrote, or save of Comparison, Accentuation, UnitSweep.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write. Default: beside RESULT, RESULT.html.", show_default=False)
    ] = None,
) -> None:
    """Write one HTML file in which a reader asks a result: who paints this pixel, what does this unit do.

    It opens from disk in any browser of 2023 or later, and needs no network and no other file. It takes less than
    5 MB, so that it goes by e-mail: the more there is to show, the smaller its maps and pictures, and the page says so.
    """
    explore_command(result, out)


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What an xinc command wrote.", show_default=False)],
) -> None:
    """Compute a result again and compare it array by array; exit status 1 where one differs.

    On the machine that made it, with the same versions, arrays have to be bit-identical. On another machine, floats
    may differ by 0.001 of the largest value of their array.
    """
    if not replay_command(folder):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    only: Annotated[list[Part] | None, typer.Option(help="Run one part; repeat for several. Default: all.")] = None,
    seed: Seed = 0,
) -> None:
    """Run the main jobs on real photos."""
    demo_command(out, only or list(Part), seed)


def main() -> None:
    """Run the command line; a foreseeable failure is one line on standard error and exit status 1."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")  # torch's own, on its way to derivatives
    with failures_in_one_line():
        app()
