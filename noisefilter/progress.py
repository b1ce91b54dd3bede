"""Say beforehand how long something takes, and show a progress bar while it runs."""

from __future__ import annotations

import sys
from time import perf_counter
from types import TracebackType

from tqdm import tqdm

_QUIET_BELOW = 5.0  # seconds


class Progress:
    """A tqdm bar that stays silent for what is over in a few seconds.

    After the first steps have been timed, anything that will take longer than five seconds is
    announced in a sentence; the bar follows. ``enabled=False`` says nothing at all.
    """

    def __init__(self, what: str, total: int, enabled: bool, trial: int = 20):
        self.what = what
        self.trial = min(trial, total)
        self.total = total
        self.enabled = enabled
        self.bar = tqdm(
            total=total, desc=what, disable=not enabled, delay=_QUIET_BELOW, leave=False, mininterval=0.5
        )
        self.done = 0
        self.start = perf_counter()

    def step(self) -> None:
        """One of ``total`` steps is done."""
        self.done += 1
        self.bar.update()
        if self.enabled and self.done == self.trial:
            seconds = (perf_counter() - self.start) / self.trial * self.total
            if seconds > _QUIET_BELOW:
                tqdm.write(f"{self.what}: about {_readable(seconds)}", file=sys.stderr)

    def __enter__(self) -> Progress:
        """Start the clock."""
        self.start = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self.bar.close()


def _readable(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
