"""What is lost when a process is killed, interrupted or runs out of disk: nothing.

    python benchmarks/faults.py --times 200               # until each fault has struck each work 200 times
    python benchmarks/faults.py --works save --minutes 2  # this work, so long at most; the next run goes on
    python benchmarks/faults.py --table                   # the results as Markdown

Five kinds of work, on 60 rows, take turns. ``fit`` trains every trainer in turn, with checkpoints. ``audit``
replaces an earlier audit by another one. ``train`` runs a command again whose training has ended. ``apply``
writes the corrected copy that a review asks for. ``save`` saves over a file again and again: a filter, a
trainer, a verdict of many rows. Three faults strike them. ``kill`` is SIGKILL. ``interrupt``
is Ctrl-C. Both come in turn at a random time and at the next of all calls that open, rename, make or remove a
file. ``full`` is a disk on which no file can grow beyond a random size.

Afterwards everything has to be as it was before or as the work leaves it, bit for bit; if it is not, the
process that comes next has to make it so. That one then does the whole work: it must end in the bits of work
that nothing struck, and leave nothing else behind. Every run appends what it counted to
``results/faults.jsonl``. It needs a system that can fork.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from audit import machine

import noisefilter
from noisefilter.audit.tables import put_right
from noisefilter.checkpoint import _read
from noisefilter.cli import main as command
from noisefilter.datasets import open_store
from noisefilter.errors import FileError
from noisefilter.trainer import BaseTrainer

RESULTS = Path(__file__).parent / "results" / "faults.jsonl"
KINDS = ("fit", "audit", "train", "apply", "save")
FAULTS = ("kill", "interrupt", "full")
TRAINERS = tuple(
    name
    for name in noisefilter.__all__
    if isinstance(getattr(noisefilter, name), type) and issubclass(getattr(noisefilter, name), BaseTrainer)
)
ROWS, EPOCHS = 60, 3
MANY = 100_000  # rows of a verdict whose file takes a while to write
SAVES = 2
OUTCOMES = ("as before", "done", "put right")
EVENTS = frozenset(("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"))
CHANGING = (".html", ".joblib")  # they tell the time of their making, or hold what is not in one order


# -- the work ---------------------------------------------------------------------------------------


def source(folder: Path) -> None:
    """Write a table, and decisions about it."""
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 2
    X = rng.normal(size=(ROWS, 3)) + 3 * y[:, None]
    y[:6] = 1 - y[:6]
    lines = [",".join([*(f"{x:.4f}" for x in row), "ab"[label]]) for row, label in zip(X, y, strict=True)]
    (folder / "rows.csv").write_text("\n".join(["u,v,w,label", *lines, ""]))
    store = open_store(folder / "rows.csv")
    decisions = [
        {"row": row, "file": None, "given": str(store.labels[row]), "action": "remove", "label": None}
        for row in range(6)
    ]
    about = {"made_by": "noisefilter report", "format": 1, "fingerprint": store.fingerprint}
    (folder / "decisions.json").write_text(json.dumps({**about, "decisions": decisions}))


def run_command(*words: Any) -> int:
    """Run the command line in this process; return its exit code."""
    try:
        command([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def blobs() -> tuple[Any, Any]:
    """Rows of two classes."""
    rng = np.random.default_rng(0)
    y = np.arange(ROWS) % 2
    return (rng.normal(size=(ROWS, 3)) + 3 * y[:, None]).astype(np.float32), y


def fit(folder: Path, trainer: str) -> int:
    """Train with checkpoints; leave the probabilities."""
    X, y = blobs()
    kind = getattr(noisefilter, trainer)
    model = kind(max_epochs=EPOCHS, batch_size=16, random_state=0, checkpoint_dir=folder / "out", verbose=0)
    try:
        probs = model.fit(X, y).predict_proba(X)
    except KeyboardInterrupt:
        return 130
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # what follows is no part of the work
    np.save(folder / "probs.npy", probs)
    return 0


def audit(folder: Path, seed: int = 1) -> int:
    """Audit, with another seed than the earlier audit."""
    return run_command(
        "audit",
        folder / "rows.csv",
        "--out",
        folder / "out",
        "--epochs",
        1,
        "--random-state",
        seed,
        "--quiet",
    )


def train(folder: Path) -> int:
    """Train, or find that it has been done."""
    return run_command(
        "train", folder / "rows.csv", "--out", folder / "out", "--epochs", 1, "--quiet",
        "--method", "josrc",
    )  # fmt: skip


def apply(folder: Path) -> int:
    """Write a corrected copy."""
    return run_command("apply", folder / "decisions.json", folder / "rows.csv", "--out", folder / "out.csv")


def fitted(kind: str, seed: int) -> Any:
    """Something to save: a class of that name, fitted, or the verdict of many rows."""
    if kind == "Verdict":
        probs = np.random.default_rng(seed).dirichlet(np.ones(2), MANY)
        return noisefilter.judge(probs, np.arange(MANY) % 2)
    return getattr(noisefilter, kind)(max_epochs=EPOCHS, random_state=seed, verbose=0).fit(*blobs())


def saved(folder: Path, kind: str) -> int:
    """Save one thing, and beside it what another process will save in its place."""
    for seed, name in enumerate(("one", "other")):
        noisefilter.save(fitted(kind, seed), folder / f"{name}.safetensors")
    shutil.copy(folder / "one.safetensors", folder / "out.safetensors")
    return 0


def save(folder: Path) -> int:
    """Save the other and the one over each other; the other comes last."""
    try:
        one, other = (noisefilter.load(folder / f"{name}.safetensors") for name in ("one", "other"))
        for thing in (other, *(one, other) * SAVES):
            noisefilter.save(thing, folder / "out.safetensors")
    except KeyboardInterrupt:
        return 130
    except OSError:
        return 2
    return 0


class Work(NamedTuple):
    """Something that can be struck.

    Attributes
    ----------
    name : str
        Which of the five.
    run : callable
        Does it in a folder; returns the exit code.
    before : callable or None
        Makes what is there before, where that is more than the table.
    """

    name: str
    run: Callable[[Path], int]
    before: Callable[[Path], int] | None = None


WORKS = {
    "fit": [Work("fit", partial(fit, trainer=name)) for name in TRAINERS],
    "audit": [Work("audit", audit, partial(audit, seed=0))],
    "train": [Work("train", train, train)],
    "apply": [Work("apply", apply)],
    "save": [
        Work("save", save, partial(saved, kind=kind)) for kind in ("Verdict", "GCEClassifier", "INNScorer")
    ],
}


def seen(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: a digest of every file that is not hidden."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            content = path.read_bytes()
            if path.suffix in CHANGING:  # whole, at least
                content = content[-8:] if path.suffix == ".html" else b"some" if content else b""
            found[name.as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def hidden(folder: Path) -> list[str]:
    """Return what lies beside what people see."""
    return sorted(path.name for path in folder.rglob(".*"))


# -- one process, and what strikes it ----------------------------------------------------------------


class Ended(NamedTuple):
    """How a process ended: its exit code, minus the signal if it was one, and what it complained about."""

    code: int
    complaint: str


def started(work: Callable[[Path], int], folder: Path, strike: Callable[[Path], None]) -> tuple[int, int]:
    """Do the work in a process of its own, which calls ``strike`` first; return its number and its stderr."""
    reading, writing = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for the work alone
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.close(writing)
        return child, reading
    code = 3
    try:
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = open(os.devnull, "w"), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("ignore")
        strike(folder)
        begin()
        code = work(folder)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def begin() -> None:
    """Let Ctrl-C through; one that came before the work began ends the process as any other does."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    except KeyboardInterrupt:
        os._exit(130)


