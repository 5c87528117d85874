"""Numbers and names as they are written in narrow places."""

import math
from collections import Counter
from collections.abc import Sequence

from .sheet import broken


def decimals_for(largest: float) -> int:
    """How many decimals leave about three digits of the largest magnitude.

    Example:
        >>> decimals_for(0.3), decimals_for(31.0), decimals_for(0.0)
        (2, 1, 2)
    """
    return 2 if not largest else min(4, max(0, 2 - max(math.floor(math.log10(largest)), 0)))


def decimals_over(span: float, largest: float) -> int:
    """How many decimals also tell values apart that lie within a span: about two digits of it.

    Example:
        >>> decimals_over(0.012, 0.05), decimals_over(2.0, 3.0), decimals_over(0.0, 3.0)
        (3, 2, 2)
    """
    needed = 1 - math.floor(math.log10(span)) if span > 0 and math.isfinite(span) else 0
    return min(6, max(decimals_for(largest), needed))


def numbered(names: Sequence[str]) -> list[str]:
    """Names that come more than once get numbers, in their order.

    Example:
        >>> numbered(["a one", "a two", "a one"])
        ['a one (1)', 'a two', 'a one (2)']
    """
    often, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if often[name] > 1 else name)
    return found


def predicate(trust: object) -> str:
    """A verdict with its reason, to be read after what it is of: "holds" and "fails" are verbs, and "weak" is not.

    Example:
        >>> f"the link {predicate('weak, because of that')}", f"the link {predicate('holds, because of this')}"
        ('the link is weak, because of that', 'the link holds, because of this')
    """
    said = str(trust)
    return said if said.startswith(("holds", "fails")) else f"is {said}"


def number(value: float, decimals: int) -> str:
    """With a true minus sign, and no minus before a zero; a dash for what is not a number.

    Example:
        >>> number(-1.25, 1), number(-0.001, 1), number(float("nan"), 1)
        ('−1.2', '0.0', '–')
    """
    if not math.isfinite(value):
        return "–"
    said = f"{value:.{decimals}f}"
    return said.lstrip("-") if not float(said) else said.replace("-", "−")


def clipped(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """One line of at most about ``width`` inches, with dots where words were left out.

    Example:
        >>> clipped("golden retriever", 0.6, 8)
        'golden …'
    """
    lines = broken(text, width, size, bold=bold)
    return text if len(lines) < 2 else f"{broken(text, width - size / 72, size, bold=bold)[0]} …"


def ordinal(place: int) -> str:
    """A place in words.

    Example:
        >>> ordinal(1), ordinal(2), ordinal(11), ordinal(43)
        ('1st', '2nd', '11th', '43rd')
    """
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
