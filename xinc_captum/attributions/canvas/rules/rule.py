"""What a rule has to answer, and the short names of the four rules."""

from typing import Any, Protocol

from torch import Tensor

from ....batch import Batch
from .ablation import Ablation
from .secant import Secant
from .site import Site
from .tail import Tail
from .tangent import Tangent
from .xinc import Xinc


class Rule(Protocol):
    """Carries each unit's part of a layer's activation to the output."""

    @property
    def slots(self) -> int:
        """How many units beyond the layer's own the answer ends with when nothing was selected."""

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Rule":
        """The same rule after a look at all rows, at most ``size`` at once, before they are cut into chunks."""

    def neurons(self, tail: Tail, batch: Batch, selector: Any, per_eval: int | None) -> Tensor:
        """(rows, k, *left)."""

    def pairs(self, tail: Tail, batch: Batch, selector: Any, per_eval: int | None) -> Tensor:
        """(rows, in, out, *left), or (rows, k, *left) when selected."""

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """The same for frames that are asked again and again."""

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """What all units together should add up to, (rows, *left)."""


SHORT_NAMES: dict[str, type] = {"tangent": Tangent, "secant": Secant, "ablation": Ablation, "xinc": Xinc}


def as_rule(rule: str | Rule) -> Rule:
    """A rule object, or the rule of that name with its defaults.

    Raises:
        ValueError: no rule has that name.
        TypeError: neither a name nor a rule.
    """
    if isinstance(rule, str):
        if rule not in SHORT_NAMES:
            raise ValueError(f"rule {rule!r} is unknown; wanted one of {', '.join(map(repr, SHORT_NAMES))}.")
        made: Rule = SHORT_NAMES[rule]()
        return made
    if not hasattr(rule, "neurons") or isinstance(rule, type):
        raise TypeError(f"rule is {rule!r}; wanted a name or a rule object such as Tangent() or Ablation('mean').")
    return rule