def ended(child: int, reading: int) -> Ended:
    """Wait for a process."""
    with os.fdopen(reading, "rb") as pipe:
        complaint = pipe.read().decode("utf-8", "replace")
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), complaint)


def nothing(folder: Path) -> None:
    """Strike with nothing."""


def at_event(number: int, with_signal: int) -> Callable[[Path], None]:
    """Strike at a call that changes or opens a file of the work, counted from 0."""

    def strike(folder: Path) -> None:
        left = count(number, -1)
        place = str(folder)

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in EVENTS and str(args[0]).startswith(place) and not next(left):
                os.kill(os.getpid(), with_signal)

        sys.addaudithook(hook)

    return strike


def n_events(work: Work, folder: Path) -> int:
    """Count the calls of the work that could be struck, and import what it imports, which takes seconds."""

    def counted(folder: Path) -> int:
        events = Counter[str]()
        place = str(folder)

        def hook(event: str, args: tuple[Any, ...]) -> None:
            events["all"] += event in EVENTS and str(args[0]).startswith(place)

        sys.addaudithook(hook)
        code = work.run(folder)
        sys.stderr.write("\n" + json.dumps([events["all"], list(sys.modules)]))
        return code

    found = ended(*started(counted, folder, nothing))
    ended_well(found)
    number, modules = json.loads(found.complaint.splitlines()[-1])
    for name in modules:
        with suppress(Exception):
            importlib.import_module(name)
    return int(number)


