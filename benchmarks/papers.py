"""The tables of the three papers at full size: a row by its name, with one command, on one GPU.

    python benchmarks/papers.py --list                      # all rows, what was printed, and what they cost
    python benchmarks/papers.py --data DIR --rows josrc2-sym20 --budget 9        # minutes; again, until done
    python benchmarks/papers.py --data DIR --rows 'inn3-1-2-*' --seeds 0 1 2
    python benchmarks/papers.py --data DIR --rows '*' --shrink 600 3 --network small     # a trial of them all

DIR holds ``cifar10.npz`` and ``cifar100.npz``, each with ``X_train``, ``X_test``, uint8 of shape (n, 32, 32,
3), ``y_train`` and ``y_test``. The rows are in ``paper_rows.py``, the numbers that the papers print in
``published.py``. Nobody but the measurement sees true labels and test images; nothing is chosen by them.

With a budget a training stops in time at the end of an epoch, and the same command goes on from there, on a
CPU to the same bits. Its checkpoint stays below ``--work`` until the row is complete, in parts of at most
15 MB: about 30 MB of Jo-SRC, 90 MB of one PreActResNet18 and 180 MB of a pair. While a training runs two
whole ones lie there, and every epoch writes one: on a slow disk, name a folder in memory. A row that was cut
is recorded as partial, with the epochs that it has, and never shown as the row's number.

Results go to ``results/papers.jsonl``, a line for a row and seed, and the labels that were given to
``results/papers/``, where every later run of that noise and seed checks that it has the same. ``--shrink``
takes so many rows and epochs, warm-ups and the like in proportion. Such trials, and those with another
network, are printed; they are written to no file but one named by ``--out``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from audit import machine
from openset import divided
from paper_rows import LOOKS, MEASURES, OPEN, ROWS, passes, scoring_passes
from pieces import Clock, Record, driven, fitted, pack, unpack, watched
from training import two_classes

from noisefilter import INNScorer, JoSRCClassifier, plant_noise
from noisefilter.batches import choose_device
from noisefilter.checkpoint import Checkpoints
from noisefilter.fingerprints import described, digest, fingerprint
from noisefilter.inputs import as_rows, check_labels
from noisefilter.metrics import clean_auc
from noisefilter.models import build_model
from noisefilter.neighbors import nearest
from noisefilter.net import derived_seed
from noisefilter.networks import SmallCNN
from noisefilter.noise import CIFAR10_ASYMMETRIC
from noisefilter.paths import mean_path_probs, quadrature
from noisefilter.scores import given_probability
from noisefilter.semisupervised import TRAINED

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "papers.jsonl"
WORK = HERE.parent / "build" / "papers"
NETWORKS = {"small": SmallCNN}
# Of INN's Table 1, in the order in which they are trained.
OBJECTIVES = {"ce": "cross_entropy", "ne": "cross_entropy_ne", "inn": "mixup"}
# Parameters that count epochs, and the least that they can be.
EPOCHS = {
    "max_epochs": 1, "warmup_epochs": 1, "pretrain_epochs": 1, "scoring_epochs": 1, "rescore_every": 1,
    "ramp_epochs": 1, "agreeing_epochs": 1, "correction_epochs": 1, "window": 2,
}  # fmt: skip
NOTED = ("loss", "test_accuracy", "auc", "clean_precision", "id_precision", "ood_precision")  # of every epoch
Histories = dict[str, list[Record]]  # one for each network of INN's Table 1, else one of the "trainer"


# --- the data of a row ------------------------------------------------------------------------------


class Task(NamedTuple):
    """Images with labels given and true ones, and a test set; of two classes also which rows these are."""

    X: Any
    y: Any
    truth: Any
    test: tuple[Any, Any]
    rows: Any = None

    def shrunk(self, n: int) -> Task:
        """Return the first n rows, and as many of the test, of classes that are there."""
        y, (X_test, y_test) = self.y[:n], self.test
        known = np.flatnonzero(np.isin(y_test, y))[:n]
        return self._replace(X=self.X[:n], y=y, truth=self.truth[:n], test=(X_test[known], y_test[known]))


def planted(folder: Path, row: dict[str, Any], seed: int) -> Task:
    """Load the images of a row, and plant its noise."""
    with np.load(folder / f"{row['data']}.npz") as archive:
        if "classes" in row:
            rows, X, truth, y, test = two_classes(archive, *row["classes"], row["rate"], seed)
            return Task(X, y, truth, test, rows)
        X, X_test = archive["X_train"], archive["X_test"]
        truth, y_test = (archive[name].astype(np.int64) for name in ("y_train", "y_test"))
    extra: dict[str, Any] = {"mapping": CIFAR10_ASYMMETRIC} if row["noise"] == "asymmetric" else {}
    y, _ = plant_noise(truth, row["noise"], row["rate"], random_state=seed, **extra)
    known = np.isin(y_test, y)  # strangers are no labels
    return Task(X, y, truth, (X_test[known], y_test[known]))


def noise_file(row: dict[str, Any], seed: int) -> str:
    """Name the file that holds the labels given; rows of one noise and seed share them."""
    classes = "".join(f"-{k}" for k in row.get("classes", ()))
    return f"{row['data']}-{row['noise']}{classes}-{row['rate']:g}-{seed}.npz"


def keep_noise(task: Task, path: Path) -> None:
    """Write the labels given, or check that they are those written before."""
    given = {"labels": task.y.astype(np.uint8)}
    if task.rows is not None:
        given["rows"] = task.rows.astype(np.uint16)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **given)
        return
    with np.load(path) as kept:
        if any(not np.array_equal(kept[name], values) for name, values in given.items()):
            raise SystemExit(f"{path} must hold the labels that this row plants, got others.")


# --- training ---------------------------------------------------------------------------------------


def shrunk(estimator: Any, epochs: int) -> dict[str, int]:
    """Return the parameters that count epochs for a training of so many."""
    own, share = estimator.get_params(deep=False), epochs / estimator.max_epochs
    return {name: max(least, round(own[name] * share)) for name, least in EPOCHS.items() if own.get(name)}


def train(name: str, estimator: Any, task: Task, folder: Path, clock: Clock) -> tuple[Histories, bool]:
    """Train what a row is about, or go on training it; return what was seen, and whether it is complete."""
    clock.start()
    with clock.alarm():
        if isinstance(estimator, INNScorer):
            return Scores(name, estimator, task, folder, clock).run()
        divides = isinstance(estimator, JoSRCClassifier) and ROWS[name]["noise"] in OPEN.values()
        look = partial(groups, task) if divides else nothing
        trainer = watched(estimator.set_params(checkpoint_dir=folder), clock, name, look)
        history, complete = fitted(trainer, task.X, task.y, eval_set=task.test)
    return {"trainer": history}, complete


def nothing(training: Any) -> Record:
    """Look at nothing more."""
    return {}


def groups(task: Task, training: Any) -> Record:
    """Return the precision of the three groups into which Jo-SRC has divided the rows in an epoch."""
    found = divided(training.net.groups_.cpu().numpy(), task.truth, task.y)
    return {f"{part}_precision": share for part, share in found["precision"].items()}


class Scores:
    """The three networks of INN's Table 1, trained one after the other; labels are ranked by each.

    The first is h, in whose features the neighbors are found, at each look those of then. Of a network that
    is done the history stays in the folder, and the neighbors.
    """

    def __init__(self, name: str, scorer: INNScorer, task: Task, folder: Path, clock: Clock):
        self.name, self.scorer, self.folder, self.clock = name, scorer, folder, clock
        self.rows = as_rows(task.X, device=choose_device(scorer.device))
        self.codes, self.wrong = check_labels(task.y).codes, task.y != task.truth
        self.every = max(1, scorer.max_epochs // LOOKS)

    def run(self) -> tuple[Histories, bool]:
        """Train what is left."""
        histories: Histories = {}
        for column in OBJECTIVES:
            done = self.folder / f"{column}.json"
            if not done.exists():
                self.clock.start()
                histories[column], complete = self.trained(column)
                if not complete:
                    return histories, False
                done.write_text(json.dumps(histories[column]))
                shutil.rmtree(self.folder / column)
            histories[column] = json.loads(done.read_text())
        return histories, True

    def trained(self, column: str) -> tuple[list[Record], bool]:
        """Train a network, or go on training it."""
        scorer, objective = self.scorer, OBJECTIVES[column]
        settings = {name: getattr(scorer, name) for name in ("max_epochs", "batch_size", "lr")}
        model: Any = build_model(
            None, self.rows, int(self.codes.max()) + 1, network=scorer.network, record=(),
            settings=settings | {"verbose": 0},
            training={"objective": objective, "mixup_alpha": scorer.mixup_alpha},
            seed=derived_seed(scorer.random_state, list(OBJECTIVES).index(column)),
        )  # fmt: skip
        depends = {"scorer": described(scorer), "objective": objective, "y": digest(self.codes)}
        checkpoints = Checkpoints(self.folder / column, depends | {"X": fingerprint(self.rows)})
        return driven(
            model.net, self.rows, self.codes, checkpoints, self.clock, f"{self.name}, {column}",
            partial(self.cost, column), partial(self.ranked, model.net, column),
        )  # fmt: skip

    def cost(self, column: str, epoch: int) -> float:
        """Return the passes forward of a row in an epoch."""
        looks = scoring_passes(self.scorer, 1) if column == "inn" else 1.0
        return TRAINED + (0.0 if epoch % self.every else looks)

    def ranked(self, net: Any, column: str, epoch: int) -> Record:
        """Return how well the network ranks the labels, where it is time to look."""
        if epoch % self.every:
            return {}
        neighbors = self.folder / f"neighbors-{epoch:03}.npy"
        probs, features = net.evaluate(self.rows, features=column == "ce")
        if column == "ce":
            np.save(neighbors, nearest(features, self.scorer.n_neighbors).astype(np.int32))
        if column == "inn":
            rule = quadrature(self.scorer.quadrature, self.scorer.n_interior)
            ends, found = probs.astype(np.float64), np.load(neighbors).astype(np.int64)
            probs = mean_path_probs(net.predict_batch, self.rows, ends, found, rule)
        return {"auc": clean_auc(given_probability(probs, self.codes), self.wrong)}


# --- results ----------------------------------------------------------------------------------------


def measured(histories: Histories) -> dict[str, float]:
    """Return what the tables print of these epochs, accuracies and precisions in percent."""
    if "trainer" in histories:
        return accuracies(histories["trainer"])
    aucs = {
        f"auc_{column}": [record["auc"] for record in history if "auc" in record]
        for column, history in histories.items()
    }
    return {name: max(found) for name, found in aucs.items() if found}


def accuracies(history: list[Record]) -> dict[str, float]:
    """Return accuracies, and precisions where they were noted, which the best epoch is not chosen by."""
    found = [100 * record["test_accuracy"] for record in history]
    best = int(np.argmax(found))
    numbers = {"best": found[best], "best_epoch": best + 1, "last": found[-1]}
    numbers["last_10"] = float(np.mean(found[-10:]))
    for part, (when, record) in product(("id", "ood"), (("best", history[best]), ("last", history[-1]))):
        share = record.get(f"{part}_precision")
        if share is not None:
            numbers[f"{part}_{when}"] = 100 * share
    return numbers


def recorded(name: str, estimator: Any, task: Task, histories: Histories) -> Record:
    """Return what is to be kept of a training; the epochs wanted are those of the row, also in a trial."""
    epochs, row = [record for history in histories.values() for record in history], ROWS[name]
    return {
        "epochs": len(epochs),
        "wanted": row["trainer"].as_published(**row["changes"]).max_epochs
        * (1 if "trainer" in histories else len(OBJECTIVES)),
        "rows": len(task.y),
        "wrong": float((task.y != task.truth).mean()),
        "network": estimator.network.__name__,
        "measured": measured(histories),
        "seconds": sum(record["seconds"] for record in epochs),
        "history": {column: noted(history) for column, history in histories.items()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def noted(history: list[Record]) -> dict[str, list[float | None]]:
    """Return what was noted of every epoch, by name."""
    names = [name for name in NOTED if any(name in record for record in history)]
    return {name: [record.get(name) for record in history] for name in names}


def done(path: Path = RESULTS) -> list[Record]:
    """Read the results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(record: Record, path: Path) -> None:
    """Write a record, in the place of what there was of this row and seed."""
    there = {(each["row"], each["seed"]): each for each in done(path)}
    there[record["row"], record["seed"]] = record
    places = list(ROWS)
    in_order = sorted(there.values(), key=lambda each: (places.index(each["row"]), each["seed"]))
    path.write_text("".join(json.dumps(each) + "\n" for each in in_order))


