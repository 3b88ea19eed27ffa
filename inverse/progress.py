"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere, nothing for what is quick."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

QUIET_SECONDS = 2.0
LINE_SECONDS = 15.0


class Progress(Protocol):
    """Receives steps as they are done."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps; `note` replaces the text shown beside the bar."""
        ...


class Silent:
    """Shows nothing."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count nothing."""


class _Bar:
    def __init__(self, bar: tqdm):
        self.bar = bar

    def advance(self, steps: int = 1, note: str = "") -> None:
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(steps)


class _Lines:
    def __init__(self, label: str, total: int):
        self.label, self.total, self.done = label, total, 0
        self.start = self.last = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.last >= LINE_SECONDS:
            left = (now - self.start) / self.done * (self.total - self.done)
            print(
                f"{self.label}: {self.done}/{self.total}, {left:.0f} s left {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )
            self.last = now


@contextmanager
def progress(label: str, total: int, show: bool | None = None) -> Iterator[Progress]:
    """A progress display for `total` steps.

    Args:
        label: what is being done.
        total: number of steps.
        show: True shows it at once, False never; None shows a bar on a terminal after two seconds, and elsewhere a
            plain line every fifteen seconds.
    """
    if show is False:
        yield Silent()
    elif sys.stderr.isatty():
        delay = 0.0 if show else QUIET_SECONDS
        with tqdm(total=total, desc=label, delay=delay, leave=bool(show), dynamic_ncols=True) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(label, total)
