"""Progress of long work: a bar in a terminal; elsewhere, in CI or a log, lines without control characters."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Generic, TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0

T = TypeVar("T")


def is_watched() -> bool:
    """Whether standard error is a terminal, in front of which a person may sit."""
    return sys.stderr is not None and sys.stderr.isatty()


def track(
    items: Iterable[T], *, total: int | None = None, what: str | None, unit: str, delay: float = 0
) -> tqdm[T] | Lines[T]:
    """Iterate over what it gives, or `update` it in a `with` block: it shows how far the work has come.

    total: number of `items` where they do not know it; what: who works, None shows nothing; delay: seconds before a bar
    appears. Of several processes that work together only the first one writes lines.
    """
    if what is None or is_watched():
        return tqdm(items, total=total, desc=what, unit=unit, delay=delay, disable=what is None)
    return Lines(items, total=total, what=what, unit=unit)


class Lines(Generic[T]):
    """Progress as lines on standard error, the first one after `SECONDS_BETWEEN_LINES`: short work writes none."""

    def __init__(self, items: Iterable[T], *, total: int | None = None, what: str, unit: str, done: int = 0) -> None:
        self.items = items
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.what = what
        self.unit = unit
        self.done = self.first = done
        self.started = self.last = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> Lines[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES and os.environ.get("RANK", "0") == "0":
            self.last = now
            print(self.line(now - self.started), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """How far it is after so many seconds."""
        line = f"{self.what}: {self.done:,}"
        if self.total:
            line += f" of {self.total:,}"
        line += f" {self.unit}s after {tqdm.format_interval(seconds)}"
        if self.total and self.done > self.first:
            left = seconds * (self.total - self.done) / (self.done - self.first)
            line += f", about {tqdm.format_interval(left)} left"
        return line
