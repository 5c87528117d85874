"""Where two manifests say other things of a result: numbers, verdicts, names."""

import math
import re
from collections.abc import Iterator
from typing import Any

ABOUT_THE_RUN = {"command", "versions", "outputs", "call"}  # and not about what came out
PLACES = {"link.folder"}  # where an input lies; a replay compares its digest


def differences(before: Any, after: Any, name: str = "", tolerance: float = 0.0) -> Iterator[str]:
    """Every value that is another, by where it stands.

    With a ``tolerance``, floats may be so far apart (times the larger of them and 1), and hashes, which may be of
    floats, are not compared.

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
    elif name not in PLACES and not _alike(before, after, tolerance):
        yield f"{name}: {before!r} then, {after!r} now"


def _alike(before: Any, after: Any, tolerance: float) -> bool:
    if before == after or before != before:  # nan is as it was
        return True
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance)
    return tolerance > 0 and _is_hash(before) and _is_hash(after)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
