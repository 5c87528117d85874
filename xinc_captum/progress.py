"""One progress bar for the whole package."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], what: str, *, show: bool, total: int | None = None) -> Iterator[T]:
    """Iterate over ``steps``, with a bar on standard error when ``show`` is set and a person can see it."""
    return iter(tqdm(steps, desc=what, total=total, disable=None if show else True, leave=False))
