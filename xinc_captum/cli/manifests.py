"""Where two manifests say other things of a result: numbers, verdicts, names."""

import math
from collections.abc import Iterator
from typing import Any

ABOUT_THE_RUN = {"command", "versions", "outputs", "call"}  # and not about what came out
PLACES = {"link.folder"}  # where an input lies; a replay compares its digest


def differences(before: Any, after: Any, name: str = "", tolerance: float = 0.0) -> Iterator[str]:
    """Every value that is another, by where it stands; floats may be ``tolerance`` apart, times the larger or 1.

    Example:
        >>> list(differences({"units": [{"rho": 0.5}], "seed": 0}, {"units": [{"rho": 0.4}], "seed": 0}))
        ['units[0].rho: 0.5 then, 0.4 now']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(key for key in after if key not in before)]
        for key in names if name else [key for key in names if key not in ABOUT_THE_RUN]:
            inside = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key), after.get(key), inside, tolerance)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{name}[{i}]", tolerance)
    elif (
        isinstance(before, float)
        and isinstance(after, float)
        and math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance)
    ):
        return
    elif before != after and before == before and name not in PLACES:  # nan is as it was
        yield f"{name}: {before!r} then, {after!r} now"