def no_file_beyond(size: int) -> Callable[[Path], None]:
    """Let no file grow beyond a size, as on a full disk."""

    def strike(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return strike


# -- one kind of work, struck again and again --------------------------------------------------------


class Arena:
    """A kind of work, what is there before, and what it leaves where nothing strikes."""

    def __init__(self, work: Work, root: Path):
        self.work, self.folder, self.template = work, root / "struck", root / "before"
        self.template.mkdir(parents=True)
        source(self.template)
        if work.before is not None:
            ended_well(ended(*started(work.before, self.template, nothing)))
        self.before = seen(self.template)
        self.fresh()
        self.events = n_events(work, self.folder)
        self.after = seen(self.folder)
        self.largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        self.fresh()
        start = time.perf_counter()
        ended_well(ended(*started(work.run, self.folder, nothing)))
        self.seconds = time.perf_counter() - start
        if seen(self.folder) != self.after:
            sys.exit(f"{work.name} does not end in the same bits twice")

    def fresh(self) -> None:
        """Put everything as it was before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.template, self.folder)

    def struck(self, fault: str, number: int, rng: np.random.Generator) -> Ended:
        """Do the work and have it struck."""
        if fault == "full":
            limit = int(rng.uniform(0, self.largest))
            return ended(*started(self.work.run, self.folder, no_file_beyond(limit)))
        with_signal = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}[fault]
        if number % 2:
            strike = at_event(number // 2 % self.events, with_signal)
            return ended(*started(self.work.run, self.folder, strike))
        child, reading = started(self.work.run, self.folder, nothing)
        time.sleep(rng.uniform(0, self.seconds))
        with suppress(ProcessLookupError):
            os.kill(child, with_signal)
        return ended(child, reading)

    def trial(self, fault: str, number: int, rng: np.random.Generator) -> tuple[str, list[str]]:
        """Return what one strike led to, and what was wrong about it."""
        self.fresh()
        found = self.struck(fault, number, rng)
        wrong = self._complaints(fault, found)
        outcome = self._outcome(wrong)
        self._finish(wrong)
        return outcome, wrong

    def _complaints(self, fault: str, found: Ended) -> list[str]:
        full = (2, 0) if self.work.name != "fit" else (0,)
        expected = {"kill": (-signal.SIGKILL, 0), "interrupt": (130, 0), "full": full}[fault]
        if found.code not in expected or "Traceback" in found.complaint:
            return [f"exit {found.code}: {found.complaint[-500:]}"]
        if fault == "full" and hidden(self.folder):
            return [f"left over: {hidden(self.folder)}"]
        return []

    def _outcome(self, wrong: list[str]) -> str:
        """Say what is there now; what is neither the one nor the other is put right first."""
        if self.work.name == "fit":
            return self._checkpoints(wrong)
        if self.work.name == "save":
            self._can_be_loaded(wrong)
        if seen(self.folder) in (self.before, self.after):
            return "as before" if seen(self.folder) == self.before else "done"
        put_right(self.folder / "out")
        if seen(self.folder) not in (self.before, self.after):
            wrong.append(f"lost or torn: {sorted(set(self.before.items()) ^ set(seen(self.folder).items()))}")
        return "put right"

    def _checkpoints(self, wrong: list[str]) -> str:
        for path in (self.folder / "out").glob("epoch-*"):
            if _read(path) is None:
                wrong.append(f"not whole: {path.name}")
        return "done" if seen(self.folder) == self.after else "as before"

    def _can_be_loaded(self, wrong: list[str]) -> None:
        try:
            noisefilter.load(self.folder / "out.safetensors")
        except (FileError, OSError) as error:
            wrong.append(f"cannot be loaded: {error}")

    def _finish(self, wrong: list[str]) -> None:
        """Do the whole work in the next process: it must end in the same bits, and leave nothing else."""
        if self.work.name == "apply":  # it writes no copy over another
            (self.folder / "out.csv").unlink(missing_ok=True)
        found = ended(*started(self.work.run, self.folder, nothing))
        if found.code:
            wrong.append(f"the next process: exit {found.code}: {found.complaint[-500:]}")
        if seen(self.folder) != self.after:
            wrong.append("the next process does not end in the same bits")
        if hidden(self.folder):
            wrong.append(f"left over after the next process: {hidden(self.folder)}")


def ended_well(found: Ended) -> None:
    """Stop where even work that nothing strikes fails."""
    if found.code:
        sys.exit(f"the work failed by itself: {found.complaint}")


def struck(
    times: int,
    seconds: float,
    faults: Sequence[str] = FAULTS,
    kinds: Sequence[str] = KINDS,
    before: Mapping[tuple[str, str], int] | None = None,
) -> list[dict[str, Any]]:
    """Strike each kind of work with each fault so many times, or as often as time allows; count what came.

    Those are counted that were made ``before``: a strike's number says which event and time it is about.
    """
    end = time.perf_counter() + seconds
    before = before or {}
    counted: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        arenas: dict[tuple[str, int], Arena] = {}
        for number, kind, fault in product(range(times), kinds, faults):
            if number < before.get((fault, kind), 0):
                continue
            if time.perf_counter() > end:
                break
            place = kind, number % len(WORKS[kind])
            if place not in arenas:
                arenas[place] = Arena(WORKS[kind][place[1]], Path(root) / f"{place[0]}-{place[1]}")
            seed = [number, FAULTS.index(fault), KINDS.index(kind)]
            outcome, wrong = arenas[place].trial(fault, number, np.random.default_rng(seed))
            record = counted.setdefault(
                (fault, kind),
                {"fault": fault, "work": kind, "times": 0} | dict.fromkeys(OUTCOMES, 0) | {"wrong": []},
            )
            record["times"] += 1
            record[outcome] += 1
            record["wrong"] += wrong
    return list(counted.values())


# -- results ------------------------------------------------------------------------------------------


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def tables() -> str:
    """Render what came of all strikes."""
    lines = ["| fault | work | times | " + " | ".join(OUTCOMES) + " | lost |", "|---" * 7 + "|"]
    for fault in FAULTS:
        for name in KINDS:
            records = [r for r in done() if (r["fault"], r["work"]) == (fault, name)]
            numbers = [sum(r[column] for r in records) for column in ("times", *OUTCOMES)]
            numbers.append(sum(len(r["wrong"]) for r in records))
            if records:
                lines.append(
                    f"| {fault} | {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |"
                )
    return "\n".join(lines)


def sentences() -> str:
    """Say of each fault how often it struck and what was lost."""
    words = {"kill": "SIGKILL", "interrupt": "Ctrl-C", "full": "A full disk"}
    said = []
    for fault, word in words.items():
        records = [r for r in done() if r["fault"] == fault]
        times, mended, lost = (
            sum(read(r) for r in records)
            for read in (lambda r: r["times"], lambda r: r["put right"], lambda r: len(r["wrong"]))
        )
        said.append(
            f"{word} struck {times:,} times: {lost:,} lost, {mended:,} put right by the next command."
        )
    return " ".join(said) + " [How they struck](benchmarks.md#killed-interrupted-out-of-disk)."


def main() -> None:
    """Strike as often as is still wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--works", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
        return
    before = Counter[tuple[str, str]]()
    for record in done():
        before[record["fault"], record["work"]] += record["times"]
    for record in struck(args.times, 60 * args.minutes, args.faults, args.works, before):
        print(record, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(record | machine()) + "\n")


if __name__ == "__main__":
    main()
