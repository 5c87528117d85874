"""How much of a start the link keeps: every frame of a sweep is of what the link draws, not of the start itself."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .linked import Linked
from .starts import Starts

FAR = 1.0  # a link that draws the mean of all pictures is as far away


class Kept(NamedTuple):
    """A start beside its reconstruction.

    Attributes:
        name: of the start.
        distance: between what the network makes of both, a root mean square over the live units in their standard
            deviations; 1 is about what the mean of all pictures would have.
        before: the network's answer to the start.
        after: its answer to the reconstruction.
    """

    name: str
    distance: float
    before: str
    after: str

    @property
    def doubt(self) -> str:
        """Why the frames are not of the start, in words; nothing where they may be."""
        if self.distance < FAR and self.before == self.after:
            return ""
        answers = f"{self.after}, not {self.before}" if self.before != self.after else f"{self.after}, as it is"
        return (
            f"{self.name}: the link draws another picture of it, {self.distance:.2f} away and answered {answers}; the "
            "frames are of that picture"
        )

    def to_dict(self) -> dict[str, str | float]:
        """For a manifest."""
        return self._asdict() | {"distance": round(self.distance, 4)}


def kept_of(linked: Linked, starts: Starts) -> list[Kept]:
    """Link every start, draw, and look again."""
    ends, link = linked.ends, linked.link
    encoder = ends.encoder()
    with torch.no_grad():
        r = encoder(starts.pictures.to(ends.device))
        again = encoder.read(ends.draw(link(r, starts.answers)).to(ends.device))
    alive, sd = link.alive, link.r_sd
    away = (again.representations - r).to(sd)[:, alive] / sd[alive]
    found = zip(
        starts.names,
        away.square().mean(1).sqrt().tolist(),
        starts.answers.tolist(),
        again.logits.argmax(1).tolist(),
        strict=True,
    )
    return [Kept(name, far, ends.label(before), ends.label(after)) for name, far, before, after in found]


def said_of(kept: Sequence[Kept]) -> str:
    """How far the starts are from what the link draws of them, in words for a page."""
    far = [one.distance for one in kept]
    said = (
        "The frames are of what the link draws of each picture, not of the picture itself: to the network the two are "
        f"{min(far):.2f} to {max(far):.2f} standard deviations of a unit apart (1: as far as the mean of all pictures)."
    )
    return " ".join([said, *(f"{one.doubt}." for one in kept if one.doubt)])
