"""How far a link can be trusted, in one line."""

from typing import NamedTuple

from .bootstrap import Interval
from .trust import Verdict

WITHIN = 0.4  # of what varies within classes, beyond the control: less, and single units move next to nothing
MARGIN = 0.05  # above the shuffled control
LEAKED = 0.01
GENERATED, REAL, CYCLE = 0.9, 0.7, 0.5
HALF = 0.5  # fewer pictures than this keep their class: the link draws other things


class LinkTrust(NamedTuple):
    """A verdict and its reason.

    Attributes:
        verdict: holds, weak or fails.
        because: what was found, worst first.
    """

    verdict: Verdict
    because: str

    def __str__(self) -> str:
        return f"{self.verdict}, because {self.because}"


def judged_link(
    *,
    r2: Interval,
    r2_within: Interval | None = None,
    shuffled: float | None = None,
    leaked: float = 0.0,
    generated: Interval | None = None,
    real: Interval | None = None,
    cycle: float | None = None,
    classes: int | None = None,
    pairs: int | None = None,
    units: int | None = None,
) -> LinkTrust:
    """Weigh the evidence on a link.

    It *fails* when more than 1 % of the held-out pairs were in the fit, when it explains no more within classes than a
    link of shuffled pairs does (by .05), or when fewer than half of the pictures keep their class. It *holds* when all
    was measured, R² within classes is .4 above that control, .9 of the generated and .7 of the real pictures keep their
    class and the cycle r → w → picture → r' explains half of r. Class agreement is never evidence *for* it: class means
    have 1.00. The control itself need not be 0: where what tells classes apart also varies within them, a straight line
    through class means explains some of it.

    Args:
        r2: held-out, of everything.
        r2_within: held-out, against class means; None where nothing varies within the classes that were held out.
        shuffled: the same of a link fitted to pairs shuffled within classes.
        leaked: share of held-out pairs that were in the fit.
        generated: share of generated pictures that keep their class when linked.
        real: the same of real pictures.
        cycle: R² of the representation of the linked picture.
        classes: of the held-out pairs; of one class, that generated pictures keep it is no evidence.
        pairs: that the map was fitted to; under a map a class, to the one with fewest for its units.
        units: live units that it maps; as many as pairs or more are named as a reason where there is a doubt, since
            what such a map makes of other pairs is measured anyway.

    Example:
        >>> some = Interval(0.9, 0.8, 1.0)
        >>> judged_link(r2=some, r2_within=Interval(0.01, -0.1, 0.04), shuffled=0.0).verdict
        'fails'
    """
    against: list[str] = []
    doubts: list[str] = []
    if leaked > LEAKED:
        against.append(f"{leaked:.0%} of the held-out pairs were in the fit")
    explained = ""
    if r2_within is None:
        doubts.append(
            "nothing varies within the classes of the held-out pairs (is there but one of each?), so that R² "
            f"{r2} may be that of class means"
        )
    else:
        beside = "" if shuffled is None else f", shuffled {shuffled:.2f}"
        where = "" if classes == 1 else " within classes"
        explained = f"it explains {r2_within} of the latents{where}{beside}"
        if not r2_within.high > max(shuffled or 0.0, 0.0) + MARGIN:  # not a number fails too
            whole = "" if classes == 1 else f", whatever R² says ({r2})"
            against.append(f"{where} it explains nothing (R² {r2_within}{beside}){whole}".lstrip())
        elif r2_within.value - max(shuffled or 0.0, 0.0) < WITHIN:
            doubts.append(f"it explains only {r2_within} of the latents{where}{beside}")
        if shuffled is None:
            doubts.append("no fitted pairs were given for a shuffled control")
    if classes == 1 and generated is not None:
        doubts.append("all held-out pairs are of one class, so that keeping it says nothing")
    for name, share, enough in (("generated", generated, GENERATED), ("real", real, REAL)):
        if share is None:
            doubts.append(f"no {name} pictures were looked at")
        elif share.value < HALF:
            against.append(f"only {share} of {name} pictures keep their class")
        elif share.value < enough:
            doubts.append(f"{share} of {name} pictures keep their class")
    if cycle is not None and cycle < CYCLE:
        doubts.append(f"the linked picture gives back {cycle:.2f} of the representation")
    if pairs is not None and units is not None and pairs <= units:
        few = [f"a map of {units} live units was fitted to only {pairs} pairs"]
    else:
        few = []
    if against:
        return LinkTrust("fails", "; ".join(against + few))
    if doubts:
        return LinkTrust("weak", "; ".join(few + doubts))
    return LinkTrust("holds", f"{explained}, and {real} of real pictures keep their class")
