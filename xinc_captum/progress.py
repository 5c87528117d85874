"""One progress bar for the whole package."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(steps: Iterable[T], what: str, *, show: bool, total: int | None = None) -> Iterator[T]:
    """Iterate over ``steps``; if ``show``, with a bar titled ``what`` on standard error, if that is a terminal."""
    return iter(progress_bar(steps, what, show=show, total=total))


def progress_bar(steps: Iterable[T], what: str, *, show: bool, total: int | None = None, initial: int = 0) -> "tqdm[T]":
    """Return the bar of :func:`progress`, for loops that set its text or that begin with ``initial`` steps done."""
    return tqdm(steps, desc=what, total=total, initial=initial, disable=None if show else True, leave=False)
