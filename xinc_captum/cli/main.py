"""The ``xinc`` command."""

import warnings
from typing import Annotated

import typer

from .. import __version__
from .accentuate import accentuate_command
from .canvas import canvas_command
from .counterfactual import counterfactual_command
from .demo import demo_command
from .errors import errors_in_one_line
from .explore import explore_command
from .link import link_command
from .nern import nern_command
from .replay import replay_command
from .sweep import sweep_command
from .trans_inr import trans_inr_command

HELP = (
    "Compute the contribution of neurons and tokens to images, change photos to show what a class or unit responds to, "
    "and generate images for the units of a classifier."
)
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("canvas")(canvas_command)
app.command("accentuate")(accentuate_command)
app.command("link")(link_command)
app.command("sweep")(sweep_command)
app.command("counterfactual")(counterfactual_command)
app.command("nern")(nern_command)
app.command("transinr")(trans_inr_command)
app.command("explore")(explore_command)
app.command("replay")(replay_command)
app.command("demo")(demo_command)


def _version(print_it: bool) -> None:
    if print_it:
        typer.echo(f"xinc-captum {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a foreseeable failure prints one line on standard error and exits with status 1."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")  # torch itself calls it for derivatives
    with errors_in_one_line():
        app()
