"""``xinc canvas``: photos and videos, each on its own way."""

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from .canvas import Model, RuleName, canvas_command
from .errors import UsageError
from .video import video_command
from .video_files import film_names, is_film
from .video_results import VideoModel

Kind = TypeVar("Kind", Model, VideoModel)


class NetworkName(StrEnum):
    """Networks that the command can fit: two of photos, two of videos."""

    ffn = "ffn"
    siren = "siren"
    nerv = "nerv"
    hnerv = "hnerv"


def paint_command(
    source: str,
    out: Path,
    model: NetworkName | None,
    layers: list[str] | None,
    rule: RuleName,
    longer_side: int | None,
    steps: int | None,
    frames: int | None,
    masks: Path | None,
    seed: int,
    device: str,
) -> None:
    """Tell photos from videos, refuse what only the other kind has, and fill in what was not said.

    Raises:
        FileNotFoundError: nothing of that name.
        UsageError: a network, or an option, of the other kind.
    """
    if is_film(source):
        named = None if model is None else _among(VideoModel, model, "a video")
        if frames is not None and frames < 2:
            raise UsageError(f"--frames is {frames}; expected at least 2. A single frame is a photo.")
        video_command(source, out, named, layers, rule, longer_side, steps, frames or 24, masks, seed, device)
        return
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"{source} is not a file; expected a photo (PNG, JPEG, TIFF, WebP …), a video (MP4, WebM …), a folder of "
            f"frames, or a video of the zoo: {', '.join(film_names())}."
        )
    if frames is not None or masks is not None:
        raise UsageError(f"--frames and --masks are for videos, and {source} is taken for a photo; leave them out.")
    photo_model = Model.ffn if model is None else _among(Model, model, "a photo")
    canvas_command(Path(source), out, photo_model, layers, rule, longer_side or 192, steps or 1000, seed, device)


def _among(kinds: type[Kind], name: NetworkName, what: str) -> Kind:
    if name.value not in [kind.value for kind in kinds]:
        raise UsageError(
            f"--model {name.value} is not for {what}; expected {' or '.join(kind.value for kind in kinds)}."
        )
    return kinds(name.value)
