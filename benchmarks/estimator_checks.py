"""Does it keep scikit-learn's own laws? ``check_estimator`` on every public class, and on peers.

    python benchmarks/estimator_checks.py                   # every class that is not there yet
    python benchmarks/estimator_checks.py --only INNScorer  # one class; --again where it is there
    python benchmarks/estimator_checks.py --table           # the table of all results, as Markdown

It runs in the environment it is started in: the versions of scikit-learn beside each other come from one
environment each. The public classes of noisefilter are discovered, those of cleanlab, skorch and
imbalanced-learn stand below, and all are run the same way. A class is appended to
``results/estimator_checks.jsonl`` when it is done. About five minutes on one core.

An expected failure is one that is there on purpose, and its reason stands here; where its check passes all
the same, by chance of rounding say, it counts as passed. skorch's network, and ours under the estimators, get
a module and a callback that fit the data, so that no check fails for want of a fitting network. A sampler
without ``fit`` is no estimator to scikit-learn, and is left out.
"""

from __future__ import annotations

import argparse
import inspect
import json
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import machine
from sklearn import __version__ as scikit_learn
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator
from skorch.callbacks import Callback
from torch import nn

import noisefilter
from noisefilter.base import BaseFilter
from noisefilter.trainer import BaseTrainer

RESULTS = Path(__file__).parent / "results" / "estimator_checks.jsonl"
PEERS = ("cleanlab", "skorch", "imbalanced-learn")
BESIDE = ("NeuralNetClassifier", "CleanLearning", "EditedNearestNeighbours")  # their classes

REPLACES = (
    "fit_transform replaces noisy rows and transform passes rows through, as TargetEncoder's two differ"
)
JUDGED_WHOLE = (
    "a filter judges all rows, whatever they weigh: one of weight 0 still tells about its neighbors"
)
SINGLE = "a row alone and among others agree to the five or six digits of float32, and seven are asked for"

# What a filter that always rejects some rows fails in, and what a classifier does that predicts in float32.
OF_FILTERS = {"check_transformer_general": REPLACES, "check_transformer_data_not_an_array": REPLACES}
OF_TRAINERS = {"check_methods_subset_invariance": SINGLE}
OF_FILTERED = {"check_sample_weight_equivalence_on_dense_data": JUDGED_WHOLE}


class Sized(nn.Module):
    """A small network that takes up to 64 columns of any kind of number."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, n_classes))

    def forward(self, x: Any) -> Any:
        x = torch.as_tensor(x).float()
        if x.ndim != 2:
            raise ValueError("Expected 2D array. Reshape your data.")
        return self.layers(nn.functional.pad(x, (0, 64 - x.shape[1])))


class AsManyOutputs(Callback):
    """Tells the network of how many classes it is, as skorch's own callback tells the number of columns."""

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        net.set_params(module__n_classes=max(2, len(np.unique(y))))


def jitter(x: Any, generator: Any) -> Any:
    """Views of tables, for which there are none of our own."""
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def networks(kind: Any) -> Any:
    """A classifier that is a network, skorch's or ours."""
    return kind(
        Sized, criterion=nn.CrossEntropyLoss, max_epochs=20, lr=0.1, verbose=0, callbacks=[AsManyOutputs()],
    )  # fmt: skip


def strict(kind: Any, **parameters: Any) -> Any:
    """A filter that always rejects some rows, whatever it sees."""
    return kind(max_epochs=2, split="keep", keep=0.7, random_state=0, **parameters)


def ours(kind: Any) -> tuple[Any, dict[str, str]]:
    """An instance that trains for a moment, and what is expected to fail."""
    small = strict(noisefilter.SmallLossSelector)
    built = {
        # Two INNScorers train for as many epochs first.
        "INNDivideMixClassifier": lambda: (kind(max_epochs=8, random_state=0), OF_TRAINERS),
        "FilteredClassifier": lambda: (kind(small, LogisticRegression()), OF_FILTERED),
        "Net": lambda: (networks(kind), {}),
        "SCANClusterer": lambda: (kind(n_clusters=3, max_epochs=40, lr=0.05, random_state=0), {}),
        "SimCLR": lambda: (kind(max_epochs=1, views=jitter, random_state=0), {}),
        "VoteFilter": lambda: (
            kind([("inn", strict(noisefilter.INNScorer)), ("loss", small)], random_state=0), OF_FILTERS
        ),
    }  # fmt: skip
    if kind.__name__ in built:
        return built[kind.__name__]()
    if issubclass(kind, BaseFilter):
        return strict(kind), OF_FILTERS
    if issubclass(kind, BaseTrainer):
        return kind(max_epochs=20, random_state=0), OF_TRAINERS
    return kind(), {}


def public() -> list[Any]:
    """Every public class that scikit-learn calls an estimator."""
    kinds = (getattr(noisefilter, name) for name in noisefilter.__all__)
    kinds = (kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, BaseEstimator))
    return [kind for kind in kinds if hasattr(kind, "fit")]


