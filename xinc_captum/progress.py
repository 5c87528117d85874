"""One progress bar for the whole package."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], what: str, *, show: bool, total: int | None = None) -> Iterator[T]:
    """Iterate over ``steps``, with a progress bar if ``show`` is set and standard error is a terminal."""
    return iter(tqdm(steps, desc=what, total=total, disable=None if show else True, leave=False))
