"""The pictures by which a unit of a link is judged, which are many more than those that are shown."""

from dataclasses import dataclass, replace

from torch import Tensor

from ..attributions.linking.sweep import SweepTrust, UnitSweep
from ..metrics.fidelity import Fidelity
from .ends import Ends
from .starts import drawn

BASES = 32  # with ten, two draws of them often disagree about a unit


def judging(ends: Ends, truncation: float, seed: int) -> Tensor:
    """The pictures in which units of a link are judged, (32, C, H, W): the same for its page and for every sweep.

    Args:
        ends: of the link.
        truncation: of the link.
        seed: of the link.
    """
    return drawn(ends, BASES, truncation, seed + 1)


@dataclass(frozen=True, eq=False)
class Judged:
    """A sweep that is shown, and how faithful it is in the pictures it is judged by.

    Attributes:
        shown: the sweep of the pictures on the page.
        fidelity: of the same sweep of other pictures.
    """

    shown: UnitSweep
    fidelity: Fidelity

    @property
    def trust(self) -> SweepTrust:
        """As of a sweep, by the pictures judged; weak at best where the pictures shown are lost by being linked."""
        return replace(self.shown, fidelity=self.fidelity).trust