def of_peers() -> Iterator[tuple[str, Any]]:
    """One estimator of each library that is installed; of cleanlab and imbalanced-learn as it is."""
    from skorch import NeuralNetClassifier

    yield "skorch", networks(NeuralNetClassifier)
    try:
        from cleanlab.classification import CleanLearning

        yield "cleanlab", CleanLearning()
    except ImportError as error:
        print(f"cleanlab does not run here: {error}")
    try:
        from imblearn.under_sampling import EditedNearestNeighbours

        yield "imbalanced-learn", EditedNearestNeighbours()
    except ImportError as error:
        print(f"imbalanced-learn does not run here: {error}")


def cases() -> Iterator[tuple[str, Any, dict[str, str]]]:
    """Library, estimator, expected failures."""
    for kind in public():
        yield ("noisefilter", *ours(kind))
    for library, estimator in of_peers():
        yield library, estimator, {}


def checked(estimator: Any, expected: dict[str, str]) -> dict[str, Any]:
    """Run all checks; name those that fail, with their first sentence, and what was expected to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, expected_failed_checks=expected, on_fail=None, on_skip=None)
    of = {s: [r for r in results if r["status"] == s] for s in ("passed", "failed", "xfail", "skipped")}
    return {
        "passed": len(of["passed"]),
        "failed": {r["check_name"]: first_line(r["exception"]) for r in of["failed"]},
        "expected": {r["check_name"]: expected[r["check_name"]] for r in of["xfail"]},
        "skipped": sorted({r["check_name"] for r in of["skipped"]}),
    }


def first_line(error: BaseException) -> str:
    """The kind of an error, and what it says first."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:150] if said else ''}".strip()


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def key(record: dict[str, Any]) -> tuple[str, ...]:
    """What makes a record one record; a newer one takes its place."""
    return tuple(record[name] for name in ("library", "class", "scikit_learn"))


def newest() -> dict[tuple[str, ...], dict[str, Any]]:
    """The last record of each class and version."""
    return {key(record): record for record in done()}


def sortable(scikit_learn: str) -> list[int]:
    """1.10 comes behind 1.9."""
    return [int(part) for part in scikit_learn.split(".")[:2]]


def cell(record: dict[str, Any] | None) -> str:
    """Passed, failed, expected to fail."""
    if record is None:
        return ""
    return f"{record['passed']} / {len(record['failed'])} / {len(record['expected'])}"


def table() -> str:
    """A row for each class, a column for each version of scikit-learn, and why what is expected fails."""
    records = newest()
    versions = sorted({record["scikit_learn"] for record in records.values()}, key=sortable)
    rows = list(dict.fromkeys((record["library"], record["class"]) for record in records.values()))
    rows.sort(key=lambda row: (("noisefilter", *PEERS).index(row[0]), row[1]))
    lines = [
        "| library | class | " + " | ".join(f"scikit-learn {each}" for each in versions) + " |",
        "|---" * (2 + len(versions)) + "|",
    ]
    for row in rows:
        cells = [cell(records.get((*row, each))) for each in versions]
        found = {record["version"] for record in records.values() if record["library"] == row[0]}
        lines.append(f"| {row[0]} {', '.join(sorted(found))} | {row[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + reasons(list(records.values()))


def sentence() -> str:
    """Say how many checks of how many classes passed and failed, and how many fail beside them."""
    records = list(newest().values())
    ours = [r for r in records if r["library"] == "noisefilter" and r["class"] != "Net"]
    classes, versions = ({r[name] for r in ours} for name in ("class", "scikit_learn"))
    passed, failed, expected = (
        sum(read(r) for r in ours)
        for read in (lambda r: r["passed"], lambda r: len(r["failed"]), lambda r: len(r["expected"]))
    )
    latest = max(versions, key=sortable)
    failing = {r["class"]: len(r["failed"]) for r in records if r["scikit_learn"] == latest}
    beside = ", ".join(f"`{name}` {failing[name]}" for name in ("Net", *BESIDE))
    return (
        f"{len(classes)} classes on {len(versions)} versions of scikit-learn, {len(ours)} runs: {passed:,} "
        f"checks passed, {failed:,} failed, {expected:,} failed as expected. On {latest} the others fail: "
        f"{beside}. [Class by class](benchmarks.md#scikit-learns-own-laws)."
    )


def reasons(records: list[dict[str, Any]]) -> str:
    """Which failures of ours are expected, and why."""
    found: dict[tuple[str, str], set[str]] = {}
    for record in records:
        for name, reason in record["expected"].items():
            found.setdefault((name, reason), set()).add(record["class"])
    return "\n".join(
        f"- `{name}` ({', '.join(sorted(kinds))}): {reason}."
        for (name, reason), kinds in sorted(found.items())
    )


def installed(library: str) -> str:
    """The version of a library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return noisefilter.__version__


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="name of a class", action="append")
    parser.add_argument("--again", action="store_true", help="also what is there")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    where = machine()
    for library, estimator, expected in cases():
        record = {"library": library, "class": type(estimator).__name__, "scikit_learn": scikit_learn}
        if arguments.only and record["class"] not in arguments.only:
            continue
        if key(record) in newest() and not arguments.again:
            continue
        record |= {"version": installed(library)} | checked(estimator, expected) | where
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(record["class"], cell(record), *record["failed"].items(), sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