def tables() -> str:
    """Render all results as Markdown: means over the seeds that are complete, then what is not."""
    records = done()
    lines = [
        "| row | printed in | number | published | ours | difference | seeds | epochs | machine |",
        "|---" * 9 + "|",
    ]
    for name, row in ROWS.items():
        mine = [record for record in records if record["row"] == name and _counts(record)]
        lines += [_line(name, place, number, mine) for place, number in row["published"].items() if mine]
    parts = ["\n".join(lines)] if len(lines) > 2 else []
    cut = [_partial(record) for record in records if not _counts(record)]
    if cut:
        parts.append("Partial, which are not the numbers of their rows:\n\n" + "\n".join(cut))
    missing = [f"`{name}`" for name in ROWS if name not in {record["row"] for record in records}]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _counts(record: Record) -> bool:
    return bool(record["complete"] and not record["trial"])


def _line(
    name: str, place: tuple[str, str], number: tuple[float, float | None], records: list[Record]
) -> str:
    source, measure = place
    there = [record["measured"][measure] for record in records if measure in record["measured"]]
    ours = difference = "-"
    if there:
        deviation = float(np.std(there, ddof=1)) if len(there) > 1 else None
        ours = _number(measure, float(np.mean(there)), deviation)
        difference = _number(measure, float(np.mean(there)) - number[0], sign="+")
    cells = [
        f"`{name}`", source, MEASURES[measure], _number(measure, *number), ours, difference,
        ", ".join(str(record["seed"]) for record in records), str(records[-1]["epochs"]),
        ", ".join(sorted({record["device"] for record in records})),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _number(measure: str, value: float, deviation: float | None = None, sign: str = "") -> str:
    form = f"{sign}.{3 if measure.startswith('auc') else 2}f"
    return f"{value:{form}}" + ("" if deviation is None else f" ± {deviation:{form}}")


def _partial(record: Record) -> str:
    found = record["measured"]
    so_far = ", ".join(f"{MEASURES[name]} {_number(name, found[name])}" for name in MEASURES if name in found)
    return (
        f"- `{record['row']}`, seed {record['seed']}: {record['epochs']} of {record['wanted']} epochs of "
        f"{record['network']} on {record['rows']:,} images, on {record['device']}: {so_far or 'nothing yet'}."
    )


def listed(names: list[str]) -> Iterator[str]:
    """Yield lines that say of a row what it is, what was printed, what it costs, and whether it is there."""
    states = {record["row"]: record for record in done()}
    for name in names:
        row = ROWS[name]
        own = row["trainer"].as_published(**row["changes"])
        (trained, looks), record = passes(row), states.get(name)
        state = "open"
        if record is not None:
            state = "measured" if _counts(record) else f"{record['epochs']} of {record['wanted']} epochs"
        yield (
            f"{name}: {row['trainer'].__name__}, {own.network.__name__}, {own.max_epochs} epochs; "
            f"{row['data']}, {row['noise']} {row['rate']:g}; "
            f"{trained / 1e6:.0f}M T + {looks / 1e6:.0f}M F; {state}"
        )
        for (source, measure), number in row["published"].items():
            yield f"    {source}: {MEASURES[measure]} {_number(measure, *number)}"


# --- the command ------------------------------------------------------------------------------------


def chosen(patterns: list[str]) -> list[str]:
    """Return the rows that patterns name."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in ROWS):
            raise SystemExit(
                f"--rows must be names of rows, or patterns of them (see --list), got {pattern!r}."
            )
    return [name for name in ROWS if any(fnmatchcase(name, pattern) for pattern in patterns)]


def run_row(name: str, seed: int, args: argparse.Namespace, clock: Clock) -> Record | None:
    """Train a row as far as the time goes; None where that is not far enough to say anything."""
    about = machine()  # at once: whatever is wrong with it must not cost a training
    row, changes = ROWS[name], {"network": NETWORKS[args.network]} if args.network else {}
    estimator = row["trainer"].as_published(**row["changes"] | changes, random_state=seed)
    task, folder = planted(args.data, row, seed), args.work / f"{name}-{seed}"
    if args.out is not None:
        keep_noise(task, args.out.with_suffix("") / noise_file(row, seed))
    if args.shrink:
        n, epochs = args.shrink
        task, estimator = task.shrunk(n), estimator.set_params(**shrunk(estimator, epochs))
    if is_trial(args):
        folder = folder.with_name(f"{folder.name}-trial-{len(task.y)}-{estimator.max_epochs}-{args.network}")
    folder.mkdir(parents=True, exist_ok=True)
    unpack(folder)
    histories, complete = train(name, estimator, task, folder, clock)
    record = None
    if any(histories.values()):
        record = {"row": name, "seed": seed, "complete": complete, "trial": is_trial(args)}
        record |= {"noise": noise_file(row, seed)} | recorded(name, estimator, task, histories) | about
        record["commit"] = args.commit or about["commit"]
    if record is not None and args.out is not None:
        keep(record, args.out)
    if complete:
        shutil.rmtree(folder)
    else:
        pack(folder)
    return record


def is_trial(args: argparse.Namespace) -> bool:
    """Whether what is run is not the row itself."""
    return bool(args.shrink or args.network)


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", nargs="+", help="names or patterns")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budget", type=float, help="minutes, for all rows together")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints of what is not complete")
    parser.add_argument("--shrink", type=int, nargs=2, metavar=("ROWS", "EPOCHS"))
    parser.add_argument("--network", choices=NETWORKS, help="instead of the published one")
    parser.add_argument("--out", type=Path, help="results; trials are not written without")
    parser.add_argument("--commit", help="of the code, where git cannot tell")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args(given)
    if not (args.list or args.table) and (args.data is None or args.rows is None):
        parser.error("--data and --rows are needed, or --list")
    if args.out is None and not is_trial(args):
        args.out = RESULTS
    return args


def main(given: list[str] | None = None) -> None:
    """Run what is asked for and missing."""
    args = arguments(given)
    if args.list or args.table:
        print("\n".join(listed(chosen(args.rows or ["*"]))) if args.list else tables())
        return
    torch.set_num_threads(machine()["threads"])
    clock = Clock(args.budget)
    there = {
        (record["row"], record["seed"])
        for record in (done(args.out) if args.out else [])
        if record["complete"] and record["trial"] == is_trial(args)
    }
    for seed, name in product(args.seeds, chosen(args.rows)):
        if (name, seed) in there:
            print(f"{name}, seed {seed}: already there")
            continue
        record = run_row(name, seed, args, clock)
        if record is None:
            print(f"{name}, seed {seed}: not one more epoch ended in time")
        else:
            print(json.dumps({key: value for key, value in record.items() if key != "history"}), flush=True)
        if record is None or not record["complete"]:
            break


if __name__ == "__main__":
    main()
