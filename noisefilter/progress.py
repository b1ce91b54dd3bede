"""Say beforehand how long something takes, and show a progress bar while it runs."""

from __future__ import annotations

import sys
from time import perf_counter
from types import TracebackType

from tqdm import tqdm

_QUIET_BELOW = 5.0  # seconds
_SHARES = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A tqdm bar that stays silent for what is over in a few seconds.

    After the first steps have been timed, anything that will take longer than five seconds is
    announced in a sentence; the bar follows. ``enabled=False`` says nothing at all.

    Where steps cost more than one another, `total` is the sum of their costs, and the bar shows shares and
    times alone. The first step is not timed: it waits for what is made once.

    Parameters
    ----------
    what : str
        In the sentence.
    total : float
        Sum of the costs of all steps, as far as can be told.
    enabled : bool
        Whether anything is said.
    trial : int, default=20
        How many steps are timed before the sentence.
    label : str, optional
        In front of a bar that shows shares and times alone.
    """

    def __init__(self, what: str, total: float, enabled: bool, trial: int = 20, label: str | None = None):
        self.what = what
        self.trial = int(min(trial, total))
        self.total = total
        self.enabled = enabled
        shown = {} if label is None else {"bar_format": _SHARES}
        self.bar = tqdm(
            total=total, desc=what if label is None else label, disable=not enabled, delay=_QUIET_BELOW,
            leave=False, mininterval=0.5, **shown,
        )  # fmt: skip
        self.done = 0.0
        self.n_steps = 0
        self.start, self.before = perf_counter(), 0.0

    def step(self, cost: float = 1.0) -> None:
        """One step is done, which costs a part of ``total``."""
        self.done += cost
        self.n_steps += 1
        if self.n_steps == 1 < self.trial:
            self.start, self.before = perf_counter(), cost
            self.bar.unpause()
        # Costs are floats: their sum may pass the total by a rounding, and tqdm would warn of it.
        self.bar.total = self.total = max(self.total, self.done)
        self.bar.update(cost)
        if self.enabled and self.n_steps == self.trial:
            seconds = (perf_counter() - self.start) / (self.done - self.before) * self.total
            if seconds > _QUIET_BELOW:
                tqdm.write(f"{self.what}: about {_readable(seconds)}", file=sys.stderr)

    def tell(self, text: str, left: float) -> None:
        """Show how it stands, and how much is left to do, which may be known better now."""
        self.bar.total = self.total = self.done + left
        self.bar.set_postfix_str(text, refresh=False)

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
