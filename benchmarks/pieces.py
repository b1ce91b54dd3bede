"""Trainings in pieces: they stop in time at the end of an epoch, and go on from their checkpoint.

What comes before a trainer's first epoch (SimCLR, SCAN's clusters, the networks that score first) is stopped
where it is when the time is up. SimCLR has checkpoints of its own and goes on; the others begin anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from noisefilter.batches import Rows
from noisefilter.checkpoint import Checkpoints
from noisefilter.models import NetModel
from noisefilter.net import Net

PART = 15_000_000  # bytes of a file that a checkpoint is left in
_USED = 0.95  # of the time; the rest is for what is left to be written
_SLOWER = 1.2  # than the last epoch the next may be
_SAY = 30.0  # seconds from one line about the progress to the next

Record = dict[str, Any]


class OutOfTime(KeyboardInterrupt):
    """The time is up; trainers take it for Ctrl-C, and leave what they have."""


class Clock:
    """Says when it is time to stop.

    Parameters
    ----------
    minutes : float, optional
        From now on; for ever by default.
    now : callable, optional
        Tells the seconds.
    """

    def __init__(self, minutes: float | None = None, now: Callable[[], float] = time.monotonic):
        self.now = now
        self.end = np.inf if minutes is None else self.now() + 60.0 * minutes * _USED
        self.told = self.now()
        self.start()

    def start(self) -> None:
        """Begin with another training: what epochs of the last one took says nothing of it."""
        self.began: float | None = None
        self.cost = 1.0
        self.lapped = self.now()

    def check(self, cost: float) -> None:
        """Raise OutOfTime if an epoch would not end in time, that costs so much by the last one's measure."""
        now = self.now()
        needed = 0.0 if self.began is None else _SLOWER * (now - self.began) * cost / self.cost
        if now + needed > self.end:
            _set_alarm(0.0)  # so that nothing disturbs what is written now
            raise OutOfTime
        self.began, self.cost = now, cost

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        before, self.lapped = self.lapped, self.now()
        return self.lapped - before

    def say(self, text: str) -> None:
        """Print a line, but not too often."""
        if self.now() - self.told >= _SAY:
            self.told = self.now()
            print(text, flush=True)

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise OutOfTime inside the block when the time is up, whatever is being done."""

        def ring(number: int, frame: Any) -> None:
            raise OutOfTime

        if not np.isfinite(self.end) or not hasattr(signal, "setitimer"):  # Windows has none
            yield
            return
        before = signal.signal(signal.SIGALRM, ring)
        try:
            _set_alarm(max(0.01, self.end - self.now()))
            yield
        finally:
            _set_alarm(0.0)
            signal.signal(signal.SIGALRM, before)


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def watched(trainer: Any, clock: Clock, name: str, look: Callable[[Any], Record]) -> Any:
    """Return the trainer, which from now on stops in time, and writes more into the record of an epoch.

    ``history_`` then has ``seconds`` and what ``look(training)`` finds after each epoch; it is in the
    checkpoints, and so outlives a training that is taken up again.
    """
    begin = trainer._begin

    def begun(*arguments: Any) -> Any:
        training = begin(*arguments)
        run_epoch = training.run_epoch

        def run(epoch: int, bar: Any) -> Record:
            clock.check(training.cost(epoch))
            record = run_epoch(epoch, bar) | look(training) | {"seconds": clock.lap()}
            clock.say(f"{name}: {epoch + 1} of {training.n_epochs} epochs")
            return record

        training.run_epoch = run
        return training

    trainer._begin = begun
    return trainer


def fitted(trainer: Any, *arguments: Any, **parameters: Any) -> tuple[list[Record], bool]:
    """Fit a watched trainer; return the record of its epochs, and whether these are all."""
    try:
        trainer.fit(*arguments, **parameters)
    except OutOfTime:
        return getattr(trainer, "history_", []), False
    return trainer.history_, True


def driven(
    net: Net,
    rows: Rows,
    codes: Any,
    checkpoints: Checkpoints,
    clock: Clock,
    name: str,
    cost: Callable[[int], float],
    look: Callable[[int], Record],
) -> tuple[list[Record], bool]:
    """Train a plain net, for which no trainer stands; return as :func:`fitted` does.

    ``cost(n)`` is that of the n-th epoch, counted from 1, and ``look(n)`` what is to be recorded behind it.
    """
    n_classes, history = int(codes.max()) + 1, list[Record]()
    target, saved = NetModel(net).begin(rows, codes, n_classes), checkpoints.latest()
    if saved is not None:
        net.load_state(saved.tensors, saved.record["net"])
        history = saved.record["history"]
    try:
        for n in range(len(history) + 1, net.max_epochs + 1):
            clock.check(cost(n))
            with net.drawing(n - 1):
                net.run_epoch(rows, target, n - 1)
                found = look(n)
            history.append(found | {"loss": net.history[-1]["train_loss"], "seconds": clock.lap()})
            tensors, rest = net.state()
            checkpoints.save(n, tensors, {"net": rest, "history": history})
            clock.say(f"{name}: {n} of {net.max_epochs} epochs")
    except OutOfTime:
        return history, False
    return history, True


# Checkpoints that travel.


def pack(folder: Path) -> None:
    """Leave the newest checkpoint of every training below a folder, in parts of at most 15 MB."""
    for place in sorted({path.parent for path in folder.rglob("epoch-*.safetensors")}):
        *older, newest = sorted(place.glob("epoch-*.safetensors"))
        for each in older:
            each.unlink()
        data = newest.read_bytes()
        n_parts = -(-len(data) // PART)
        for k in range(n_parts):
            part = newest.with_name(f"{newest.name}.{k + 1:02}of{n_parts:02}")
            part.write_bytes(data[k * PART : (k + 1) * PART])
        newest.unlink()


def unpack(folder: Path) -> None:
    """Make whole what :func:`pack` left in parts; raise FileNotFoundError where one is missing."""
    for first in sorted(folder.rglob("epoch-*.safetensors.01of*")):
        name, n_parts = first.name.split(".01of")
        parts = [first.with_name(f"{name}.{k + 1:02}of{n_parts}") for k in range(int(n_parts))]
        whole, joined = first.with_name(name), first.with_name(f".{name}.joined")
        if not whole.exists():  # else somebody was stopped while taking the parts away
            joined.write_bytes(b"".join(part.read_bytes() for part in parts))
            os.replace(joined, whole)
        for part in reversed(parts):  # the first one last: by it they are found
            part.unlink(missing_ok=True)
