"""``xinc models`` and ``xinc layers``: names of models, and the layers of one."""

from typing import Annotated

import typer
from typer import Argument, Option

from ..models import describe, list_layers, list_models
from ..models.sources import SOURCES
from .command import Device, UsageError, find_device
from .models import MODEL_HELP, Weights, resolve_model


def models_command(
    text: Annotated[str, Argument(help="Part of a name; case is ignored. Default: all names.")] = "",
) -> None:
    """List the names that --model takes: the zoo, torchvision, timm and open_clip, as far as they are installed."""
    names = list_models(text)
    if not names:
        raise UsageError(f"no model of the zoo and the installed libraries has {text!r} in its name; give less of it.")
    typer.echo("\n".join(names))


def layers_command(
    model: Annotated[str, Argument(help=MODEL_HELP, show_default=False)],
    size: Annotated[int | None, Option(help="Height and width of the image. Default: the model's.", min=1)] = None,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Describe a model, and list its layers with their classes and output shapes for one image.

    Layers do not depend on the weights: without --weights, those of a library are not downloaded.
    """
    if weights is None and model.partition(":")[0] in SOURCES:
        weights = "random"
    loaded = resolve_model(model, weights, find_device(device), layer=True)
    typer.echo(f"{describe(loaded)}\n")
    rows = list_layers(loaded, size)
    wide, kinds = (max((len(cell) for cell in column), default=0) for column in list(zip(*rows, strict=True))[:2])
    for name, kind, shape in rows:
        typer.echo(f"{name:{wide}}  {kind:{kinds}}  {' x '.join(map(str, shape))}")
